"""Training labels: aligned with their image; masks thresholded, their connected components numbered."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ..arrays.stack import Stack
from ..arrays.views import Box, LazyArray, LazyBase
from ..errors import DataError
from ..model import Model
from ..sources.position import brought_together
from ..task import Task
from .annotation import read_labels
from .config import TrainConfig
from .fingerprint import Fingerprint, Pair

NEARLY_ALL = 0.95  # of the objects cannot be held: nothing could be found
MASK = 255  # foreground of masks of 8 bits, as ImageJ has it
MANY_GREY = 16  # grey values as classes of their own are no classes; a few may be meant


def labels_of(pairs: Sequence[Pair], config: TrainConfig) -> list[Pair]:
    """Return the training pairs, image and labels on the same pixels.

    Raises
    ------
    DataError
        Where labels lie elsewhere than their image.
    """
    found = [brought_together(*pair) for pair in pairs]
    if not config.number_objects and not config.above:
        return found
    return [(image, _foreground(labels, config)) for image, labels in found]


def check_object_classes(pairs: Sequence[Pair], config: TrainConfig) -> None:
    """Refuse classes of objects that differ between labels, or that nothing is learnt of.

    Raises
    ------
    DataError
        Naming the labels and what to do.
    """
    named = {labels.object_classes: labels.name for _, labels in pairs}
    if len(named) > 1:
        (one, first), (other, second) = list(named.items())[:2]
        told = [", ".join(names) or "none" for names in (one, other)]
        raise DataError(
            f"{first} and {second} have other classes of objects, {told[0]} and {told[1]}; give all labels, those of "
            "validation too, in one call"
        )
    if any(named):
        if config.task != "instances":
            raise DataError(
                f"classes of objects are learnt with the task instances, not with {config.task}; choose that task"
            )
        if config.number_objects:
            raise DataError(
                "classes are of the objects by their ids, and number_objects gives other ids; number the objects "
                "first, or leave one of the two out"
            )


def about_dropped(task: Task, init: Model | None) -> list[str]:
    """Say which classes of objects a model to start from knows, and the new one does not."""
    before = init.task.objects if init is not None else None
    lost = [name for name in before.kinds if name not in task.names] if before is not None else []
    if not lost:
        return []
    return [
        f"the model to start from tells the objects of {', '.join(lost)} apart; these labels have no such class, and "
        "the new model forgets it: give the classes of the objects to keep it"
    ]


def notes_of(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return what was decided on the labels, or targets, of pairs."""
    return tuple(dict.fromkeys(note for image, labels in pairs if labels is not image for note in labels.notes))


def check_labels(facts: Fingerprint, config: TrainConfig, ndim: int) -> list[str]:
    """Return what the user should know of the labels, for a task and a network of these dimensions.

    Raises
    ------
    DataError
        Where training would go wrong for sure.
    """
    seen = facts.labelling
    if seen is None or config.binary:
        return [seen.about_edges()] if seen is not None and seen.grey and not config.above else []
    if facts.objects is None:
        about = seen.about_classes()
        if len(seen.grey) >= MANY_GREY:
            raise DataError(about)
        return [note for note in (about, _mixed_masks(facts)) if note]
    if seen.is_mask or seen.grey:
        raise DataError(seen.about_numbers())
    lost = seen.lost_objects(ndim)
    planes = seen.about_planes() if ndim == 3 else ""
    if lost.objects and lost.empty >= NEARLY_ALL * lost.objects:
        raise DataError("; ".join(filter(None, (planes, seen.about_lost(ndim)))))
    return [note for note in (seen.about_numbers(), planes, seen.about_lost(ndim)) if note]


def _mixed_masks(facts: Fingerprint) -> str:
    """Say that some labels are masks of 0 and 1, others of 0 and 255: what is one class would be two."""
    held = [{value for value, count in each.counts.items() if value and count} for each in facts.stacks]
    if not all(len(values) <= 1 for values in held) or set().union(*held) != {1, MASK}:
        return ""
    return (
        f"some masks hold 0 and 1, others 0 and {MASK}, and each value is a class of its own; take all above 0 as one "
        "class with --binary"
    )


def _foreground(labels: Stack, config: TrainConfig) -> Stack:
    apart = len(labels.axes) - (2 if config.ndim == 2 else len(labels.spatial))
    keep = config.background if config.sparse else None
    return dataclasses.replace(
        labels, data=Foreground(labels.data, labels, config.above, apart, config.number_objects, keep)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Foreground(LazyBase):
    """A lazy array of what lies above a value in labels: 0 and 1, or its pieces numbered in what is read.

    Parameters
    ----------
    base : lazy array
        That of the labels.
    above : int
        Values above it are foreground.
    apart : int
        Leading axes along which pieces do not go on: time, and planes for a 2-D network.
    number : bool
        Number the pieces. Each read numbers its own: the ids of a patch need to agree within it alone.
    background : int, optional
        Of sparse labels the value that was painted on background, which stays.
    """

    base: LazyArray
    labels: Stack
    above: int
    apart: int
    number: bool
    background: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type: that of ids, or of 0 and 1."""
        return np.dtype(np.int32 if self.number else np.uint8)

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        data = read_labels(self.labels, box)
        found = data > self.above
        first = self.background or 0
        if self.background is not None:
            found &= data != self.background
        if not self.number:
            return found.astype(np.uint8)
        pieces = np.empty(found.shape, np.int32)
        for at in np.ndindex(found.shape[: self.apart]):
            pieces[at], _ = ndimage.label(found[at])
        return np.where(pieces > 0, pieces + first, np.where(data == first, first, 0)).astype(np.int32)
