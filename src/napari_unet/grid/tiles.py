"""Tiles: what to read, pad, crop and write, so that a network run in parts equals one run on the whole."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from ..arrays.views import Box
from ..errors import UsageError
from .blocks import Blocks

Factor = int | Fraction


def remoteness(box: Box, near: Sequence[float], batch: int = 0) -> tuple[float, ...]:
    """Return a key that sorts boxes by their distance from a viewed position: the one that holds it comes first.

    Parameters
    ----------
    near : sequence of float
        Indices, one per axis.
    batch : int
        Leading axes that count first, each for itself; the distance along the others is that in space.

    Returns
    -------
    tuple of float
        Distances of `near` from the box along the leading axes, from the box in space, from its centre in space.
    """
    gaps = [max(b.start - p, p - b.stop + 1, 0.0) for b, p in zip(box, near, strict=True)]
    centres = [(b.start + b.stop - 1) / 2 - p for b, p in zip(box[batch:], near[batch:], strict=True)]
    return (*gaps[:batch], math.hypot(*gaps[batch:]), math.hypot(*centres))


def scaled(box: Sequence[slice], factors: Sequence[Factor]) -> Box:
    """Return a box on a grid that is finer by `factors`, or coarser: then all its elements that the box touches."""
    return tuple(slice(math.floor(b.start * f), math.ceil(b.stop * f)) for b, f in zip(box, factors, strict=True))


@dataclasses.dataclass(frozen=True, slots=True)
class Footprint:
    """How far a network looks, and on which grid, along each axis it is tiled on.

    Parameters
    ----------
    stride : tuple of int
        Total stride: tile origins are multiples of it.
    halo : tuple of int
        Context a tile needs on each side of its core; a multiple of the stride. 0 for valid convolutions.
    margin : tuple of int
        What valid convolutions consume on each side; 0 for same convolutions.
    remainder : tuple of int
        Output sizes of valid convolutions are ``remainder + k * stride``.
    least : tuple of int
        Least size that a network takes; empty where any multiple of the stride will do.
    """

    stride: tuple[int, ...]
    halo: tuple[int, ...]
    margin: tuple[int, ...]
    remainder: tuple[int, ...]
    least: tuple[int, ...] = ()

    def planewise(self, axes: int) -> "Footprint":
        """Return it with `axes` leading axes along which the network does not look: each plane for itself."""
        one, none = (1,) * axes, (0,) * axes
        least = one + self.least if self.least else ()
        return Footprint(one + self.stride, none + self.halo, none + self.margin, none + self.remainder, least)


def mirrored(low: int, high: int, size: int) -> np.ndarray:
    """Return the indices, into an axis of `size`, of the positions [low, high) of its endless mirror image."""
    if size == 1:
        return np.zeros(high - low, np.intp)
    at = np.arange(low, high) % (2 * (size - 1))
    return np.minimum(at, 2 * (size - 1) - at)


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """One piece of work: read, mirror at the image's border, run, crop, write.

    Along an axis, with convolutions of the same size::

        image          |..................................|
        first tile     |wwwwwwwwwwwww|rrrr|                      w  core: written
        a later one         |rrrr|wwwwwwwwwwwww|rrrr|            r  halo: read as context, cropped
        the last                           |rrrr|wwwwwwwww|mm|   m  mirrored, up to a multiple of the stride

    Parameters
    ----------
    read : box in the image: core and halo, cut at the border
    pad : (before, after) per axis
        Mirrored elements that complete what the border cut off.
    crop : box in the network's output: the core
    write : box in the result: the core
    """

    read: Box
    pad: tuple[tuple[int, int], ...]
    crop: Box
    write: Box

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what the network sees."""
        return tuple(r.stop - r.start + low + high for r, (low, high) in zip(self.read, self.pad, strict=True))

    def mirror(self, data: np.ndarray) -> np.ndarray:
        """Complete what was read by mirroring.

        Parameters
        ----------
        data : (..., *read) array
            Leading axes, such as channels, are left alone.
        """
        if not any(low or high for low, high in self.pad):
            return data
        leading = [(0, 0)] * (data.ndim - len(self.pad))
        return np.pad(data, [*leading, *self.pad], mode="reflect")


@dataclasses.dataclass(frozen=True, slots=True)
class TileGrid(Blocks):
    """The tiles that cover an image, each element of it written by exactly one.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image along the tiled axes.
    core : tuple of int
        Shape of a tile's core (the block it writes); rounded up to a multiple of the stride.

    Raises
    ------
    UsageError
        Where shape, core and footprint differ in length, or a core is not positive.
    """

    footprint: Footprint

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.core) == len(self.footprint.stride):
            raise UsageError(
                f"the image has {len(self.shape)} tiled axes, the block {self.core} has {len(self.core)} "
                f"and the network {len(self.footprint.stride)}; give one size per axis"
            )
        if min(self.core) < 1:
            raise UsageError(f"the block {self.core} must be at least 1 along every axis")
        core = [math.ceil(c / s) * s for c, s in zip(self.core, self.footprint.stride, strict=True)]
        object.__setattr__(self, "core", tuple(core))

    def extent(self, axis: int) -> tuple[int, int]:
        """Return where the mirrored image that the network sees as a whole begins and ends along `axis`."""
        return self._outer(axis, 0, self.shape[axis])

    def __iter__(self) -> Iterator[Tile]:
        """Yield all tiles, the last axis fastest."""
        return (self.tile(at) for at in itertools.product(*map(range, self.counts)))

    def __getitem__(self, number: int) -> Tile:
        """Return tile `number`, counted with the last axis fastest."""
        return self.tile(self.place(number))

    def tile(self, at: Sequence[int]) -> Tile:
        """Return the tile at position `at` of the grid."""
        return self._cut(self.box(at))

    def tile_of(self, box: Box) -> Tile:
        """Return the tile with the core `box`, which need not be one of the grid's.

        Raises
        ------
        UsageError
            Where the box does not lie in the image, or does not begin and end at multiples of the stride or at the
            image's end.
        """
        for b, n, s in zip(box, self.shape, self.footprint.stride, strict=True):
            if not 0 <= b.start < b.stop <= n or b.start % s or (b.stop % s and b.stop != n):
                raise UsageError(
                    f"the core {b.start}:{b.stop} of an axis of {n} must lie in it, and begin and end at multiples "
                    f"of {s} or at the image's end"
                )
        return self._cut(box)

    def _cut(self, box: Box) -> Tile:
        parts = [self._part(axis, b.start, b.stop) for axis, b in enumerate(box)]
        read, pad, crop, write = zip(*parts, strict=True)
        return Tile(read, pad, crop, write)

    def _part(self, axis: int, start: int, stop: int) -> tuple[slice, tuple[int, int], slice, slice]:
        """Cut one axis around the core [start, stop): (read, pad, crop, write)."""
        n, stride = self.shape[axis], self.footprint.stride[axis]
        low, high = self._outer(axis, start, stop)
        # What lies beyond the far border mirrors what lies before it: the tile must read that too.
        source = max(2 * (n - 1) - (high - 1), 0)
        if high > n and source < low:
            low -= math.ceil((low - source) / stride) * stride
        read = slice(max(low, 0), min(high, n))
        pad = (read.start - low, high - read.stop)
        origin = low + self.footprint.margin[axis]
        return read, pad, slice(start - origin, stop - origin), slice(start, stop)

    def _outer(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Return where the tile with core [start, stop) begins and ends in the mirrored image."""
        stride, margin = self.footprint.stride[axis], self.footprint.margin[axis]
        if margin:
            remainder = self.footprint.remainder[axis]
            size = remainder + math.ceil(max(stop - start - remainder, 0) / stride) * stride
            return start - margin, start + size + margin
        halo, least = self.footprint.halo[axis], self.footprint.least[axis] if self.footprint.least else 0
        end = max(math.ceil(self.shape[axis] / stride) * stride, least)
        low, high = max(start - halo, 0), min(math.ceil(stop / stride) * stride + halo, end)
        if high - low < least:  # more of the image is read, so that its ends stay where they are
            low = max(low - math.ceil((least - high + low) / stride) * stride, 0)
            high = min(max(high, low + least), end)
        return low, high
