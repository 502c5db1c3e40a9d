"""A result that is computed lazily, where it is viewed."""

import dataclasses
import hashlib
import math
import threading
import uuid
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..arrays.cached import Recent
from ..arrays.resample import Resampled
from ..arrays.stack import Stack
from ..arrays.views import Box, LazyBase, overlap, within
from ..errors import UsageError
from ..grid.tiles import Factor, TileGrid, remoteness, scaled
from .config import PredictConfig
from .engine import Engine
from .layout import block_of, choose_tile, device_memory
from .outputs import result_of
from .own import brought, covered, ratios, resampling
from .seen import Edges, ObjectBlocks, objects_seen

if TYPE_CHECKING:
    import dask.array as da

CACHE_BYTES = 2**28  # 256 MiB of results: some screens, moved over and back

_made: "weakref.WeakValueDictionary[str | None, LazyBlocks]" = weakref.WeakValueDictionary()


def lazy_result(
    engine: Engine, config: PredictConfig, block: tuple[int, ...] | None, own: Stack | None = None
) -> Stack:
    """Return the result of an engine as a lazy stack, in blocks of the size given, or chosen from the memory limit.

    Of a task that finds objects these are given. It lies at the pixels of `own`, what the model would take at the
    image's own, where that is given.
    """
    shape = tuple(engine.stack.size(a) for a in engine.axes)
    core = block_of(block, shape) or choose_tile(engine, device_memory(engine.device, config.memory))
    limit = max(CACHE_BYTES, int(config.memory * 2**30 / 2))
    blocks = LazyBlocks(engine, TileGrid(shape, core, engine.footprint), limit)
    is_final = engine.model.task.objects is None
    data = blocks.as_dask() if is_final else ObjectBlocks(blocks)
    found = dataclasses.replace(result_of(engine.stack, engine.model), data=data)
    if own is None or own is engine.stack:
        return found if is_final else dataclasses.replace(found, data=blocks.derived(found))
    place = result_of(own, engine.model)
    return dataclasses.replace(place, data=blocks.derived(brought(found, place, engine.model.task.result)))


class LazyBlocks:
    """The blocks of a result, computed one at a time and kept within a limit, the least recently used going first.

    With each goes a digest of what was read for it, so that it is never taken for the result of another image.

    Parameters
    ----------
    limit : int
        Bytes of results that are kept.
    """

    def __init__(self, engine: Engine, grid: TileGrid, limit: int = CACHE_BYTES) -> None:
        self.engine, self.grid, self.limit = engine, grid, limit
        self._kept: Recent[tuple[int, ...], tuple[np.ndarray, bytes]] = Recent(limit, lambda entry: entry[0].nbytes)
        self._network, self._guard = threading.Lock(), threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Without what is kept."""
        return LazyBlocks, (self.engine, self.grid, self.limit)

    @property
    def channels(self) -> int:
        """Channels of the result; 1 for labels."""
        task = self.engine.model.task
        return len(task.names) if task.result == "image" else 1

    def block(self, at: tuple[int, ...]) -> np.ndarray:
        """Return the result of the tile at position `at` of the grid, in the axes of the result."""
        found = self.cached(at)
        if found is None:
            with self._network:  # one at a time: it uses all threads
                found = self.cached(at)
                if found is None:
                    tile = self.grid.tile(at)
                    data = self.engine.read(tile.read)
                    found = self._arranged(self.engine.model.task.decode(self.engine.logits(tile, data)))
                    with self._guard:
                        self._kept.put(at, (found, _digest(data)))
        return found

    def read(self, box: Box) -> np.ndarray:
        """Return the labels in a box."""
        return joined(box, ((self.grid.box(at), self.block(at)) for at in self.grid.under(box)), self.engine.factors)

    def _arranged(self, values: np.ndarray) -> np.ndarray:
        """Bring what the task gives to the axes of the result."""
        if self.engine.model.task.result == "labels":
            return values
        return np.moveaxis(values, 0, int(self.engine.axes.startswith("t"))) if self.channels > 1 else values[0]

    def cached(self, at: tuple[int, ...]) -> np.ndarray | None:
        """Return the result of the tile at position `at` if it is kept; waits for no network."""
        entry = self._entry(at)
        return None if entry is None else entry[0]

    def _entry(self, at: tuple[int, ...]) -> tuple[np.ndarray, bytes] | None:
        with self._guard:
            return self._kept.get(at)

    def boxes(self) -> list[Box]:
        """Return the boxes of the tiled axes whose results are kept."""
        with self._guard:
            return [self.grid.box(at) for at in self._kept]

    def known(self, box: Box, engine: Engine) -> np.ndarray | None:
        """Return the result in a box where all of it is kept, and what `engine` reads there is still the same.

        Parameters
        ----------
        box : box
            Of the tiled axes.
        engine : Engine
            Of the same model, intensities and precision.

        Returns
        -------
        (channels, *box) array, finer where the result is; None where something is not kept, or was of other intensities

        Raises
        ------
        DataError
            Where the image cannot be read.
        """
        places = list(self.grid.under(box))
        entries = [entry for at in places if (entry := self._entry(at)) is not None]
        if len(entries) < len(places):
            return None
        kept = dict(zip(places, entries, strict=True))
        if any(_digest(engine.read(self.grid.tile(at).read)) != digest for at, (_, digest) in kept.items()):
            return None
        parts = ((self.grid.box(at), self._channels_first(values)) for at, (values, _) in kept.items())
        return joined(box, parts, self.engine.factors)

    def _channels_first(self, values: np.ndarray) -> np.ndarray:
        """Undo `_arranged`: (channels, *tiled axes)."""
        return np.moveaxis(values, int(self.engine.axes.startswith("t")), 0) if self.channels > 1 else values[None]

    def as_dask(self) -> "da.Array":
        """Return a dask array with one chunk per block."""
        import dask.array as da  # not at the top: a run has no use for it

        sizes = zip(self.grid.core, self.grid.shape, self.engine.factors, strict=True)
        each = [tuple(min(c, n - start) * f for start in range(0, n, c)) for c, n, f in sizes]
        at = int(self.engine.axes.startswith("t"))
        if self.channels > 1:
            each.insert(at, (self.channels,))
        chunks = tuple(each)

        def compute(block_info: dict[None, dict[str, tuple[int, ...]]]) -> np.ndarray:
            place = tuple(block_info[None]["chunk-location"])
            return self.block(place[:at] + place[at + 1 :] if self.channels > 1 else place)

        dtype, name = np.dtype(self.engine.model.task.dtype), self._named()
        map_blocks: Any = da.map_blocks
        return cast(
            "da.Array",
            map_blocks(compute, name=name, chunks=chunks, dtype=dtype, meta=np.empty((0,) * len(chunks), dtype)),
        )

    def derived(self, stack: Stack) -> "da.Array":
        """Return a dask array of what is made of these blocks."""
        import dask.array as da

        from_array: Any = da.from_array
        return cast("da.Array", from_array(stack.data, stack.chunks, name=self._named(), asarray=False, lock=False))

    def _named(self) -> str:
        """Return a new name by which these blocks are known again."""
        name = f"unet-{uuid.uuid4().hex}"
        _made[name] = self
        return name

    @staticmethod
    def behind(stack: Stack) -> "LazyBlocks | None":
        """Return the blocks of a stack that `predict_lazy` gave in this process; None of any other one."""
        return _made.get(getattr(stack.data, "name", None))


def joined(box: Box, parts: Iterable[tuple[Box, np.ndarray]], factors: Sequence[Factor]) -> np.ndarray:
    """Put the results of blocks together into that of a box.

    Parameters
    ----------
    box : box
        Of the image; covered by the blocks.
    parts : iterable of (box, (..., *block) array)
        At least one.
    factors : sequence of Factor
        Elements of the result for one of the image, per axis.
    """
    out: np.ndarray | None = None
    whole = scaled(box, factors)
    for part, values in parts:
        shared = overlap(part, box)
        here, there = scaled(shared, factors), scaled(part, factors)
        if out is None:
            out = np.empty((*values.shape[: -len(box)], *(b.stop - b.start for b in whole)), values.dtype)
        inner: tuple[Any, ...] = (..., *within(here, there))
        outer: tuple[Any, ...] = (..., *within(here, whole))
        out[outer] = values[inner]
    if out is None:
        raise UsageError(f"the box {box} is empty; give one that holds a voxel")
    return out


def _digest(data: np.ndarray) -> bytes:
    """Return what tells intensities that were read from others."""
    return hashlib.blake2b(np.ascontiguousarray(data).data, digest_size=16).digest()


CORE = {2: (192, 192), 3: (8, 96, 96)}  # small, so that the first block comes at once; flat, as a viewer shows planes
MOST = {2: 2**22, 3: 2**21}  # elements that are computed for one view: a screen of 2048 x 2048, or a thin volume


class Preview:
    """The result of a model, block by block where it is viewed; computed blocks are kept.

    Parameters
    ----------
    limit : int
        Bytes of results that are kept; the least recently used go first.
    core : tuple of int, optional
        Block, per axis of ``engine.axes``; small ones, flat in 3-D, where it is not given.
    own : Stack, optional
        What the model would take at the image's own pixels, where the result is to lie at these.
    """

    def __init__(
        self,
        engine: Engine,
        limit: int = CACHE_BYTES,
        core: tuple[int, ...] | None = None,
        own: Stack | None = None,
    ) -> None:
        self.own = own or engine.stack
        shape = tuple(engine.stack.size(a) for a in engine.axes)
        core = core or (1,) * engine.batch_axes + CORE[engine.model.config.ndim]
        self.lazy = LazyBlocks(engine, TileGrid(shape, core, engine.footprint), limit)
        self._most = MOST[engine.model.config.ndim]

    def box_of(self, box: Box) -> Box:
        """Return the whole blocks under a box, as one box; where they are too many, those around its centre.

        Parameters
        ----------
        box : box
            In indices along the tiled axes; may reach beyond the image, or lie beside it.
        """
        grid = self.lazy.grid
        spans = []
        for b, c, n in zip(box, grid.core, grid.shape, strict=True):
            low, high = max(0, min(b.start, n - 1)), max(1, min(b.stop, n))
            spans.append([low // c, max(math.ceil(high / c), low // c + 1)])
        centre = _centre(box)
        while math.prod((s[1] - s[0]) * c for s, c in zip(spans, grid.core, strict=True)) > self._most:
            sizes = [(s[1] - s[0] > 1) * (s[1] - s[0]) * c for s, c in zip(spans, grid.core, strict=True)]
            if not any(sizes):
                break
            axis = sizes.index(max(sizes))
            middle = sum(spans[axis]) * grid.core[axis] / 2
            spans[axis][0 if centre[axis] > middle else 1] += 1 if centre[axis] > middle else -1
        corners = [grid.box([s[0] for s in spans]), grid.box([s[1] - 1 for s in spans])]
        return tuple(slice(a.start, b.stop) for a, b in zip(*corners, strict=True))

    @property
    def engine(self) -> Engine:
        """What computes it."""
        return self.lazy.engine

    @property
    def geometry(self) -> Stack:
        """Zeros that lie where the whole result does."""
        return result_of(self.own, self.engine.model)

    def seen(self, box: Box) -> Iterator[tuple[Box, Box, np.ndarray] | Edges]:
        """Yield (all of what is shown for a box, a part of it, the result there), as `blocks`; boxes of the result.

        The box is one of the image. A task that finds objects gives these in place of classes, in the end `Edges`.
        """
        if self.engine.model.task.objects is not None:
            yield from objects_seen(self, self.working_box(box))
            return
        if self.own is not self.engine.stack:
            yield from self._seen_at_own(box)
            return
        whole, factors = self.box_of(box), self.engine.factors
        for part, values in self.blocks(whole):
            yield scaled(whole, factors), scaled(part, factors), values

    def _seen_at_own(self, box: Box) -> Iterator[tuple[Box, Box, np.ndarray]]:
        """Yield what `seen` does where the network runs at other pixels than the image's own."""
        grid, result = self.lazy.grid, self.result()
        whole = self.working_box(box)
        finer = [f / r for f, r in zip(self.engine.factors, result.ratios, strict=True)]
        for at in sorted(grid.under(whole), key=lambda at: remoteness(grid.box(at), _centre(whole))):
            part = covered(grid.box(at), finer, grid.shape, result.shape)
            if all(b.stop > b.start for b in part):
                yield covered(whole, finer, grid.shape, result.shape), part, result.read(part)

    def working_box(self, box: Box) -> Box:
        """Return the whole blocks, at the pixels that the network runs at, under a box of the image."""
        if self.own is self.engine.stack:
            return self.box_of(box)
        parts = zip(box, self.result().ratios, strict=True)
        return self.box_of(tuple(slice(int(b.start * r), math.ceil(b.stop * r)) for b, r in parts))

    def result(self) -> Resampled:
        """Return the result at the image's own pixels, lazily."""
        axes, shape = self.engine.axes, self.geometry.values_along(self.engine.axes, "shape")
        sizes = ratios(self.own.scale_along(axes), self.engine.stack.scale_along(axes))
        return resampling(self.engine.model.task.result)(_Shown(self), shape, sizes)

    def blocks(self, box: Box) -> Iterator[tuple[Box, np.ndarray]]:
        """Yield the blocks under a box with their results: those that are kept at once, then from its centre outward.

        Parameters
        ----------
        box : box
            As `box_of` gives it; of another one, whole blocks are given that may reach beyond it.

        Yields
        ------
        (box, array)
            A block's place in the image, and what the task makes of it, of several channels the first. It is computed
            when it is asked for, so that closing the iterator leaves the rest.
        """
        grid = self.lazy.grid
        centre, missing = _centre(box), []
        for at in grid.under(box):
            found = self.lazy.cached(at)
            if found is None:
                missing.append(at)
            else:
                yield grid.box(at), self._first(found)
        if not missing:
            return
        for at in sorted(missing, key=lambda at: remoteness(grid.box(at), centre)):
            yield grid.box(at), self._first(self.lazy.block(at))

    def _first(self, values: np.ndarray) -> np.ndarray:
        return values.take(0, int(self.engine.axes.startswith("t"))) if self.lazy.channels > 1 else values

    def read(self, box: Box) -> np.ndarray:
        """Return the result in just this box, which lies in the image; finer where the result is."""
        if self.own is not self.engine.stack:
            return self.result().read(scaled(box, self.engine.factors))
        return self.read_working(box)

    def read_working(self, box: Box) -> np.ndarray:
        """Return the result in a box at the pixels that the network runs at."""
        return joined(box, self.blocks(box), self.engine.factors)


class _Shown(LazyBase):
    """The result of a preview, of several channels the first."""

    __slots__ = ("_preview", "base")

    def __init__(self, preview: Preview) -> None:
        self._preview, self.base = preview, preview.lazy.grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis that is tiled."""
        sizes = zip(self._preview.lazy.grid.shape, self._preview.engine.factors, strict=True)
        return tuple(math.ceil(n * f) for n, f in sizes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the result."""
        return np.dtype(self._preview.engine.model.task.dtype)

    def read(self, box: Box) -> np.ndarray:
        """Return the result in a box of its elements."""
        factors = self._preview.engine.factors
        whole = tuple(slice(b.start // f, -(-b.stop // f)) for b, f in zip(box, factors, strict=True))
        return self._preview.read_working(whole)[within(box, scaled(whole, factors))]


def _centre(box: Box) -> tuple[float, ...]:
    return tuple((b.start + b.stop - 1) / 2 for b in box)
