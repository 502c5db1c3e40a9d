"""Stack: a lazy array with named axes and a pixel size. Image, labels and result are all this one type."""

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError, UnetError, UnreachableError
from ..faults import network_errors, out_of_memory, passing, persist
from ..units import canonical
from .views import Box, LazyArray, View, chunk_shape

AXES = "tczyx"  # in the order that OME-Zarr asks for
SPATIAL = "zyx"
# What readers and decoders raise for bytes that are not what they should be.
DECODING = (RuntimeError, ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True, slots=True)
class Stack:
    """An image, labels or a result: a lazy array, what its axes are, and how large a pixel is.

    Parameters
    ----------
    data : zarr, dask or numpy array, or a `View` of one
    axes : str
        A subset of ``tczyx``, in that order, one letter per axis of `data`; y and x are always there.
    scale : tuple of float
        Physical size of a step along each axis; 1 for axes without one.
    units : tuple of (str or None)
        Unit of each scale; any spelling that `units` knows is brought to that of OME-Zarr (``micrometer``).
    translation : tuple of float
        Position of the centre of the first element, in `units`.
    source : str, optional
        Path or address it was opened from.
    channel_names : tuple of str
        One per channel, or none.
    notes : tuple of str
        What was decided on opening that the user should see ("RGB taken as three channels").
    frame : tuple of (axis, axis, float)
        Of a layer the matrix of what its viewer does beyond scale and translation (turn, shear, move), an entry each;
        an axis "" is the matrix's last column. Empty where there is no viewer.
    object_classes : tuple of str
        Of labels whose objects have classes: their names; the values are what `ClassedLabels` gives.

    Raises
    ------
    DataError
        Where axes, shape, scale and units do not fit each other.
    """

    data: LazyArray
    axes: str
    scale: tuple[float, ...] = ()
    units: tuple[str | None, ...] = ()
    translation: tuple[float, ...] = ()
    name: str = "stack"
    source: str | None = None
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    frame: tuple[tuple[str, str, float], ...] = ()
    object_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_axes(self.axes, self.shape, self.name)
        for field, fill in (("scale", 1.0), ("units", None), ("translation", 0.0)):
            value = tuple(getattr(self, field)) or (fill,) * len(self.axes)
            if len(value) != len(self.axes):
                raise DataError(f"{self.name}: {field} {value} does not fit the axes {self.axes!r}; give one per axis")
            object.__setattr__(self, field, value)
        object.__setattr__(self, "units", tuple(map(canonical, self.units)))
        if any(not s > 0 for s in self.scale):
            raise DataError(f"{self.name}: scale {self.scale} must be positive along every axis")
        if self.channel_names and len(self.channel_names) != self.size("c"):
            raise DataError(
                f"{self.name}: {len(self.channel_names)} channel names, {self.size('c')} channels; give one per channel"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return np.dtype(self.data.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Largest chunk along each axis; the shape where the data has no chunks."""
        return chunk_shape(self.data)

    @property
    def spatial(self) -> str:
        """The spatial axes: ``yx`` or ``zyx``."""
        return "".join(a for a in self.axes if a in SPATIAL)

    def size(self, axis: str) -> int:
        """Return the size along `axis`, 1 where the stack has no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def scale_along(self, axes: str) -> tuple[float, ...]:
        """Return the pixel size along each of some axes."""
        return self.values_along(axes, "scale")

    def values_along(self, axes: str, field: str) -> tuple[Any, ...]:
        """Return `field` (scale, units, translation or shape) for each of `axes`, which the stack has."""
        return tuple(getattr(self, field)[self.axes.index(a)] for a in axes)

    def read(self, box: Box, *, again: bool = True) -> np.ndarray:
        """Read a region, one slice per axis, into memory; more than once where a fault may pass, but for `again`.

        Raises
        ------
        DataError
            Where what is stored there is damaged; it names the source and the region.
        UnreachableError
            Where its disk or the network fails, again and again.
        """
        fails: tuple[type[Exception], ...] = (*DECODING, *network_errors())
        try:
            return persist(lambda: np.asarray(self.data[box])) if again else np.asarray(self.data[box])
        except fails as error:
            if (isinstance(error, UnetError) and not isinstance(error, DataError)) or out_of_memory(error):
                raise
            what = str(error) if isinstance(error, DataError) else f"{type(error).__name__} {error}"
            region = ", ".join(f"{a}={part.start}:{part.stop}" for a, part in zip(self.axes, box, strict=False))
            where = self.source or self.name
            if passing(error):
                raise UnreachableError(f"{where} cannot be read now at {region}: {what}; try again later") from error
            if isinstance(error, DataError):  # it says what to do
                raise DataError(f"{where} is damaged at {region}: {what}") from error
            raise DataError(f"{where} is damaged at {region}: {what}; copy it again") from error

    def select(self, **parts: int | slice) -> "Stack":
        """Cut lazily along named axes; an integer removes the axis.

        Parameters
        ----------
        **parts
            For each axis to cut, an index or a slice of step 1: ``stack.select(t=0, z=slice(4, 8))``.
        """
        key = [parts.pop(a, slice(None)) for a in self.axes]
        if parts:
            raise DataError(f"{self.name} has axes {self.axes!r}, no axis {', '.join(parts)}; choose among these")
        keep = [i for i, part in enumerate(key) if isinstance(part, slice)]
        starts = [part.indices(n)[0] if isinstance(part, slice) else 0 for part, n in zip(key, self.shape, strict=True)]
        names = self.channel_names
        if names and "c" in self.axes:
            part = key[self.axes.index("c")]
            names = names[part] if isinstance(part, slice) else ()
        return dataclasses.replace(
            self,
            data=View.of(self.data).cut(key),
            axes="".join(self.axes[i] for i in keep),
            scale=tuple(self.scale[i] for i in keep),
            units=tuple(self.units[i] for i in keep),
            translation=tuple(self.translation[i] + starts[i] * self.scale[i] for i in keep),
            channel_names=names,
        )


def check_axes(axes: str, shape: Sequence[int], name: str) -> None:
    """Refuse axes that are not a subset of ``tczyx`` in that order, with y and x, one per dimension.

    Raises
    ------
    DataError
        Naming the axes, the shape, and what is allowed.
    """
    known = "".join(a for a in AXES if a in axes)
    if known != axes or not axes.endswith("yx"):
        raise DataError(
            f"{name}: axes {axes!r} must be a subset of {AXES!r}, in that order, ending in 'yx'; give such letters"
        )
    if len(axes) != len(shape):
        raise DataError(f"{name}: axes {axes!r} do not fit the shape {tuple(shape)}; give one letter per dimension")
    for axis, n in zip(axes, shape, strict=True):
        if n == 0:
            raise DataError(f"{name}: axis {axis} has size 0, in shape {tuple(shape)}; there is nothing to read")
