"""Intensity normalisation: one set of statistics a stack and channel, never a tile's own."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from .errors import DataError, ModelError
from .stack import Box, Stack
from .threads import in_threads

KINDS = ("percentile", "zscore", "fixed", "none")
WHOLE = 2**24
BOXES = 32
BOX_ELEMENTS = 2**18
LEAST_EDGE = 16


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
    offset, scale : tuple of float, one a channel
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
                f"offset {self.offset} and scale {self.scale} are of fixed intensities: one each a channel"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave."""
        fixed = (tuple(map(float, values.get(name, ()))) for name in ("offset", "scale"))
        return cls(str(values["kind"]), float(values["low"]), float(values["high"]), *fixed)

    def measure(self, stack: Stack, seed: int = 0, fill: float | None = None) -> "Statistics":
        """Measure a stack once: on all of it where it is small, else on seeded boxes that depend on its shape only.

        Fixed intensities are not measured; the sample is looked at all the same, for what is not finite.

        Parameters
        ----------
        stack : Stack
        seed : int
        fill : float, optional
            Value taken in place of NaN and infinity; without it they are refused.

        Raises
        ------
        DataError
            Where the sample holds NaN or infinity, with their number and the first index.
        """
        samples: list[list[np.ndarray]] = [[] for _ in range(stack.size("c"))]
        errors: list[DataError] = []
        for _, parts in in_threads(lambda box: list(readable(stack, box)), _sample_boxes(stack, seed)):
            for part, values in parts:
                if isinstance(values, DataError):
                    errors.append(values)
                    continue
                data = finite(values, stack, part, fill)
                channels = np.moveaxis(data, stack.axes.index("c"), 0) if "c" in stack.axes else data[None]
                for sample, channel in zip(samples, channels, strict=True):
                    sample.append(channel.ravel())
        if errors and not samples[0]:
            raise errors[0]
        if self.kind == "fixed":
            return Statistics(self.offset, self.scale, len(errors))
        pairs = [self._measure_channel(np.concatenate(sample)) for sample in samples]
        return Statistics(tuple(o for o, _ in pairs), tuple(s for _, s in pairs), len(errors))

    def _measure_channel(self, values: np.ndarray) -> tuple[float, float]:
        """Return (offset, scale); scale 0 for a constant channel."""
        if self.kind == "none":
            return 0.0, 1.0
        if self.kind == "zscore":
            values = values.astype(np.float32) if values.dtype.itemsize < 4 else values
            return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        low, high = _percentiles(values, (self.low, self.high))
        if high <= low:  # nearly all of it is one value: what stands out decides
            low, high = values.min(), values.max()
        return float(low), float(high) - float(low)


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """Offset and scale a channel: normalised = (intensity - offset) / scale, and 0 where the scale is 0.

    Parameters
    ----------
    offset, scale : tuple of float, one a channel
    unreadable : int
        Parts of the sample that could not be read and were left out.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    unreadable: int = 0

    def apply(self, data: np.ndarray) -> np.ndarray:
        """Normalise (C, ...) intensities of any real type to float32."""
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


def readable(stack: Stack, box: Box) -> Iterator[tuple[Box, np.ndarray | DataError]]:
    """Read a box; where some of it is damaged, read the rest: yield each part with its data, or with the error."""
    try:
        data = stack.read(box)
    except DataError as error:
        sizes = [part.stop - part.start for part in box]
        axis = sizes.index(max(sizes))
        if sizes[axis] <= LEAST_EDGE:
            yield box, error
            return
        middle = box[axis].start + sizes[axis] // 2
        for half in (slice(box[axis].start, middle), slice(middle, box[axis].stop)):
            yield from readable(stack, (*box[:axis], half, *box[axis + 1 :]))
    else:
        yield box, data


def _percentiles(values: np.ndarray, wanted: tuple[float, float]) -> tuple[float, float]:
    """Return percentiles, interpolated linearly; of 8 and 16 bit integers by counting, which is much faster."""
    if values.dtype.kind != "u" or values.dtype.itemsize > 2:
        found = np.percentile(values.astype(np.float32) if values.dtype.itemsize < 4 else values, wanted)
        return float(found[0]), float(found[1])
    below = np.cumsum(np.bincount(values))
    places = np.array(wanted) / 100 * (values.size - 1)
    first, second = (np.searchsorted(below, np.floor(places) + k, "right").clip(max=len(below) - 1) for k in (0, 1))
    low, high = first + (second - first) * (places - np.floor(places))
    return float(low), float(high)


def _sample_boxes(stack: Stack, seed: int) -> Iterator[Box]:
    shape = stack.shape
    if np.prod([float(n) for n in shape]) <= WHOLE * stack.size("c"):
        yield tuple(slice(0, n) for n in shape)
        return
    rng = np.random.default_rng(seed)
    edge = round(BOX_ELEMENTS ** (1 / len(stack.spatial)))
    size = {a: min(edge, stack.size(a)) for a in stack.spatial} | {"c": stack.size("c"), "t": 1}
    for _ in range(BOXES):
        starts = [int(rng.integers(0, n - size[a] + 1)) for a, n in zip(stack.axes, shape, strict=True)]
        yield tuple(slice(start, start + size[a]) for a, start in zip(stack.axes, starts, strict=True))
