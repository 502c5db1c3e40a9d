"""Validation: the same tiles of what is held out, each epoch, through the network as it will be used."""

import dataclasses
import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..grid.tiles import Footprint, Tile, TileGrid, scaled
from ..network import footprint
from ..task import Task
from ..task.losses import Scores
from .learner import Learner
from .plan import TrainingPlan
from .split import Sample
from .targets import Targets

BATCHES = 12  # patches of so many steps: the mean of a score is steady, and an epoch is not all validation
WHOLE = 2.5  # batches: an image of at most so much goes through the network as one tile


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """A fixed choice of tiles."""

    samples: Sequence[Sample]
    plan: TrainingPlan
    task: Task
    seed: int
    tiles: tuple[tuple[int, tuple[int, ...], Tile], ...] = dataclasses.field(init=False)
    _targets: Targets = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_targets", Targets(self.task, self.samples))
        object.__setattr__(self, "tiles", tuple(self._choose()))

    @property
    def voxels(self) -> int:
        """What the network sees in one validation."""
        return sum(math.prod(tile.shape) for _, _, tile in self.tiles)

    def run(self, learner: Learner) -> Generator[tuple[int, int], None, tuple[float, Scores]]:
        """Validate the running average.

        Yields
        ------
        (done, total) tiles

        Returns
        -------
        (loss, what was seen)
        """
        scores, losses, weights = self.task.scores(), [], []
        for done, (index, at, tile) in enumerate(self.tiles):
            logits, target = self._logits(learner, self.samples[index], at, tile)
            known = int((target >= 0).sum()) if self.task.learns_from == "labels" else target.numel()
            losses.append(float(self.task.loss(logits, target)))
            weights.append(known)
            if math.isfinite(losses[-1]):
                scores.add(logits, target)
            yield done + 1, len(self.tiles)
        loss = float(np.average(losses, weights=weights)) if sum(weights) else math.nan
        return loss, scores

    @torch.inference_mode()
    def _logits(self, learner: Learner, sample: Sample, at: tuple[int, ...], tile: Tile) -> tuple[Any, Any]:
        low = [r.start - p for r, (p, _) in zip(tile.read, tile.pad, strict=True)]
        image, whole = sample.read(at, low, tile.shape)
        start = [w.start for w in tile.write]
        if self.task.learns_from == "image":
            return self._restored(learner, image, whole, tile)
        _, wanted = self._targets.read(sample, at, start, [w.stop - w.start for w in tile.write])
        x = torch.from_numpy(image)[None].to(learner.device).contiguous(memory_format=learner.layout)
        with learner.autocast():
            logits = learner.average(x)
        target = torch.from_numpy(wanted)[None].to(learner.device)
        return logits.float()[(..., *tile.crop)], target

    @torch.inference_mode()
    def _restored(self, learner: Learner, image: np.ndarray, whole: np.ndarray, tile: Tile) -> tuple[Any, Any]:
        """Return output and target of a tile's core, prepared as for a step, always with the same randomness."""
        generator = torch.Generator().manual_seed(self.seed)
        pair = torch.from_numpy(image)[None], torch.from_numpy(self.task.encode(whole))[None]
        x, target = self.task.prepare(*pair, generator)
        x = x.to(learner.device).contiguous(memory_format=learner.layout)
        with learner.autocast():
            output = self.task.tried(learner.average, x)
        factors = self.plan.factors
        low = [r.start - p for r, (p, _) in zip(tile.read, tile.pad, strict=True)]
        inner = scaled([slice(w.start - a, w.stop - a) for w, a in zip(tile.write, low, strict=True)], factors)
        core: Any = (..., *inner)
        crop: Any = (..., *scaled(tile.crop, factors))
        return output.float()[crop], target[core].to(learner.device)

    def _footprint(self, whole: bool) -> Footprint:
        """Return the network's footprint with a halo of at most a quarter of a patch, to bound what it costs."""
        found = footprint(self.plan.network)
        halo = [
            min(h, math.ceil(p / 4 / s) * s) for h, p, s in zip(found.halo, self.plan.patch, found.stride, strict=True)
        ]
        return dataclasses.replace(found, halo=found.halo if whole else tuple(halo))

    def _grid(self, sample: Sample) -> TileGrid:
        whole = math.prod(sample.shape) <= WHOLE * self.plan.batch * math.prod(self.plan.patch)
        return TileGrid(sample.shape, sample.shape if whole else self.plan.patch, self._footprint(whole))

    def _choose(self) -> list[tuple[int, tuple[int, ...], Tile]]:
        """Take all tiles where they are few, else those of voxels drawn from each class in turn."""
        limit = BATCHES * self.plan.batch * math.prod(self.plan.patch)
        grids = [self._grid(sample) for sample in self.samples]
        total = sum(float(np.prod(s.batch_shape)) * math.prod(s.shape) for s in self.samples)
        sparse = any(0 not in s.places for s in self.samples)
        if total <= limit and not sparse:
            return [
                (i, tuple(int(n) for n in at), tile)
                for i, (sample, grid) in enumerate(zip(self.samples, grids, strict=True))
                for at in np.ndindex(sample.batch_shape)
                for tile in grid
            ]
        chosen: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = {}
        seen = 0
        for index, at, position in self._places(grids):
            if seen >= limit:
                break
            if (index, at, position) not in chosen:
                seen += math.prod(grids[index].tile(position).shape)
                chosen[index, at, position] = 0
        return [(index, at, grids[index].tile(position)) for index, at, position in sorted(chosen)]

    def _places(self, grids: Sequence[TileGrid]) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
        """Yield tiles that hold a voxel of each class in turn."""
        rng = np.random.default_rng([self.seed, 1])
        values = sorted({v for s in self.samples for v, at in s.places.items() if len(at)})
        for _ in range(BATCHES * self.plan.batch * 4):
            for value in values:
                having = [i for i, s in enumerate(self.samples) if len(s.places.get(value, ()))]
                index = having[int(rng.integers(len(having)))]
                sample = self.samples[index]
                place = sample.places[value][int(rng.integers(len(sample.places[value])))]
                batch = len(sample.batch_shape)
                position = tuple(int(p) // c for p, c in zip(place[batch:], grids[index].core, strict=True))
                yield index, tuple(int(i) for i in place[:batch]), position
