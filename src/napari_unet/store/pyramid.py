"""Coarser levels of a result: which there are, and how one is made from the one above it."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays.views import Box
from ..faults import persist
from ..grid.blocks import Blocks, blocks_of
from .chunks import read_box
from .ome import Output

SMALLEST = 256  # edge of the coarsest level: a thumbnail, read at once
PART_BYTES = 2**24  # 16 MiB of the finer level at a time; several are made at once
AT_ONCE = 2**17  # elements, 512 kiB as float32: half of a core's cache


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """One resolution.

    Parameters
    ----------
    scale, translation : tuple of float
        Physical size of a step, and position of the first element's centre.
    factors : tuple of int
        How many elements of the level above one stands for, per axis: 1 or 2.
    """

    shape: tuple[int, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    factors: tuple[int, ...]


def levels_of(output: Output) -> list[Level]:
    """List the levels, the finest first, until a plane is at most 256 wide and high.

    y and x are halved, and z where a step in z is not longer than two in the plane. Sizes are rounded up. An element
    of an image is the mean of those it stands for and lies in their middle; of labels it is the first of them.
    """
    levels = [Level(output.shape, output.scale, output.translation, (1,) * len(output.shape))]
    physical = dict(zip(output.axes, output.in_metres(), strict=True))
    while max(levels[-1].shape[-2:]) > SMALLEST:
        last = levels[-1]
        halved = "yxz" if physical.get("z", math.inf) <= 2 * min(physical["y"], physical["x"]) else "yx"
        factors = tuple(2 if a in halved and n > 1 else 1 for a, n in zip(output.axes, last.shape, strict=True))
        shift = 0.0 if output.kind == "labels" else 0.5
        steps = list(zip(factors, last.scale, last.translation, strict=True))
        levels.append(
            Level(
                shape=tuple(math.ceil(n / f) for n, f in zip(last.shape, factors, strict=True)),
                scale=tuple(f * scale for f, scale, _ in steps),
                translation=tuple(start + (f - 1) * shift * scale for f, scale, start in steps),
                factors=factors,
            )
        )
        physical = {a: f * physical[a] for a, f in zip(output.axes, factors, strict=True)}
    return levels


def parts(level: Level, unit: Sequence[int], itemsize: int) -> Blocks:
    """Cut a level into boxes of whole write units, each made from about 16 MiB of the level above."""
    unit = tuple(map(min, unit, level.shape))
    return blocks_of(level.shape, unit, max(PART_BYTES // (math.prod(level.factors) * itemsize), math.prod(unit)))


def above(box: Box, level: Level, shape: Sequence[int]) -> Box:
    """Return the box of the level above, of `shape`, that a box of `level` is made from."""
    return tuple(slice(b.start * f, min(b.stop * f, n)) for b, f, n in zip(box, level.factors, shape, strict=True))


def reduce(data: np.ndarray, factors: Sequence[int], kind: str) -> np.ndarray:
    """Shrink by 2 where `factors` say so.

    Parameters
    ----------
    factors : sequence of int
        1 or 2, one per axis.
    kind : {"labels", "image"}
        Labels take every second element, so that no new ones appear; images the mean, at an odd end of what is there.

    Returns
    -------
    Array of the same dtype; sizes are rounded up.
    """
    if kind == "labels":
        return np.ascontiguousarray(data[tuple(slice(None, None, f) for f in factors)])
    out = np.empty([math.ceil(n / f) for n, f in zip(data.shape, factors, strict=True)], data.dtype)
    axis = next((axis for axis, n in enumerate(data.shape) if n > 1), 0)
    each = max(1, AT_ONCE * data.shape[axis] // max(1, data.size) // factors[axis])
    for start in range(0, out.shape[axis], each):  # what fits the processor's cache is done five times as fast
        planes = (slice(None),) * axis + (slice(start, start + each),)
        source = (slice(None),) * axis + (slice(start * factors[axis], (start + each) * factors[axis]),)
        out[planes] = _mean(data[source], factors)
    return out


def _mean(data: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Mean of those that an element stands for, in their dtype."""
    small = data.dtype.itemsize <= 2 or data.dtype == np.float32
    mean = data.astype(np.float32 if small else np.float64)
    for axis, factor in enumerate(factors):
        if factor == 2:
            mean = _pairs(mean, axis)
    if data.dtype.kind == "f":
        return mean.astype(data.dtype)
    limits = np.iinfo(data.dtype)
    mean = np.rint(mean)
    # The largest integers of 64 bits are not exact in floating point: their mean may come out just past the limit.
    out = np.where(mean >= limits.max, 0, mean).astype(data.dtype)
    out[mean >= limits.max] = limits.max
    return out


def _pairs(data: np.ndarray, axis: int) -> np.ndarray:
    """Mean of neighbours along an axis; a last one that has none stays as it is."""
    data = np.moveaxis(data, axis, 0)
    out = data[::2].copy()
    pairs = len(data) // 2
    out[:pairs] *= 0.5
    out[:pairs] += data[1::2] * np.asarray(0.5, data.dtype)
    return np.moveaxis(out, 0, axis)


def shown_ranges(array: Any, axes: str) -> list[tuple[float, float]]:
    """Return the 0.1 and 99.9 percentiles of each channel of a coarse level, of at most 32 planes per axis."""
    ranges = []
    for channel in range(array.shape[axes.index("c")] if "c" in axes else 1):
        key = [
            slice(0, n, max(1, n // 32)) if a in "tz" else slice(0, n) for a, n in zip(axes, array.shape, strict=True)
        ]
        if "c" in axes:
            key[axes.index("c")] = slice(channel, channel + 1)
        data = persist(functools.partial(read_box, array, tuple(key))).astype(np.float64)
        data = data[np.isfinite(data)]
        low, high = np.percentile(data, (0.1, 99.9)) if data.size else (0.0, 1.0)
        ranges.append((float(low), float(high) if high > low else float(low) + 1))
    return ranges
