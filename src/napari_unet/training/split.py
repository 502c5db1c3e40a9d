"""Labelled images, or regions of them, that patches are taken from."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box
from ..grid.tiles import mirrored, scaled
from ..intensities.normalise import Statistics, finite
from .annotation import image_box, read_labels
from .fingerprint import Fingerprint, Pair


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A labelled image, or a region of one, that patches are taken from.

    Parameters
    ----------
    image, labels : Stack
        Cut to the region; nothing outside it is ever read.
    axes : str
        Spatial axes of the network. The other axes of the labels are batch axes: each plane, or time point, for itself.
    statistics : Statistics
        Of the whole image.
    places : mapping of int to (N, axes of the labels) array
        Some voxels of each class, counted from the start of the region.
    """

    image: Stack
    labels: Stack
    axes: str
    statistics: Statistics
    places: Mapping[int, np.ndarray]
    binary: bool = False

    @property
    def place_axes(self) -> str:
        """Axes of the image without c: the batch axes, then the network's."""
        return self.image.axes.replace("c", "")

    @property
    def extent(self) -> tuple[int, ...]:
        """Shape along `place_axes`."""
        return self.image.values_along(self.place_axes, "shape")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape along the batch axes."""
        return self.extent[: len(self.extent) - len(self.axes)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape along the network's axes."""
        return self.extent[len(self.extent) - len(self.axes) :]

    @property
    def nbytes(self) -> int:
        """Bytes of image and labels in memory."""
        sizes = [float(np.prod(s.shape, dtype=float)) * s.dtype.itemsize for s in (self.image, self.labels)]
        return int(sum(sizes))

    def cached(self) -> "Sample":
        """Return it with image and labels in memory."""
        image, labels = (
            dataclasses.replace(s, data=np.ascontiguousarray(s.data[...])) for s in (self.image, self.labels)
        )
        return dataclasses.replace(self, image=image, labels=labels)

    def cut(self, axis: int, start: int, stop: int) -> "Sample":
        """Return the region [start, stop) along an axis of the labels."""
        name, part = self.place_axes[axis], slice(start, stop)
        places = {}
        for value, at in self.places.items():
            inside = at[(at[:, axis] >= start) & (at[:, axis] < stop)].copy()
            inside[:, axis] -= start
            places[value] = inside
        image, labels = self.image.select(**{name: part}), self.labels.select(**{name: self._finer(axis, part)})
        return dataclasses.replace(self, image=image, labels=labels, places=places)

    def _finer(self, axis: int, part: slice) -> slice:
        """Return what of an axis of the labels belongs to a part of the image's."""
        return part

    def read(self, at: Sequence[int], start: Sequence[int], shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Read one patch, mirrored where it reaches over the border of the region.

        Parameters
        ----------
        at : index along the batch axes
        start : first element along the network's axes; may be negative
        shape : shape of the patch

        Returns
        -------
        (C, *shape) float32 normalised intensities, (*shape) labels
        """
        image, box, index = self.read_image(at, start, shape)
        labels = read_labels(self.labels, box, self.binary).reshape([b.stop - b.start for b in box[len(at) :]])
        for axis, i in enumerate(index):
            labels = np.take(labels, i - i.min(), axis)
        return image, labels

    def read_image(
        self, at: Sequence[int], start: Sequence[int], shape: Sequence[int]
    ) -> tuple[np.ndarray, Box, list[np.ndarray]]:
        """Read the image of a patch: normalised, the box it is of, and the indices along each of the network's axes."""
        index = [mirrored(a, a + s, n) for a, s, n in zip(start, shape, self.shape, strict=True)]
        box = (*(slice(i, i + 1) for i in at), *(slice(int(i.min()), int(i.max()) + 1) for i in index))
        return self.statistics.apply(_intensities(self.image, box, index)), box, index


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ImageSample(Sample):
    """An image with the image that is its target.

    Parameters
    ----------
    factors : tuple of int
        Elements of the target for one of the image, per axis of `place_axes`.
    """

    factors: tuple[int, ...] = ()

    def _finer(self, axis: int, part: slice) -> slice:
        return slice(part.start * self.factors[axis], part.stop * self.factors[axis])

    def read(self, at: Sequence[int], start: Sequence[int], shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Read one patch as `Sample.read`, and its target: (C', *(shape * factors)) intensities as they are stored."""
        image, box, index = self.read_image(at, start, shape)
        finer = []
        for i, a, n, f in zip(index, start, self.shape, self.factors[len(at) :], strict=True):
            back = np.arange(a, a + len(i)) % max(2 * (n - 1), 1) >= n  # mirrored elements hold theirs in reverse
            inner = np.where(back[:, None], np.arange(f)[::-1], np.arange(f))
            finer.append((i[:, None] * f + inner).ravel())
        return image, _intensities(self.labels, scaled(box, self.factors), finer)


def _intensities(stack: Stack, box: Box, index: Sequence[np.ndarray]) -> np.ndarray:
    """Read (C, *S) at the indices of each of the network's axes; `box` holds them, and one element of other axes."""
    region = image_box(stack, box)
    inner = [b.stop - b.start for b in box[len(box) - len(index) :]]
    data = finite(stack.read(region), stack, region).reshape(-1, *inner)
    for axis, i in enumerate(index):
        data = np.take(data, i - i.min(), axis + 1)
    return data


def samples(pairs: Sequence[Pair], facts: Fingerprint, axes: str, factors: tuple[int, ...] = ()) -> list[Sample]:
    """Return each pair as a whole; with targets that are images their factors, per axis of the network."""
    if facts.intensities is not None:
        return [
            ImageSample(
                image,
                target,
                axes,
                f.statistics,
                f.places,
                factors=(1,) * (len(image.axes.replace("c", "")) - len(axes)) + factors,
            )
            for (image, target), f in zip(pairs, facts.stacks, strict=True)
        ]
    return [
        Sample(image, labels, axes, f.statistics, f.places, facts.binary)
        for (image, labels), f in zip(pairs, facts.stacks, strict=True)
    ]
