"""Chunks that were read are kept for a while, so that work which goes through an image in parts reads each once."""

import dataclasses
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..errors import DataError
from .stack import Stack
from .views import Box, LazyArray, LazyBase, View, within

LIMIT = 2**28  # 256 MiB: the chunks under a slab of a 2048 x 2048 plane, held while the next slab reads them again
AT_ONCE = 4  # parts of the limit that is read at once: what is read is held beside what is kept
LONGEST = 2**28  # elements along an axis: the largest scans have 2**22, an hour at 1 kHz as many time points
MOST_CHUNKS = 2**32  # of a petabyte in chunks of 64 x 64 x 64 bytes
MOST_ELEMENTS = 2**54  # 18 petabytes; the largest volume of a brain has 1.4
Place = tuple[int, ...]
Key = TypeVar("Key")
Value = TypeVar("Value")


def cached(stack: Stack, limit: int = LIMIT) -> Stack:
    """Return the stack with the chunks it was last read from kept in memory.

    Parameters
    ----------
    stack : Stack
        As it is where it lies in memory, has chunks of more than a quarter of `limit`, or is read without whole chunks.
    limit : int
        Bytes that are kept.
    """
    check_countable(stack)
    base: Any = stack.data.base if isinstance(stack.data, View) else stack.data
    edges = chunk_edges(base)
    largest = math.prod(max(np.diff(e), default=0) for e in edges) * np.dtype(base.dtype).itemsize if edges else 0
    if not edges or getattr(base, "by_box", False) or not 0 < largest <= limit // AT_ONCE:
        return stack
    kept = ChunkCache(base, edges, limit)
    data = dataclasses.replace(stack.data, base=kept) if isinstance(stack.data, View) else kept
    return dataclasses.replace(stack, data=data)


def check_countable(stack: Stack) -> None:
    """Refuse an image that is larger than any that was ever stored, before something is counted off over it.

    Raises
    ------
    DataError
    """
    chunks = math.prod(-(-n // max(1, c)) for n, c in zip(stack.shape, stack.chunks, strict=True))
    if max(stack.shape) > LONGEST or chunks > MOST_CHUNKS or math.prod(stack.shape) > MOST_ELEMENTS:
        raise DataError(
            f"{stack.name} says that it has the shape {stack.shape} in {chunks} chunks, more than any disk holds; its "
            "metadata is damaged or forged"
        )


def chunk_edges(array: Any) -> list[np.ndarray]:
    """Return where chunks begin and end along each axis; nothing for an array without chunks."""
    chunks = getattr(array, "chunks", None)
    if chunks is None or isinstance(array, np.ndarray | ChunkCache):
        return []
    return [
        np.cumsum((0, *c)) if isinstance(c, tuple) else np.append(np.arange(0, n, max(int(c), 1)), n)
        for c, n in zip(chunks, array.shape, strict=True)
    ]


class Recent(Generic[Key, Value]):
    """What was used last, up to a limit of bytes: what was not used for longest goes first.

    Parameters
    ----------
    limit : int
        Bytes.
    size : callable
        Bytes of a value.
    """

    def __init__(self, limit: int, size: Callable[[Value], int]) -> None:
        self._limit, self._size, self._bytes = limit, size, 0
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys, that of the least recently used first."""
        return iter(self._kept)

    def get(self, key: Key) -> Value | None:
        """Return what is kept for a key, used now."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def drop(self, key: Key) -> None:
        """Keep nothing for a key any more."""
        if key in self._kept:
            self._bytes -= self._size(self._kept.pop(key))

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, used now."""
        self.drop(key)
        self._kept[key] = value
        self._bytes += self._size(value)
        while self._bytes > self._limit:
            self._bytes -= self._size(self._kept.popitem(last=False)[1])


class ChunkCache(LazyBase):
    """An array that keeps the chunks it was last read from, the least recently used going first.

    Parameters
    ----------
    edges : list of integer arrays
        Where chunks begin and end along each axis.
    limit : int
        Bytes that are kept.
    """

    def __init__(self, base: LazyArray, edges: Sequence[np.ndarray], limit: int) -> None:
        self.base, self.limit = base, limit
        self._edges = edges
        self._kept: Recent[Place, np.ndarray] = Recent(limit, lambda chunk: chunk.nbytes)
        self._coming: set[Place] = set()
        self._arrived = threading.Condition()

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkCache, (self.base, self._edges, self.limit)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Largest chunk along each axis."""
        return tuple(int(np.diff(e).max()) for e in self._edges)

    def read(self, box: Box) -> np.ndarray:
        """Read a box from the chunks under it."""
        out = np.empty([b.stop - b.start for b in box], self.dtype)
        ranges = [
            range(int(np.searchsorted(e, b.start, "right")) - 1, int(np.searchsorted(e, b.stop, "left")))
            for e, b in zip(self._edges, box, strict=True)
        ]
        for part in self._parts(ranges):
            for place, chunk in self._chunks(part).items():
                self._copy(place, chunk, box, out)
        return out

    def _parts(self, ranges: Sequence[range]) -> Iterator[Sequence[range]]:
        """Cut a box of chunks, in their order, into boxes of a part of the limit: what is copied is let go."""
        size = math.prod(map(len, ranges)) * math.prod(self.chunks) * self.dtype.itemsize
        axis = next((i for i, each in enumerate(ranges) if len(each) > 1), None)
        if size <= self.limit // AT_ONCE or axis is None:
            yield ranges
            return
        middle = len(ranges[axis]) // 2
        for half in (ranges[axis][:middle], ranges[axis][middle:]):
            yield from self._parts([*ranges[:axis], half, *ranges[axis + 1 :]])

    def _chunks(self, ranges: Sequence[range]) -> dict[Place, np.ndarray]:
        """Return a box of chunks; what another thread is reading just now is waited for, not read again."""
        places = list(itertools.product(*ranges))
        with self._arrived:
            self._arrived.wait_for(lambda: self._coming.isdisjoint(places))
            found = {place: chunk for place in places if (chunk := self._kept.get(place)) is not None}
            missing = [place for place in places if place not in found]
            self._coming.update(missing)
        try:
            found |= self._read_all(missing)
        finally:
            with self._arrived:
                self._coming.difference_update(missing)
                for place, chunk in found.items():
                    self._kept.put(place, chunk)
                self._arrived.notify_all()
        return found

    def _read_all(self, places: Sequence[Place]) -> dict[Place, np.ndarray]:
        """Read chunks, in one piece where they make one."""
        spans = [sorted({place[axis] for place in places}) for axis in range(self.ndim)]
        if places and math.prod(s[-1] + 1 - s[0] for s in spans) == len(places):
            return self._read(places, [slice(s[0], s[-1] + 1) for s in spans])
        found: dict[Place, np.ndarray] = {}
        for place in places:
            found |= self._read([place], [slice(i, i + 1) for i in place])
        return found

    def _read(self, places: Sequence[Place], span: Sequence[slice]) -> dict[Place, np.ndarray]:
        """Read a box of chunks."""
        box = [slice(int(e[s.start]), int(e[s.stop])) for e, s in zip(self._edges, span, strict=True)]
        data = np.asarray(self.base[tuple(box)])
        found = {}
        for place in places:
            part = data[within(self._box(place), box)]
            found[place] = part if len(places) == 1 else part.copy()
        return found

    def _box(self, place: Place) -> tuple[slice, ...]:
        return tuple(slice(int(e[i]), int(e[i + 1])) for e, i in zip(self._edges, place, strict=True))

    def _copy(self, place: Place, chunk: np.ndarray, box: Sequence[slice], out: np.ndarray) -> None:
        """Copy what a chunk has of a box."""
        inner, outer = [], []
        for c, b in zip(self._box(place), box, strict=True):
            low, high = max(c.start, b.start), min(c.stop, b.stop)
            inner.append(slice(low - c.start, high - c.start))
            outer.append(slice(low - b.start, high - b.start))
        out[tuple(outer)] = chunk[tuple(inner)]
