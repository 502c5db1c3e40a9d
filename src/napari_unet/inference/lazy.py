"""A result that is computed where it is looked at."""

import hashlib
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import UsageError
from ..model import OneModel, as_model
from ..stack import Stack
from ..tiles import Box, Factor, TileGrid, scaled, within
from .blocking import block_of, choose_tile, device_memory
from .config import PredictConfig
from .engine import Engine
from .intensities import remarks, with_notes
from .job import fitted
from .outputs import result_geometry

if TYPE_CHECKING:
    import dask.array as da

CACHE_BYTES = 2**28

_made: "weakref.WeakValueDictionary[str | None, LazyBlocks]" = weakref.WeakValueDictionary()


def predict_lazy(stack: Stack, model: OneModel, config: PredictConfig | None = None) -> Stack:
    """Return the result of `model` on `stack` as a lazy stack: a block is computed when it is looked at, and kept.

    Parameters
    ----------
    stack : Stack
    model : Model, path or name
    config : PredictConfig, optional
        Its block, memory, device, precision, nan, percentiles, each_time, padding and resample count.

    Returns
    -------
    Stack
        Backed by a dask array with one chunk a block; the values are those of `predict`. Its notes say what is odd
        about the intensities.

    Raises
    ------
    ModelError
        Stack and model do not fit.
    DataError
        NaN or infinite intensities where they are refused; a pixel size without a unit where the image is to be
        resampled.
    """
    config, model = config or PredictConfig(), as_model(model)
    stack = fitted(stack, model, config)
    config.check_intensities([model])
    engine = Engine.of(stack, model, config)
    notes = list(remarks(stack, [model], config, engine.statistics))
    return with_notes(lazily(engine, config, config.block), notes)


def lazily(engine: Engine, config: PredictConfig, block: tuple[int, ...] | None) -> Stack:
    """Return the result of an engine as a lazy stack, in blocks of the size given, or chosen from the memory limit."""
    stack, task = engine.stack, engine.model.task
    shape = tuple(stack.size(a) for a in engine.axes)
    core = block_of(block, shape) or choose_tile(engine, device_memory(engine.device, config.memory))
    limit = max(CACHE_BYTES, int(config.memory * 2**30 / 2))
    blocks = LazyBlocks(engine, TileGrid(shape, core, engine.footprint), limit)
    axes, fields = result_geometry(stack, engine.axes, engine.factors, blocks.channels)
    geometry: dict[str, Any] = {name: value for name, value in fields.items() if name != "shape"}
    return Stack(
        data=blocks.as_dask(),
        axes=axes,
        **geometry,
        channel_names=task.names if blocks.channels > 1 else (),
        name=f"{stack.name} {task.name}",
        source=stack.source,
    )


class LazyBlocks:
    """The blocks of a result, computed one at a time and kept within a limit, the least recently used going first.

    With each goes a digest of what was read for it, so that it is never taken for the result of another image.

    Parameters
    ----------
    engine : Engine
    grid : TileGrid
    limit : int
        Bytes of results that are kept.
    """

    def __init__(self, engine: Engine, grid: TileGrid, limit: int = CACHE_BYTES) -> None:
        self.engine, self.grid, self.limit = engine, grid, limit
        self._kept: OrderedDict[tuple[int, ...], tuple[np.ndarray, bytes]] = OrderedDict()
        self._bytes = 0
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
                    self._keep(at, found, _digest(data))
        return found

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
            if at in self._kept:
                self._kept.move_to_end(at)
            return self._kept.get(at)

    def _keep(self, at: tuple[int, ...], block: np.ndarray, digest: bytes) -> None:
        with self._guard:
            self._kept[at] = block, digest
            self._bytes += block.nbytes
            while self._bytes > self.limit:
                self._bytes -= self._kept.popitem(last=False)[1][0].nbytes

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
        """Return a dask array with one chunk a block."""
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

        dtype, name = np.dtype(self.engine.model.task.dtype), f"unet-{uuid.uuid4().hex}"
        _made[name] = self
        map_blocks: Any = da.map_blocks
        return cast(
            "da.Array",
            map_blocks(compute, name=name, chunks=chunks, dtype=dtype, meta=np.empty((0,) * len(chunks), dtype)),
        )

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
        Elements of the result for one of the image, an axis.
    """
    out: np.ndarray | None = None
    whole = scaled(box, factors)
    for part, values in parts:
        shared = [slice(max(p.start, b.start), min(p.stop, b.stop)) for p, b in zip(part, box, strict=True)]
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
