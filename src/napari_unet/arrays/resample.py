"""An image at another pixel size, computed where it is read."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..errors import DataError
from .stack import Stack
from .views import Box, LazyArray, LazyBase, chunk_shape

SAME = 1e-6  # relative difference below which two pixel sizes are one
COARSE = 1.5  # from this ratio on, a new element is the mean of what it covers instead of interpolated
MOST = 2**40  # elements: a terabyte of 8 bit; a pixel size a thousand times too small asks for more
PART = 2**24  # elements of the base read at a time: 64 MiB as float32
WHOLE = 2**20  # what weights along an axis add up to where they are whole numbers: three of them fit 64 bits


def resampled(stack: Stack, scale: Mapping[str, float], kind: "type[Resampled] | None" = None) -> Stack:
    """Bring a stack to another pixel size, lazily.

    Both cover the same part of the world, to half a pixel. What is read does not depend on how it is cut up.

    Parameters
    ----------
    scale : mapping of axis to float
        New pixel size along spatial axes, in the stack's units; the others stay as they are.
    kind : type of `Resampled`, optional
        How an element is made: `ResampledLabels`, or `ResampledScribbles`, of labels.

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
        data=(kind or Resampled)(stack.data, tuple(round(n) for n in shape), tuple(ratios)),
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
        out[...] = as_type(data, self.dtype)


@dataclasses.dataclass(frozen=True, slots=True)
class ResampledLabels(Resampled):
    """Lazy labels at another pixel size: an element takes the label that weighs most in it, of equals the smallest.

    The weights are those of `Resampled`: finer, they are of linear interpolation, which smooths outlines; coarser, they
    are areas. Background is a label like others.
    """

    zero: ClassVar[bool] = True  # whether 0 is a label like others

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type: that of the base."""
        return np.dtype(self.base.dtype)

    def read(self, box: Box) -> np.ndarray:
        """Compute a box."""
        weights = [Weights.of(b, r, n) for b, r, n in zip(box, self.ratios, self.base.shape, strict=True)]
        return _heaviest(np.asarray(self.base[tuple(w.span for w in weights)]), weights, self.zero)


class ResampledScribbles(ResampledLabels):
    """Labels of which 0 is not a label: an element is 0 only where nothing else is in it: thin strokes stay."""

    __slots__ = ()
    zero: ClassVar[bool] = False


def _heaviest(labels: np.ndarray, weights: "Sequence[Weights]", zero: bool) -> np.ndarray:
    """Return for each element the label of most weight; only where there are several are they weighed."""
    low = high = labels
    for axis, each in enumerate(weights):
        low, high = (
            functools.reduce(pick, (part.take(index, axis) for index in each.index))
            for pick, part in ((np.minimum, low), (np.maximum, high))
        )
    out = np.ascontiguousarray(low)
    mixed = np.nonzero(low != high)
    step = max(1, PART // 2 ** len(weights) // math.prod(len(each.index) for each in weights))
    for start in range(0, len(mixed[0]), step):
        at = tuple(part[start : start + step] for part in mixed)
        out[at] = _weighed(
            labels, [(each.index[:, i], each.weight[:, i]) for each, i in zip(weights, at, strict=True)], zero
        )
    return out


def _weighed(labels: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]], zero: bool) -> np.ndarray:
    """Return the label of most weight for each of N elements, made of (K, N) indices and weights along each axis.

    Weights are whole numbers, so that their sums do not depend on an order, and equals are equal.
    """
    place: list[np.ndarray] = []
    weight = np.ones((1, parts[0][0].shape[1]), np.int64)
    for index, share in parts:
        more = np.rint(share * WHOLE).astype(np.int64)
        weight = (weight[:, None] * more).reshape(-1, weight.shape[1])
        place = [np.repeat(old, len(index), 0) for old in place]
        place.append(np.tile(index, (len(weight) // len(index), 1)))
    found = labels[tuple(place)].T
    weight = weight.T if zero else np.where(found == 0, 0, weight.T)
    order = np.argsort(found, axis=1, kind="stable")
    found, weight = (np.take_along_axis(each, order, 1) for each in (found, weight))
    first = np.ones(found.shape, bool)
    first[:, 1:] = found[:, 1:] != found[:, :-1]
    total = np.zeros(found.shape, np.int64)
    total[first] = np.add.reduceat(weight.ravel(), np.flatnonzero(first))
    return np.asarray(np.take_along_axis(found, total.argmax(1)[:, None], 1)[:, 0])


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
        if ratio == 1:
            return cls(cut, np.arange(cut.stop - cut.start)[None], np.ones((1, cut.stop - cut.start)))
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


def as_type(data: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
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
