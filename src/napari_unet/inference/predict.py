"""Run a model over a stack of any size into an OME-Zarr store: exact, out of core, resumable."""

import dataclasses
import importlib.metadata
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..device import DEVICES, PRECISIONS
from ..errors import DataError, IncompleteError, UsageError
from ..events import Progress
from ..model import Model
from ..settings import check, setting
from ..sources import missing_chunks, open_stack
from ..stack import Stack
from ..store import Output, ResultStore
from ..tiles import Tile, TileGrid
from .engine import Engine, check_fit, choose_core, is_exact
from .outputs import coarseness, labels_output, mean_of, overview_output, place, probabilities_output
from .pipeline import Pipeline

PROBABILITIES = ("none", "uint8", "float16")


@dataclasses.dataclass(frozen=True, slots=True)
class PredictConfig:
    """What a user may choose for a prediction."""

    precision: str = setting("auto", "Arithmetic of the network: bf16 where the hardware has it", choices=PRECISIONS)
    device: str = setting("auto", "Where the network runs", choices=DEVICES)
    block: tuple[int, ...] | None = setting(None, "Block an axis (z y x, or y x); chosen from the memory limit if not given")
    memory: float = setting(2.0, "Memory that the network may take, in GiB", ge=0.05)
    probabilities: str = setting("none", "Write the probability of each class too", choices=PROBABILITIES)
    name: str | None = setting(None, "Name of the result inside the store; the model's name if not given")
    overview: bool = setting(True, "Put the image beside its labels: all of it up to 1 GiB, coarser if larger")
    missing: str = setting("fill", "Chunks that are not stored: take the fill value, or refuse", choices=("fill", "error"))
    nan: str = setting("refuse", "NaN and infinite intensities: refuse, or take 0", choices=("refuse", "fill=0"))
    ome_version: str = setting("0.5", "Version of OME-Zarr that is written", choices=("0.5", "0.4"))
    in_source: bool = setting(False, "Write labels/NAME into the source's own OME-Zarr instead of a new one")
    overwrite: bool = setting(False, "Replace a result of an earlier run; nothing else is ever replaced")

    def __post_init__(self) -> None:
        check(self)
        if self.block is not None and min(self.block, default=0) < 1:
            raise UsageError(f"block is {self.block}; sizes must be at least 1")

    @property
    def fill(self) -> float | None:
        """Value in place of NaN and infinity, if they are not refused."""
        return 0.0 if self.nan == "fill=0" else None

    def core(self, engine: Engine) -> tuple[int, ...]:
        """Return the block for `engine`: the one asked for, else the best that the memory allows.

        Raises
        ------
        UsageError
            Where it has more sizes than the stack has axes.
        """
        if self.block is None:
            return choose_core(engine, int(self.memory * 2**30))
        lacking = len(engine.axes) - len(self.block)
        if lacking < 0:
            raise UsageError(
                f"block {self.block} has {len(self.block)} sizes, {engine.stack.name} is tiled along {engine.axes}; "
                f"give at most {len(engine.axes)}"
            )
        return (1,) * lacking + tuple(self.block)


def predict(stack: Stack, model: Model, out: Path, config: PredictConfig | None = None) -> Iterator[Progress]:
    """Write the result of `model` on `stack` to `out`; closing the iterator cancels and keeps what is done.

    The result does not depend on blocks, and a run that was stopped goes on where it was when it is started again.

    Parameters
    ----------
    stack : Stack
        Any of t, c, z, y, x; c must be the model's channels. A 2-D model takes each plane for itself.
    model : Model
    out : Path
        OME-Zarr store to make, or to go on with. Not used with ``config.in_source``.
    config : PredictConfig, optional

    Yields
    ------
    Progress
        One a finished block.

    Returns
    -------
    Stack
        The result, lazily: labels in the stack's axes without c.

    Raises
    ------
    ModelError
        Stack and model do not fit.
    DataError
        NaN or infinite intensities; missing chunks where they are refused.
    OutputError
        `out` is there and is not an unfinished run of just this.
    IncompleteError
        Some blocks could not be read; the others are done and kept.
    """
    config = config or PredictConfig()
    check_fit(stack, model)
    missing = missing_chunks(stack)
    if missing and config.missing == "error":
        raise DataError(f"{stack.name} lacks {missing} chunks; copy them again, or take their fill value with --missing fill")
    yield Progress(0, 0, "measure", f"intensities of {stack.name}")
    engine = Engine.of(stack, model, config.device, config.precision, config.fill)
    job = Job.plan(engine, config)
    root = Path(stack.source or "") if config.in_source else Path(out)
    with job.create(root, config) as store:
        yield Progress(len(store.done), len(job.grid), "predict", job.summary(missing))
        yield from job.run(store)
        yield from store.finish()
    return open_stack(root / job.outputs[0].path)


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A run laid out: the tiles, and the arrays that they fill.

    Parameters
    ----------
    engine : Engine
    grid : TileGrid
    outputs : tuple of Output
        Labels first.
    coarser : tuple of int
        How many elements of the image one of the overview's stands for, an axis of the grid.
    """

    engine: Engine
    grid: TileGrid
    outputs: tuple[Output, ...]
    coarser: tuple[int, ...]

    @classmethod
    def plan(cls, engine: Engine, config: PredictConfig) -> "Job":
        """Choose blocks and lay out the arrays of the result."""
        stack = engine.stack
        shape = tuple(stack.size(a) for a in engine.axes)
        coarser = coarseness(stack, engine.axes) if config.overview and not config.in_source else (1,) * len(shape)
        core = config.core(engine)
        step = [math.lcm(s, f) for s, f in zip(engine.footprint.stride, coarser, strict=True)]
        core = tuple(math.ceil(c / s) * s for c, s in zip(core, step, strict=True))
        grid = TileGrid(shape, core, engine.footprint)
        outputs = [labels_output(engine, grid, config.name)]
        if config.probabilities != "none":
            outputs.append(probabilities_output(engine, grid, config.probabilities))
        if config.overview and not config.in_source:
            outputs.append(overview_output(engine, grid, coarser))
        return cls(engine, grid, tuple(outputs), coarser)

    def create(self, root: Path, config: PredictConfig) -> ResultStore:
        """Make the store, or take up an unfinished run with the same settings."""
        engine = self.engine
        return ResultStore.create(
            root,
            self.outputs,
            blocks=len(self.grid),
            settings=self.settings(config),
            provenance={
                "source": engine.stack.source,
                "model": {"sha256": engine.model.sha256, **engine.model.record},
                "versions": {name: importlib.metadata.version(name) for name in ("torch", "zarr", "numpy")},
                "tile_exact": is_exact(engine.model),
            },
            version=config.ome_version,
            overwrite=config.overwrite,
            into_existing=config.in_source,
        )

    def settings(self, config: PredictConfig) -> dict[str, Any]:
        """Return what must be the same for a run to be resumed."""
        stack, engine = self.engine.stack, self.engine
        chosen = dataclasses.asdict(config)
        for name in ("overwrite", "device", "memory", "missing"):
            del chosen[name]
        chosen |= {"block": list(self.grid.core), "precision": str(engine.precision).removeprefix("torch.")}
        image = {
            "shape": list(stack.shape),
            "axes": stack.axes,
            "dtype": str(stack.dtype),
            "intensities": dataclasses.asdict(engine.statistics),
            "modified": _modified(stack),
        }
        return {**chosen, "model": engine.model.sha256, "image": image}

    def summary(self, missing: int) -> str:
        """Return one line: what is about to be done."""
        core = "x".join(map(str, self.grid.core))
        halo = "x".join(str(h + m) for h, m in zip(self.grid.footprint.halo, self.grid.footprint.margin, strict=True))
        precision = str(self.engine.precision).removeprefix("torch.")
        gaps = f"; {missing} chunks are not stored and read as the fill value" if missing else ""
        seams = "" if is_exact(self.engine.model) else "; its norm takes statistics from the tile: expect seams"
        return f"{len(self.grid)} blocks of {core}, halo {halo}, {precision} on {self.engine.device}{gaps}{seams}"

    def run(self, store: ResultStore) -> Iterator[Progress]:
        """Compute the blocks that are not done yet; yield one event a block.

        Raises
        ------
        IncompleteError
            After all others are done, where blocks could not be read.
        """
        failed: dict[int, str] = {}

        def read(number: int) -> tuple[np.ndarray, dict[str, Any]] | None:
            tile = self.grid[number]
            try:
                data = self.engine.read(tile)
            except DataError as error:
                failed[number] = str(error)
                return None
            return self.engine.prepare(tile, data), self._overview_region(tile, data)

        def compute(number: int, got: tuple[np.ndarray, dict[str, Any]] | None) -> dict[str, Any] | None:
            if got is None:
                return None
            prepared, regions = got
            return self._result_regions(self.grid[number], prepared) | regions

        def write(number: int, regions: dict[str, Any] | None) -> None:
            if regions is not None:
                store.write(number, regions)

        done, total = len(store.done), len(self.grid)
        pipeline = Pipeline(store.pending(), read, compute, write)
        for number in pipeline:
            done += number not in failed
            yield Progress(done, total, "predict")
        if failed:
            number, why = next(iter(failed.items()))
            raise IncompleteError(
                f"{len(failed)} of {total} blocks could not be read (block {number}: {why}); "
                "the others are done: repair the source and run the same command again"
            )

    def _result_regions(self, tile: Tile, prepared: np.ndarray) -> dict[str, Any]:
        """Run the network on a tile and decode: path -> (box, data)."""
        task, logits = self.engine.model.task, self.engine.logits(tile, prepared)
        regions: dict[str, Any] = {self.outputs[0].path: (tile.write, task.decode(logits))}
        if len(self.outputs) > 1 and self.outputs[1].path == "probabilities":
            output = self.outputs[1]
            values = np.asarray(task.probabilities(logits))
            if output.dtype == np.uint8:
                values = np.rint(values * 255)
            regions[output.path] = place(output, tile.write, values)
        return regions

    def _overview_region(self, tile: Tile, data: np.ndarray) -> dict[str, Any]:
        """Cut the core out of what was read, (C, *read), and bring it to the overview's scale."""
        output = self.outputs[-1]
        if output.path:
            return {}
        core = [slice(w.start - r.start, w.stop - r.start) for w, r in zip(tile.write, tile.read, strict=True)]
        values = mean_of(data[(slice(None), *core)], (1, *self.coarser))
        box = [slice(w.start // f, math.ceil(w.stop / f)) for w, f in zip(tile.write, self.coarser, strict=True)]
        return {"": place(output, tuple(box), values)}


def _modified(stack: Stack) -> float | None:
    """Time of the last change of the source's file, or of its metadata."""
    path = Path(stack.source or "")
    candidates = [path / "zarr.json", path / ".zarray", path / ".zattrs", path] if stack.source else []
    return next((c.stat().st_mtime for c in candidates if c.is_file()), None)
