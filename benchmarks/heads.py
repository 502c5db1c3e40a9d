"""Other ways to tell objects apart, beside three classes: ``python benchmarks/heads.py HEAD --data FOLDER``.

The same network, minutes, images and scores as `scale.py`, its plan and augmentation too; what the network learns and
what objects are made of differ. None of these is in the package.

offsets     from each pixel to the middle of its object; pixels whose votes meet are one (Neven et al. 2019, EmbedSeg)
affinities  whether pixels 1, 3 and 9 apart lie in one object; a watershed of the near ones, whose parts are merged
            while the mean affinity of what lies in both is high (GASP, Bailoni et al. 2022, as in PlantSeg)

One number of each, and the smallest object, are chosen on what is held out, as those of three classes are.
"""

import argparse
import dataclasses
import heapq
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from scale import SETS, clock, learnt, pooled
from scipy import ndimage
from skimage.segmentation import watershed
from torch import Tensor
from torch.nn import functional

from napari_unet.arrays.stack import Stack
from napari_unet.grid.tiles import TileGrid
from napari_unet.inference.own import brought
from napari_unet.inference.prepare import prepare
from napari_unet.metrics.contingency import Contingency
from napari_unet.model import Model
from napari_unet.task import TASKS, Instances
from napari_unet.task.instances import SMALLEST, Matches, precisions
from napari_unet.task.losses import cross_entropy, dice
from napari_unet.training import setup

UNIT = 8.0  # pixels that an offset of 1 is
RANGES = (1, 3, 9)  # pixels apart
LIKELY = 0.5  # a boundary
SEED_APART = 2  # pixels: the distance to a boundary is a seed where it is the greatest so far around


@dataclasses.dataclass(frozen=True)
class Head(Instances):
    """A task whose objects are made of a whole image's logits. The target is that of `Instances`, with ids last."""

    cut: float = 0.0
    cuts: ClassVar[tuple[float, ...]]

    def scores(self) -> Matches:
        return HeadMatches(self)

    @property
    def names(self) -> tuple[str, ...]:
        """One for each channel of the network, in as many dimensions as the set has."""
        return tuple(map(str, range(self.channels(NDIM[0]))))

    def objects_in(self, logits: np.ndarray) -> np.ndarray:
        """Make objects of (K, *S) logits, the small ones left out."""
        ids = self.parts(logits)
        sizes = np.bincount(ids.ravel())
        keep = sizes >= max(self.min_size, 1)
        keep[0] = False
        return np.where(keep, keep.cumsum(), 0)[ids]


NDIM = [2]  # axes of the set that is learnt


class HeadMatches(Matches):
    """Scores a head, and chooses its `cut` and its smallest object."""

    def _tables(self, task: Any, index: int) -> Contingency:
        logits, known, ids = self._seen[index]
        return Contingency.of(ids[known], task.objects_in(logits.float().numpy())[known])

    def settings(self) -> dict[str, Any]:
        task: Any = self._task
        small = np.percentile(self._sizes(), 1)
        for field, values in (("cut", task.cuts), ("min_size", [round(share * small) for share in SMALLEST])):
            tried = [dataclasses.replace(task, **{field: value}) for value in values]
            scores = [np.mean(precisions([self._tables(t, i) for i in range(len(self._seen))])) for t in tried]
            task = tried[int(np.argmax(scores))]
        return {"cut": task.cut, "min_size": task.min_size}


@dataclasses.dataclass(frozen=True)
class Offsets(Head):
    """Foreground, and the way to the middle of the object; `cut` is how far votes for one are apart, in pixels."""

    name: ClassVar[str] = "offsets"
    cut: float = 2.0
    cuts: ClassVar[tuple[float, ...]] = (2.0, 1.0, 3.0, 5.0)

    @staticmethod
    def channels(ndim: int) -> int:
        return 2 + ndim

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        there, ids = target[:, 0].clamp_max(1), target[:, -1]
        loss = cross_entropy(logits[:, :2], there) + dice(logits[:, :2], there)
        numbers = ids + (int(ids.max()) + 1) * torch.arange(len(ids)).reshape(-1, *(1,) * (ids.ndim - 1))
        count = torch.bincount(numbers.ravel()).clamp_min(1)
        places = torch.meshgrid(*(torch.arange(n) for n in ids.shape[1:]), indexing="ij")
        for axis, place in enumerate(places):
            at = place.expand_as(ids).float()
            middle = torch.bincount(numbers.ravel(), at.ravel(), len(count)) / count
            off = functional.smooth_l1_loss(logits[:, 2 + axis], (middle[numbers] - at) / UNIT, reduction="none")
            loss = loss + (off * (ids > 0)).sum() / (ids > 0).sum().clamp_min(1)
        return loss

    def parts(self, logits: np.ndarray) -> np.ndarray:
        there = logits[1] > logits[0]
        pixels = np.argwhere(there)
        if not len(pixels):
            return np.zeros(there.shape, int)
        votes = np.rint(pixels + UNIT * logits[2:][:, there].T).astype(int).clip(0, np.array(there.shape) - 1)
        met = np.zeros(there.shape)
        np.add.at(met, tuple(votes.T), 1)
        met = ndimage.gaussian_filter(met, self.cut)
        peaks = (met == ndimage.maximum_filter(met, 2 * int(2 * self.cut) + 1)) & (met > met.max() / 20)
        seeds, _ = ndimage.label(peaks, np.ones((3,) * peaks.ndim))
        nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
        ids = np.zeros(there.shape, int)
        ids[there] = seeds[tuple(nearest)][tuple(votes.T)]
        return ids


@dataclasses.dataclass(frozen=True)
class Affinities(Head):
    """Foreground, and whether pixels are of one object; `cut` is the mean affinity from which parts are merged."""

    name: ClassVar[str] = "affinities"
    cut: float = 0.5
    cuts: ClassVar[tuple[float, ...]] = (0.5, 0.3, 0.4, 0.6, 0.7, 0.8)

    @staticmethod
    def channels(ndim: int) -> int:
        return 2 + ndim * len(RANGES)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        there, ids = target[:, 0].clamp_max(1), target[:, -1]
        loss = cross_entropy(logits[:, :2], there) + dice(logits[:, :2], there)
        for number, (axis, apart) in enumerate(_ways(ids.ndim - 1)):
            one, other = (ids.narrow(axis + 1, start, ids.shape[axis + 1] - apart) for start in (0, apart))
            found = logits[:, 2 + number].narrow(axis + 1, 0, one.shape[axis + 1])
            known = ((one > 0) | (other > 0)).float()
            parted = (one != other).float()
            entropy = functional.binary_cross_entropy_with_logits(-found, parted, reduction="none")
            told = torch.sigmoid(-found) * known
            overlap = (2 * (told * parted).sum() + 1) / (told.sum() + (parted * known).sum() + 1)
            loss = loss + ((entropy * known).sum() / known.sum().clamp_min(1) + 1 - overlap) / len(RANGES)
        return loss

    def parts(self, logits: np.ndarray) -> np.ndarray:
        there = logits[1] > logits[0]
        same = 1 / (1 + np.exp(-logits[2:]))
        ways = list(_ways(there.ndim))
        near = [value for value, (_, apart) in zip(same, ways, strict=True) if apart < max(RANGES)]
        boundary = 1 - np.mean(near, 0)
        depth = ndimage.gaussian_filter(
            ndimage.distance_transform_edt(there & (boundary < 0.5)), 1
        )  # of a half: likely
        seeds = (depth == ndimage.maximum_filter(depth, 2 * SEED_APART + 1)) & there
        parts = watershed(boundary, ndimage.label(seeds)[0], mask=there)
        edges: list[np.ndarray] = []
        for value, (axis, apart) in zip(same, ways, strict=True):
            one, other = (np.take(parts, range(s, s + parts.shape[axis] - apart), axis) for s in (0, apart))
            affinity = np.take(value, range(parts.shape[axis] - apart), axis)
            both = (one != other) & (one > 0) & (other > 0)
            low, high = np.minimum(one[both], other[both]), np.maximum(one[both], other[both])
            edges.append(np.stack([low, high, affinity[both]], 1))
        return _merged(np.concatenate(edges), int(parts.max()), self.cut)[parts]


def _ways(ndim: int) -> Iterator[tuple[int, int]]:
    return itertools.product(range(ndim), RANGES)


def _merged(edges: np.ndarray, count: int, cut: float) -> np.ndarray:
    """Return the object of each part, 0 of 0: the two of the highest mean are merged, again and again."""
    pairs, inverse = np.unique(edges[:, :2].astype(int), axis=0, return_inverse=True)
    sums, counts = np.bincount(inverse.ravel(), edges[:, 2]), np.bincount(inverse.ravel())
    graph: list[dict[int, tuple[float, int]]] = [{} for _ in range(count + 1)]
    for (a, b), total, number in zip(pairs.tolist(), sums.tolist(), counts.tolist(), strict=True):
        graph[a][b] = graph[b][a] = total, number
    queue = [(-total / number, a, b) for a in range(count + 1) for b, (total, number) in graph[a].items() if a < b]
    heapq.heapify(queue)
    into = np.arange(count + 1)
    while queue and -queue[0][0] > cut:
        mean, a, b = heapq.heappop(queue)
        edge = graph[a].get(b)
        if edge is None or -edge[0] / edge[1] != mean:
            continue  # one of them was merged since
        into[b] = a
        for c, (total, number) in graph[b].items():
            del graph[c][b]
            if c != a:
                before = graph[a].get(c, (0.0, 0))
                graph[a][c] = graph[c][a] = before[0] + total, before[1] + number
                heapq.heappush(queue, (-graph[a][c][0] / graph[a][c][1], *sorted((a, c))))
        graph[b] = {}
    while (into[into] != into).any():
        into = into[into]
    return into


def found_in(image: Stack, model: Model) -> np.ndarray:
    """Return the objects of a whole image, at its own pixels."""
    ready = prepare(image, model).measured()
    grid = TileGrid(ready.stack.shape, ready.stack.shape, ready.engine.footprint)
    (tile,) = grid
    ids = model.task.objects_in(ready.engine.logits(tile, ready.engine.read(tile.read)).numpy())  # type: ignore[attr-defined]
    labels = dataclasses.replace(ready.stack, data=ids.astype(np.uint32))
    return np.asarray((brought(labels, ready.own, "labels") if ready.is_resampled else labels).data[...])


HEADS = {head.name: head for head in (Offsets, Affinities)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=HEADS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["dic_hela", "omnipose", "stardist"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    head = HEADS[args.head]
    TASKS[head.name] = head.from_json
    clock()
    for name, seed in itertools.product(args.sets, args.seeds):
        learn, judge, _ = SETS[name](args.data)
        NDIM[0] = len(learn[0][1].axes)
        began = time.process_time()
        with tempfile.TemporaryDirectory() as work, mock.patch.object(setup, "make_task", lambda *_: head()):
            model = learnt(learn, Path(work) / "a.model", args.seconds, seed)
        spent = time.process_time() - began
        tables = [Contingency.of(np.asarray(truth.data[...]), found_in(image, model)) for image, truth in judge]
        row = {"head": args.head, "set": name, "seed": seed, "seconds": round(spent), "steps": model.record["steps"]}
        row |= {"cut": model.task.cut} | pooled(tables)  # type: ignore[attr-defined]
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    main()
