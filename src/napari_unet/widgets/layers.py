"""Between layers of the viewer and stacks: what of an image layer is seen, and where a result belongs."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box, LazyBase, chunk_shape
from ..sources.zarrays import open_own
from .source import levels_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

MOST_ROWS = 10_000  # of a table of labels: more cannot be scrolled through


def where_seen(viewer: "ViewerModel", layer: Any, axes: str, stack: Stack) -> tuple[float, ...]:
    """Return the indices, along the stack's axes without c, of the middle of what is seen of a layer."""
    return tuple((b.start + b.stop - 1) / 2 for b in seen(viewer, layer, axes, stack))


def seen(viewer: "ViewerModel", layer: Any, axes: str, stack: Stack) -> Box:
    """Return the box, along the stack's axes without c, of what is seen of a layer: its plane and field of view.

    Parameters
    ----------
    axes : str
        Of the layer.
    stack : Stack
        What was opened from it; its scale and translation say how it lies in the layer.
    """
    ahead = viewer.dims.ndim - layer.ndim
    point = layer.world_to_data(viewer.dims.point)
    flat = [i - ahead for i in viewer.dims.displayed[-2:]]
    factors = layer.downsample_factors[layer.data_level] if layer.multiscale else np.ones(layer.ndim)
    corners = np.asarray(layer.corner_pixels) * factors
    box = []
    for axis in stack.axes.replace("c", ""):
        dim, at = axes.index(axis), stack.axes.index(axis)
        ends = np.array([corners[0, dim], corners[1, dim] + 1]) if dim in flat else np.array([point[dim]] * 2)
        place = (layer.translate[dim] + ends * layer.scale[dim] - stack.translation[at]) / stack.scale[at]
        low, high = (math.floor(place[0]), math.ceil(place[1])) if dim in flat else (round(place[0]),) * 2
        low = min(max(low, 0), stack.shape[at] - 1)
        box.append(slice(low, min(max(high, low + 1), stack.shape[at])))
    return tuple(box)


class Placed(LazyBase):
    """A lazy array with the dimensions of a layer: axes in the layer's order, the same for all its channels.

    Parameters
    ----------
    axes : str
        Of `base`.
    order : str
        The dimensions it is to have; one that `base` lacks is repeated.
    sizes : mapping of str to int
        Of the dimensions that are repeated.
    """

    def __init__(self, base: Any, axes: str, order: str, sizes: Mapping[str, int]) -> None:
        self.base, self._axes, self._order, self._sizes = base, axes, order, sizes

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each dimension of the layer."""
        return tuple({**self._sizes, **dict(zip(self._axes, self.base.shape, strict=True))}[a] for a in self._order)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Largest chunk along each dimension of the layer."""
        own = dict(zip(self._axes, chunk_shape(self.base), strict=True))
        return tuple(own.get(a, 1) for a in self._order)

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        cut = dict(zip(self._order, box, strict=True))
        data = np.asarray(self.base[tuple(cut[a] for a in self._axes)])
        data = data.transpose([self._axes.index(a) for a in self._order if a in self._axes])
        for at, (axis, part) in enumerate(zip(self._order, box, strict=True)):
            if axis not in self._axes:
                data = np.repeat(np.expand_dims(data, at), part.stop - part.start, at)
        return data


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a result belongs in the viewer: on its image, whatever was taken of that.

    Parameters
    ----------
    order : str
        Dimensions that the result's layer has.
    sizes : mapping of str to int
        Of those that the result itself lacks.
    scale, translate : tuple of float
        One per dimension of `order`.
    matrix : (n + 1, n + 1) array
        What turns and shears the image's layer, beyond scale and translation.
    """

    order: str
    sizes: Mapping[str, int]
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    units: tuple[str, ...]
    matrix: np.ndarray

    @classmethod
    def of(cls, layer: Any, axes: str, stack: Stack) -> "Place":
        """Find the place of a result of `stack`, which was opened from `layer` with these axes."""
        first = 1 if axes.startswith("c") else 0
        order = axes[first:]
        geometry = {
            field: [
                float(getattr(layer, field)[axes.index(a)]) if a == "c" else stack.values_along(a, name)[0]
                for a in order
            ]
            for field, name in (("scale", "scale"), ("translate", "translation"))
        }
        sizes = {"c": levels_of(layer)[0][axes.index("c")]} if "c" in order else {}
        units = tuple(map(str, layer.units))[first:]
        return cls(order, sizes, tuple(geometry["scale"]), tuple(geometry["translate"]), units, _beyond(layer, first))

    def arranged(self, array: Any, axes: str) -> Any:
        """Bring an array of these axes to the layer's dimensions; of one in memory no pixel is copied."""
        if axes == self.order:
            return array
        return (
            self._repeated(array, axes)
            if isinstance(array, np.ndarray)
            else Placed(array, axes, self.order, self.sizes)
        )

    def _repeated(self, array: np.ndarray, axes: str) -> np.ndarray:
        """Return the same memory with the layer's dimensions: what is painted in one channel is so in all of them."""
        size, stride = dict(zip(axes, array.shape, strict=True)), dict(zip(axes, array.strides, strict=True))
        shape = [size.get(a, self.sizes.get(a, 1)) for a in self.order]
        return np.lib.stride_tricks.as_strided(array, shape, [stride.get(a, 0) for a in self.order])

    def shown(self) -> dict[str, Any]:
        """Return what a layer is made with to lie there."""
        return {"scale": self.scale, "translate": self.translate, "units": self.units, "affine": self.matrix}

    def corner(self, box: Box, axes: str) -> tuple[float, ...]:
        """Return the translation of a layer that shows only a box of the result."""
        starts = {a: b.start for a, b in zip(axes, box, strict=True)}
        return tuple(t + s * starts.get(a, 0) for a, s, t in zip(self.order, self.scale, self.translate, strict=True))


def _beyond(layer: Any, first: int) -> np.ndarray:
    """Return the matrix that brings scaled and translated positions of a layer to the world."""
    n = layer.ndim
    plain = np.diag([*layer.scale, 1.0])
    plain[:n, n] = layer.translate
    origin = np.asarray(layer.data_to_world(np.zeros(n)))
    whole = np.eye(n + 1)
    whole[:n, n] = origin
    for i in range(n):
        whole[:n, i] = np.asarray(layer.data_to_world(np.eye(n)[i])) - origin
    beyond = whole @ np.linalg.inv(plain)
    keep = [*range(first, n), n]
    return np.where(np.isclose(beyond, np.round(beyond), atol=1e-9), np.round(beyond), beyond)[np.ix_(keep, keep)]


def named(attributes: Mapping[str, Any]) -> dict[int, str]:
    """Return the class of each label value, from what a task says of its labels."""
    return {int(p["label-value"]): str(p["class"]) for p in attributes.get("properties", ())}


def look(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return colours for a labels layer, where its task has some."""
    colours: dict[int | None, list[float]] = {
        int(c["label-value"]): [part / 255 for part in c["rgba"]] for c in attributes.get("colors", ())
    }
    if not colours:
        return {}
    from napari.utils import DirectLabelColormap

    clear = [0.0] * 4
    return {"colormap": DirectLabelColormap(color_dict={None: clear, 0: clear} | colours)}


@functools.cache
def warm_up() -> None:
    """Let the viewer compile what it draws labels with, which takes seconds, in the thread that calls this."""
    from napari.layers import Labels

    Labels(np.zeros((2, 2), np.uint8), **look({"colors": [{"label-value": 1, "rgba": [255] * 4}]}))
    for dtype in (np.uint8, np.uint16, np.uint32):  # each is compiled by itself
        Labels(np.zeros((2, 2), dtype))


def table(classes: Mapping[int, str], counts: Mapping[str, int], step: float, unit: str) -> dict[str, list[Any]]:
    """Return the features of a labels layer: row i is label i, row 0 the background.

    Parameters
    ----------
    classes : mapping of label value to class
    counts : mapping of class to number of voxels
    step : float
        Size of a voxel.
    """
    highest = max(classes, default=0)
    if highest > MOST_ROWS:
        return {}
    unnamed = "" if "background" in classes.values() else "background"  # one of them alone has its voxels
    names = [classes.get(value, "" if value else unnamed) for value in range(highest + 1)]
    voxels = [counts.get(name, 0) for name in names]
    return {
        "index": list(range(highest + 1)),
        "class": names,
        "voxels": voxels,
        f"size ({unit})": [n * step for n in voxels],
    }


def open_levels(group: Path) -> list[Any]:
    """Open the levels of an OME-Zarr group of ours for reading, the finest first."""
    folders = sorted((p for p in group.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    return [open_own(folder) for folder in folders]


def remove(viewer: "ViewerModel", layer: "Image | Labels | None") -> None:
    """Take a layer away, where it is there."""
    if layer is not None and layer in viewer.layers:
        viewer.layers.remove(layer)
