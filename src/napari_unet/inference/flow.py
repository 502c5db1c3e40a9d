"""The two ways through a run's blocks: streams of slabs, and single tiles for networks that cannot be streamed."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..arrays.views import Box, within
from ..errors import DataError, IncompleteError
from ..grid.columns import ColumnGrid, Slab
from ..grid.tiles import TileGrid, remoteness, scaled
from ..network.stream import Chain, Stream
from ..store import Output
from ..task import Restore, Task
from .engine import Engine, pieces
from .outputs import entropy, mean_of, place, rescaled

Regions: TypeAlias = dict[str, tuple[Box, np.ndarray]]
DoneBlocks: TypeAlias = list[tuple[int, Regions | DataError]]


IMAGE = "image"  # what was read, among the values of a block


class Route(Protocol):
    """A way through the blocks of a run: pieces of work in order, read and computed one after the other."""

    def build(self) -> None:
        """Make the network ready, which is done once."""

    def pieces(self, pending: Collection[int], near: Sequence[float] | None = None) -> Iterator[Any]:
        """Yield the work on the pending blocks, from the viewed position outward if that is known."""

    def read(self, piece: Any) -> Any:
        """Read and prepare a piece."""

    def compute(self, piece: Any, got: Any) -> Any:
        """Run the network on a piece."""

    def decode(self, piece: Any, got: Any) -> DoneBlocks:
        """Turn what the network gave into values; return the blocks that are complete with it."""


@dataclasses.dataclass(slots=True)
class Decoder:
    """Turns logits, and the image itself, into what is written.

    Parameters
    ----------
    outputs : tuple of Output
        Labels, or the image that is the result, first; then probabilities, uncertainty and the overview, where wanted.
    coarser : tuple of int
        Elements of the image that one of the overview's stands for, per axis.
    """

    engine: Engine
    outputs: tuple[Output, ...]
    coarser: tuple[int, ...]
    task: Task

    @property
    def wants_image(self) -> bool:
        """Whether the image itself is needed: it is written too, or its difference from the result is."""
        return self.outputs[-1].path == ("" if self.task.result == "labels" else "error")

    @torch.inference_mode()
    def decode(self, logits: Tensor) -> dict[str, np.ndarray]:
        """(K, *tiled axes) logits -> path: (channels, *tiled axes) values.

        On the processor in pieces, as they lie in memory: what a task computes of one stays in the cache.
        """
        if logits.device.type != "cpu":
            return self._decoded(logits)
        order = [0, *sorted(range(1, logits.ndim), key=logits.stride, reverse=True)]
        laid, found = logits.permute(order), dict[str, np.ndarray]()
        for part in pieces(laid.shape[1:], len(laid)):
            for path, values in self._decoded(laid[(slice(None), *part)]).items():
                if path not in found:
                    found[path] = np.empty((len(values), *laid.shape[1:]), values.dtype)
                found[path][(slice(None), *part)] = values
        return {path: values.transpose([order.index(i) for i in range(len(order))]) for path, values in found.items()}

    def _decoded(self, logits: Tensor) -> dict[str, np.ndarray]:
        if isinstance(self.task, Restore):
            values = {"": self.task.decode(logits)}
            deviates = any(output.path == "uncertainty" for output in self.outputs)
            return values | ({"uncertainty": self.task.predicted_std(logits)} if deviates else {})
        values = {self.outputs[0].path: self.task.decode(logits)[None]}
        wanted = {output.path: output.dtype for output in self.outputs[1:] if output.path}
        if wanted:
            found = self.task.probabilities(logits)
            each = {"probabilities": found, "uncertainty": entropy(found[: self.task.exclusive])[None]}
            values |= {path: rescaled(each[path], dtype) for path, dtype in wanted.items()}
        return values

    def _is_overview(self, output: Output) -> bool:
        return self.task.result == "labels" and not output.path

    def regions(self, box: Box, values: dict[str, np.ndarray]) -> Regions:
        """Bring a block's values to the axes and scale of their arrays."""
        regions: Regions = {}
        if self.outputs[-1].path == "error":
            values["error"] = np.abs(values[""].astype(np.float32) - values[IMAGE].astype(np.float32))
        for output in self.outputs:
            data = values[IMAGE if self._is_overview(output) else output.path]
            if not self._is_overview(output):
                regions[output.path] = place(output, scaled(box, self.engine.factors), data)
                continue
            coarse = tuple(slice(b.start // f, math.ceil(b.stop / f)) for b, f in zip(box, self.coarser, strict=True))
            regions[""] = place(output, coarse, mean_of(data, (1, *self.coarser)))
        return regions


class Tiles:
    """One tile per block: for networks whose norm takes statistics from what it sees."""

    def __init__(self, decoder: Decoder, grid: TileGrid) -> None:
        self._decoder, self._grid = decoder, grid

    def build(self) -> None:
        """Make the network ready."""
        self._decoder.engine.net()

    def pieces(self, pending: Collection[int], near: Sequence[float] | None = None) -> Iterator[int]:
        """Yield the numbers of the blocks, in order or from `near` outward."""
        numbers = sorted(pending)
        if near is not None:
            batch = self._decoder.engine.batch_axes
            numbers.sort(key=lambda number: remoteness(self._grid[number].write, near, batch))
        return iter(numbers)

    def read(self, number: int) -> np.ndarray | DataError:
        """Read a tile; what cannot be read is handed on, so that the other blocks are done."""
        try:
            return self._decoder.engine.read(self._grid[number].read)
        except DataError as error:
            return error

    def compute(self, number: int, got: np.ndarray | DataError) -> tuple[np.ndarray, Tensor] | DataError:
        """Run the network on a tile: what was read, and logits."""
        return got if isinstance(got, DataError) else (got, self._decoder.engine.logits(self._grid[number], got))

    def decode(self, number: int, got: tuple[np.ndarray, Tensor] | DataError) -> DoneBlocks:
        """Turn the logits of a tile into values."""
        if isinstance(got, DataError):
            return [(number, got)]
        (image, logits), tile = got, self._grid[number]
        values = self._decoder.decode(logits)
        if self._decoder.wants_image:
            values[IMAGE] = image[(slice(None), *within(tile.write, tile.read))]
        return [(number, self._decoder.regions(tile.write, values))]


@dataclasses.dataclass(frozen=True, slots=True)
class Planes:
    """What was read of a slab.

    Parameters
    ----------
    values : (B, C, *S) tensor, or None
        What the network takes; None where it would give what it gave of the slab before.
    image : (C, *read) array, or None
        As it is stored, where it is written too.
    lost : list of (box, error)
        What could not be read.
    """

    values: Tensor | None
    image: np.ndarray | None
    lost: list[tuple[Box, DataError]]


class Emptiness:
    """Knows when a slab would give just what the slab before it gave: one value for longer than the network sees.

    Parameters
    ----------
    planes : int
        Planes of a whole slab; the stream is the same after as many again.
    sight : int
        Planes of one value after which nothing in the stream depends on what came before.
    """

    def __init__(self, planes: int, sight: int) -> None:
        self._planes, self._sight = planes, sight
        self._value: list[float] | None = None
        self._run = 0

    def repeats(self, slab: Slab, data: np.ndarray | None) -> bool:
        """Look at the next slab of (C, *read) intensities, None where some could not be read; say whether it repeats.

        The result of the slab before can be used again if that one was pushed into a stream of this value alone.
        """
        value = None if data is None else _only_value(data)
        if slab.first or value is None or value != self._value:
            self._value, self._run = value, 0
        found = self._run - self._planes >= self._sight and not slab.last and len(slab.index) == self._planes
        self._run += len(slab.index) if value is not None else 0
        return found


def _only_value(data: np.ndarray) -> list[float] | None:
    """Return the one value of each channel of (C, *S), None where there are several."""
    first = data[(slice(None), *(slice(0, 1) for _ in data.shape[1:]))]
    line = data[(slice(None), *(slice(0, 1) for _ in data.shape[2:]))]
    if bool((line == first).all()) and bool((data == first).all()):
        return [float(value) for value in first.ravel()]
    return None


class Streams:
    """One stream a column: each plane is computed once, and empty space only as far as the network sees its edge."""

    def __init__(self, decoder: Decoder, columns: ColumnGrid) -> None:
        self._decoder, self._columns, self._flow = decoder, columns, columns.flow
        engine = decoder.engine
        flow = self._flow - engine.batch_axes
        self._order = (flow, *(i for i in range(engine.model.config.ndim) if i != flow))
        self._stream: Stream | Chain | None = None
        self._position = 0
        self._empty = Emptiness(columns.planes, 2 * self._reach + columns.planes)
        self._values: dict[str, np.ndarray] = {}
        self._parts: dict[int, dict[str, list[np.ndarray]]] = {}
        self._lost: dict[int, DataError] = {}

    def build(self) -> None:
        """Make the network ready."""
        self._decoder.engine.stream(self._order)

    def pieces(self, pending: Collection[int], near: Sequence[float] | None = None) -> Iterator[Slab]:
        """Yield the slabs of all columns, in order or from `near` outward."""
        return self._columns.slabs(pending, near)

    def read(self, slab: Slab) -> Planes:
        """Read and prepare the next planes.

        What cannot be read flows as zeros: only the blocks within the network's reach of it are lost.
        """
        engine = self._decoder.engine
        lost: list[tuple[Box, DataError]] = []
        try:
            data = engine.read(slab.read)
        except DataError:
            data, lost = engine.salvage(slab.read)
        if self._empty.repeats(slab, None if lost or engine.draws else data):
            return Planes(None, data if self._decoder.wants_image else None, lost)
        values = engine.tensor(slab.mirror(engine.drawn(data, slab.read)), slab.read, self._order)
        return Planes(values, data if self._decoder.wants_image else None, lost)

    def compute(self, slab: Slab, got: Planes) -> tuple[Planes, Tensor | None]:
        """Push the planes through the network: what was read, and logits of the planes that are complete with it."""
        if slab.first or self._stream is None:
            self._stream = self._decoder.engine.stream(self._order)
        return got, None if got.values is None else self._stream.push(got.values, slab.last)

    def decode(self, slab: Slab, computed: tuple[Planes, Tensor | None]) -> DoneBlocks:
        """Turn the logits of planes into values; return the blocks that are complete with them."""
        got, logits = computed
        if slab.first:
            self._parts, self._lost = {}, {}
            self._position = (slab.start + self._decoder.engine.footprint.margin[self._flow]) * self._factor
        for box, error in got.lost:
            self._lose(slab, box[self._flow], error)
        if got.image is not None:
            self._keep_image(slab, got.image)
        if got.values is not None:
            if logits is None:
                return []
            self._values = self._decoder.decode(self._core(slab, logits))
        self._keep(slab, self._values, self._position)
        self._position += next(iter(self._values.values())).shape[self._flow + 1]
        return self._complete(slab)

    @property
    def _factor(self) -> int:
        """Planes of the result for one of the image."""
        return int(self._decoder.engine.factors[self._flow])

    @property
    def _reach(self) -> int:
        """Planes to either side that a plane of the result depends on."""
        foot = self._decoder.engine.footprint
        return foot.halo[self._flow] + foot.margin[self._flow]

    def _lose(self, slab: Slab, planes: slice, error: DataError) -> None:
        """Mark the blocks that depend on planes that could not be read."""
        for number, span in slab.column.blocks.items():
            if span.start - self._reach < planes.stop and planes.start < span.stop + self._reach:
                self._lost.setdefault(number, error)

    @torch.inference_mode()
    def _core(self, slab: Slab, out: Tensor) -> Tensor:
        """(B, K, planes, *others) -> (K, *tiled axes): the column's core, in the order of the axes."""
        first, column = self._decoder.engine.batch_axes, slab.column
        crop = scaled(column.crop, self._decoder.engine.factors)
        others = [crop[first + i] for i in self._order[1:]]
        out = out[(slice(None), slice(None), slice(None), *others)].transpose(0, 1)
        back = [2 + self._order.index(i) for i in range(len(self._order))]
        out = out.permute(0, 1, *back)
        batch = [b.stop - b.start for b in column.write[:first]]
        return out.reshape(len(out), *batch, *out.shape[2:])

    def _keep_image(self, slab: Slab, data: np.ndarray) -> None:
        planes = slab.read[self._flow]
        low, high = max(slab.start, planes.start), min(slab.start + len(slab.index), planes.stop)
        if low < high:
            box = list(within(slab.column.write, slab.column.read))
            box[self._flow] = slice(low - planes.start, high - planes.start)
            self._keep(slab, {IMAGE: data[(slice(None), *box)]}, low)

    def _keep(self, slab: Slab, values: dict[str, np.ndarray], start: int) -> None:
        """Hand planes of the result that begin at `start` to the blocks they belong to."""
        for path, data in values.items():
            axis = self._flow + 1
            for number, planes in slab.column.blocks.items():
                span = slice(planes.start * self._factor, planes.stop * self._factor)
                low, high = max(span.start, start), min(span.stop, start + data.shape[axis])
                if low < high:
                    part = data[(slice(None),) * axis + (slice(low - start, high - start),)]
                    self._parts.setdefault(number, {}).setdefault(path, []).append(part)

    def _complete(self, slab: Slab) -> DoneBlocks:
        finished: DoneBlocks = []
        wanted = len(self._decoder.outputs)
        for number in list(self._parts):
            parts, span = self._parts[number], slab.column.blocks[number]
            if self._position < span.stop * self._factor or len(parts) < wanted:
                continue
            del self._parts[number]
            if number in self._lost:
                finished.append((number, self._lost[number]))
                continue
            values = {path: np.concatenate(found, self._flow + 1) for path, found in parts.items()}
            box = (*slab.column.write[: self._flow], span, *slab.column.write[self._flow + 1 :])
            finished.append((number, self._decoder.regions(box, values)))
        return finished


def raise_unfinished(failed: dict[int, str], total: int) -> None:
    """Raise an error that names what could not be done, if anything.

    Raises
    ------
    IncompleteError
    """
    if failed:
        number, why = next(iter(failed.items()))
        raise IncompleteError(
            f"{len(failed)} of {total} blocks could not be done (block {number}: {why}); "
            "the others are done: repair the source and run the same command again"
        )
