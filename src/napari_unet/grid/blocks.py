"""Blocks of an array: the regions that work is cut into."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..arrays.stack import SPATIAL
from ..arrays.views import Box
from ..errors import UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """A volume cut into blocks of one size, smaller at the far ends, numbered in C order.

    Parameters
    ----------
    axes : str
        ``yx``, ``zyx``, ``tyx`` or ``tzyx``.
    shape, block : tuple of int
        Size of the volume and of a block, along each axis.
    ndim : int, optional
        Objects lie within the last so many axes; all of z, y and x if not given.

    Raises
    ------
    UsageError
        Where axes, shape and block do not fit each other.
    """

    axes: str
    shape: tuple[int, ...]
    block: tuple[int, ...]
    ndim: int | None = None

    def __post_init__(self) -> None:
        if self.axes.removeprefix("t") not in ("yx", "zyx") or self.ndim not in (None, 2, 3):
            raise UsageError(f"axes are {self.axes!r}; objects are made from yx, zyx, tyx or tzyx")
        if not len(self.axes) == len(self.shape) == len(self.block):
            raise UsageError(f"shape {self.shape} and block {self.block} need one size for each of {self.axes!r}")
        if min(self.shape + self.block) < 1:
            raise UsageError(f"shape {self.shape} and block {self.block} must be 1 or more along each axis")

    @property
    def spatial(self) -> tuple[int, ...]:
        """Positions of the axes within which objects lie."""
        axes = tuple(i for i, a in enumerate(self.axes) if a in SPATIAL)
        return axes if self.ndim is None else axes[-self.ndim :]

    @property
    def link_axis(self) -> int | None:
        """Position of the axis along which objects may be linked: time, or of a 2-D model the planes of one time."""
        apart = (i for i, n in enumerate(self.shape) if i not in self.spatial and n > 1)
        return next(apart, None)

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        """Return the number of blocks."""
        return math.prod(self.counts)

    def place(self, number: int) -> tuple[int, ...]:
        """Return the place of block `number` along each axis, in blocks."""
        return tuple(int(at) for at in np.unravel_index(number, self.counts))

    def number(self, place: tuple[int, ...]) -> int | None:
        """Return the number of the block at `place`, None where there is none."""
        number = 0
        for at, count in zip(place, self.counts, strict=True):
            if not 0 <= at < count:
                return None
            number = number * count + at
        return number

    def box(self, number: int) -> Box:
        """Return where block `number` lies."""
        return box_at(self.place(number), self.block, self.shape)

    def around(self, box: Box, margin: int) -> Box:
        """Return `box` with `margin` more on both sides of each spatial axis, within the volume."""
        more = [margin if i in self.spatial else 0 for i in range(len(self.shape))]
        return tuple(
            slice(max(0, part.start - m), min(end, part.stop + m))
            for part, m, end in zip(box, more, self.shape, strict=True)
        )

    def over(self, box: Box) -> Iterator[tuple[int, Box]]:
        """Yield each block that `box` meets, and the part of `box` within it in coordinates of the volume."""
        for place in places_under(box, self.block):
            number = self.number(place)
            if number is not None:
                mine = self.box(number)
                yield (
                    number,
                    tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(mine, box, strict=True)),
                )


BLOCK_ELEMENTS = 2**22  # two blocks, as of an image and its truth, of the widest type stay within 64 MiB


def blocks(shape: Sequence[int], chunks: Sequence[int], elements: int = BLOCK_ELEMENTS) -> Iterator[Box]:
    """Cut an array into boxes of whole chunks and at most `elements`; a larger chunk is halved until it fits.

    Parameters
    ----------
    shape, chunks : sequences of int, one per axis
    elements : int
    """
    size = [min(c, n) for c, n in zip(chunks, shape, strict=True)]
    while math.prod(size) > elements:
        size[size.index(max(size))] = math.ceil(max(size) / 2)
    for axis in reversed(range(len(size))):
        size[axis] = min(size[axis] * (elements // math.prod(size)), shape[axis])
    return boxes_of(shape, size)


def boxes_of(shape: Sequence[int], block: Sequence[int]) -> Iterator[Box]:
    """Yield the boxes that a block cuts a shape into, in C order, smaller at the far ends."""
    return itertools.product(
        *([slice(a, min(a + b, n)) for a in range(0, n, b)] for n, b in zip(shape, block, strict=True))
    )


def box_at(place: Sequence[int], block: Sequence[int], shape: Sequence[int]) -> Box:
    """Return the box at a place, counted in blocks along each axis; smaller at the far ends."""
    return tuple(slice(i * b, min((i + 1) * b, n)) for i, b, n in zip(place, block, shape, strict=True))


def places_under(box: Box, block: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the places of the blocks that a box touches, the last axis fastest."""
    return itertools.product(*(range(b.start // s, -(-b.stop // s)) for b, s in zip(box, block, strict=True)))
