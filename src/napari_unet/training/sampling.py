"""Patches: each batch a pure function of seed and step, read lazily, prepared while the network computes."""

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import torch

from .plan import Plan
from .split import Sample

T = TypeVar("T")
Place = tuple[Sample, tuple[int, ...], tuple[int, ...]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Draws patches from any number of samples.

    Parameters
    ----------
    samples : sequence of Sample
    plan : Plan
    seed : int
    balance : float
        Share of the patches that are centred near a voxel of a class drawn evenly; the others lie anywhere, or, where
        labels are sparse, near a voxel drawn evenly from all that are annotated.
    sparse : bool
    """

    samples: Sequence[Sample]
    plan: Plan
    seed: int
    balance: float = 0.5
    sparse: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is read for one patch: the patch, and what valid convolutions consume."""
        return tuple(n + 2 * m for n, m in zip(self.plan.patch, self.plan.margin, strict=True))

    def places(self, step: int) -> list[Place]:
        """Return what the batch of a step is read from: sample, index along the batch axes, start of what is read."""
        return [self._draw(np.random.default_rng([self.seed, step, k])) for k in range(self.plan.batch)]

    def batch(self, step: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the batch of a step.

        Returns
        -------
        (B, C, *shape) float32 intensities, B label arrays of `shape` (or of intensities, as the samples have them)
        """
        patches = [sample.read(at, start, self.shape) for sample, at, start in self.places(step)]
        return np.stack([image for image, _ in patches]), [labels for _, labels in patches]

    def _draw(self, rng: np.random.Generator) -> Place:
        balanced = rng.random() < self.balance
        if balanced or self.sparse:
            return self._near_class(rng, balanced)
        weights = np.array([float(np.prod(s.extent, dtype=float)) for s in self.samples])
        sample = self.samples[int(rng.choice(len(weights), p=weights / weights.sum()))]
        at = tuple(int(rng.integers(n)) for n in sample.batch_shape)
        start = [int(rng.integers(max(n - p, 0) + 1)) for n, p in zip(sample.shape, self.plan.patch, strict=True)]
        return sample, at, self._start(sample, start)

    def _near_class(self, rng: np.random.Generator, balanced: bool) -> Place:
        values = sorted({v for s in self.samples for v, at in s.places.items() if len(at)})
        if balanced:
            value = values[int(rng.integers(len(values)))]
            having = [s for s in self.samples if len(s.places.get(value, ()))]
            sample = having[int(rng.integers(len(having)))]
            found = sample.places[value]
        else:
            having = [s for s in self.samples if any(map(len, s.places.values()))]
            sample = having[int(rng.integers(len(having)))]
            found = np.concatenate([at for at in sample.places.values() if len(at)])
        place = found[int(rng.integers(len(found)))]
        batch = len(sample.batch_shape)
        start = [
            int(c) - int(rng.integers(p // 4, p - p // 4)) for c, p in zip(place[batch:], self.plan.patch, strict=True)
        ]
        return sample, tuple(int(i) for i in place[:batch]), self._start(sample, start)

    def _start(self, sample: Sample, start: Sequence[int]) -> tuple[int, ...]:
        """Move a patch into the sample, centre it where it is larger, and go out by the margin."""
        moved = []
        for a, n, p, m in zip(start, sample.shape, self.plan.patch, self.plan.margin, strict=True):
            inside = min(max(a, 0), n - p) if n >= p else (n - p) // 2
            moved.append(inside - m)
        return tuple(moved)


class Prefetch(Generic[T]):
    """Threads that make items ahead; they come in order.

    Parameters
    ----------
    make : callable
        Takes the number of an item and returns it, in any of the threads; what it raises is raised by `get`.
    first : int
        Number of the first item.
    ahead : int
        Items that wait at most.
    workers : int
        Threads.
    """

    def __init__(self, make: Callable[[int], T], first: int = 0, ahead: int = 2, workers: int = 1) -> None:
        self._make, self._next = make, first
        self._workers = ThreadPoolExecutor(workers, "patches", initializer=torch.set_num_threads, initargs=(1,))
        threads, all_there = torch.get_num_threads(), threading.Barrier(workers + 1)
        for _ in range(workers):
            self._workers.submit(all_there.wait)
        all_there.wait()
        torch.set_num_threads(threads)  # the network's: those of the workers have one each
        self._items: deque[Future[T]] = deque()
        for _ in range(ahead + workers):
            self._begin()

    def _begin(self) -> None:
        self._items.append(self._workers.submit(self._make, self._next))
        self._next += 1

    def get(self) -> T:
        """Return the next item."""
        item = self._items.popleft()
        self._begin()
        return item.result()

    def close(self) -> None:
        """Stop and join the threads."""
        self._workers.shutdown(cancel_futures=True)
