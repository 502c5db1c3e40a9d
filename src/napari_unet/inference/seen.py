"""The objects of what is viewed or read, made of the classes there as a run makes them of the whole."""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.resample import ResampledLabels
from ..arrays.views import Box, LazyBase, Within, within
from ..objects import ObjectGrid, PartObjects, label_dtype, objects_of_part
from ..objects.part import Ends
from .own import covered

if TYPE_CHECKING:
    from .lazy import LazyBlocks, Preview

# Seconds until the first objects are shown of a view that is not whole yet; times what making them took, between two.
FIRST, BETWEEN = 0.5, 4.0
WIDER = 32  # elements that a field is made wider by at first, then twice as many: a small object, and one step more
MOST = 2**24  # elements of a field in which objects are found whole: half a gigabyte while they are made


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """What is known of the objects of a view when all of it is there.

    Parameters
    ----------
    count : int
        Objects in it.
    cut : (N,) array
        The ids of those that its edge cuts, or may: a run has them in another shape. All others a run has as they are.
    classes : dict
        By id, the class of each object in it; empty where objects have none.
    """

    count: int
    cut: np.ndarray
    classes: dict[int, str]

    def story(self) -> str:
        """Return a line for the reader."""
        each = ", ".join(f"{n} {name}" for name, n in sorted(Counter(self.classes.values()).items()))
        cut = f", {len(self.cut)} of them cut by the edge of the preview" if len(self.cut) else ""
        return f"{self.count} object{'s' * (self.count != 1)}{f' ({each})' * bool(each)}{cut}"


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
        found = _objects(view, whole, canvas)
        box, shown = _at_own(view, whole, found.labels)
        yield box, box, shown
        due = time.monotonic() + max(FIRST, BETWEEN * (time.monotonic() - began))
        if number == blocks:
            there = np.unique(shown[shown > 0])
            yield Edges(len(there), np.intersect1d(found.cut, there), _classes(view, found, there))


def read_objects(view: "Preview", box: Box) -> np.ndarray:
    """Return the objects in a box of the image; what its edge cuts is as it is seen there."""
    last: Any = [found for found in view.seen(box) if not isinstance(found, Edges)][-1]
    whole, _, labels = last
    return _in_place(labels, whole, tuple(b.stop for b in box)).read(box)


def _in_place(labels: np.ndarray, box: Box, shape: tuple[int, ...]) -> Within:
    """Return labels of a box in their place of a whole image, with 0 around."""
    return Within(labels, shape, tuple(b.start for b in box), around=0)


def _objects(view: "Preview", whole: Box, classes: np.ndarray) -> PartObjects:
    task, spatial = view.engine.model.task, view.engine.model.config.ndim
    ends = list(zip(whole, view.lazy.grid.shape, strict=True))[-spatial:]
    if task.objects is None:
        raise TypeError(f"the task {task.name} gives no objects")
    return objects_of_part(classes, task.objects, spatial, [(b.start > 0, b.stop < n) for b, n in ends])


def _classes(view: "Preview", found: PartObjects, there: np.ndarray) -> dict[int, str]:
    """Return the class of each object that is there, by its id: that of most votes, the first of equals."""
    objects = view.engine.model.task.objects
    if objects is None or not objects.kinds:
        return {}
    return {int(number): objects.kinds[kind] for number, kind in zip(there, found.votes[there].argmax(1), strict=True)}


def _at_own(view: "Preview", whole: Box, labels: np.ndarray) -> tuple[Box, np.ndarray]:
    """Return labels at the pixels of the result, and their box there."""
    if view.own is view.engine.stack:
        return whole, labels
    result = view.result()
    placed = _in_place(labels, whole, view.lazy.grid.shape)
    finer = [1 / r for r in result.ratios]
    box = covered(whole, finer, view.lazy.grid.shape, result.shape)
    return box, ResampledLabels(placed, result.shape, result.ratios).read(box)


class ObjectBlocks(LazyBase):
    """The objects of a result, each of them whole and the same wherever it is read.

    What is read is made wider, on the sides where an object goes on, until none in the box is cut::

        |......|mm|bbbbbbbbbb|mmmmm|......|   b  box that is read; m  margin, as far as its objects need

    The id of an object is 1 + the index, in the flattened image, of its first voxel before growth: those of a run are
    1 ... N in the same order. One for which the field would be too large is cut, and marked: half the range of ids is
    added to its id.

    Parameters
    ----------
    blocks : LazyBlocks
        Of the classes.
    """

    __slots__ = ("_config", "_grid", "base")

    def __init__(self, blocks: "LazyBlocks") -> None:
        model = blocks.engine.model
        if model.task.objects is None:
            raise TypeError(f"the task {model.task.name} gives no objects")
        self.base, self._config = blocks, model.task.objects
        self._grid = ObjectGrid(blocks.grid.shape, blocks.grid.core, blocks.engine.axes, model.config.ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self._grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type, of which half the range is as much as there are elements."""
        return label_dtype(2 * math.prod(self.shape) + 1)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Edges of a block along each axis."""
        return tuple(min(c, n) for c, n in zip(self._grid.core, self.shape, strict=True))

    def read(self, box: Box) -> np.ndarray:
        """Return the labels in a box."""
        margins = [[self._config.grow * (axis in self._grid.spatial)] * 2 for axis in range(self.ndim)]
        field = self._field(box, margins)
        while True:
            inner, goes_on = within(box, field), self._goes_on(field)
            found = objects_of_part(self.base.read(field), self._config, len(goes_on), goes_on)
            unsure = _unsure(found, inner)
            if not unsure[inner].any():
                break
            self._widen(margins, unsure, goes_on)
            wider = self._field(box, margins)
            if wider == field or math.prod(b.stop - b.start for b in wider) > MOST:
                break
            field = wider
        return self._ids(found, field)[found.labels[inner]]

    def _field(self, box: Box, margins: list[list[int]]) -> Box:
        sides = zip(box, margins, self.shape, strict=True)
        return tuple(slice(max(b.start - low, 0), min(b.stop + high, n)) for b, (low, high), n in sides)

    def _goes_on(self, field: Box) -> Ends:
        return [(field[axis].start > 0, field[axis].stop < self.shape[axis]) for axis in self._grid.spatial]

    def _widen(self, margins: list[list[int]], unsure: np.ndarray, goes_on: Ends) -> None:
        """Make the field wider where something that is not whole comes to its end; on all sides, where it does not."""
        near, widened = max(2 * self._config.grow, 1), False
        for every in (False, True):
            for axis, there in zip(self._grid.spatial, goes_on, strict=True):
                line = np.moveaxis(unsure, axis, 0)
                for side, end in enumerate((line[:near], line[-near:])):
                    if there[side] and (every or end.any()):
                        margins[axis][side], widened = max(WIDER, 2 * margins[axis][side]), True
            if widened:
                return

    def _ids(self, found: PartObjects, field: Box) -> np.ndarray:
        """Return the id of each object of a field by its number there."""
        place = np.unravel_index(found.first[1:], found.labels.shape)
        at = tuple(p + b.start for p, b in zip(place, field, strict=True))
        ids = np.append(0, np.ravel_multi_index(at, self.shape) + 1).astype(self.dtype)
        ids[found.cut] += self.dtype.type(np.iinfo(self.dtype).max // 2 + 1)
        return ids


def _unsure(found: PartObjects, inner: Box) -> np.ndarray:
    """Return where objects lie that are not whole, and what may be holes, if they are in a part of the field."""
    cut = np.zeros(len(found.first), bool)
    cut[np.intersect1d(np.unique(found.labels[inner]), found.cut)] = True
    return np.asarray(cut[found.labels] | (found.open if found.open[inner].any() else False))
