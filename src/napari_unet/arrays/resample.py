"""An image at another pixel size, computed where it is read."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .stack import Stack
from .views import Box, LazyArray, LazyBase, chunk_shape

SAME = 1e-6  # relative difference below which two pixel sizes are one
COARSE = 1.5  # from this ratio on, a new element is the mean of what it covers instead of interpolated
MOST = 2**40  # elements: a terabyte of 8 bit; a pixel size a thousand times too small asks for more
PART = 2**24  # elements of the base read at a time: 64 MiB as float32


def resampled(stack: Stack, scale: Mapping[str, float]) -> Stack:
    """Bring a stack to another pixel size, lazily.

    Both cover the same part of the world, to half a pixel. What is read does not depend on how it is cut up.

    Parameters
    ----------
    scale : mapping of axis to float
        New pixel size along spatial axes, in the stack's units; the others stay as they are.

    Returns
    -------
    Stack
        Interpolated linearly; where it is coarser by more than 1.5, the mean of what an element covers. float32 for
        floats; integers are rounded and keep their type. The stack itself where nothing changes.

    Raises
    ------
    DataError
        For an axis that is not one of space, a size that is not positive, or more than 2**40 elements.
    """
    for axis, size in scale.items():
        if axis not in stack.spatial or not 0 < size < math.inf:
            raise DataError(
                f"{stack.name} cannot have the pixel size {size} along {axis}; give a positive size for "
                f"one of its axes {', '.join(stack.spatial)}"
            )
    wanted = [scale.get(a, own) for a, own in zip(stack.axes, stack.scale, strict=True)]
    ratios = [w / own for w, own in zip(wanted, stack.scale, strict=True)]
    ratios = [1.0 if abs(r - 1) < SAME else r for r in ratios]
    if all(r == 1 for r in ratios):
        return stack
    shape = [n if r == 1 else max(1.0, n / r) for n, r in zip(stack.shape, ratios, strict=True)]
    if math.prod(shape) > MOST:
        sizes = " x ".join(f"{n:.4g}" for n in shape)
        raise DataError(f"{stack.name} would become {sizes} elements, more than 2**40; correct the pixel sizes")
    starts = [t + (r - 1) / 2 * s for t, r, s in zip(stack.translation, ratios, stack.scale, strict=True)]
    new = tuple(s if r == 1 else w for s, r, w in zip(stack.scale, ratios, wanted, strict=True))
    return dataclasses.replace(
        stack,
        data=Resampled(stack.data, tuple(round(n) for n in shape), tuple(ratios)),
        scale=new,
        translation=tuple(starts),
        notes=(*stack.notes, f"pixel size {_text(stack.scale)} brought to {_text(new)} along {stack.axes}"),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Resampled(LazyBase):
    """A lazy array at another pixel size.

    Parameters
    ----------
    ratios : tuple of float
        Size of an element in elements of `base`, per axis; 1 leaves the axis as it is.
    """

    base: LazyArray
    shape: tuple[int, ...] = dataclasses.field()  # else the property of the same name would be its default
    ratios: tuple[float, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type: that of the base, float32 where it has floats."""
        dtype = np.dtype(self.base.dtype)
        return np.dtype(np.float32) if dtype.kind == "f" else dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """About what a chunk of the base covers, per axis."""
        sizes = zip(chunk_shape(self.base), self.ratios, self.shape, strict=True)
        return tuple(max(1, min(round(c / r), n)) for c, r, n in sizes)

    def read(self, box: Box) -> np.ndarray:
        """Compute a box."""
        out = np.empty([b.stop - b.start for b in box], self.dtype)
        self._fill(out, box)
        return out

    def _fill(self, out: np.ndarray, box: Box) -> None:
        """Compute a box into `out`, in parts where the base has much for it."""
        weights = {i: Weights.of(box[i], r, self.base.shape[i]) for i, r in enumerate(self.ratios) if r != 1}
        source = tuple(weights[i].span if i in weights else b for i, b in enumerate(box))
        if math.prod(s.stop - s.start for s in source) > PART and out.size > 1:
            axis = int(np.argmax(out.shape))
            middle = out.shape[axis] // 2
            for half in (slice(0, middle), slice(middle, out.shape[axis])):
                part = slice(box[axis].start + half.start, box[axis].start + half.stop)
                inner = out[(slice(None),) * axis + (half,)]
                self._fill(inner, (*box[:axis], part, *box[axis + 1 :]))
            return
        data = np.asarray(self.base[source])
        exact = data.dtype.itemsize <= (4 if data.dtype.kind == "f" else 2)
        data = data.astype(np.float32 if exact else np.float64)
        for axis in sorted(weights, key=lambda i: -self.ratios[i]):
            data = weights[axis].apply(data, axis)
        out[...] = _as(data, self.dtype)


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """What elements along an axis are made of.

    Parameters
    ----------
    span : slice
        Of the base.
    index : (K, N) array of int
        For each of N elements the K of the span that it is made of.
    weight : (K, N) array of float
        They add up to 1.
    """

    span: slice
    index: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, cut: slice, ratio: float, size: int) -> "Weights":
        """Weigh the elements `cut` of an axis whose elements are `ratio` of the base's `size`."""
        low = np.arange(cut.start, cut.stop) * ratio
        if ratio > COARSE:
            high = np.minimum(low + ratio, size)
            index = np.floor(low).astype(np.intp) + np.arange(math.ceil(ratio) + 1)[:, None]
            weight = np.clip(np.minimum(index + 1, high) - np.maximum(index, low), 0, None)
            weight /= weight.sum(0)
        else:
            centre = np.clip(low + (ratio - 1) / 2, 0, size - 1)
            index = np.floor(centre).astype(np.intp) + np.arange(2)[:, None]
            weight = 1 - np.abs(centre - index)
        index = np.minimum(index, size - 1)
        span = slice(int(index.min()), int(index.max()) + 1)
        return cls(span, index - span.start, weight)

    def apply(self, data: np.ndarray, axis: int) -> np.ndarray:
        """Weigh along an axis; element by element in one order, so that cuts make no difference."""
        shape = [-1 if i == axis else 1 for i in range(data.ndim)]
        with np.errstate(invalid="ignore"):
            parts = (
                data.take(index, axis) * weight.astype(data.dtype).reshape(shape)
                for index, weight in zip(self.index, self.weight, strict=True)
            )
            out = next(parts)
            for part in parts:
                out += part
        return out


def _as(data: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Bring to the element type, integers rounded and within its range."""
    if dtype.kind not in "iu":
        return (np.rint(data) if dtype.kind == "b" else data).astype(dtype)
    limits = np.iinfo(dtype)
    high = float(limits.max)
    if high > limits.max:  # the largest of 64 bits lie between two floats
        high = math.nextafter(high, 0)
    return np.clip(np.rint(data), limits.min, high).astype(dtype)


def _text(scale: Sequence[float]) -> str:
    return " x ".join(f"{s:.4g}" for s in scale)
