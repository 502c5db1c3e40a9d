"""A sample predicted twice, whole and cut up, shows whether a result depends on its tiles."""

import dataclasses
import heapq
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box
from ..errors import DataError
from ..grid.tiles import Tile, TileGrid, scaled
from ..model import Models
from ..sources import open_stack
from .config import PredictConfig
from .engine import Engine
from .events import Seam
from .layout import choose_tile, device_memory
from .prepare import index_in, prepare


def seam_check(
    stack: Stack,
    model: Models,
    config: PredictConfig | None = None,
    near: Sequence[float] | None = None,
    size: Sequence[int] | None = None,
) -> Seam:
    """Predict a sample in one piece, and again cut through its middle, and compare.

    Parameters
    ----------
    config : PredictConfig, optional
        Its memory, device, precision, nan and resample count.
    near : sequence of float, optional
        Where the sample lies: indices in `stack`, one per axis without c; its middle if not given.
    size : sequence of int, optional
        Of the sample, along the model's axes; as large as the memory limit allows, at most 512 x 512 or 64 x 64 x 64,
        if not given.

    Raises
    ------
    ModelError
        Stack and model do not fit.
    UsageError
        `near` has not one index per axis.
    DataError
        An image so small that every tile sees all of it; intensities that are refused.
    """
    ready = prepare(stack, model, dataclasses.replace(config or PredictConfig(), samples=None)).measured()
    stack = ready.given
    engine = ready.engine
    shape = tuple(engine.stack.size(a) for a in engine.axes)
    near = [(stack.size(a) - 1) / 2 for a in engine.axes] if near is None else near
    centre, first = index_in(stack, engine.stack, near), engine.batch_axes
    core = choose_tile(engine, device_memory(engine.device, ready.config.memory))
    grid = TileGrid(shape, (*core[:first], *(size or core[first:])), engine.footprint)
    box = _sample(grid, centre, first)
    whole = grid.tile_of(box)
    pieces = [grid.tile_of(piece) for piece in _pieces(grid, whole)]
    if len(pieces) == 1:
        raise DataError(
            f"{stack.name} is so small, {' x '.join(map(str, shape))}, that every tile sees all of it: "
            "there can be no seams; check a larger image"
        )
    labels, probabilities = _predicted(engine, whole)
    changed, largest = 0, 0.0
    for piece in pieces:
        inner = [slice(p.start - b.start, p.stop - b.start) for p, b in zip(piece.write, box, strict=True)]
        at: Any = scaled(inner, engine.factors)
        again, likely = _predicted(engine, piece)
        changed += int((labels[(..., *at)] != again).sum())
        largest = max(largest, float(np.abs(probabilities[(slice(None), *at)] - likely).max()))
    what = "probabilities" if engine.model.task.result == "labels" else "normalised intensities"
    return Seam(box, labels.size, changed, largest, what)


def _sample(grid: TileGrid, centre: Sequence[float], batch: int) -> Box:
    """Return a core of the grid's size around a point: on the stride, in the image, large enough to be cut."""
    box, strides = [], grid.footprint.stride
    cores = [max(core, 2 * s * (axis >= batch)) for axis, (core, s) in enumerate(zip(grid.core, strides, strict=True))]
    for c, n, core, stride in zip(centre, grid.shape, cores, strides, strict=True):
        last = max(math.ceil((n - core) / stride), 0) * stride
        start = min(max(round((c - (core - 1) / 2) / stride), 0) * stride, last)
        box.append(slice(start, min(start + core, n)))
    return tuple(box)


def _pieces(grid: TileGrid, whole: Tile) -> list[Box]:
    """Cut the sample through its middle along each axis where its parts then see less of the image."""
    spans = []
    for axis, (b, stride) in enumerate(zip(whole.write, grid.footprint.stride, strict=True)):
        middle = b.start + round((b.stop - b.start) / 2 / stride) * stride
        parts = [slice(b.start, middle), slice(middle, b.stop)] if b.start < middle < b.stop else [b]
        boxes = [(*whole.write[:axis], part, *whole.write[axis + 1 :]) for part in parts]
        less = any(grid.tile_of(box).read != whole.read for box in boxes)
        spans.append(parts if less else [b])
    return list(itertools.product(*spans))


def _predicted(engine: Engine, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """Return the result of a tile's core, and the probabilities of each class."""
    logits = engine.logits(tile, engine.read(tile.read))
    return engine.model.task.decode(logits), engine.model.task.probabilities(logits)


SAMPLE = {2: 128, 3: 32}  # edge of the part that is predicted twice: with its halo seconds at most on two cores
WORTH = 50  # a run that takes this many samples is worth one


@dataclasses.dataclass(frozen=True, slots=True)
class Rounding:
    """How a result changes with the precision.

    Parameters
    ----------
    precision : str
        The one that was chosen.
    changed, voxels : int
        Voxels of the sample whose result is another than in float32; and all of them.
    off : float, optional
        Root mean square difference of intensities, as a part of their standard deviation; None for labels.
    """

    precision: str
    changed: int
    voxels: int
    off: float | None = None

    def __str__(self) -> str:
        if self.off is not None:
            share = f"{100 * self.off:.2g} % of their standard deviation"
            return f"{self.precision} changes intensities by {share}, on a sample"
        return f"{self.precision} changes {100 * self.changed / self.voxels:.2g} % of the labels, on a sample"


def rounding(engine: Engine) -> Rounding | None:
    """Predict the middle of the image in the engine's precision and in float32, and count the labels that differ.

    Returns
    -------
    Rounding, or None where the engine computes in float32 or the image is so small that it is not worth it

    Raises
    ------
    DataError
        Where the sample cannot be read.
    """
    if engine.precision_name == "fp32" or engine.draws:  # a sample of samples would be as large as what they see
        return None
    shape = tuple(engine.stack.size(axis) for axis in engine.axes)
    size = SAMPLE[engine.model.config.ndim]
    core, middle = [], []
    for axis, (n, stride) in enumerate(zip(shape, engine.footprint.stride, strict=True)):
        core.append(1 if axis < engine.batch_axes else math.ceil(size / stride) * stride)
        middle.append((n - 1) // 2 // core[-1])
    tile = TileGrid(shape, tuple(core), engine.footprint).tile(tuple(middle))
    if math.prod(shape) < WORTH * math.prod(b.stop - b.start for b in tile.read):
        return None
    data = engine.read(tile.read)
    ours, exact = (each.model.task.decode(each.logits(tile, data)) for each in (engine, engine.at("fp32")))
    changed = int((ours != exact).sum())
    if engine.model.task.result == "labels":
        return Rounding(engine.precision_name, changed, ours.size)
    a, b = (each.astype(np.float64) for each in (ours, exact))
    off = float(np.sqrt(np.square(a - b).mean()) / max(float(b.std()), np.finfo(np.float32).tiny))
    return Rounding(engine.precision_name, changed, ours.size, off)


PATCH = {2: 128, 3: 32}  # edge: what a person annotates in some minutes
COUNT = 10  # an hour's annotation or two
MOST_VOXELS = 2**27  # bytes: a level of 128 MiB is read in about a second


def annotate_next(result: Path, count: int = COUNT, patch: int | None = None) -> list[tuple[tuple[float, ...], float]]:
    """Find the patches whose annotation would teach the network the most; reads patch by patch, at a coarse level.

    Parameters
    ----------
    result : Path
        A finished result with uncertainty.
    count : int
        Patches; no two overlap.
    patch : int, optional
        About its edge, in pixels of the finest axis; 128 in 2-D and 32 in 3-D if not given.

    Returns
    -------
    list of (centre, uncertainty)
        The centre in pixels of the result, per axis of the labels; the mean uncertainty, 0 to 1; the highest first, of
        equals the first in the image.

    Raises
    ------
    DataError
        Where the result has no uncertainty.

    References
    ----------
    Settles 2009, Active learning literature survey, section 3.1.
    """
    folder = Path(result) / "uncertainty"
    if not folder.is_dir():
        raise DataError(f"{result} has no uncertainty; predict with --uncertainty first")
    finest = open_stack(folder)
    stack = _coarse(folder, finest)
    found: list[tuple[float, tuple[int, ...]]] = []
    cuts = [_cuts(n, e) for n, e in zip(stack.shape, _patch(finest, stack, patch), strict=True)]
    for box in itertools.product(*cuts):
        mean = float(stack.read(box).mean(dtype=np.float64)) / 255
        heapq.heappush(found, (mean, tuple(-(b.start + b.stop) for b in box)))
        if len(found) > count:
            heapq.heappop(found)
    zoom = [a / b for a, b in zip(finest.shape, stack.shape, strict=True)]
    return [
        (tuple(-negative / 2 * z - 0.5 for negative, z in zip(middle, zoom, strict=True)), mean)
        for mean, middle in sorted(found, reverse=True)
    ]


def _cuts(size: int, edge: int) -> list[slice]:
    """Cut an axis into parts of one size, as near to `edge` as they can be."""
    count = max(1, round(size / edge))
    ends = [i * size // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _coarse(folder: Path, finest: Stack) -> Stack:
    """Open the finest level that is not too large to be read."""
    levels = sum(path.name.isdigit() for path in folder.iterdir())
    stack = finest
    for level in range(1, levels):
        if math.prod(stack.shape) <= MOST_VOXELS:
            break
        stack = open_stack(folder, level=level)
    return stack


def _patch(finest: Stack, stack: Stack, patch: int | None) -> tuple[int, ...]:
    """Return the patch in elements of a level: as wide along each axis as along the finest."""
    spatial = [a for a in stack.axes if a in "zyx" and stack.size(a) > 1]
    edge = patch or PATCH[3 if len(spatial) == 3 else 2]
    width = edge * min(finest.scale_along("".join(spatial)))
    return tuple(
        max(1, min(round(width / scale), n)) if a in spatial else 1
        for a, n, scale in zip(stack.axes, stack.shape, stack.scale, strict=True)
    )
