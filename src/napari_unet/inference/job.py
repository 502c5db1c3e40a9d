"""A run laid out: at which pixel size, in which blocks, into which arrays; and carried out on this machine."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box, Zeros
from ..device import versions
from ..errors import DataError, ResourceError, UsageError
from ..events import Block, Progress
from ..faults import out_of_memory
from ..files import read, remove, replace
from ..grid.columns import ColumnGrid
from ..grid.tiles import Factor, TileGrid, scaled
from ..model import Model
from ..settings import to_keys
from ..sources.identity import MOST_LOOKED_AT, STORED, stored
from ..store import ResultStore, find
from ..store.admission import removal
from ..store.journal import Journal
from ..store.layout import WORKING
from ..store.ome import Output
from .config import DRAWING, LATER, STEPS, PredictConfig
from .engine import Engine
from .events import Opened
from .flow import Decoder, DoneBlocks, Route, Streams, Tiles, raise_unfinished
from .layout import Layout, block_bytes, choose_layout, device_memory
from .outputs import (
    coarseness,
    error_output,
    image_output,
    labels_output,
    objects_output,
    overview_output,
    probabilities_output,
    samples_output,
    std_output,
    uncertainty_output,
)
from .pipeline import Pipeline
from .region import Region

UNREAD = "unread"  # in the ledger: which parts of the image could not be read when its intensities were measured


def run_settings(stack: Stack, model: Model, config: PredictConfig, before: Sequence[Model] = ()) -> dict[str, Any]:
    """Return what a result follows from, as far as it is known before anything is read or chosen.

    Parameters
    ----------
    stack : Stack
        What `model` takes, at the pixel size it is run at: with models before it what they give.
    before : sequence of Model
        Of a cascade, the models before the last.
    """
    chosen = to_keys(config)
    for name in ("overwrite", "break_lock", "device", "memory", "missing", "scheduler", "allow_tcp"):
        del chosen[name]
    drawing = _drawing(config, (*before, model))
    for name in LATER:
        if chosen[name] is None or chosen[name] is False:
            del chosen[name]
    image = {"shape": list(stack.shape), "axes": stack.axes, "dtype": str(stack.dtype), "modified": _modified(stack)}
    found = stored(stack)
    image |= found.to_json() if found is not None else {}
    cascade = {"cascade": [m.sha256 for m in before]} if before else {}
    return {**drawing, **chosen, **cascade, "model": model.sha256, "image": image}


def _drawing(config: PredictConfig, models: Sequence[Model]) -> dict[str, Any]:
    """Return what samples follow from; empty where no model draws any."""
    if not any(model.task.drawn for model in models):
        return {}
    values = config.steps or STEPS, config.samples or 1, config.seed or 0
    # Once steps were Euler's, and each sample had noise of its own: a run of then does not go on with others.
    return dict(zip(DRAWING, values, strict=True)) | {"way": "exponential, noise in pairs"}


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A run laid out: the blocks, the way through them, and the arrays that they fill.

    Parameters
    ----------
    objects : Output, optional
        Labels of objects that are made of the decoder's classes: blocks of their own, after those of the network.
    before : tuple of Model
        Of a cascade, the models that the stack has passed through.
    own : Job, optional
        The result at the image's own pixels, where the network runs at others: it is made of what is written here.
    region : Region, optional
        The part of the image that `own` is, and that the network is given for it.
    stages : tuple of Job
        Of samples, the steps before those of the network here, some in each; see `stages`.
    """

    grid: TileGrid
    layout: Layout
    decoder: Decoder
    objects: Output | None = None
    before: tuple[Model, ...] = ()
    own: "Job | None" = None
    region: Region | None = None
    stages: "tuple[Job, ...]" = ()

    def of_samples(self) -> "Job":
        """Return the job whose network gives samples, as they are, of which ``own`` makes mean and deviation."""
        kind = np.dtype(np.float32)
        outputs = tuple(dataclasses.replace(output, dtype=kind) for output in self.decoder.outputs)
        task: Any = dataclasses.replace(cast("Any", self.decoder.task), dtype_name=str(kind))
        return dataclasses.replace(self, decoder=dataclasses.replace(self.decoder, outputs=outputs, task=task))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All arrays of the result, that first."""
        if self.own is not None:
            return self.own.outputs
        return self.decoder.outputs if self.objects is None else (self.objects, *self.decoder.outputs)

    @property
    def factors(self) -> dict[str, Factor]:
        """Elements of the result for one of the image, per tiled axis."""
        engine = (self.own or self).decoder.engine
        return dict(zip(engine.axes, engine.factors, strict=True))

    @property
    def written(self) -> int:
        """Blocks of the result, of all kinds."""
        return len((self.own or self).grid) * (1 if (self.own or self).objects is None else 2)

    @property
    def ahead(self) -> int:
        """Blocks of steps that come before those of the network here."""
        return sum(len(stage.grid) for stage in self.stages)

    @property
    def apart(self) -> int:
        """Blocks of the network that are not the result's."""
        return self.ahead + (0 if self.own is None else len(self.grid))

    @property
    def total(self) -> int:
        """Blocks of all kinds."""
        return self.apart + self.written

    def pending(self, store: ResultStore) -> list[int]:
        """Return the blocks that the network has not done yet."""
        return [number for number in store.pending() if number < len(self.grid)]

    @classmethod
    def plan(cls, engine: Engine, config: PredictConfig, before: tuple[Model, ...] = ()) -> "Job":
        """Choose blocks and lay out the arrays of the result."""
        stack = engine.stack
        shape = tuple(stack.size(a) for a in engine.axes)
        task = config.applied(engine.model.task)
        overview = config.overview and not config.in_source and task.result == "labels"
        coarser = coarseness(stack, engine.axes) if overview else (1,) * len(shape)
        layout = choose_layout(engine, device_memory(engine.device, config.memory), config.block)
        step = [math.lcm(s, f) for s, f in zip(engine.footprint.stride, coarser, strict=True)]
        core = tuple(math.ceil(c / s) * s for c, s in zip(layout.core, step, strict=True))
        grid = TileGrid(shape, core, engine.footprint)
        if task.result == "image":
            outputs = [image_output(engine, grid)] + [std_output(engine, grid)] * config.uncertainty
            outputs += [samples_output(engine, grid, config.samples or 1)] * config.each_sample
            outputs += [error_output(engine, grid)] * config.error
            return cls(grid, layout, Decoder(engine, tuple(outputs), coarser, task), None, before)
        outputs = [labels_output(engine, grid, config.name)]
        if config.probabilities:
            outputs.append(probabilities_output(engine, grid, config.probability_type))
        if config.uncertainty:
            outputs.append(uncertainty_output(engine, grid))
        if overview:
            outputs.append(overview_output(engine, grid, coarser))
        objects = None if task.objects is None else objects_output(engine, grid, config.name, task.objects)
        return cls(grid, layout, Decoder(engine, tuple(outputs), coarser, task), objects, before)

    def opened(self, store: ResultStore, message: str) -> Opened:
        """Return the event that says where the result is, and how it lies."""
        output, task = self.decoder.outputs[0], self.decoder.task
        geometry = Stack(
            data=Zeros(output.shape, output.dtype),
            axes=output.axes,
            scale=output.scale,
            units=output.units,
            translation=output.translation,
            channel_names=output.channel_names,
            name=self.decoder.engine.stack.name,
        )
        return Opened(
            store.count,
            self.total,
            "predict",
            message,
            path=store.root / output.path,
            geometry=geometry,
            kind=task.result,
            attributes=task.attributes(),
        )

    def create(self, root: Path, config: PredictConfig, reopen: bool = False) -> ResultStore:
        """Make the store, or take up an unfinished run with the same settings; with `reopen` a finished one too."""
        engine = self.decoder.engine
        models = [{"sha256": m.sha256, "name": m.record.get("name")} for m in (*self.before, engine.model)]
        return ResultStore.create(
            root,
            self.outputs,
            blocks=self.written,
            settings=self._resumable(root, config),
            provenance={
                "source": engine.stack.source,
                "model": models[-1],
                **({"cascade": models[:-1]} if self.before else {}),
                **_drawing(config, (*self.before, engine.model)),
                "versions": _made_with(),
                "tile_exact": engine.model.config.tile_exact,
                **({"windows": engine.windows} if engine.windows else {}),
            },
            version=config.ome_version,
            overwrite=config.overwrite,
            break_lock=config.break_lock,
            into_existing=config.in_source,
            reopen=reopen,
        )

    def removal(self, root: Path, config: PredictConfig) -> Iterator[Progress]:
        """Say what of an earlier result goes, where it is to be replaced."""
        return removal(root, [o.path for o in self.outputs], config.in_source) if config.overwrite else iter(())

    def _resumable(self, root: Path, config: PredictConfig) -> dict[str, Any]:
        """Return the settings; where only what could not be read was replaced since, the image is the one it was.

        Raises
        ------
        UnsafeError, OutputError
            As `find` does.
        """
        settings = self.settings(config)
        found = find(root, [self.outputs[0].path], config.in_source)
        if found is not None and self.own is not None:  # what could be read lies there
            found = find(found[0] / WORKING, [self.decoder.outputs[0].path], False)
        now, was = settings["image"], found[1].settings.get("image", {}) if found else {}
        if found is None or not isinstance(was, dict) or all(now.get(name) == was.get(name) for name in STORED):
            return settings
        if _is_repaired(self.decoder.engine.stack, found[0], 1 - Journal.of(*found).records.count / found[1].blocks):
            now |= {name: was[name] for name in STORED if name in was}
        return settings

    def settings(self, config: PredictConfig) -> dict[str, Any]:
        """Return what must be the same for a run to be resumed."""
        engine = self.decoder.engine
        found = run_settings(engine.stack, engine.model, config, self.before)
        found |= {name: told for name in ("part", "windows") if (told := getattr(engine, name))}
        found["image"]["intensities"] = engine.statistics.to_json()
        precise = {"block": list(self.grid.core), "precision": engine.precision_name, "planes": self.layout.planes}
        return found | precise

    def summary(self, missing: int, memory: float) -> str:
        """Return one line: what is about to be done, with so many chunks missing, at a limit of `memory` GiB."""
        engine = self.decoder.engine
        core = "x".join(map(str, self.grid.core))
        way = f"streamed along {engine.axes[self.layout.flow]}" if self.layout.flow is not None else "tile by tile"
        way += f", the steps in {len(self.stages) + 1} parts" if self.stages else ""
        way += f" ({engine.windows})" if engine.windows else ""
        gaps = f"; {missing} chunks are not stored and read as the fill value" if missing else ""
        if engine.statistics.unreadable:
            gaps += "; intensities were measured without the parts that cannot be read"
        seams = "" if engine.model.config.tile_exact else f"; {engine.model.seams}: expect seams"
        needed = block_bytes(engine, self.layout)
        if needed > device_memory(engine.device, memory):
            gaps += f"; the network will take about {needed / 2**30:.2g} GiB, more than the limit of {memory:g} GiB"
        count = f"{len(self.grid)} block{'s' * (len(self.grid) != 1)}"
        return f"{count} of {core}, {way}, {engine.precision_name} on {engine.device}{gaps}{seams}"

    def box(self, number: int) -> Box:
        """Return the box of the result that is the network's block `number`."""
        box = scaled(self.grid[number].write, self.decoder.engine.factors)
        if not self.stages:
            return box
        output = self.decoder.outputs[0]  # which ends where the image does, and not where it is mirrored
        sizes = [output.shape[output.axes.index(axis)] for axis in self.decoder.engine.axes]
        return tuple(slice(b.start, min(b.stop, n)) for b, n in zip(box, sizes, strict=True))

    def columns(self) -> ColumnGrid:
        """Return the columns through which planes flow."""
        if self.layout.flow is None:
            raise UsageError("a network that cannot be streamed has no columns; take its tiles")
        return ColumnGrid(self.grid, self.layout.flow, self.layout.planes, self.decoder.engine.batch_axes)

    def route(self) -> Route:
        """Return the way through the blocks: streams, or tiles where the network cannot be streamed."""
        return Tiles(self.decoder, self.grid) if self.layout.flow is None else Streams(self.decoder, self.columns())

    def run(self, store: ResultStore, near: tuple[float, ...] | None = None) -> Iterator[Progress]:
        """Compute the blocks that are not done yet, from `near` outward; yield an event per block, or slab.

        Where memory runs out, slabs are halved, then the processor is taken: the blocks stay the same.

        Raises
        ------
        IncompleteError
            After all others are done, where blocks could not be read.
        ResourceError
            Where even the least does not fit the memory.
        """
        job, failed = self, dict[int, str]()
        while True:
            try:
                yield from job.through(job.route(), store, near, failed)
                break
            except (MemoryError, RuntimeError, OSError) as error:
                if not out_of_memory(error):
                    raise
                job, how = job._smaller(error)
            yield Progress(store.count, self.total, "predict", f"the memory ran out; going on {how}")
        raise_unfinished(failed, len(self.grid))

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
                "finished work is kept: close other programs and run the same command again, or choose a smaller "
                "--memory and another place for the result"
            ) from error
        decoder = dataclasses.replace(self.decoder, engine=engine.on("cpu"))
        return dataclasses.replace(self, decoder=decoder), "on the processor"

    def through(
        self, route: Route, store: ResultStore, near: tuple[float, ...] | None, failed: dict[int, str]
    ) -> Iterator[Progress]:
        """Compute what is pending until all is done or the memory runs out; why a block failed is put in `failed`."""
        total = self.total
        pending = [number for number in self.pending(store) if number not in failed]
        work = route.read, route.compute, route.decode
        pipeline = Pipeline(route.pieces(pending, near), *work, lambda _, found: _written(store, found))
        with contextlib.closing(pipeline.__iter__()) as run:
            for finished in run:
                for number, regions in finished:
                    if isinstance(regions, DataError):
                        failed[number] = str(regions)
                    else:
                        yield Block(store.count, total, "predict", box=self.box(number))
                if not finished:  # a slab that completes no block: a moment to stop at
                    yield Progress(store.count, total, "predict")


@functools.cache  # to read them takes as long as to write a small image
def _made_with() -> dict[str, str]:
    return versions("torch", "zarr", "numpy")


def _written(store: ResultStore, finished: DoneBlocks) -> DoneBlocks:
    """Write the blocks that could be read."""
    for number, regions in finished:
        if not isinstance(regions, DataError):
            store.write(number, regions)
    return finished


def note_unread(stack: Stack, ledger: Path) -> None:
    """Keep beside a run what its image is stored in, so that it can go on when what could not be read is repaired."""
    found = stored(stack)
    if found is not None:
        replace(ledger / UNREAD, found.marks.tobytes())


def forget_unread(ledger: Path) -> None:
    """Remove what was kept beside a run that is finished."""
    remove(ledger / UNREAD)


def _is_repaired(stack: Stack, ledger: Path, left: float) -> bool:
    """Say whether no more of an image is new than can be what a run could not read, of which a part is `left`."""
    found = stored(stack)
    try:
        marks = np.frombuffer(read(ledger / UNREAD, 8 * MOST_LOOKED_AT), np.uint64)
    except (FileNotFoundError, ValueError):
        return False
    return found is not None and found.new_since(marks) <= math.ceil(left * len(marks))


def _modified(stack: Stack) -> float | None:
    """Time of the last change of the source's file, or of its metadata."""
    path = Path(stack.source or "")
    candidates = [path / "zarr.json", path / ".zarray", path / ".zattrs", path] if stack.source else []
    return next((c.stat().st_mtime for c in candidates if c.is_file()), None)
