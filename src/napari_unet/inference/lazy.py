"""A result that is computed where it is looked at."""

import threading
from collections import OrderedDict
from typing import Any, cast

import dask.array as da
import numpy as np

from ..model import Model
from ..stack import Stack
from ..tiles import TileGrid
from .blocking import block_of, choose_tile, device_memory
from .config import PredictConfig
from .engine import Engine
from .job import fitted
from .outputs import result_geometry

CACHE_BYTES = 2**28


def predict_lazy(stack: Stack, model: Model, config: PredictConfig | None = None) -> Stack:
    """Return the result of `model` on `stack` as a lazy stack: a block is computed when it is looked at, and kept.

    Parameters
    ----------
    stack : Stack
    model : Model
    config : PredictConfig, optional
        Its block, memory, device, precision, nan and resample count.

    Returns
    -------
    Stack
        Backed by a dask array with one chunk a block; the values are those of `predict`.

    Raises
    ------
    ModelError
        Stack and model do not fit.
    DataError
        NaN or infinite intensities where they are refused; a pixel size without a unit where the image is to be
        resampled.
    """
    config = config or PredictConfig()
    stack = fitted(stack, model, config)
    engine = Engine.of(stack, model, config.device, config.precision, config.fill, config.mirror)
    return lazily(engine, config, config.block)


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

    Parameters
    ----------
    engine : Engine
    grid : TileGrid
    limit : int
        Bytes of results that are kept.
    """

    def __init__(self, engine: Engine, grid: TileGrid, limit: int = CACHE_BYTES) -> None:
        self.engine, self.grid, self.limit = engine, grid, limit
        self._kept: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()
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
                    logits = self.engine.logits(tile, self.engine.read(tile.read))
                    found = self._arranged(self.engine.model.task.decode(logits))
                    self._keep(at, found)
        return found

    def _arranged(self, values: np.ndarray) -> np.ndarray:
        """Bring what the task gives to the axes of the result."""
        if self.engine.model.task.result == "labels":
            return values
        return np.moveaxis(values, 0, int(self.engine.axes.startswith("t"))) if self.channels > 1 else values[0]

    def cached(self, at: tuple[int, ...]) -> np.ndarray | None:
        """Return the result of the tile at position `at` if it is kept; waits for no network."""
        with self._guard:
            if at in self._kept:
                self._kept.move_to_end(at)
            return self._kept.get(at)

    def _keep(self, at: tuple[int, ...], block: np.ndarray) -> None:
        with self._guard:
            self._kept[at] = block
            self._bytes += block.nbytes
            while self._bytes > self.limit:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def as_dask(self) -> da.Array:
        """Return a dask array with one chunk a block."""
        sizes = zip(self.grid.core, self.grid.shape, self.engine.factors, strict=True)
        each = [tuple(min(c, n - start) * f for start in range(0, n, c)) for c, n, f in sizes]
        at = int(self.engine.axes.startswith("t"))
        if self.channels > 1:
            each.insert(at, (self.channels,))
        chunks = tuple(each)

        def compute(block_info: dict[None, dict[str, tuple[int, ...]]]) -> np.ndarray:
            place = tuple(block_info[None]["chunk-location"])
            return self.block(place[:at] + place[at + 1 :] if self.channels > 1 else place)

        dtype = np.dtype(self.engine.model.task.dtype)
        map_blocks: Any = da.map_blocks
        return cast(
            "da.Array", map_blocks(compute, chunks=chunks, dtype=dtype, meta=np.empty((0,) * len(chunks), dtype))
        )
