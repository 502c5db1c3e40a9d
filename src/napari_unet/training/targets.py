"""What a task makes of the labels of patches: of images in memory once for each image, and not for each patch."""

import math
import threading
from collections.abc import Sequence

import numpy as np

from ..task import Task
from .annotation import read_labels
from .split import Sample

LARGEST = 2**23  # elements of an image: borders and weights of so many take some 3 s, as those of 20 to 50 patches
MOST = 2**26  # elements of all: 1 GiB, as much as images in memory have at most
KIND = np.int32  # of what is kept: class, weight, id and class of objects, whole numbers all


class Targets:
    """Patches of images with the targets of a task.

    Where all labels lie in memory, and what is made of them has room there, an image is encoded when its first patch is
    drawn. Then borders and weights follow from the whole of it: an object that a patch cuts has those it has elsewhere.

    Parameters
    ----------
    task : Task
    samples : sequence of Sample
        All that patches are taken from.
    """

    def __init__(self, task: Task, samples: Sequence[Sample]) -> None:
        self._task = task
        here = task.learns_from == "labels" and all(isinstance(s.labels.data, np.ndarray) for s in samples)
        total, largest = sum(math.prod(s.extent) for s in samples), max(math.prod(s.shape) for s in samples)
        self._once = here and total <= MOST and largest <= LARGEST
        self._kept: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
        self._locks = [threading.Lock() for _ in samples]
        self._number = {id(sample): number for number, sample in enumerate(samples)}

    def read(
        self, sample: Sample, at: Sequence[int], start: Sequence[int], shape: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read one patch as `Sample.read`, with its target in place of the labels.

        Returns
        -------
        (C, *shape) float32 intensities, target as `Task.encode` gives it
        """
        if not self._once:
            image, labels = sample.read(at, start, shape)
            return image, self._task.encode(labels)
        image, _, index = sample.read_image(at, start, shape)
        target = self._whole(sample, tuple(at))
        for axis, i in enumerate(index, -len(index)):
            target = np.take(target, i, axis)
        return image, target.astype(np.int64)

    def _whole(self, sample: Sample, at: tuple[int, ...]) -> np.ndarray:
        """Return the target of all that a network takes as one image of a sample."""
        number = self._number[id(sample)]
        with self._locks[number]:  # another thread may be at it
            if (number, at) not in self._kept:
                box = (*(slice(i, i + 1) for i in at), *(slice(0, n) for n in sample.shape))
                labels = read_labels(sample.labels, box, sample.binary).reshape(sample.shape)
                self._kept[number, at] = self._task.encode(labels).astype(KIND)
            return self._kept[number, at]
