"""Lazy arrays: what they all share, a cut of another one with its axes in another order, another element type."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Box = tuple[slice, ...]


def overlap(box: Sequence[slice], other: Sequence[slice]) -> Box:
    """Return what two boxes have in common; one of no elements begins where, or behind where, it ends."""
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, other, strict=True))


def within(box: Sequence[slice], outer: Sequence[slice]) -> Box:
    """Return `box` counted from the start of `outer`."""
    return tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, outer, strict=True))


class LazyArray(Protocol):
    """What a stack is read through: zarr and dask arrays, numpy arrays and a `View` of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""

    @property
    def dtype(self) -> Any:
        """Element type."""

    def __getitem__(self, key: Any, /) -> Any: ...


class LazyBase(abc.ABC):
    """A lazy array that is made of another one, `base`; what derives from it only says how a box is read.

    It is indexed as numpy is, with integers, slices and an ellipsis.
    """

    __slots__ = ()
    base: Any

    @abc.abstractmethod
    def read(self, box: Box) -> np.ndarray:
        """Return what lies in a box: slices of step 1 with both ends, within the array and not empty."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return tuple(int(n) for n in self.base.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return np.dtype(self.base.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Largest chunk along each axis."""
        return chunk_shape(self.base)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a region: the box around it, of which the elements that are wanted are taken."""
        parts = list(key) if isinstance(key, tuple) else [key]
        at = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
        parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + (at < len(parts)))
        wanted = [range(n)[part] for part, n in zip(parts, self.shape, strict=True)]
        box = tuple(_around(part) for part in wanted)
        sizes = [b.stop - b.start for b in box]
        data = self.read(box) if all(sizes) else np.empty(sizes, self.dtype)
        return np.asarray(data[tuple(0 if isinstance(w, int) else slice(None, None, w.step) for w in wanted)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        return np.asarray(self[...], dtype=dtype)


class Zeros(LazyBase):
    """Zeros that take no memory: they say where something will lie, of which shape and type it is."""

    __slots__ = ("_shape", "base")

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        self._shape, self.base = tuple(shape), np.zeros((), dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self._shape

    @property
    def chunks(self) -> tuple[int, ...]:
        """All of it."""
        return self._shape

    def read(self, box: Box) -> np.ndarray:
        """Return zeros."""
        return np.zeros([b.stop - b.start for b in box], self.dtype)


def _around(wanted: int | range) -> slice:
    """Return the slice of step 1 from the first to the last element that is wanted along an axis."""
    if isinstance(wanted, int):
        return slice(wanted, wanted + 1)
    ends = sorted((wanted[0], wanted[-1])) if wanted else (0, -1)
    return slice(ends[0], ends[1] + 1)


@dataclasses.dataclass(frozen=True, slots=True)
class View(LazyBase):
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

    def read(self, box: Box) -> np.ndarray:
        """Read a box, in the view's axis order."""
        view = self.cut(box)
        left = [i for i, cut in enumerate(view.index) if isinstance(cut, slice)]
        data = np.asarray(view.base[view.index])
        return data.transpose([left.index(axis) for axis in view.order])


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Within(LazyBase):
    """A lazy array of which only a part is there, at its place in the whole.

    Parameters
    ----------
    base : array
        The part.
    shape : tuple of int
        Of the whole.
    start : tuple of int
        Where the part begins in it, per axis.
    around : int, optional
        The value of all that is not there; without it nothing may be read beside the part.
    """

    base: LazyArray
    shape: tuple[int, ...] = dataclasses.field()  # else the property of the same name would be its default
    start: tuple[int, ...]
    around: int | None = None

    def read(self, box: Box) -> np.ndarray:
        """Read a box; IndexError where it leaves the part and nothing is known around that."""
        part = tuple(slice(s, s + n) for s, n in zip(self.start, self.base.shape, strict=True))
        there = overlap(box, part)
        if there == box:
            return np.asarray(self.base[within(box, part)])
        if self.around is None:
            raise IndexError(f"{box} leaves what is there of the array, {self.base.shape} from {self.start}")
        out = np.full([b.stop - b.start for b in box], self.around, self.dtype)
        if all(b.start < b.stop for b in there):
            out[within(there, box)] = self.base[within(there, part)]
        return out


def chunk_shape(data: Any) -> tuple[int, ...]:
    """Return the (largest) chunk of a lazy array along each axis, its shape where it has none."""
    chunks = getattr(data, "chunks", None)
    if chunks is None:
        return tuple(data.shape)
    return tuple(max(c) if isinstance(c, tuple) else int(c) for c in chunks)


@dataclasses.dataclass(frozen=True, slots=True)
class Cast(LazyBase):
    """A lazy array read as another element type: booleans as uint8, big-endian numbers as native ones."""

    base: LazyArray
    dtype: np.dtype[Any] = dataclasses.field()  # else the property of the same name would be its default

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        return np.asarray(self.base[box]).astype(self.dtype)


def cast(data: LazyArray, dtype: Any) -> LazyArray:
    """Return `data` read as `dtype`, below whatever view it already is."""
    if isinstance(data, View):
        return dataclasses.replace(data, base=Cast(data.base, np.dtype(dtype)))
    return Cast(data, np.dtype(dtype))
