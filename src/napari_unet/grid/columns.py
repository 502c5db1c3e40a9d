"""Columns: blocks behind each other along one axis, computed by one stream that passes through them."""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ..arrays.views import Box
from .tiles import TileGrid, mirrored, remoteness


@dataclasses.dataclass(frozen=True, slots=True)
class Slab:
    """The next planes that a stream takes.

    Each plane goes in once; it is written when the planes that the network looks at beyond it are in too::

        after slab 1   |ssssssss|                      s  read, and computed once
                       |wwww|cccc|                     w  written: its context is complete
        after slab 2   |ssssssss|ssssssss|             c  kept, until its context is complete
                       |wwww|wwwwwwww|cccc|

    Parameters
    ----------
    read : box in the image, along every tiled axis
    index : indices along the flow, into what was read, of the planes the network sees
    start : int
        Position of the first plane in the mirrored image.
    first, last : bool
        Whether the stream begins with it; whether the image ends with it.
    """

    column: "Column"
    read: Box
    index: np.ndarray
    start: int
    first: bool
    last: bool

    def mirror(self, data: np.ndarray) -> np.ndarray:
        """Complete what was read, (..., *read), by mirroring at the image's border."""
        leading = [(0, 0)] * (data.ndim - len(self.read))
        pad = [*leading, *self.column.pad]
        flow = len(leading) + self.column.flow
        if len(self.index) != data.shape[flow] or self.index[-1] - self.index[0] != len(self.index) - 1:
            data = data.take(self.index, flow)
        return np.pad(data, pad, mode="reflect") if any(low or high for low, high in pad) else data


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """Blocks behind each other along the flow.

    Parameters
    ----------
    flow : int
        The tiled axis along which planes flow.
    blocks : dict of int to slice
        Planes of each block that is to be computed, by its number in the grid; in order.
    others : boxes of one column in the other axes: read, crop and write, with the whole flow in its place
    pad : mirrored elements per axis, none along the flow
    """

    flow: int
    blocks: dict[int, slice]
    read: Box
    crop: Box
    write: Box
    pad: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnGrid:
    """The columns of a grid of blocks.

    Parameters
    ----------
    flow : int
        The tiled axis along which planes flow.
    planes : int
        Planes per slab; a multiple of the stride.
    batch : int
        Leading tiled axes that the network does not look along.
    """

    grid: TileGrid
    flow: int
    planes: int
    batch: int = 0

    def columns(self, pending: Collection[int], near: Sequence[float] | None = None) -> Iterator[Column]:
        """Yield the columns in which blocks are pending, each with those blocks.

        Parameters
        ----------
        near : sequence of float, optional
            Viewed position: columns come in two parts, the one that begins there first, and from there outward.
        """
        pending, counts = set(pending), self.grid.counts
        for at, along in self._runs(near):
            blocks = {}
            for k in along:
                place = (*at[: self.flow], k, *at[self.flow + 1 :])
                number = int(np.ravel_multi_index(place, counts))
                if number in pending:
                    blocks[number] = self.grid.box(place)[self.flow]
            if blocks:
                yield self._column(at, blocks)

    def _runs(self, near: Sequence[float] | None) -> Iterator[tuple[tuple[int, ...], range]]:
        """Yield where the columns stand, and which of their blocks to take."""
        counts = self.grid.counts
        places = itertools.product(*(range(1 if i == self.flow else n) for i, n in enumerate(counts)))
        if near is None:
            yield from ((at, range(counts[self.flow])) for at in places)
            return
        first = round(near[self.flow]) // self.grid.core[self.flow]
        parts = [range(first, counts[self.flow]), range(first)]
        others = [*near[: self.flow], *near[self.flow + 1 :]]

        def key(run: tuple[tuple[int, ...], int]) -> tuple[float, ...]:
            at, part = run
            box = self.grid.box(at)
            far = remoteness(box[: self.flow] + box[self.flow + 1 :], others, self.batch)
            return (*far[: self.batch], part, *far[self.batch :])

        for at, part in sorted(itertools.product(places, (0, 1)), key=key):
            yield at, parts[part]

    def _column(self, at: tuple[int, ...], blocks: dict[int, slice]) -> Column:
        tile = self.grid.tile(at)

        def whole(box: Box) -> Box:
            return (*box[: self.flow], slice(0, self.grid.shape[self.flow]), *box[self.flow + 1 :])

        pad = tuple((0, 0) if i == self.flow else p for i, p in enumerate(tile.pad))
        return Column(self.flow, blocks, whole(tile.read), whole(tile.crop), whole(tile.write), pad)

    def slabs(self, pending: Collection[int], near: Sequence[float] | None = None) -> Iterator[Slab]:
        """Yield the slabs of all columns in order, each column from its first pending block to its last."""
        for column in self.columns(pending, near):
            yield from self._slabs(column)

    def _slabs(self, column: Column) -> Iterator[Slab]:
        """Slabs lie at fixed places, so that a stream taken up in the middle computes what one from the border does."""
        low, high = self.grid.extent(self.flow)
        foot, size = self.grid.footprint, self.grid.shape[self.flow]
        reach = foot.halo[self.flow] + foot.margin[self.flow]
        spans = list(column.blocks.values())
        behind = spans[0].start - reach - low
        start = low + max(behind // self.planes - 1, 0) * self.planes
        stop = min(spans[-1].stop + reach + self.planes, high)
        for at in range(start, stop, self.planes):
            end = min(at + self.planes, high)
            index = mirrored(at, end, size)
            planes = slice(int(index.min()), int(index.max()) + 1)
            read = (*column.read[: self.flow], planes, *column.read[self.flow + 1 :])
            yield Slab(column, read, index - planes.start, at, at == start, end == high)
