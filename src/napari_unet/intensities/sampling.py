"""Which parts of an image its intensities are measured on, and what is kept of them.

An image is cut into cells, by its shape alone, so that chunks and storage change nothing of what is measured::

    . . . . . . . .      .  a cell of one value: empty field, padding, chunks that are not stored; left out
    . . # # . . . .      #  a cell that holds more than one value: measured
    . . # # # . . .      at most ``ALL_OF_IT`` elements: every cell; else cells spread over all of it, until the
                         figures are stable
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..arrays.views import Box
from ..errors import DataError
from ..grid.blocks import box_at, boxes_of, places_under
from ..sources.levels import cells_with_content
from ..sources.zarrays import stored_boxes
from ..threads import in_threads
from .contrast import Contrast, noise_of

CELL = {1: (2**18,), 2: (512, 512), 3: (16, 128, 128)}  # 2^18 elements; flat, as planes are often chunks
ALL_OF_IT = 2**28  # elements read whole: a second or two, where the network takes minutes
UNIT = 2**25  # elements read at a time, of chunks larger than a cell
FIRST = 32  # cells of the first round; each round after it takes as many again as all before
ENOUGH = 1024  # cells: as much as of an image that is read whole; a square of 0.5 % of the field is never missed
MOST = 2048  # cells with content; elements of all channels stay below 2^29
SEARCHED = 2**14  # cells read where most hold one value
QUICK = 256  # the same, where a network computes each
ROUNDS_BESIDE = 4  # of cells in which a coarser level shows one value: 256
STABLE = 0.01  # of the scale, between the last two rounds
KEPT = 2**14  # values of a cell that are kept where they cannot be counted
ROWS = 2**14  # values of a cell, in order of place, whose steps from one to the next say what the noise is
SEEN = 2**16  # values that are looked at for what stands out, where they cannot be counted
DRAWN = 2**20  # cells that are put in random order at most: 8 MiB
CONSTANTS = 4096  # different values of empty cells that are told apart

Figures = tuple[float, float]


class Pool:
    """The values of one channel in the cells that were read: counted where there are few, else every few are kept.

    Parameters
    ----------
    kept : int
        Values that are kept of a cell.
    padding : float, optional
        Value that is left out.
    """

    def __init__(self, dtype: np.dtype[np.generic], kept: int = KEPT, padding: float | None = None) -> None:
        bits = 8 * dtype.itemsize
        self.counts = np.zeros(2**bits, np.int64) if dtype.kind in "bu" and bits <= 16 else None
        self.cells, self.elements, self._kept, self._padding = 0, 0, kept, padding
        self.low, self.high = math.inf, -math.inf
        self.constants: dict[float, int] = {}
        self._parts: list[np.ndarray] = []
        self._sums, self._steps = np.zeros(2), np.zeros(2)
        self._shift = 0.0

    def add(self, values: np.ndarray) -> None:
        """Take in the values of a cell, flat."""
        if not values.size:
            return
        values = values.view(np.uint8) if values.dtype.kind == "b" else values
        low, high = float(values.min()), float(values.max())
        if low == high:
            if low in self.constants or len(self.constants) < CONSTANTS:
                self.constants[low] = self.constants.get(low, 0) + values.size
            return
        values = without(values, self._padding)
        if not self.cells:
            self._shift = low
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.cells, self.elements = self.cells + 1, self.elements + values.size
        steps = np.diff(values[:ROWS].astype(np.float64))
        self._steps += np.square(steps).sum(), steps.size
        if self.counts is not None:
            self.counts += np.bincount(values, minlength=len(self.counts))
            return
        shifted = values.astype(np.float64) - self._shift
        self._sums += shifted.sum(), np.square(shifted).sum()
        # every 17th of 2^18: an odd step does not fall on the same columns of each row
        self._parts.append(values[:: values.size // self._kept + 1].copy())

    def contrast(self, low: float, scale: float) -> Contrast:
        """Return the contrast of percentiles that are `low` and `scale` more; what stands out is not known."""
        noise = noise_of(*self._steps)
        if not noise or not scale:
            return Contrast()
        level = (float(self.percentiles((50.0,))[0]) - low) / scale
        return Contrast(scale / noise, False, level, noise / max(self.moments()[1], noise / 2))

    def values(self) -> np.ndarray:
        """Return the values that are kept; those that are counted are not."""
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the values that occur, ascending, and how often, as far as they are kept."""
        if self.counts is not None:
            found = np.flatnonzero(self.counts)
            return found, self.counts[found]
        if not self._parts:
            return np.empty(0), np.empty(0, np.int64)
        values = self.values()
        found, times = np.unique(values[:: values.size // SEEN + 1], return_counts=True)
        return found, times

    def moments(self) -> Figures:
        """Return mean and standard deviation."""
        if not self.cells:
            values, weights = np.array(list(self.constants)), list(self.constants.values())
            mean = float(np.average(values, weights=weights))
            return mean, float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
        if self.counts is not None:
            values = np.arange(len(self.counts), dtype=np.float64)
            mean = float((values * self.counts).sum() / self.elements)
            return mean, float(np.sqrt(((values - mean) ** 2 * self.counts).sum() / self.elements))
        mean, square = self._sums / self.elements
        return float(mean + self._shift), float(np.sqrt(max(square - mean**2, 0.0)))

    def percentiles(self, wanted: Sequence[float]) -> np.ndarray:
        """Return percentiles, interpolated linearly; of cells that hold one value each, the least and the greatest."""
        if not self.cells:
            return np.interp(wanted, (0, 100), (min(self.constants), max(self.constants)))
        return percentiles(self.values(), wanted) if self.counts is None else counted(self.counts, wanted)


@dataclasses.dataclass(slots=True)
class PixelSample:
    """What was read of an image.

    Parameters
    ----------
    pools : list of Pool, one per channel
    in_part : bool
        Whether it is a part of the cells.
    lost : int
        Parts that cannot be read.
    first : DataError, optional
        Of the first of them; all together would keep what was read beside them in memory.
    """

    pools: list[Pool]
    in_part: bool = True
    lost: int = 0
    first: DataError | None = None

    def checked(self) -> "PixelSample":
        """Return it, where anything could be read.

        Raises
        ------
        DataError
            The first of the parts that cannot be read, where all are such.
        """
        if self.first is not None and not any(pool.cells or pool.constants for pool in self.pools):
            raise self.first
        return self


def sample(
    stack: Stack,
    figures: Callable[[Pool], Figures],
    read: Callable[[Box], Iterator[tuple[Box, np.ndarray | DataError]]],
    seed: int = 0,
    quick: bool = False,
    padding: float | None = None,
) -> PixelSample:
    """Read cells of a large image until what is measured on them is stable; of one up to ``ALL_OF_IT`` all.

    Parameters
    ----------
    figures : callable
        Gives (offset, scale) of a channel.
    read : callable
        Gives the parts of a box with their values, or with the error where one cannot be read.
    seed : int
        Of the order in which cells are read.
    quick : bool
        Read few cells, as of an image that a network computes where it is read.
    padding : float, optional
        Value that is left out.
    """
    stack, size = cached(stack), cell_of(stack)
    element = math.prod(n for n, a in zip(size, stack.axes, strict=True))
    channels = stack.size("c")
    found = PixelSample([Pool(stack.dtype, max(KEPT // channels, 256), padding) for _ in range(channels)])
    if not quick and math.prod(map(float, stack.shape)) <= ALL_OF_IT:
        _take(found, stack, size, read, units(stack, size))
        return dataclasses.replace(found.checked(), in_part=False)
    enough = FIRST if quick else max(FIRST, min(ENOUGH, ALL_OF_IT // element))
    most = 2 * enough if quick else min(MOST, 4 * enough)
    limit, searched, last = QUICK if quick else SEARCHED, 0, [(math.nan, math.nan)] * channels
    for boxes in _rounds(stack, size, seed):
        _take(found, stack, size, read, boxes)
        searched += len(boxes)
        now = [figures(pool) if pool.cells else (math.nan, math.nan) for pool in found.pools]
        settled = [
            pool.cells >= most or (pool.cells >= enough and _stable(*both))
            for pool, both in zip(found.pools, zip(last, now, strict=True), strict=True)
        ]
        last = now
        if all(settled) or (searched >= limit and any(pool.cells for pool in found.pools)):
            break
    return found.checked()


def _stable(old: Figures, new: Figures) -> bool:
    """Say whether neither end of the range has moved."""
    within = STABLE * new[1]
    return abs(new[0] - old[0]) <= within and abs(sum(new) - sum(old)) <= within


def _take(
    found: PixelSample,
    stack: Stack,
    size: Sequence[int],
    read: Callable[[Box], Iterator[tuple[Box, np.ndarray | DataError]]],
    boxes: Sequence[Box] | Iterator[Box],
) -> None:
    """Read boxes and give each channel its cells."""
    at = stack.axes.find("c")
    for _, parts in in_threads(lambda box: list(read(box)), boxes):
        for part, values in parts:
            if isinstance(values, DataError):
                found.lost, found.first = found.lost + 1, found.first or values
                continue
            for inner in _cells_in(part, size):
                cell = values[inner]
                channels = np.moveaxis(cell, at, 0) if at >= 0 else cell[None]
                for pool, channel in zip(found.pools, channels, strict=True):
                    pool.add(channel.ravel())


def cell_of(stack: Stack) -> tuple[int, ...]:
    """Return the size of a cell along each axis: one time point, all channels."""
    edges = dict(zip(stack.spatial, CELL[len(stack.spatial)], strict=True)) | {"t": 1, "c": stack.size("c")}
    return tuple(min(edges[a], n) for a, n in zip(stack.axes, stack.shape, strict=True))


def units(stack: Stack, size: Sequence[int]) -> Iterator[Box]:
    """Yield boxes that cover a stack: whole cells, as large as a chunk where that is not too much at a time."""
    chunks = stack.chunks
    unit = [min(math.ceil(c / s) * s, n) for c, s, n in zip(chunks, size, stack.shape, strict=True)]
    while math.prod(unit) > UNIT and any(u > s for u, s in zip(unit, size, strict=True)):
        axis = max(range(len(unit)), key=lambda i: math.ceil(unit[i] / size[i]))
        unit[axis] = math.ceil(math.ceil(unit[axis] / size[axis]) / 2) * size[axis]
    return boxes_of(stack.shape, unit)


def _cells_in(part: Box, size: Sequence[int]) -> Iterator[Box]:
    """Yield the cells of a box, in its own indices."""
    cuts = []
    for p, s in zip(part, size, strict=True):
        edges = [p.start, *range((p.start // s + 1) * s, p.stop, s), p.stop]
        cuts.append([slice(a - p.start, b - p.start) for a, b in itertools.pairwise(edges)])
    yield from itertools.product(*cuts)


def _rounds(stack: Stack, size: Sequence[int], seed: int) -> Iterator[list[Box]]:
    """Yield cells, each round as many as all before it; those that are stored, where that is known.

    Where a coarser level of a pyramid shows which cells hold more than one value, these come first, and of the others a
    few, for what it has lost.

    Cells are put in an order in which neighbours follow each other. It is cut into as many equal parts as cells are to
    be read, and one at random is taken of each part that has none yet: what is small is met wherever it lies::

        . . . x . . . .          the first round, of 1 part
        . . . x . . x .          the second, of 2
        . x . x x . x .          the third, of 4
    """
    grid = [math.ceil(n / s) for n, s in zip(stack.shape, size, strict=True)]
    total, rng = math.prod(grid), np.random.default_rng(seed)
    stored, empty = stored_boxes(stack), np.empty(0, np.int64)
    if stored is not None:
        places = _cells_of(stored, size, grid)
        empty = np.setdiff1d(np.arange(min(total, len(places) + 1)), places)[:1]  # for the value of what is not stored
    else:
        places = np.arange(total) if total <= DRAWN else np.unique(rng.integers(0, total, DRAWN))
    rich = cells_with_content(stack, size) if total <= DRAWN else None
    first = np.ones(len(places), bool) if rich is None else rich.ravel()[places]
    sizes = (stack.shape, size, grid)
    yield from _drawn(places[first], empty, sizes, rng)
    yield from itertools.islice(_drawn(places[~first], empty[:0], sizes, rng), ROUNDS_BESIDE)


def _drawn(
    places: np.ndarray, empty: np.ndarray, sizes: tuple[Sequence[int], ...], rng: np.random.Generator
) -> Iterator[list[Box]]:
    """Yield rounds of cells of some places, the first with that of what is not stored."""
    shape, size, grid = sizes
    places = places[np.argsort(_neighbourhood(np.unravel_index(places, grid)))]
    parts, taken = FIRST, np.empty(0, np.int64)
    while len(taken) < len(places) or len(empty):
        edges = np.arange(parts + 1) * len(places) // parts
        free = (np.histogram(taken, edges)[0] == 0) & (np.diff(edges) > 0)
        picked = rng.integers(edges[:-1][free], edges[1:][free])
        chosen = np.sort([*empty, *places[picked]])  # in order of place: chunks that are kept serve the next cell
        empty, taken, parts = empty[:0], np.concatenate([taken, picked]), 2 * parts
        corners = np.stack(np.unravel_index(chosen, grid), 1).tolist()
        yield [box_at(corner, size, shape) for corner in corners]


def _neighbourhood(corners: Sequence[np.ndarray]) -> np.ndarray:
    """Return the places of cells along a curve that keeps neighbours together: the bits of their indices in turns.

    References
    ----------
    Morton 1966, A computer oriented geodetic data base.
    """
    found = np.zeros(len(corners[0]), np.uint64)
    for bit in range(64 // len(corners)):
        for axis, corner in enumerate(corners):
            found |= (corner.astype(np.uint64) >> np.uint64(bit) & np.uint64(1)) << np.uint64(bit * len(corners) + axis)
    return found


def _cells_of(stored: Iterator[Box], size: Sequence[int], grid: Sequence[int]) -> np.ndarray:
    """Return the numbers of the cells that stored chunks touch, in ascending order."""
    found: set[int] = set()
    for box in stored:
        found.update(np.ravel_multi_index(np.transpose(list(places_under(box, size))), grid).tolist())
    return np.array(sorted(found), np.int64)


def without(values: np.ndarray, padding: float | None) -> np.ndarray:
    """Return the values that are not padding; all of them where there is nothing else."""
    if padding is None:
        return values
    rest = values[values != padding]
    return rest if rest.size else values


def percentiles(values: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Return percentiles, interpolated linearly; of 8 and 16 bit integers by counting, which is much faster."""
    if values.dtype.kind != "u" or values.dtype.itemsize > 2:
        return np.asarray(np.percentile(values.astype(np.float32) if values.dtype.itemsize < 4 else values, wanted))
    return counted(np.bincount(values), wanted)


def counted(counts: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Return percentiles of the values 0, 1, 2, ... that occur so often."""
    below = np.cumsum(counts)
    places = np.array(wanted) / 100 * (below[-1] - 1)
    first, second = (np.searchsorted(below, np.floor(places) + k, "right").clip(max=len(below) - 1) for k in (0, 1))
    return np.asarray(first + (second - first) * (places - np.floor(places)))
