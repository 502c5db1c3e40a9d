"""A result and its truth: found by name where they are folders, opened, and brought to the same pixels."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.cached import check_countable
from ..arrays.stack import Stack
from ..arrays.views import Box
from ..errors import DataError
from ..grid.blocks import blocks
from ..sources import list_images, open_labels, open_stack, pair_paths
from ..sources.open import Reading
from ..sources.pairs import is_image, stem
from ..sources.position import brought_together
from ..sources.wholes import WERE_FLOATS, is_patchy
from ..units import factor

SCALE_TOLERANCE = 0.01  # relative: roundings of one pixel size in two files stay below it


@dataclasses.dataclass(frozen=True, slots=True)
class Sides:
    """A result and its truth, opened, with the same axes and shape."""

    result: Stack
    truth: Stack

    def read(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Read a region of the truth and of the result."""
        return self.truth.read(box), self.result.read(box)

    def boxes(self) -> Iterator[Box]:
        """Yield boxes that cover the pair: whole chunks of the result, as many as fit a block."""
        return blocks(self.result.shape, self.result.chunks)

    def planes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield each (Y, X) plane of the truth and of the result."""
        shape = self.truth.shape
        for at in itertools.product(*map(range, shape[:-2])):
            box = (*(slice(i, i + 1) for i in at), slice(0, shape[-2]), slice(0, shape[-1]))
            truth, result = (plane.reshape(shape[-2:]) for plane in self.read(box))
            yield truth, result

    def times(self) -> Iterator["Sides"]:
        """Yield each time point, or the pair itself where there is no time."""
        if "t" not in self.truth.axes:
            yield self
            return
        for t in range(self.truth.size("t")):
            yield Sides(self.result.select(t=t), self.truth.select(t=t))


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A result and its truth, to be opened when they are read: a folder can hold more files than may be open.

    Parameters
    ----------
    result, truth : path, Stack or array
    name : str
        What its scores are called after in a folder.
    opening : Reading
        Of both, as `open_stack` takes it.
    """

    result: Any
    truth: Any
    name: str
    opening: Reading

    def is_float(self) -> bool:
        """Say whether either side holds floats, which are not labels."""
        return _is_float(self.result, self.opening) or _is_float(self.truth, self.opening)

    def open(self, floats: bool) -> Sides:
        """Open both sides, as images or as labels, and hold them against each other."""
        opener = open_stack if floats else open_labels
        return _fit(opener(self.result, **self.opening), opener(self.truth, **self.opening))


def cases_of(result: Any, truth: Any, opening: Reading) -> tuple[list[Case], bool]:
    """Return what to compare, and whether these are the images of folders.

    Raises
    ------
    DataError
        Where one side alone is a folder, or names do not pair.
    """
    one, other = _is_folder(result), _is_folder(truth)
    if one != other:
        folder, single = (result, truth) if one else (truth, result)
        raise DataError(
            f"{folder} is a folder of images and {name_of(single)} is one image; give two folders or two images"
        )
    if not one:
        return [Case(result, truth, "", opening)], False
    cases = [Case(a, b, stem(b), opening) for a, b in pair_paths([result], [truth])]
    if len({case.name for case in cases}) < len(cases):
        raise DataError(f"{truth} holds several images of one name; give each a name of its own")
    return cases, True


def _is_folder(what: Any) -> bool:
    if not isinstance(what, str | Path) or "://" in str(what):
        return False
    path = Path(what).expanduser()
    return path.is_dir() and (not is_image(path) or len(list_images(path)) > 1)


def name_of(what: Any) -> str:
    """Return what a side is called in a message."""
    return str(what) if isinstance(what, str | Path) else getattr(what, "name", type(what).__name__)


def _is_float(what: Any, opening: Reading) -> bool:
    """Say whether something holds floats that are not labels: whole numbers alone may be an image too."""
    try:
        labels = open_labels(what, **opening)
    except DataError:
        if open_stack(what, **opening).dtype.kind == "f":
            return True
        raise
    return WERE_FLOATS in labels.notes and not is_patchy(labels)


def _fit(result: Stack, truth: Stack) -> Sides:
    """Take away axes of size 1, cut both to what both show, and refuse sides that differ."""
    check_countable(result)
    check_countable(truth)
    one, other = _squeezed(result), _squeezed(truth)
    if one.axes == other.axes:
        one, other = brought_together(one, other)
    if one.axes != other.axes or one.shape != other.shape:
        raise DataError(
            f"the result {result.name} has axes {result.axes!r} and shape {result.shape}, the truth {truth.name} "
            f"{truth.axes!r} and {truth.shape}; both sides must show the same region (give axes where "
            "a file does not say its own)"
        )
    for axis in one.spatial:
        at = one.axes.index(axis)
        ours, theirs = one.scale[at], other.scale[at]
        ratio = factor(one.units[at], other.units[at])
        explicit = one.units[at] is not None or (ours != 1.0 and theirs != 1.0)
        if ratio and explicit and abs(ours * ratio - theirs) > SCALE_TOLERANCE * theirs:
            raise DataError(
                f"the result {result.name} has a scale of {ours} {one.units[at] or ''} along {axis}, the truth "
                f"{truth.name} {theirs} {other.units[at] or ''}; scores need the same pixels: "
                "choose the same level, or correct the scale"
            )
    return Sides(one, other)


def _squeezed(stack: Stack) -> Stack:
    return stack.select(**{axis: 0 for axis in stack.axes if axis not in "yx" and stack.size(axis) == 1})
