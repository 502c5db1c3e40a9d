"""Blocks of an array: the regions that work is cut into."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

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
        place: list[int] = []
        for count in reversed(self.counts):
            number, at = divmod(number, count)
            place.insert(0, at)
        return tuple(place)

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
        corner = zip(self.place(number), self.block, self.shape, strict=True)
        return tuple(slice(at * size, min((at + 1) * size, end)) for at, size, end in corner)

    def around(self, box: Box, margin: int) -> Box:
        """Return `box` with `margin` more on both sides of each spatial axis, within the volume."""
        more = [margin if i in self.spatial else 0 for i in range(len(self.shape))]
        return tuple(
            slice(max(0, part.start - m), min(end, part.stop + m))
            for part, m, end in zip(box, more, self.shape, strict=True)
        )

    def over(self, box: Box) -> Iterator[tuple[int, Box]]:
        """Yield each block that `box` meets, and the part of `box` within it in coordinates of the volume."""
        spans = [range(part.start // b, -(-part.stop // b)) for part, b in zip(box, self.block, strict=True)]
        for place in itertools.product(*spans):
            number = self.number(place)
            if number is not None:
                mine = self.box(number)
                yield (
                    number,
                    tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(mine, box, strict=True)),
                )


# Both sides of a block, as the widest type, stay within 64 MiB.
BLOCK_ELEMENTS = (64 << 20) // 16


def blocks(shape: Sequence[int], chunks: Sequence[int], elements: int = BLOCK_ELEMENTS) -> Iterator[Box]:
    """Cut an array into boxes of whole chunks and at most `elements`; a larger chunk is cut itself.

    Parameters
    ----------
    shape, chunks : sequences of int, one per axis
    elements : int
    """
    size = [min(c, n) for c, n in zip(chunks, shape, strict=True)]
    for axis in range(len(size)):
        rest = math.prod(size) // size[axis]
        size[axis] = max(1, min(size[axis], elements // rest))
    for axis in reversed(range(len(size))):
        room = elements // math.prod(size)
        if room > 1:
            size[axis] = min(size[axis] * room, shape[axis])
    starts = [range(0, n, s) for n, s in zip(shape, size, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(a + s, n)) for a, s, n in zip(corner, size, shape, strict=True))


def boxes_of(shape: Sequence[int], block: Sequence[int]) -> Iterator[Box]:
    """Yield the boxes that a block cuts a shape into, in C order, smaller at the far ends."""
    return itertools.product(
        *([slice(a, min(a + b, n)) for a in range(0, n, b)] for n, b in zip(shape, block, strict=True))
    )
