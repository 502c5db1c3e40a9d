"""A result while it is written: its first level on disk, and coarser ones in memory, so that any zoom shows it fill."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from ..arrays.views import Box
from ..grid.blocks import boxes_of
from ..limits import memory
from ..sources.zarrays import open_own

if TYPE_CHECKING:
    from .. import Opened, Stack

FACTOR = 4  # from one coarser level to the next: few, and each a sixteenth
LARGEST = 2048  # pixels: what a screen shows of a plane
EDITABLE = 2**30  # bytes of labels that are opened whole: an undo of the viewer copies parts of them
SHARE = 0.1  # of the memory there is: image, window and the next run need theirs
THUMBNAIL = 64  # pixels: napari's thumbnails are no larger


class Live:
    """The levels of a result that is being written; of small labels a copy in memory, which can be painted on later.

    Parameters
    ----------
    opened : Opened
        Where it is; where blocks of it were written before, what is in memory is filled from them.
    """

    def __init__(self, opened: "Opened") -> None:
        self.opened, self.axes = opened, opened.geometry.axes
        try:
            self.first: Any = open_own(opened.path / "0")
            self.first[(0,) * self.first.ndim]  # a store is opened by its first read; what goes after it reads as empty
        except FileNotFoundError:  # objects of a short run are made already, and the classes they were made of are gone
            self.first = opened.geometry.data
        self._factors = list(self._coarser())
        self._copy: np.ndarray | None = None
        if opened.kind == "labels" and not self._factors and is_small(opened.geometry):
            self._copy = np.zeros(self.first.shape, self.first.dtype)
        first = self.first if self._copy is None else self._copy
        self.levels = [first, *(self._level(factor) for factor in self._factors)]
        if opened.done and self.first is not opened.geometry.data:
            for box in boxes_of(self.first.shape, self.first.chunks):
                self.add(box)

    def finish(self, result: "Stack") -> np.ndarray | None:
        """Return the finished labels in memory, in the copy that is shown where there is one; None of large ones."""
        if self.opened.kind != "labels" or not is_small(result):
            return None
        copy = self._copy
        if copy is None or (copy.shape, copy.dtype) != (result.shape, result.dtype):
            return result.read(tuple(slice(0, n) for n in result.shape))
        for box in boxes_of(result.shape, result.chunks):
            copy[box] = result.read(box)
        return copy

    def _coarser(self) -> Iterator[tuple[int, ...]]:
        """Yield factors per axis, until a plane is small enough to be shown whole."""
        plane = max(n for n, a in zip(self.first.shape, self.axes, strict=True) if a in "yx")
        factor = 1
        while plane > LARGEST * factor:
            factor *= FACTOR
            yield self._across(factor)
        if factor > 1:  # the viewer reads the last level of a plane once only: let that be one that is never shown
            yield self._across(math.ceil(plane / THUMBNAIL))

    def _across(self, factor: int) -> tuple[int, ...]:
        return tuple(factor if a in "yx" else 1 for a in self.axes)

    def _level(self, factors: tuple[int, ...]) -> Any:
        shape = [math.ceil(n / f) for n, f in zip(self.first.shape, factors, strict=True)]
        chunks = tuple(min(n, 512) if a in "yx" else 1 for n, a in zip(shape, self.axes, strict=True))
        return zarr.create_array(zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype=self.first.dtype)

    def add(self, box: Box) -> None:
        """Take a block that has been written into the coarser levels."""
        if not self._factors and self._copy is None:
            return
        at = self.axes.find("c")
        box = box if len(box) == len(self.axes) else (*box[:at], slice(0, self.first.shape[at]), *box[at:])
        data = np.asarray(self.first[box])
        if not data.any():
            return
        if self._copy is not None:
            self._copy[box] = data
        for level, factors in zip(self.levels[1:], self._factors, strict=True):
            starts = [math.ceil(b.start / f) for b, f in zip(box, factors, strict=True)]
            inner = tuple(slice(s * f - b.start, None, f) for s, f, b in zip(starts, factors, box, strict=True))
            part = data[inner]
            level[tuple(slice(s, s + n) for s, n in zip(starts, part.shape, strict=True))] = part


def is_small(labels: "Stack") -> bool:
    """Whether labels can be held in memory, beside all else, and painted on."""
    return math.prod(labels.shape) * labels.dtype.itemsize <= min(EDITABLE, memory() * SHARE)
