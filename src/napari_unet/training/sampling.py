"""Patches: each batch a pure function of seed and step, read lazily, prepared while the network computes."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import numpy as np
import torch

from ..threads import in_threads
from .plan import TrainingPlan
from .split import Sample

T = TypeVar("T")
AHEAD = 2  # items that wait at most: reading takes turns with what is read at once
Place = tuple[Sample, tuple[int, ...], tuple[int, ...]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Draws patches from any number of samples.

    Parameters
    ----------
    balance : float
        Share of the patches that are centred near a voxel of a class drawn evenly; the others lie anywhere, or, where
        labels are sparse, near a voxel drawn evenly from all that are annotated.
    read : callable
        Reads a patch: sample, index along the batch axes, start and shape -> image and labels, or their target.
    """

    samples: Sequence[Sample]
    plan: TrainingPlan
    seed: int
    balance: float = 0.5
    sparse: bool = False
    read: Callable[..., tuple[np.ndarray, np.ndarray]] = Sample.read

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
        (B, C, *shape) float32 intensities, B arrays of what `read` gives beside them
        """
        patches = [self.read(sample, at, start, self.shape) for sample, at, start in self.places(step)]
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


def ahead(make: Callable[[int], T], first: int, workers: int) -> Generator[T, None, None]:
    """Make items without end in threads, from the number `first` on and in order; each thread computes alone."""
    threads = torch.get_num_threads()
    made = in_threads(make, itertools.count(first), workers, AHEAD + workers, lambda: torch.set_num_threads(1))
    with contextlib.closing(made):
        for number, item in made:
            if number == first:
                torch.set_num_threads(threads)  # the network's: those that make items have one each
            yield item
