"""Run a model over a stack of any size into an OME-Zarr store: exact, out of core, resumable."""

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..errors import DataError, IncompleteError
from ..events import Progress
from ..faults import named_faults
from ..intensities.normalise import Statistics
from ..model import Model, Models, OneModel, as_model
from ..sources import missing_chunks, open_stack
from ..store import ResultStore, find
from ..store.admission import check_apart, own_root
from ..store.tiff import names_tiff
from .cluster import connected, run_on
from .config import PredictConfig
from .diagnostics import rounding
from .engine import Engine, check_fit
from .instances import make_objects
from .intensities import measured, remarks, with_notes
from .job import Job, forget_unread, note_unread
from .lazy import LazyBlocks, lazily
from .outputs import result_path
from .prepare import cascade, fitted, index_in, passed
from .reuse import Shown, blocks_of, taken_over
from .tiff import Then, into_tiff

ELSEWHERE = "choose another place, or write labels into it with --in-source"


class _Look(NamedTuple):
    """Where somebody looks, and what was computed for it."""

    near: tuple[float, ...] | None
    blocks: LazyBlocks | None


def predict(
    stack: Stack,
    model: Models,
    out: Path,
    config: PredictConfig | None = None,
    *,
    near: tuple[float, ...] | None = None,
    shown: Shown | None = None,
) -> Generator[Progress, None, Stack]:
    """Write the result of `model` on `stack` to `out`; closing the iterator cancels and keeps what is done.

    The result depends neither on blocks nor on their order, and a run that was stopped goes on where it was when it is
    started again.

    Parameters
    ----------
    stack : Stack
        Any of t, c, z, y, x; c must be the model's channels. A 2-D model takes each plane for itself.
    model : Model, path or name, or a sequence of them
        Several run one into the other, block by block; all but the last give images.
    out : Path
        OME-Zarr store to make, or to go on with. Where the name ends in ``.tif``, a TIFF: see `save_tiff`; until it is
        whole ``OUT.ome.zarr`` lies beside it. Not used with ``config.in_source``.
    config : PredictConfig, optional
    near : tuple of float, optional
        Where somebody looks: indices in `stack`, one an axis without c. Blocks are computed from there outward.
    shown : Stack or Preview, optional
        What `predict_lazy` gave, or a preview: blocks that were computed for it are taken from there, where model and
        intensities are the same and no probabilities are wanted.

    Yields
    ------
    Progress
        Among them one `Block` a finished block.

    Returns
    -------
    Stack
        The result, lazily: labels in the stack's axes without c, or the image that the model gives; with
        ``config.resample`` at the model's pixel size.

    Raises
    ------
    ModelError
        Stack and model do not fit.
    UsageError
        `near` has not one index an axis; `shown` is of another kind; `config` asks for what the model does not give.
    DataError
        NaN or infinite intensities; missing chunks where they are refused; no unit of the pixel size to resample by.
    OutputError
        `out` is there and is not an unfinished run of just this.
    IncompleteError
        Some blocks could not be read; the others are done and kept.
    """
    config, models = config or PredictConfig(), cascade(model)
    run = functools.partial(_into_store, stack, models, _Look(near, None if shown is None else blocks_of(shown)))
    with named_faults():
        if names_tiff(out) and not config.in_source:
            check_apart(Path(out), stack, "choose another name")
            return (yield from into_tiff(run, Path(out), config, models[-1].task.result))
        return (yield from run(Path(out), config))


def _into_store(
    stack: Stack,
    models: tuple[Model, ...],
    look: _Look,
    out: Path,
    config: PredictConfig,
    then: Then | None = None,
) -> Generator[Progress, None, Stack]:
    """Write the result as OME-Zarr, then do `then` with it before others may.

    With `then`, a store that is finished is taken up again.
    """
    check_fit(stack, models[0])
    config.check_models(models)
    missing, given = _missing(stack, config), stack
    yield Progress(0, 0, "measure", f"intensities of {stack.name}")
    stack = fitted(passed(cached(stack), models[:-1], config), models[-1], config)
    start = None if look.near is None else index_in(given, stack, look.near)
    root = _root(stack, out, config)
    engine = _engine(root, stack, models, config)
    notes = list(remarks(stack, models, config, engine.statistics, len(models) > 1))
    for line in notes:
        yield Progress(0, 0, "note", line)
    job = Job.plan(engine, config, models[:-1])
    reopen = then is not None
    with connected(config.scheduler, job) as client, job.create(root, config, reopen) as store:
        if config.precision == "auto" and not store.count:
            yield from _rounded(engine)
        yield Progress(store.count, job.total, "predict", job.summary(missing, config.memory))
        yield from carried_out(job, store, client, start, look.blocks)
        result = with_notes(open_stack(root / job.outputs[0].path), notes)
        if then is not None:
            yield from then(result)
    return result


def carried_out(
    job: Job, store: ResultStore, client: Any, start: tuple[float, ...] | None, seen: LazyBlocks | None = None
) -> Iterator[Progress]:
    """Compute what is neither done nor seen, here or on a client's cluster, then what follows from the blocks."""
    yield from taken_over(job, store, seen)
    try:
        yield from job.run(store, start) if client is None else run_on(client, job, store, start)
    except IncompleteError:
        note_unread(job.decoder.engine.stack, store.ledger)
        raise
    yield from make_objects(job, store)
    yield from store.finish()
    forget_unread(store.ledger)


def _root(stack: Stack, out: Path, config: PredictConfig) -> Path:
    """Return the store of the result: the image's own, or one apart from it."""
    if config.in_source:
        return own_root(stack)
    check_apart(Path(out), stack, ELSEWHERE)
    return Path(out)


def _missing(stack: Stack, config: PredictConfig) -> int:
    """Count the chunks that are not stored; refuse them where that is asked for."""
    missing = missing_chunks(stack)
    if missing and config.missing == "error":
        raise DataError(
            f"{stack.name} lacks {missing} chunks; copy them again, or take their fill value with --missing fill"
        )
    return missing


def _rounded(engine: Engine) -> Iterator[Progress]:
    """Say what the arithmetic changes; a sample that cannot be read is named when its block's turn comes."""
    with contextlib.suppress(DataError):
        found = rounding(engine)
        if found is not None:
            yield Progress(0, 0, "measure", str(found))


def _engine(root: Path, stack: Stack, models: tuple[Model, ...], config: PredictConfig) -> Engine:
    found = _measured(root, stack, models, config)
    return Engine(stack, models[-1], found, config.device, config.precision, config.fill, config.tta)


def _measured(root: Path, stack: Stack, models: tuple[Model, ...], config: PredictConfig) -> Statistics:
    """Measure the intensities; of a source repaired since, those with which an earlier run normalised what is done."""
    *before, model = models
    now = measured(stack, model, config, bool(before))
    found = find(root, [result_path(model, config.name)], config.in_source)
    if found is None:
        return now
    try:
        earlier = Statistics.from_json(found[1].settings["image"]["intensities"])
    except (KeyError, TypeError, ValueError):  # no run of a model: it is refused when its place is taken
        return now
    otherwise = now.cells and not earlier.cells and not now.times  # by a version that measured other parts
    if otherwise or earlier.unreadable > now.unreadable:
        return dataclasses.replace(earlier, seen=now.seen, notes=now.notes)
    return now


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
