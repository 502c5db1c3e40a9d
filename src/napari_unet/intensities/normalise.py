"""Intensity normalisation: one set of statistics a stack and channel, never a tile's own."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box
from ..errors import DataError, ModelError
from .contrast import Contrast
from .sampling import SEEN, Pool, percentiles, sample, without
from .spikes import empty_corners, outliers, padded

KINDS = ("percentile", "zscore", "fixed", "none")
WHOLE = 2**24  # elements of a channel that are always measured exactly: 0.1 s
LEAST_EDGE = 16  # down to which what cannot be read is narrowed: a chunk of that size is lost as a whole
EACH, SPREAD = 1, 2  # `Statistics.cells`
LARGE_EDGE = 128  # where a damaged part is small beside the image: a chunk is tried some tens of times


@dataclasses.dataclass(frozen=True, slots=True)
class Normalisation:
    """How intensities are brought to a common range.

    Parameters
    ----------
    kind : "percentile", "zscore", "fixed" or "none"
        Percentile maps `low` to 0 and `high` to 1; z-score takes mean and standard deviation; fixed takes `offset` and
        `scale` whatever the image, so that intensities keep their meaning from image to image.
    low, high : float
        Percentiles.
    offset, scale : tuple of float, one per channel
    """

    kind: str = "percentile"
    low: float = 1.0
    high: float = 99.8
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ModelError(f"normalisation is {self.kind!r}; choose one of {', '.join(KINDS)}")
        if not 0 <= self.low < self.high <= 100:
            raise ModelError(f"percentiles are {self.low} and {self.high}; they must rise between 0 and 100")
        if (self.kind == "fixed") != bool(self.offset) or len(self.offset) != len(self.scale):
            raise ModelError(
                f"offset {self.offset} and scale {self.scale} are of fixed intensities; give one each a channel"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave."""
        fixed = (tuple(map(float, values.get(name, ()))) for name in ("offset", "scale"))
        return cls(str(values["kind"]), float(values["low"]), float(values["high"]), *fixed)

    @property
    def measures(self) -> bool:
        """Whether it follows from the image, and not from numbers that are fixed."""
        return self.kind in ("percentile", "zscore")

    def measure(
        self,
        stack: Stack,
        seed: int = 0,
        fill: float | None = None,
        quick: bool = False,
        padding: float | None = None,
    ) -> "Statistics":
        """Measure a stack once: on all of it where it is small, else on cells that depend on its shape only.

        Of a large image, cells that hold one value (empty field, padding, chunks that are not stored) are left out, and
        as many others are read as it takes until the figures are stable (see `sampling`). Fixed intensities are not
        measured; the sample is read all the same, to find NaN and infinity.

        Parameters
        ----------
        fill : float, optional
            Value taken in place of NaN and infinity; without it they are refused.
        quick : bool
            Read few cells of a large image, which a network computes where it is read.
        padding : float, optional
            Value that is left out, as the 0 around a mosaic; where all is this value it counts.

        Raises
        ------
        DataError
            Where the sample holds NaN or infinity, with their number and the first index.
        """
        large = math.prod(map(float, stack.shape)) > WHOLE * stack.size("c")
        contrast: tuple[Contrast, ...] = ()
        cells = 0

        def read(box: Box) -> Iterator[tuple[Box, np.ndarray | DataError]]:
            for part, values in readable(stack, box, LARGE_EDGE if large else LEAST_EDGE):
                yield part, values if isinstance(values, DataError) else finite(values, stack, part, fill)

        if large:
            found = sample(stack, self._figures, read, seed, quick, padding)
            pairs, lost = [self._figures(pool) for pool in found.pools], found.lost
            cells = SPREAD if found.in_part else EACH
            notes = [self._spikes(*pool.histogram(), *pair) for pool, pair in zip(found.pools, pairs, strict=True)]
            contrast = tuple(pool.contrast(*pair) for pool, pair in zip(found.pools, pairs, strict=True))
        else:
            channels, lost = _whole(stack, read, padding)
            pairs = [self._measure_channel(values) for values in channels]
            notes = [self._spikes(*_occurring(v), *pair) for v, pair in zip(channels, pairs, strict=True)]
            if padding is None and not lost and self.kind == "percentile":
                shape = [n for n, a in zip(stack.shape, stack.axes, strict=True) if a != "c"]
                planes = [values.reshape(shape) for values in channels]
                notes += [self._padding(each, *pair) for each, pair in zip(planes, pairs, strict=True)]
                contrast = tuple(Contrast.of(each, s, low) for each, (low, s) in zip(planes, pairs, strict=True))
        offset, scale = (self.offset, self.scale) if self.kind == "fixed" else tuple(zip(*pairs, strict=True))
        if self.kind == "none":
            offset, scale = (0.0,) * len(pairs), (1.0,) * len(pairs)
        told = tuple(dict.fromkeys(note for note in notes if note))
        return Statistics(tuple(offset), tuple(scale), lost, cells, (), tuple(pairs), told, contrast)

    def _spikes(self, values: np.ndarray, counts: np.ndarray, low: float, scale: float) -> str | None:
        """Say what stands out and spoils percentiles."""
        if self.kind != "percentile" or not scale:
            return None
        return outliers(values, counts, low, low + scale, self.high)

    def _padding(self, planes: np.ndarray, low: float, scale: float) -> str | None:
        """Say that padding spoils percentiles."""
        if self.kind != "percentile" or not scale or not empty_corners(planes):
            return None
        rest = planes[planes != 0]
        return padded(planes, low, low + scale, float(percentiles(rest, (self.low,))[0])) if rest.size else None

    def _figures(self, pool: Pool) -> tuple[float, float]:
        """Return (offset, scale) of what was read of a channel; scale 0 where it is constant."""
        if self.kind != "percentile":
            return pool.moments()
        low, high = map(float, pool.percentiles((self.low, self.high)))
        if high <= low and pool.cells:  # nearly all of it is one value: what stands out decides
            low, high = pool.low, pool.high
        return low, high - low

    def _measure_channel(self, values: np.ndarray) -> tuple[float, float]:
        """Return (offset, scale); scale 0 for a constant channel."""
        if self.kind != "percentile":
            values = values.astype(np.float32) if values.dtype.itemsize < 4 else values
            return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        low, high = map(float, percentiles(values, (self.low, self.high)))
        if high <= low:  # nearly all of it is one value: what stands out decides
            low, high = float(values.min()), float(values.max())
        return low, high - low


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """Offset and scale per channel: normalised = (intensity - offset) / scale, and 0 where the scale is 0.

    Parameters
    ----------
    offset, scale : tuple of float, one per channel
    unreadable : int
        Parts of the sample that could not be read and were left out.
    cells : int
        0 of all elements; of a large image 1 of all cells that hold more than one value, 2 of some, spread over it.
        Former versions took cells at random, and wrote 1 of these too.
    times : tuple of Statistics
        Of each time point, where each has its own; offset and scale are those of the first then.
    seen : tuple of (float, float), one per channel
        What was measured: mean and standard deviation where intensities are fixed, else offset and scale.
    notes : tuple of str
        What spoils the range, and what helps.
    contrast : tuple of Contrast
        Of each channel, where it was measured.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    unreadable: int = 0
    cells: int = 0
    times: tuple["Statistics", ...] = ()
    seen: tuple[tuple[float, float], ...] = dataclasses.field(default=(), compare=False)
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    contrast: tuple[Contrast, ...] = dataclasses.field(default=(), compare=False)

    @property
    def is_taken_as_empty(self) -> bool:
        """Whether it is nothing but noise and was not stretched to the full range, as former versions did."""
        return self.is_plain and not any(self.scale)

    @property
    def is_plain(self) -> bool:
        """Whether nothing stands out of the noise, in any channel."""
        return bool(self.contrast) and all(each.only_noise or each.plain for each in self.contrast)

    @property
    def only_noise(self) -> bool:
        """Whether nothing but noise was seen, in any channel."""
        return bool(self.contrast) and all(each.only_noise for each in self.contrast)

    @classmethod
    def of_times(cls, times: Sequence["Statistics"]) -> Self:
        """Put the statistics of each time point together."""
        first, lost = times[0], sum(each.unreadable for each in times)
        notes = tuple(dict.fromkeys(note for each in times for note in each.notes))[:1]
        return cls(first.offset, first.scale, lost, first.cells, tuple(times), first.seen, notes)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a ledger: those that decide a result."""
        found = {"offset": list(self.offset), "scale": list(self.scale), "unreadable": self.unreadable}
        found |= {"cells": self.cells} if self.cells else {}
        return found | ({"times": [each.to_json() for each in self.times]} if self.times else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave."""
        times = tuple(map(cls.from_json, values.get("times", ())))
        cells = int(values.get("cells", 0))
        return cls(tuple(values["offset"]), tuple(values["scale"]), int(values["unreadable"]), cells, times)

    def apply(self, data: np.ndarray, at: slice | None = None) -> np.ndarray:
        """Normalise (C, ...) intensities of any real type to float32; with a time axis after C, its part `at`."""
        if self.times and at is not None:
            each = [self.times[t].apply(data[:, t - at.start]) for t in range(at.start, at.stop)]
            return np.stack(each, 1)
        shape = (-1,) + (1,) * (data.ndim - 1)
        offset = np.array(self.offset).reshape(shape)
        factor = np.array([1 / s if s > 0 else 0.0 for s in self.scale]).reshape(shape)
        exact = data.dtype.itemsize <= (4 if data.dtype.kind == "f" else 2)
        wide = np.float32 if exact else np.float64
        out: np.ndarray[Any, Any] = data.astype(wide)
        np.subtract(out, offset.astype(wide), out=out)
        np.multiply(out, factor.astype(wide), out=out)
        return out.astype(np.float32, copy=False)


def finite(data: np.ndarray, stack: Stack, box: Box, fill: float | None = None) -> np.ndarray:
    """Refuse NaN and infinity in what was read from `box` of `stack`, or put `fill` in their place.

    Raises
    ------
    DataError
        With their number and the index of the first.
    """
    if data.dtype.kind != "f":
        return data
    wrong = ~np.isfinite(data)
    if not wrong.any():
        return data
    if fill is not None:
        return np.where(wrong, np.asarray(fill, data.dtype), data)
    first = tuple(int(i[0]) + part.start for i, part in zip(np.nonzero(wrong), box, strict=True))
    raise DataError(
        f"{stack.name} has {int(wrong.sum())} NaN or infinite values, the first at {stack.axes} = {first}; "
        "repair the image (predict can take 0 in their place: --nan fill=0)"
    )


def readable(
    stack: Stack, box: Box, least: int = LEAST_EDGE, *, again: bool = True
) -> Iterator[tuple[Box, np.ndarray | DataError]]:
    """Read a box; where some of it is damaged, read the rest: yield each part with its data, or with the error.

    Parameters
    ----------
    least : int
        Parts of no longer edge are not divided further.
    again : bool
        Whether it is read more than once where a fault may pass; its parts are not.
    """
    try:
        data = stack.read(box, again=again)
    except DataError as error:
        sizes = [part.stop - part.start for part in box]
        axis = sizes.index(max(sizes))
        if sizes[axis] <= least:
            yield box, error
            return
        middle = box[axis].start + sizes[axis] // 2
        for half in (slice(box[axis].start, middle), slice(middle, box[axis].stop)):
            yield from readable(stack, (*box[:axis], half, *box[axis + 1 :]), least, again=False)
    else:
        yield box, data


def _occurring(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values that occur, ascending, and how often; of many that cannot be counted, of every few."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        counts = np.bincount(values)
        found = np.flatnonzero(counts)
        return found, counts[found]
    found, times = np.unique(values[:: values.size // SEEN + 1], return_counts=True)
    return found, times


def _whole(
    stack: Stack, read: Callable[[Box], Iterator[tuple[Box, np.ndarray | DataError]]], padding: float | None
) -> tuple[list[np.ndarray], int]:
    """Read all of a stack: the values of each channel, and how many parts cannot be read."""
    channels: list[list[np.ndarray]] = [[] for _ in range(stack.size("c"))]
    lost, first = 0, None
    for _, values in read(tuple(slice(0, n) for n in stack.shape)):
        if isinstance(values, DataError):
            lost, first = lost + 1, first or values
            continue
        data = np.moveaxis(values, stack.axes.index("c"), 0) if "c" in stack.axes else values[None]
        for channel, part in zip(channels, data, strict=True):
            channel.append(part.ravel())
    if first is not None and not channels[0]:
        raise first
    return [without(np.concatenate(parts), padding) for parts in channels], lost
