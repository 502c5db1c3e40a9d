"""The objects of what is viewed, made of the classes there as a run makes them of the whole."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.resample import ResampledLabels
from ..arrays.views import Box, LazyBase
from ..grid.tiles import within
from ..objects import objects_of_part
from .own import covered

if TYPE_CHECKING:
    from .lazy import Preview

# Seconds until the first objects are shown of a view that is not whole yet; times what making them took, between two.
FIRST, BETWEEN = 0.5, 4.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """What is known of the objects of a view when all of it is there.

    Parameters
    ----------
    count : int
        Objects in it.
    cut : (N,) array
        The ids of those that its edge cuts, or may: a run has them in another shape. All others a run has as they are.
    """

    count: int
    cut: np.ndarray

    def story(self) -> str:
        """Return a line for the reader."""
        cut = f", {len(self.cut)} of them cut by the edge of the preview" if len(self.cut) else ""
        return f"{self.count} object{'s' * (self.count != 1)}{cut}"


def objects_seen(view: "Preview", whole: Box) -> Iterator[tuple[Box, Box, np.ndarray] | Edges]:
    """Yield (box of the result, the same, labels), again and again while blocks arrive; in the end `Edges`.

    Parameters
    ----------
    whole : box
        Whole blocks, of the pixels that the network runs at.
    """
    canvas, blocks = np.zeros([b.stop - b.start for b in whole], np.uint8), len(list(view.lazy.grid.under(whole)))
    due = time.monotonic() + FIRST
    for number, (part, values) in enumerate(view.blocks(whole), 1):
        canvas[within(part, whole)] = values
        if number < blocks and time.monotonic() < due:
            continue
        began = time.monotonic()
        labels, cut = _objects(view, whole, canvas)
        box, shown = _at_own(view, whole, labels)
        yield box, box, shown
        due = time.monotonic() + max(FIRST, BETWEEN * (time.monotonic() - began))
        if number == blocks:
            there = np.unique(shown[shown > 0])
            yield Edges(len(there), np.intersect1d(cut, there))


def read_objects(view: "Preview", box: Box) -> np.ndarray:
    """Return the objects in a box of the image; what its edge cuts is as it is seen there."""
    last: Any = [found for found in view.seen(box) if not isinstance(found, Edges)][-1]
    whole, _, labels = last
    return _InPlace(labels, whole, tuple(b.stop for b in box)).read(box)


def _objects(view: "Preview", whole: Box, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    task, spatial = view.engine.model.task, view.engine.model.config.ndim
    ends = list(zip(whole, view.lazy.grid.shape, strict=True))[-spatial:]
    if task.objects is None:
        raise TypeError(f"the task {task.name} gives no objects")
    return objects_of_part(classes, task.objects, spatial, [(b.start > 0, b.stop < n) for b, n in ends])


def _at_own(view: "Preview", whole: Box, labels: np.ndarray) -> tuple[Box, np.ndarray]:
    """Return labels at the pixels of the result, and their box there."""
    if view.own is view.engine.stack:
        return whole, labels
    result = view.result()
    placed = _InPlace(labels, whole, view.lazy.grid.shape)
    finer = [1 / r for r in result.ratios]
    box = covered(whole, finer, view.lazy.grid.shape, result.shape)
    return box, ResampledLabels(placed, result.shape, result.ratios).read(box)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _InPlace(LazyBase):
    """Labels in their place of a whole image, with 0 around."""

    data: np.ndarray
    box: Box
    size: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the labels."""
        return self.data.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """All of it: the labels lie in memory."""
        return self.size

    def read(self, box: Box) -> np.ndarray:
        """Return the labels in a box."""
        out = np.zeros([b.stop - b.start for b in box], self.data.dtype)
        shared = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, self.box, strict=True))
        if math.prod(max(s.stop - s.start, 0) for s in shared):
            out[within(shared, box)] = self.data[within(shared, self.box)]
        return out
