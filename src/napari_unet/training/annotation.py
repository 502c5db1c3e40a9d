"""Annotations as they are read: labels, the image that belongs to them, and how large objects are."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import ndimage

from ..arrays.classed import apart
from ..arrays.stack import Stack
from ..arrays.views import Box
from ..errors import DataError
from ..task.losses import BACKGROUND

CROPS = 6  # annotations that are measured closely: quartiles need no more
CROP_ELEMENTS = 2**20  # 1024 x 1024, or 101 cubed: labelled in some ms
SMALLEST_OBJECT = 9  # voxels, 3 x 3: fewer are specks of a brush


def image_box(image: Stack, box: Sequence[slice]) -> Box:
    """Return the box of the image, all channels, that belongs to a box of its labels."""
    parts = dict(zip(image.axes.replace("c", ""), box, strict=True))
    return tuple(parts.get(a, slice(0, image.size("c"))) for a in image.axes)


def read_labels(labels: Stack, box: Box, binary: bool = False) -> np.ndarray:
    """Read labels as integers, every value above 0 as 1 where `binary`.

    Raises
    ------
    DataError
        Where one is negative.
    """
    data = labels.read(box)
    if data.dtype.kind == "i" and data.size and data.min() < 0:
        raise DataError(f"{labels.name} has negative labels ({int(data.min())}); labels are 0 and above")
    if binary or data.dtype.kind == "b":
        return (data > 0).astype(np.uint8)
    return data


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectLabels:
    """Labels that are ids of objects: to be counted as two classes, background and objects.

    Parameters
    ----------
    background : int, optional
        The value that was painted on background, where 0 is unlabelled.
    kinds : tuple of str
        Names of the classes of objects, which the ids carry as `ClassedLabels` gives them; empty without.
    """

    background: int | None = None
    kinds: tuple[str, ...] = ()

    def classes(self, ids: np.ndarray) -> np.ndarray:
        """Return 0 background and 1 objects; where there is a value for background 0 unlabelled, 1 and 2.

        Objects of the first class are one more, and so on.
        """
        kinds = np.zeros((), np.int64)
        if self.kinds:
            ids, kinds = apart(ids)
        if self.background is None:
            return ((ids > 0) * (1 + kinds)).astype(np.uint8)
        return np.where(ids == self.background, 1, (ids > 0) * (2 + kinds)).astype(np.uint8)

    @property
    def names(self) -> dict[int, str]:
        """Name of each value that `classes` gives and that is not unlabelled."""
        first = 0 if self.background is None else 1
        objects = "objects without a class" if self.kinds else "objects"
        return dict(enumerate((BACKGROUND, objects, *self.kinds), first))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A part of an annotation.

    Parameters
    ----------
    data : (*S) integer array
        Along the spatial axes.
    spacing : tuple of float
        Size of a voxel per axis, the finest 1.
    values : tuple of int
        Classes of the whole annotation.
    stored : (*S) integer array
        As they are stored, also where all above 0 is one class.
    """

    data: np.ndarray
    spacing: tuple[float, ...]
    values: tuple[int, ...]
    stored: np.ndarray


def labelled_crops(
    annotations: Sequence[Stack], places: Sequence[Mapping[int, np.ndarray]], binary: bool, most: int = CROPS
) -> Iterator[Crop]:
    """Yield crops that are measured: of a few annotations a crop around a labelled voxel.

    Parameters
    ----------
    places : sequence of mapping of int to (N, axes of the labels) array
        For each of them some voxels of each class.
    """
    for index in np.unique(np.linspace(0, len(annotations) - 1, most).astype(int)):
        labels, known = annotations[index], places[index]
        seen = [at for value, at in known.items() if value and len(at)]
        if not seen:
            continue
        box = _crop(labels, seen[-1][0])
        sizes = np.array(labels.scale_along(labels.spatial))
        stored = read_labels(labels, box)
        stored = stored.reshape(stored.shape[-len(sizes) :])
        stored = apart(stored)[0] if labels.object_classes else stored
        data = (stored > 0).astype(np.uint8) if binary else stored
        yield Crop(data, tuple(sizes / min(sizes)), tuple(known), stored)


def diameters(crops: Sequence[Crop], objects: ObjectLabels | None) -> tuple[float, ...]:
    """Return quartiles of the equivalent diameters of the objects in crops, in voxels of the finest axis.

    Parameters
    ----------
    objects : ObjectLabels, optional
        Where label values are ids; else the components of each value are taken for objects.

    Returns
    -------
    tuple of three floats; empty where none was seen
    """
    sizes: list[float] = []
    for crop in crops:
        data, voxel = crop.data, float(np.prod(crop.spacing))
        if objects is not None:
            ids, counts = np.unique(data, return_counts=True)
            sizes += equivalent_diameters(counts[(ids > 0) & (ids != objects.background)], data.ndim, voxel)
            continue
        for value in crop.values:
            if value:
                counts = np.bincount(ndimage.label(data == value)[0].ravel())[1:]
                sizes += equivalent_diameters(counts, data.ndim, voxel)
    return tuple(float(q) for q in np.percentile(sizes, [25, 50, 75])) if sizes else ()


def _crop(labels: Stack, place: np.ndarray) -> Box:
    edge = round(CROP_ELEMENTS ** (1 / len(labels.spatial)))
    size = [min(n, edge) if a in labels.spatial else 1 for a, n in zip(labels.axes, labels.shape, strict=True)]
    starts = [min(max(int(p) - s // 2, 0), n - s) for p, s, n in zip(place, size, labels.shape, strict=True)]
    return tuple(slice(a, a + s) for a, s in zip(starts, size, strict=True))


def equivalent_diameters(counts: np.ndarray, ndim: int, voxel: float) -> list[float]:
    """Return the diameters of disks or balls as large as objects of so many voxels; specks are left out."""
    volumes = counts[counts >= SMALLEST_OBJECT] * voxel
    unit = math.pi / (4 if ndim == 2 else 6)
    return [float(d) for d in (volumes / unit) ** (1 / ndim)]
