"""Run a model over a stack of any size into an OME-Zarr store: exact, out of core, resumable."""

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..errors import DataError, GoneError, IncompleteError
from ..events import Progress
from ..faults import named_faults
from ..intensities.normalise import Statistics
from ..model import Models
from ..sources import missing_chunks, open_stack
from ..sources.identity import Stored, on_disk
from ..store import ResultStore, find
from ..store.admission import check_apart
from ..store.tiff import names_tiff
from .cluster import connected, run_on
from .config import PredictConfig
from .diagnostics import rounding
from .engine import Engine
from .instances import make_objects
from .intensities import with_notes
from .job import Job, forget_unread, note_unread
from .lazy import LazyBlocks, Preview, lazy_result
from .own import bring_back, samples_of, workplace
from .prepare import Prepared, index_in, load_cascade, prepare
from .reuse import Shown, blocks_of, reuse_blocks
from .several import Devices
from .stages import forget, go_through
from .tiff import Then, into_tiff

ELSEWHERE = "choose another place, or write labels into it with --in-source"


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
    stack : Stack, or what `open_stack` takes
        Any of t, c, z, y, x; c must be the model's channels. A 2-D model takes each plane for itself.
    model : Model, path or name, or a sequence of them
        Several run one into the other, block by block; all but the last give images.
    out : Path
        OME-Zarr store to make, or to go on with. Where the name ends in ``.tif``, a TIFF: see `save_tiff`; until it is
        whole ``OUT.ome.zarr`` lies beside it. Not used with ``config.in_source``.
    near : tuple of float, optional
        Viewed position: indices in `stack`, one per axis without c. Blocks are computed from there outward.
    shown : Stack or Preview, optional
        What `predict_lazy` gave, or a preview: blocks that were computed for it are taken from there, where model and
        intensities are the same and no probabilities are wanted.

    Yields
    ------
    Progress
        Among them one `Opened`, before the first block, and one `Block` for each block that is finished.

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
        `near` has not one index per axis; `shown` is of another kind; `config` asks for what the model does not give.
    DataError
        NaN or infinite intensities; missing chunks where they are refused; no unit of the pixel size to resample by.
    OutputError
        `out` is there and is not an unfinished run of just this.
    IncompleteError
        Some blocks could not be read; the others are done and kept.
    """
    config, stack = config or PredictConfig(), open_stack(stack)
    seen = None if shown is None or config.region is not None else blocks_of(shown)  # those are of the whole image
    with named_faults("--memory and --block"):
        ready = prepare(cached(stack), model, config)
        config.applied(ready.model.task)
        run = functools.partial(_into_store, ready, near, seen)
        if names_tiff(out) and not config.in_source:
            check_apart(Path(out), stack, "choose another name")
            return (yield from into_tiff(run, Path(out), config, ready.model.task.result))
        return (yield from run(Path(out), config))


def _into_store(
    ready: Prepared,
    near: tuple[float, ...] | None,
    seen: LazyBlocks | None,
    out: Path,
    config: PredictConfig,
    then: Then | None = None,
) -> Generator[Progress, None, Stack]:
    """Write the result as OME-Zarr, then do `then` with it before others may.

    With `then`, a store that is finished is taken up again.
    """
    ready = dataclasses.replace(ready, config=config)
    root, missing = ready.root(out), _missing(ready.given, config)
    if not config.in_source:
        check_apart(root, ready.given, ELSEWHERE)
    start = None if near is None else index_in(ready.given, ready.stack, near)
    yield Progress(0, 0, "measure", f"intensities of {ready.given.name}")
    with ready.building():
        ready = ready.measured(_earlier(root, ready))
    notes = ready.notes()
    for line in notes:
        yield Progress(0, 0, "note", line)
    job, reopen = ready.job(), then is not None
    yield from job.removal(root, config)
    with connected(config.scheduler, job) as cluster, job.create(root, config, reopen) as store:
        client = cluster or Devices.of(config.device)
        yield from store.notices()
        if config.precision == "auto" and not store.count:
            yield from _rounded(ready.engine)
        said = job.summary(missing, config.memory)
        about = yield from execute(job, store, client, said, start, seen)
        notes += [about] if about else []
        result = with_notes(open_stack(root / job.outputs[0].path), notes)
        if then is not None:
            yield from then(result)
    return result


def execute(
    job: Job,
    store: ResultStore,
    client: Any,
    said: str,
    start: tuple[float, ...] | None = None,
    seen: LazyBlocks | None = None,
) -> Generator[Progress, None, str]:
    """Compute what is neither done nor seen, here or on a client's cluster, then what follows from the blocks.

    Returns a note on the objects for the user, if there is one.
    """
    image, several = job.decoder.engine.stack, samples_of(job) > 1
    began = on_disk(image)
    with workplace(job, store) as work:
        # Of several samples, which lie behind each other along t, their mean is shown, and no block of theirs.
        whole = job.own.opened(store, said) if several and job.own is not None else job.opened(work, said)
        yield dataclasses.replace(whole, done=work.count, total=job.total)
        yield from reuse_blocks(job, work, seen)

        def compute(part: Job, place: ResultStore) -> Iterator[Progress]:
            if isinstance(client, Devices):
                found = client.run(part, place, start)
            else:
                found = part.run(place, start) if client is None else run_on(client, part, place, start)
            return (Progress(e.done, e.total, e.stage, e.message) for e in found) if several else found

        try:
            last = yield from go_through(job, work, compute)
            for event in compute(last, work):
                yield dataclasses.replace(event, done=event.done + job.ahead) if job.ahead else event
        except IncompleteError as error:
            if not isinstance(error, GoneError):  # nothing is damaged, and nobody answers what it is
                note_unread(image, work.ledger)
            raise
        forget(job, work)
        yield from bring_back(job, work, store)
        changed = _check_image(image, began, work, store)
        yield from (Progress(0, 0, "note", line) for line in changed)
        note = yield from make_objects(job, work, store)
    yield from store.finish()
    forget_unread(store.ledger)
    return "; ".join(filter(None, (note, *changed)))


def _check_image(image: Stack, began: Stored | None, *stores: ResultStore) -> list[str]:
    """Look whether the image is the one that it was when the run began; return what is to be said of it.

    Raises
    ------
    DataError
        Where chunks have gone, which read as the fill value: no block is kept then, as none tells when it was read.
    """
    now = on_disk(image)
    if began is None or now is None or now == began:
        return []
    lost = began.files - now.files
    if lost <= 0:
        return [f"{image.name} has changed while it was run: the result may be of both; run it again with --overwrite"]
    for store in stores:
        store.renew(range(store.plan.blocks))
    raise DataError(
        f"{image.name} has lost {lost} of its {began.files} files while it was run, and what was read of them since is "
        "the fill value; no block of the result is kept: copy the image again and run it again with --overwrite"
    )


def _missing(stack: Stack, config: PredictConfig) -> int:
    """Count missing chunks; refuse them if the settings say so."""
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


def _earlier(root: Path, ready: Prepared) -> Statistics | None:
    """Return the intensities of an unfinished run on this place, if there are any."""
    found = find(root, [ready.path], ready.config.in_source)
    if found is None:
        return None
    try:
        return Statistics.from_json(found[1].settings["image"]["intensities"])
    except (KeyError, TypeError, ValueError):  # no run of a model: it is refused when its place is taken
        return None


def predict_lazy(stack: Stack, model: Models, config: PredictConfig | None = None) -> Stack:
    """Return the result of `model` on `stack` as a lazy stack: a block is computed when it is read, and kept.

    Parameters
    ----------
    config : PredictConfig, optional
        Its block, memory, device, precision, nan, percentiles, each_time, padding and resample count, and steps and
        seed: where the model draws samples, this is one.

    Returns
    -------
    Stack
        Backed by a dask array with one chunk per block; the values are those of `predict`. Its notes say what is odd
        about the intensities. Of a model of objects it holds these, each of them whole: around what is read as much is
        computed as its objects need, up to 2**24 voxels. Ids rise as those of `predict`, with gaps, as that needs the
        whole image: an object has the same id wherever it is read. One that is larger than that is cut, and has an id
        in the upper half of their range, of uint32 from 2**31 on. Ids are not carried on over time.

    Raises
    ------
    ModelError
        Stack and model do not fit.
    DataError
        NaN or infinite intensities where they are refused; a pixel size without a unit where the image is to be
        resampled.
    """
    ready = prepare(stack, model, _whole(config)).measured()
    found = lazy_result(ready.engine, ready.config, ready.config.block, ready.own)
    return with_notes(found, ready.notes())


def _whole(config: PredictConfig | None) -> PredictConfig:
    """Return settings without a region: what is computed where it is viewed is of the whole image, and one sample."""
    return dataclasses.replace(config or PredictConfig(), region=None, samples=None)


def preview(stack: Stack, model: Models, config: PredictConfig | None = None) -> Preview:
    """Return the result of `model` on `stack` for a viewer: the visible blocks, the nearest first.

    Parameters
    ----------
    stack, model, config
        As `predict_lazy` takes them.

    Raises
    ------
    ModelError, UsageError, DataError
        As `predict_lazy`; where something is chosen that the model's result has not.
    """
    config = _whole(config)
    *before, last = load_cascade(model)
    shown = dataclasses.replace(last, task=config.applied(last.task))
    ready = prepare(stack, [*before, shown], config).measured()
    return Preview(ready.engine, own=ready.own)
