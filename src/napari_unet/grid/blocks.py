"""Blocks of an array: the regions that work is cut into."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..arrays.views import Box


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks:
    """A shape cut into blocks of one size, smaller at the far ends, numbered in C order.

    Parameters
    ----------
    shape : tuple of int
        What is cut.
    core : tuple of int
        Shape of a block, the part that is written by one piece of work.
    """

    shape: tuple[int, ...]
    core: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.core, strict=True))

    def __len__(self) -> int:
        """Return the number of blocks."""
        return math.prod(self.counts)

    def place(self, number: int) -> tuple[int, ...]:
        """Return the place of block `number`, counted in blocks along each axis."""
        counts = self.counts
        return tuple(map(int, np.unravel_index(range(math.prod(counts))[number], counts)))

    def number(self, place: Sequence[int]) -> int | None:
        """Return the number of the block at `place`, None where there is none."""
        number = 0
        for at, count in zip(place, self.counts, strict=True):
            if not 0 <= at < count:
                return None
            number = number * count + at
        return number

    def box(self, place: Sequence[int]) -> Box:
        """Return where the block at `place` lies."""
        return box_at(place, self.core, self.shape)

    def block(self, number: int) -> Box:
        """Return where block `number` lies."""
        return self.box(self.place(number))

    def under(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Yield the places of the blocks that a box touches, the last axis fastest."""
        return places_under(box, self.core)


BLOCK_ELEMENTS = 2**22  # two blocks, as of an image and its truth, of the widest type stay within 64 MiB


def blocks(shape: Sequence[int], chunks: Sequence[int], elements: int = BLOCK_ELEMENTS) -> Iterator[Box]:
    """Cut an array into the boxes of `blocks_of`, in their order."""
    return boxes_of(shape, blocks_of(shape, chunks, elements).core)


def blocks_of(shape: Sequence[int], chunks: Sequence[int], elements: int) -> Blocks:
    """Cut an array into blocks of whole chunks and at most `elements`; a larger chunk is halved until it fits.

    Parameters
    ----------
    shape, chunks : sequences of int, one per axis
    """
    size = [min(c, n) for c, n in zip(chunks, shape, strict=True)]
    while math.prod(size) > elements:
        size[size.index(max(size))] = math.ceil(max(size) / 2)
    for axis in reversed(range(len(size))):
        size[axis] = min(size[axis] * (elements // math.prod(size)), shape[axis])
    return Blocks(tuple(shape), tuple(size))


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
