"""Stack: a lazy array with named axes and a pixel size. Image, labels and result are all this one type."""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .errors import DataError, UnetError, UnreachableError
from .faults import network_errors, out_of_memory, passing, persist
from .units import canonical

AXES = "tczyx"
SPATIAL = "zyx"
Box = tuple[slice, ...]
# What readers and decoders raise for bytes that are not what they should be.
DECODING = (RuntimeError, ValueError, OSError, EOFError, zlib.error)


class LazyArray(Protocol):
    """What a stack is read through: zarr and dask arrays, numpy arrays and a `View` of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""

    @property
    def dtype(self) -> Any:
        """Element type."""

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A lazy cut of an array, with its axes put in another order.

    Parameters
    ----------
    base : array with N axes
    index : N slices or integers
        Slices have a step of 1 and both ends; an integer removes the axis.
    order : axes of `base` that are left, in the order of the view
    """

    base: LazyArray
    index: tuple[slice | int, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, base: LazyArray) -> "View":
        """Return the view that is the whole of `base`."""
        if isinstance(base, View):
            return base
        return cls(base, tuple(slice(0, n) for n in base.shape), tuple(range(len(base.shape))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis of the view."""
        return tuple(cut.stop - cut.start for cut in map(self._cut, self.order))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the base."""
        return np.dtype(self.base.dtype)

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return len(self.order)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Largest chunk of the base along each axis of the view."""
        chunks = chunk_shape(self.base)
        return tuple(max(1, min(chunks[i], n)) for i, n in zip(self.order, self.shape, strict=True))

    def _cut(self, axis: int) -> slice:
        cut = self.index[axis]
        if isinstance(cut, int):
            raise TypeError(f"axis {axis} was removed by an integer index")
        return cut

    def cut(self, key: Sequence[slice | int]) -> "View":
        """Return the lazy cut by `key`: one slice (step 1) or integer for each axis of the view."""
        index, order = list(self.index), list(self.order)
        for axis, part, size in zip(self.order, key, self.shape, strict=True):
            start = self._cut(axis).start
            if isinstance(part, slice):
                low, high, _ = part.indices(size)
                index[axis] = slice(start + low, start + max(low, high))
            else:
                index[axis] = start + range(size)[part]
                order.remove(axis)
        return View(self.base, tuple(index), tuple(order))

    def transpose(self, order: Sequence[int]) -> "View":
        """Return the view with its axes in another order."""
        return View(self.base, self.index, tuple(self.order[i] for i in order))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a region: integers and slices of step 1, in the view's axis order."""
        parts = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        parts += [slice(None)] * (self.ndim - len(parts))
        view = self.cut(parts)
        left = [i for i, cut in enumerate(view.index) if isinstance(cut, slice)]
        data = np.asarray(view.base[view.index])
        return data.transpose([left.index(axis) for axis in view.order])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        return np.asarray(self[...], dtype=dtype)


def chunk_shape(data: Any) -> tuple[int, ...]:
    """Return the (largest) chunk of a lazy array along each axis, its shape where it has none."""
    chunks = getattr(data, "chunks", None)
    if chunks is None:
        return tuple(data.shape)
    return tuple(max(c) if isinstance(c, tuple) else int(c) for c in chunks)


@dataclasses.dataclass(frozen=True, slots=True)
class Stack:
    """An image, labels or a result: a lazy array, what its axes are, and how large a pixel is.

    Parameters
    ----------
    data : zarr, dask or numpy array, or a `View` of one
    axes : str
        A subset of ``tczyx``, in that order, one letter an axis of `data`; y and x are always there.
    scale : tuple of float
        Physical size of a step along each axis; 1 for axes without one.
    units : tuple of (str or None)
        Unit of each scale; any spelling that `units` knows is brought to that of OME-Zarr (``micrometer``).
    translation : tuple of float
        Position of the centre of the first element, in `units`.
    name : str
    source : str, optional
        Path or address it was opened from.
    channel_names : tuple of str
        One a channel, or none.
    notes : tuple of str
        What was decided on opening that the user should see ("RGB taken as three channels").
    frame : tuple of (axis, axis, float)
        Of a layer the matrix of what its viewer does beyond scale and translation (turn, shear, move), an entry each;
        an axis "" is the matrix's last column. Empty where there is no viewer.

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

    def __post_init__(self) -> None:
        check_axes(self.axes, self.shape, self.name)
        for field, fill in (("scale", 1.0), ("units", None), ("translation", 0.0)):
            value = tuple(getattr(self, field)) or (fill,) * len(self.axes)
            if len(value) != len(self.axes):
                raise DataError(f"{self.name}: {field} {value} does not fit the axes {self.axes!r}; give one an axis")
            object.__setattr__(self, field, value)
        object.__setattr__(self, "units", tuple(map(canonical, self.units)))
        if any(not s > 0 for s in self.scale):
            raise DataError(f"{self.name}: scale {self.scale} must be positive along every axis")
        if self.channel_names and len(self.channel_names) != self.size("c"):
            raise DataError(
                f"{self.name}: {len(self.channel_names)} channel names, {self.size('c')} channels; give one a channel"
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

    def along(self, axes: str, field: str = "scale") -> tuple[Any, ...]:
        """Return `field` (scale, units, translation or shape) for each of `axes`, which the stack has."""
        return tuple(getattr(self, field)[self.axes.index(a)] for a in axes)

    def read(self, box: Box, *, again: bool = True) -> np.ndarray:
        """Read a region, one slice an axis, into memory; more than once where a fault may pass, but for `again`.

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
            raise DataError(f"{where} is damaged at {region}: {what}") from error

    def select(self, **parts: int | slice) -> "Stack":
        """Cut lazily along named axes; an integer removes the axis.

        Parameters
        ----------
        **parts
            For each axis to cut, an index or a slice of step 1: ``stack.select(t=0, z=slice(4, 8))``.
        """
        key = [parts.pop(a, slice(None)) for a in self.axes]
        if parts:
            raise DataError(f"{self.name} has axes {self.axes!r}, no axis {', '.join(parts)}")
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
    """Refuse axes that are not a subset of ``tczyx`` in that order, with y and x, one a dimension.

    Raises
    ------
    DataError
        Naming the axes, the shape, and what is allowed.
    """
    known = "".join(a for a in AXES if a in axes)
    if known != axes or not axes.endswith("yx"):
        raise DataError(f"{name}: axes {axes!r} must be a subset of {AXES!r}, in that order, ending in 'yx'")
    if len(axes) != len(shape):
        raise DataError(f"{name}: axes {axes!r} do not fit the shape {tuple(shape)}; give one letter a dimension")
    for axis, n in zip(axes, shape, strict=True):
        if n == 0:
            raise DataError(f"{name}: axis {axis} has size 0, in shape {tuple(shape)}; there is nothing to read")
