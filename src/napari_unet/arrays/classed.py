"""Ids of objects that carry the class of each, so that both go one way through a training, as one array."""

import dataclasses

import numpy as np

from ..errors import DataError
from .views import Box, LazyArray, LazyBase

BITS = 48  # of an id: 281 million million objects; the class is in the 8 above, and the sign is never touched
ID = np.uint64(2**BITS - 1)  # all bits of an id


def apart(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take ids and classes apart: those that `ClassedLabels` gives, classes from 1, 0 where an object has none."""
    labels = labels.astype(np.uint64, copy=False)
    return (labels & ID).astype(np.int64), (labels >> np.uint64(BITS)).astype(np.int64)


@dataclasses.dataclass(frozen=True, slots=True)
class ClassedLabels(LazyBase):
    """Labels whose ids carry the class of their object in the bits above.

    Parameters
    ----------
    base : lazy array
        Ids of objects.
    ids : (N,) uint64 array
        Those that have a class, rising.
    classes : (N,) uint64 array
        The class of each, from 1.
    """

    base: LazyArray
    ids: np.ndarray
    classes: np.ndarray

    @property
    def dtype(self) -> np.dtype[np.uint64]:
        """Element type: ids and classes together."""
        return np.dtype(np.uint64)

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        labels = np.asarray(self.base[box])
        if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
            raise DataError(f"labels have negative values ({int(labels.min())}); labels are 0 and above")
        labels = labels.astype(np.uint64)
        values, at = np.unique(labels, return_inverse=True)
        if values[-1] > ID:
            raise DataError(
                f"labels have the id {values[-1]}; with classes of objects ids go up to {ID}: number the objects anew"
            )
        place = np.searchsorted(self.ids, values)
        place[place == len(self.ids)] = 0
        found = np.where(self.ids[place] == values, self.classes[place], 0).astype(np.uint64)
        return (values | found << np.uint64(BITS))[at].reshape(labels.shape)
