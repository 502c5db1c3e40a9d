"""A sample predicted twice, whole and cut up, shows whether a result depends on its tiles."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from ..model import OneModel, as_model
from ..stack import Stack
from ..tiles import Box, Tile, TileGrid, scaled
from .blocking import choose_tile, device_memory
from .config import PredictConfig
from .engine import Engine
from .job import fitted, index_in


@dataclasses.dataclass(frozen=True, slots=True)
class Seam:
    """What cutting a sample into tiles did to its result.

    Parameters
    ----------
    box : box
        The sample, along the tiled axes.
    voxels : int
        Voxels that were compared.
    changed : int
        Those whose result differs.
    largest : float
        Largest difference of a probability, or of a normalised intensity.
    what : str
        Which of them.
    """

    box: Box
    voxels: int
    changed: int
    largest: float
    what: str = "probabilities"

    def __str__(self) -> str:
        return (
            f"{self.changed:,} of {self.voxels:,} voxels differ where the cuts lie elsewhere; "
            f"{self.what} differ by at most {self.largest:.2g}"
        )


def seam_check(
    stack: Stack,
    model: OneModel,
    config: PredictConfig | None = None,
    near: Sequence[float] | None = None,
    size: Sequence[int] | None = None,
) -> Seam:
    """Predict a sample in one piece, and again cut through its middle, and compare.

    Parameters
    ----------
    stack : Stack
    model : Model, path or name
    config : PredictConfig, optional
        Its memory, device, precision, nan and resample count.
    near : sequence of float, optional
        Where the sample lies: indices in `stack`, one an axis without c; its middle if not given.
    size : sequence of int, optional
        Of the sample, along the model's axes; as large as the memory limit allows, at most 512 x 512 or 64 x 64 x 64,
        if not given.

    Raises
    ------
    ModelError
        Stack and model do not fit.
    UsageError
        `near` has not one index an axis.
    DataError
        An image so small that every tile sees all of it; intensities that are refused.
    """
    config, model = config or PredictConfig(), as_model(model)
    given, stack = stack, fitted(stack, model, config)
    engine = Engine.of(stack, model, config)
    shape = tuple(stack.size(a) for a in engine.axes)
    near = [(given.size(a) - 1) / 2 for a in engine.axes] if near is None else near
    centre, first = index_in(given, stack, near), engine.batch_axes
    core = choose_tile(engine, device_memory(engine.device, config.memory))
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
    what = "probabilities" if model.task.result == "labels" else "normalised intensities"
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
