"""Several samples of an image: laid out along t for a run, and what is made of them."""

import dataclasses
from typing import Any

import numpy as np

from ..arrays.resample import as_type
from ..arrays.stack import Stack
from ..arrays.views import Box, LazyArray, LazyBase, chunk_shape


def several(stack: Stack, samples: int) -> Stack:
    """Return a stack whose time points are there so many times, behind each other; its own t where it had none."""
    new = "t" not in stack.axes
    first: dict[str, Any] = {"scale": 1.0, "units": None, "translation": 0.0}
    fields: dict[str, Any] = {name: (value,) * new + getattr(stack, name) for name, value in first.items()}
    data = Several(stack.data, samples, new)
    return dataclasses.replace(stack, data=data, axes="t" * new + stack.axes, **fields)


@dataclasses.dataclass(frozen=True, slots=True)
class Several(LazyBase):
    """A lazy array with each element along its first axis there so many times; with a first axis for them if `new`."""

    base: LazyArray
    samples: int
    new: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        shape = tuple(map(int, self.base.shape))
        return (self.samples, *shape) if self.new else (shape[0] * self.samples, *shape[1:])

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the base, a sample each."""
        chunks = chunk_shape(self.base)
        return (1, *(chunks if self.new else chunks[1:]))

    def read(self, box: Box) -> np.ndarray:
        """Read a box of the base once, and repeat it."""
        first, *rest = box
        if self.new:
            data = np.asarray(self.base[tuple(rest)])
            return np.broadcast_to(data, (first.stop - first.start, *data.shape))
        low, high = first.start // self.samples, -(-first.stop // self.samples)
        data = np.asarray(self.base[(slice(low, high), *rest)])
        return data[np.arange(first.start, first.stop) // self.samples - low]


@dataclasses.dataclass(frozen=True, slots=True)
class OverSamples(LazyBase):
    """What samples are together: their mean, or their standard deviation, of a lazy array as `Several` lays them out.

    Parameters
    ----------
    base : array
        Samples along its first axis.
    samples : int
    new : bool
        Whether that axis goes: there is one time point.
    deviates : bool
        Whether it is the standard deviation (of a population, from its samples: divided by one less) and not the mean.
    dtype : dtype
        Integers are rounded, and kept in their range.
    """

    base: LazyArray
    samples: int
    new: bool
    deviates: bool
    dtype: np.dtype[Any] = dataclasses.field()  # else the property of the same name would be its default

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        shape = tuple(map(int, self.base.shape))
        return shape[1:] if self.new else (shape[0] // self.samples, *shape[1:])

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the base."""
        chunks = chunk_shape(self.base)
        return chunks[1:] if self.new else (1, *chunks[1:])

    def read(self, box: Box) -> np.ndarray:
        """Read a box of one sample after the other: always in the same order, so that sums are the same."""
        times, rest = (slice(0, 1), box) if self.new else (box[0], box[1:])
        found = np.stack([self._at(t, tuple(rest)) for t in range(times.start, times.stop)])
        return as_type(found, self.dtype)[0 if self.new else ...]

    def _at(self, time: int, rest: Box) -> np.ndarray:
        """Return mean or standard deviation at one time point (Welford 1962)."""
        mean = np.zeros([b.stop - b.start for b in rest])
        squares = np.zeros_like(mean) if self.deviates else None
        for count in range(1, self.samples + 1):
            sample = time * self.samples + count - 1
            data = np.asarray(self.base[(slice(sample, sample + 1), *rest)])[0].astype(np.float64)
            off = data - mean
            mean += off / count
            if squares is not None:
                squares += off * (data - mean)
        return mean if squares is None else np.sqrt(squares / (self.samples - 1))


@dataclasses.dataclass(frozen=True, slots=True)
class EachSample(LazyBase):
    """Samples, of a lazy array as `Several` lays them out, as channels: those of the first one first.

    Parameters
    ----------
    base : array
        Samples along its first axis.
    samples : int
    new : bool
        Whether that axis goes: there is one time point.
    channels : bool
        Whether the second axis is channels of its own.
    dtype : dtype
        Integers are rounded, and kept in their range.
    """

    base: LazyArray
    samples: int
    new: bool
    channels: bool
    dtype: np.dtype[Any] = dataclasses.field()  # else the property of the same name would be its default

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        times, *rest = map(int, self.base.shape)
        each = rest.pop(0) if self.channels else 1
        return (*(() if self.new else (times // self.samples,)), self.samples * each, *rest)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the base, a channel each."""
        rest = chunk_shape(self.base)[1 + self.channels :]
        return (*(() if self.new else (1,)), 1, *rest)

    def read(self, box: Box) -> np.ndarray:
        """Read a box, of one sample after the other."""
        times, wanted, *rest = (slice(0, 1), *box) if self.new else box
        each = int(self.base.shape[1]) if self.channels else 1
        found = np.empty([b.stop - b.start for b in (times, wanted, *rest)], self.base.dtype)
        for t, channel in np.ndindex(found.shape[:2]):
            sample, own = divmod(wanted.start + channel, each)
            at = (times.start + t) * self.samples + sample
            place = (slice(at, at + 1), *((slice(own, own + 1),) if self.channels else ()), *rest)
            found[t, channel] = np.asarray(self.base[place]).reshape(found.shape[2:])
        return as_type(found, self.dtype)[0 if self.new else ...]
