"""Run a model over a stack of any size into an OME-Zarr store: exact, out of core, resumable."""

import contextlib
import dataclasses
import importlib.metadata
import math
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError, OutputError, ResourceError, UsageError
from ..events import Block, Progress
from ..model import Model
from ..normalise import Statistics
from ..sources import missing_chunks, open_stack
from ..sources.cached import cached
from ..sources.resample import resampled
from ..stack import Stack
from ..store import ResultStore, find
from ..store.ome import METRES, Output
from ..tiles import TileGrid
from .blocking import Layout, choose_layout, device_memory
from .cluster import refuse, run_on
from .columns import ColumnGrid
from .config import PredictConfig
from .engine import Engine, check_fit
from .flow import Decoder, Finished, Route, Streams, Tiles
from .instances import make_objects
from .outputs import (
    coarseness,
    labels_output,
    labels_path,
    objects_output,
    overview_output,
    probabilities_output,
    uncertainty_output,
)
from .pipeline import Pipeline
from .rounding import rounding

LADDER = 3


def predict(
    stack: Stack,
    model: Model,
    out: Path,
    config: PredictConfig | None = None,
    *,
    near: tuple[float, ...] | None = None,
) -> Generator[Progress, None, Stack]:
    """Write the result of `model` on `stack` to `out`; closing the iterator cancels and keeps what is done.

    The result depends neither on blocks nor on their order, and a run that was stopped goes on where it was when it is
    started again.

    Parameters
    ----------
    stack : Stack
        Any of t, c, z, y, x; c must be the model's channels. A 2-D model takes each plane for itself.
    model : Model
    out : Path
        OME-Zarr store to make, or to go on with. Not used with ``config.in_source``.
    config : PredictConfig, optional
    near : tuple of float, optional
        Where somebody looks: indices in `stack`, one an axis without c. Blocks are computed from there outward.

    Yields
    ------
    Progress
        Among them one `Block` a finished block.

    Returns
    -------
    Stack
        The result, lazily: labels in the stack's axes without c; with ``config.resample`` at the model's pixel size.

    Raises
    ------
    ModelError
        Stack and model do not fit.
    UsageError
        `near` has not one index an axis.
    DataError
        NaN or infinite intensities; missing chunks where they are refused; a pixel size without a unit where the
        image is to be resampled.
    OutputError
        `out` is there and is not an unfinished run of just this.
    IncompleteError
        Some blocks could not be read; the others are done and kept.
    """
    config = config or PredictConfig()
    check_fit(stack, model)
    missing = _missing(stack, config)
    given, stack = stack, fitted(cached(stack), model, config)
    start = None if near is None else index_in(given, stack, near)
    yield Progress(0, 0, "measure", f"intensities of {stack.name}")
    root = Path(stack.source or "") if config.in_source else Path(out)
    if not config.in_source:
        _check_apart(stack, root)
    engine = Engine(
        stack, model, _measured(root, stack, model, config), config.device, config.precision, config.fill, config.mirror
    )
    job = Job.plan(engine, config)
    with job.create(root, config) as store:
        if config.precision == "auto" and not store.count:
            yield from _rounded(engine)
        yield Progress(store.count, job.total, "predict", job.summary(missing))
        if config.scheduler is None:
            yield from job.run(store, start)
        else:
            yield from run_on(config.scheduler, job, store, start)
        yield from make_objects(job, store)
        yield from store.finish()
    return open_stack(root / job.outputs[0].path)


def _missing(stack: Stack, config: PredictConfig) -> int:
    """Count the chunks that are not stored; refuse them where that is asked for."""
    missing = missing_chunks(stack)
    if missing and config.missing == "error":
        raise DataError(
            f"{stack.name} lacks {missing} chunks; copy them again, or take their fill value with --missing fill"
        )
    return missing


def fitted(stack: Stack, model: Model, config: PredictConfig) -> Stack:
    """Return the stack at the pixel size it is run at: the model's with ``config.resample``, else its own.

    Raises
    ------
    ModelError
        Where the stack lacks axes of the model.
    DataError
        Where the unit of a pixel size is not known.
    """
    if not config.resample:
        return stack
    check_fit(stack, model)
    units = stack.along(model.axes, "units")
    for axis, own, wanted in zip(model.axes, units, model.units, strict=True):
        if own not in METRES or wanted not in METRES:
            raise DataError(
                f"{stack.name} cannot be brought to the model's pixel size: along {axis} its unit is "
                f"{own or 'unknown'}, the model's is {wanted or 'unknown'}; correct it in the file's metadata (one of "
                f"{', '.join(METRES)}), or run without --resample"
            )
    factors = [METRES[wanted or ""] / METRES[own] for own, wanted in zip(units, model.units, strict=True)]
    return resampled(stack, {a: s * f for a, s, f in zip(model.axes, model.scale, factors, strict=True)})


def index_in(given: Stack, stack: Stack, near: Sequence[float]) -> tuple[float, ...]:
    """Turn indices in `given` into indices in `stack`, the same image at another pixel size; clipped to it.

    Raises
    ------
    UsageError
        Where there is not one index an axis without c.
    """
    axes = stack.axes.replace("c", "")
    if len(near) != len(axes):
        raise UsageError(f"near is {tuple(near)}, {stack.name} has the axes {axes} without c; give one index an axis")
    found = []
    for axis, index in zip(axes, near, strict=True):
        (old,), (new,) = given.along(axis), stack.along(axis)
        found.append(min(max((index + 0.5) * old / new - 0.5, 0.0), stack.size(axis) - 1.0))
    return tuple(found)


def asked(stack: Stack, model: Model, config: PredictConfig) -> dict[str, Any]:
    """Return what a result follows from, as far as it is known before anything is read or chosen."""
    stack = fitted(stack, model, config)
    chosen = dataclasses.asdict(config)
    for name in ("overwrite", "device", "memory", "missing", "scheduler", "allow_tcp"):
        del chosen[name]
    image = {"shape": list(stack.shape), "axes": stack.axes, "dtype": str(stack.dtype), "modified": _modified(stack)}
    return {**chosen, "model": model.sha256, "image": image}


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A run laid out: the blocks, the way through them, and the arrays that they fill.

    Parameters
    ----------
    grid : TileGrid
    layout : Layout
    decoder : Decoder
    objects : Output, optional
        Labels of objects that are made of the decoder's classes: blocks of their own, after those of the network.
    """

    grid: TileGrid
    layout: Layout
    decoder: Decoder
    objects: Output | None = None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All arrays, the result first."""
        return self.decoder.outputs if self.objects is None else (self.objects, *self.decoder.outputs)

    @property
    def total(self) -> int:
        """Blocks of all kinds."""
        return len(self.grid) * (1 if self.objects is None else 2)

    def pending(self, store: ResultStore) -> list[int]:
        """Return the blocks that the network has not done yet."""
        return [number for number in store.pending() if number < len(self.grid)]

    @classmethod
    def plan(cls, engine: Engine, config: PredictConfig) -> "Job":
        """Choose blocks and lay out the arrays of the result."""
        stack = engine.stack
        shape = tuple(stack.size(a) for a in engine.axes)
        overview = config.overview and not config.in_source
        coarser = coarseness(stack, engine.axes) if overview else (1,) * len(shape)
        layout = choose_layout(engine, device_memory(engine.device, config.memory), config.block)
        step = [math.lcm(s, f) for s, f in zip(engine.footprint.stride, coarser, strict=True)]
        core = tuple(math.ceil(c / s) * s for c, s in zip(layout.core, step, strict=True))
        grid = TileGrid(shape, core, engine.footprint)
        outputs = [labels_output(engine, grid, config.name)]
        if config.probabilities:
            outputs.append(probabilities_output(engine, grid, config.probability_type))
        if config.uncertainty:
            outputs.append(uncertainty_output(engine, grid))
        if overview:
            outputs.append(overview_output(engine, grid, coarser))
        task = config.applied(engine.model.task)
        objects = None if task.objects is None else objects_output(engine, grid, config.name, task.objects)
        return cls(grid, layout, Decoder(engine, tuple(outputs), coarser, task), objects)

    def create(self, root: Path, config: PredictConfig) -> ResultStore:
        """Make the store, or take up an unfinished run with the same settings."""
        engine = self.decoder.engine
        return ResultStore.create(
            root,
            self.outputs,
            blocks=self.total,
            settings=self.settings(config),
            provenance={
                "source": engine.stack.source,
                "model": {"sha256": engine.model.sha256, "name": engine.model.record.get("name")},
                "versions": {name: importlib.metadata.version(name) for name in ("torch", "zarr", "numpy")},
                "tile_exact": engine.model.config.tile_exact,
            },
            version=config.ome_version,
            overwrite=config.overwrite,
            into_existing=config.in_source,
        )

    def settings(self, config: PredictConfig) -> dict[str, Any]:
        """Return what must be the same for a run to be resumed."""
        engine = self.decoder.engine
        found = asked(engine.stack, engine.model, config)
        found["image"]["intensities"] = dataclasses.asdict(engine.statistics)
        precise = {"block": list(self.grid.core), "precision": engine.precision_name, "planes": self.layout.planes}
        return found | precise

    def summary(self, missing: int) -> str:
        """Return one line: what is about to be done."""
        engine = self.decoder.engine
        core = "x".join(map(str, self.grid.core))
        way = f"streamed along {engine.axes[self.layout.flow]}" if self.layout.flow is not None else "tile by tile"
        gaps = f"; {missing} chunks are not stored and read as the fill value" if missing else ""
        if engine.statistics.unreadable:
            gaps += "; intensities were measured without the parts that cannot be read"
        seams = "" if engine.model.config.tile_exact else "; its norm takes statistics from the tile: expect seams"
        count = f"{len(self.grid)} block{'s' * (len(self.grid) != 1)}"
        return f"{count} of {core}, {way}, {engine.precision_name} on {engine.device}{gaps}{seams}"

    def columns(self) -> ColumnGrid:
        """Return the columns through which planes flow."""
        if self.layout.flow is None:
            raise UsageError("a network that cannot be streamed has no columns; take its tiles")
        return ColumnGrid(self.grid, self.layout.flow, self.layout.planes, self.decoder.engine.batch_axes)

    def route(self) -> Route:
        """Return the way through the blocks: streams, or tiles where the network cannot be streamed."""
        return Tiles(self.decoder, self.grid) if self.layout.flow is None else Streams(self.decoder, self.columns())

    def run(self, store: ResultStore, near: tuple[float, ...] | None = None) -> Iterator[Progress]:
        """Compute the blocks that are not done yet, from `near` outward; yield an event a block, or a slab.

        Where memory runs out, slabs are halved, then the processor is taken: the blocks stay the same.

        Raises
        ------
        IncompleteError
            After all others are done, where blocks could not be read.
        ResourceError
            Where even the least does not fit the memory.
        """
        job, failed = self, dict[int, str]()
        for _ in range(LADDER):
            try:
                yield from job._once(store, near, failed)
                break
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                job, how = job._smaller(error)
            yield Progress(store.count, self.total, "predict", f"the memory ran out; going on {how}")
        else:
            yield from job._once(store, near, failed)
        refuse(failed, len(self.grid))

    def _smaller(self, error: BaseException) -> "tuple[Job, str]":
        """Return the same job with half the slab, or on the processor, and in words what it is."""
        engine = self.decoder.engine
        if self.layout.flow is not None:
            stride = engine.footprint.stride[self.layout.flow]
            planes = self.layout.planes // 2 // stride * stride
            if planes:
                halved = dataclasses.replace(self.layout, planes=planes)
                return dataclasses.replace(self, layout=halved), f"with slabs of {planes} planes"
        if engine.device.type == "cpu":
            raise ResourceError(
                f"the memory of this machine ran out at a block of {' x '.join(map(str, self.grid.core))} ({error}); "
                "what is done is kept: close other programs and run the same command again, or choose a smaller "
                "--memory and another place for the result"
            ) from error
        decoder = dataclasses.replace(self.decoder, engine=engine.on("cpu"))
        return dataclasses.replace(self, decoder=decoder), "on the processor"

    def _once(self, store: ResultStore, near: tuple[float, ...] | None, failed: dict[int, str]) -> Iterator[Progress]:
        """Compute what is pending until all is done or the memory runs out."""
        route, total = self.route(), self.total
        pending = [number for number in self.pending(store) if number not in failed]
        pipeline = Pipeline(
            route.pieces(pending, near), route.read, route.compute, lambda _, found: _written(store, found)
        )
        with contextlib.closing(pipeline.__iter__()) as run:
            for finished in run:
                for number, regions in finished:
                    if isinstance(regions, DataError):
                        failed[number] = str(regions)
                    else:
                        yield Block(store.count, total, "predict", box=self.grid[number].write)
                if not finished:  # a slab that completes no block: a moment to stop at
                    yield Progress(store.count, total, "predict")


def _rounded(engine: Engine) -> Iterator[Progress]:
    """Say what the arithmetic changes; a sample that cannot be read is named when its block's turn comes."""
    with contextlib.suppress(DataError):
        found = rounding(engine)
        if found is not None:
            yield Progress(0, 0, "measure", str(found))


def _out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out: torch has an error of its own for accelerators only."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error) or "out of memory" in str(error)


def _written(store: ResultStore, finished: Finished) -> Finished:
    """Write the blocks that could be read."""
    for number, regions in finished:
        if not isinstance(regions, DataError):
            store.write(number, regions)
    return finished


def _check_apart(stack: Stack, root: Path) -> None:
    """Refuse to write a result over, into or around the image it is made from."""
    source = Path(stack.source or "-").resolve()
    if root.resolve() == source or source in root.resolve().parents or root.resolve() in source.parents:
        raise OutputError(
            f"{root} is where the image {stack.name} lies; choose another place, "
            "or write labels into it with --in-source"
        )


def _engine(root: Path, stack: Stack, model: Model, config: PredictConfig) -> Engine:
    measured = _measured(root, stack, model, config)
    return Engine(stack, model, measured, config.device, config.precision, config.fill, config.mirror)


def _measured(root: Path, stack: Stack, model: Model, config: PredictConfig) -> Statistics:
    """Measure the intensities; of a source repaired since, those with which an earlier run normalised what is done."""
    measured = model.normalisation.measure(stack, fill=config.fill)
    found = find(root, [labels_path(model, config.name)], config.in_source)
    if found is None:
        return measured
    was = found[1].settings["image"]["intensities"]
    earlier = Statistics(tuple(was["offset"]), tuple(was["scale"]), was["unreadable"])
    return earlier if earlier.unreadable > measured.unreadable else measured


def _modified(stack: Stack) -> float | None:
    """Time of the last change of the source's file, or of its metadata."""
    path = Path(stack.source or "")
    candidates = [path / "zarr.json", path / ".zarray", path / ".zattrs", path] if stack.source else []
    return next((c.stat().st_mtime for c in candidates if c.is_file()), None)
