"""The objects of a label image of any size: the box around each, found block by block, and each read by its box."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from ..arrays.cached import cached
from ..arrays.stack import SPATIAL, Stack
from ..arrays.views import Box
from ..grid.blocks import blocks

LARGEST = 2**27  # pixels of the box around an object that is held in memory: 512 x 512 x 512


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """An object at a time point: its id, its box in the label image, and what is in that box."""

    id: int
    time: int
    box: Box
    mask: np.ndarray

    @property
    def start(self) -> tuple[int, ...]:
        """Where its box begins along the axes of space."""
        return tuple(b.start for b in self.box[-self.mask.ndim :])


def boxes(labels: Stack) -> dict[tuple[int, int], np.ndarray]:
    """Find the box around each object at each time point.

    Returns
    -------
    dict of (time, id) to (2, axes of space) integers
        First and last index, in the order of the objects' first pixels.
    """
    found: dict[tuple[int, int], np.ndarray] = {}
    axes = labels.spatial
    for box in blocks(labels.shape, labels.chunks):
        data = labels.read(box)
        time = box[0].start if "t" in labels.axes else 0
        start = np.array([b.start for b in box[-len(axes) :]])
        for shift, frame in enumerate(data.reshape(-1, *data.shape[-len(axes) :])):
            for label, first, last in _in_block(frame):
                new = np.array([first + start, last + start])
                at = found.setdefault((time + shift, label), new)
                at[0], at[1] = np.minimum(at[0], new[0]), np.maximum(at[1], new[1])
    return dict(sorted(found.items()))


def _in_block(data: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield id, first and last index of each object in a block."""
    ids, inverse = np.unique(data, return_inverse=True)
    first = 1 - int(ids[0] == 0)  # ids are numbered from 1, so that 0 stays background
    numbered = inverse.reshape(data.shape).astype(np.int32) + first
    wanted = ids[ids != 0]
    for label, place in zip(wanted.tolist(), ndimage.find_objects(numbered), strict=True):
        if place is not None:
            yield int(label), np.array([p.start for p in place]), np.array([p.stop - 1 for p in place])


def items(labels: Stack) -> Iterator[tuple[int, int, Item | tuple[int, int]]]:
    """Yield number, count, and each object with its mask; of one whose box is too large, its time and id."""
    source = cached(labels)
    found = boxes(labels)
    for number, ((time, label), (first, last)) in enumerate(found.items(), 1):
        box = tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
        if int(np.prod([b.stop - b.start for b in box], dtype=object)) > LARGEST:
            yield number, len(found), (time, label)
            continue
        whole = (*([slice(time, time + 1)] if "t" in labels.axes else []), *box)
        data = source.read(whole)
        yield number, len(found), Item(label, time, whole, (data == label).reshape([b.stop - b.start for b in box]))


def flat(labels: Stack) -> bool:
    """Say whether objects are areas and no volumes."""
    return sum(a in SPATIAL and n > 1 for a, n in zip(labels.axes, labels.shape, strict=True)) < 3
