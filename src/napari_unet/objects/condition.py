"""What samples are made for when no image guides them: labels of objects, or nothing; computed where it is read."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box, LazyArray, LazyBase, Zeros, chunk_shape, within
from ..errors import DataError
from .borders import REACH, touching
from .labelling import numbered

CHANNELS = ("inside", "border", "distance")
FAR = 8.0  # pixels of the finest axis: farther inside an object than that all places look alike


def conditioned(stack: Stack, condition: str, ndim: int) -> Stack:
    """Return what a network is given of a stack.

    Parameters
    ----------
    condition : "image", "labels" or "none"
        The stack itself; of labels of objects the channels `CHANNELS`; a channel of zeros, of its size alone.
    ndim : 2 or 3
        Of the network: a 2-D one is given each plane for itself.

    Raises
    ------
    DataError
        Where the stack holds no labels of objects, or has no z for a 3-D network.
    """
    if condition == "image":
        return stack
    if "c" in stack.axes and stack.size("c") == 1:
        stack = stack.select(c=0)
    if condition == "labels" and (stack.dtype.kind not in "biu" or "c" in stack.axes):
        raise DataError(
            f"{stack.name} has {stack.size('c')} channel{'s' * (stack.size('c') != 1)} of {stack.dtype}; the model "
            "makes images for labels: give whole numbers without channels, one for each object and 0 for background"
        )
    at = int("t" in stack.axes)
    if condition == "none":
        rest = tuple(n for a, n in zip(stack.axes, stack.shape, strict=True) if a != "c")
        data: LazyArray = Zeros((*rest[:at], 1, *rest[at:]), np.float32)
        names: tuple[str, ...] = ("none",)
    else:
        if len(stack.spatial) < ndim:
            raise DataError(f"{stack.name} has the axes {stack.axes}, the network is 3-D; give labels with z")
        data, names = ObjectChannels(stack.data, stack.scale_along(stack.spatial[-ndim:]), at), CHANNELS
    axes = stack.axes.replace("c", "")
    fields: dict[str, Any] = {"scale": 1.0, "units": None, "translation": 0.0}
    about = {name: stack.values_along(axes, name) for name in fields}
    more: dict[str, Any] = {name: (*value[:at], fields[name], *value[at:]) for name, value in about.items()}
    return dataclasses.replace(stack, data=data, axes=f"{axes[:at]}c{axes[at:]}", channel_names=names, **more)


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectChannels(LazyBase):
    """Labels of objects as three channels, float32, each voxel from those near it, so alike however they are cut.

    Inside and border are those that networks of objects learn, borders of one width; the distance is that to the
    object's edge, 1 from `FAR` on.

    Parameters
    ----------
    base : lazy array
        Ids of objects; 0 is background.
    spacing : tuple of float
        Size of a voxel along the last axes; an element along those before is a volume, or plane, of its own.
    at : int
        Which axis the channels are.
    """

    base: LazyArray
    spacing: tuple[float, ...]
    at: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self._with(len(CHANNELS), tuple(map(int, self.base.shape)))

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """float32."""
        return np.dtype(np.float32)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the labels."""
        return self._with(len(CHANNELS), chunk_shape(self.base))

    def _with(self, count: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[: self.at], count, *shape[self.at :])

    def read(self, box: Box) -> np.ndarray:
        """Read labels as far around a box as its channels follow from, and compute these."""
        channels, rest = box[self.at], (*box[: self.at], *box[self.at + 1 :])
        ndim, finest = len(self.spacing), min(self.spacing)
        # One more than the distance: an edge is seen in the voxels on both of its sides.
        reach = [max(math.ceil(FAR * finest / s), REACH[ndim]) + 1 for s in self.spacing]
        margin = [0] * (len(rest) - ndim) + reach
        sizes = zip(rest, margin, self.base.shape, strict=True)
        wide = tuple(slice(max(b.start - m, 0), min(b.stop + m, int(n))) for b, m, n in sizes)
        labels = np.asarray(self.base[wide])
        if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
            raise DataError(f"labels have negative values ({int(labels.min())}); labels are 0 and above")
        inner = within(rest, wide)
        found = np.empty((len(CHANNELS), *(b.stop - b.start for b in rest)), np.float32)
        first = len(rest) - ndim
        for index in itertools.product(*(range(b.stop - b.start) for b in rest[:first])):
            part = _channels(numbered(labels[index].astype(np.uint64, copy=False)), self.spacing)
            place: Any = (slice(None), *index)
            found[place] = part[(slice(None), *inner[first:])]
        return np.moveaxis(found[channels], 0, self.at)


def _channels(ids: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """(*S) ids of 1 ... n -> (3, *S) float32."""
    from scipy import ndimage  # not at the top: only who makes images for labels needs it

    if not ids.any():
        return np.zeros((len(CHANNELS), *ids.shape), np.float32)
    border, edge = touching(ids), np.zeros(ids.shape, bool)
    for axis in range(ids.ndim):
        part, line = np.moveaxis(ids, axis, 0), np.moveaxis(edge, axis, 0)
        differ = part[1:] != part[:-1]
        line[1:] |= differ
        line[:-1] |= differ
    finest = min(spacing)
    far = np.full(ids.shape, FAR)
    if edge.any():  # of none the distance would mean nothing
        far = ndimage.distance_transform_edt(~edge, [s / finest for s in spacing]) + 1
    distance = np.minimum(far, FAR) / FAR * (ids > 0)
    return np.stack([(ids > 0) & ~border, border, distance]).astype(np.float32)
