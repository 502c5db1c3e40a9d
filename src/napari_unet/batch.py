"""Many files, one run each, and a table of what happened to every one."""

import collections
import contextlib
import dataclasses
import datetime
import math
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from .arrays.stack import Stack
from .device import choose_device
from .errors import GoneError, OutputError, UnetError
from .events import Progress
from .files import disk, make_folder
from .grid.blocks import blocks
from .inference import PredictConfig
from .inference.outputs import result_path
from .inference.pixelsize import size_notes
from .inference.predict import predict
from .inference.preflight import Difference, differences
from .inference.prepare import load_cascade, prepare
from .model import Model, Models
from .sources import open_stack
from .sources.identity import STORED
from .sources.open import Opening
from .store import find
from .store.journal import FOLDER, Journal
from .store.lock import Lock
from .store.ome import check_path
from .summary import FOREGROUND, LONGEST, OBJECTS, SUMMARY, Files, Row, Summary, check_summary, printable
from .targets import Target, find_targets, write_twins
from .task import Task
from .task.losses import BACKGROUND
from .text import without_secrets
from .threads import Ended, Turn, in_turn

LOG = "errors.log"  # what a summary has no room for: tracebacks of files that failed
SMALL = 2**20  # elements, 1024 x 1024: the network holds some 100 MiB for each of two images; a larger one is run alone
GROWN = "the image has grown since its last run, its result is computed again"
GROWS = ("shape", "modified", "intensities", *STORED)  # what is another of an image that goes on being written


def run_batch(
    folder: Path | str,
    model: Models,
    out: Path,
    config: PredictConfig | None = None,
    pattern: str | None = None,
    **opening: Unpack[Opening],
) -> Generator[Progress, None, list[Row]]:
    """Run a model on every image of a folder; what is done is skipped, and a bad file does not stop the rest.

    ``OUT/summary.csv`` is rewritten after each file. Closing the iterator cancels; the same call goes on.

    Parameters
    ----------
    folder : Path or str
        Its images, as `list_images` finds them. Or a plate, or another zarr group of images, on a disk or at an
        address: results lie in a twin of it, by well and field.
    out : Path
        Folder for the results, ``NAME.ome.zarr``, and the summary.
    pattern : str, optional
        Take only what this matches, as in ``*_raw.tif`` or ``*/images/*.png``.
    **opening
        How every image is opened: `Opening`.

    Yields
    ------
    Progress
        `Files` at the beginning and after each file, between the events of `predict`.

    Returns
    -------
    list of Row
        One per file, in natural order.

    Raises
    ------
    DataError
        Where the folder holds no image, or two that would have the same result.
    UsageError
        Where a setting cannot be, or `out` is the folder of the images itself.
    OutputError
        Where another batch writes to `out`, or its ``summary.csv`` is not of a batch.
    ResourceError
        Where `out` cannot be written.
    """
    config, models = config or PredictConfig(), load_cascade(model)
    choose_device(config.device)
    config.check_models(models)
    check_path(result_path(models[-1], config.name), models[-1].task.result)
    files, left_out = find_targets(folder, Path(out), config, pattern)
    check_summary(Path(out) / SUMMARY)
    with disk(Path(out)):
        make_folder(Path(out) / FOLDER)
    lock = Lock.acquire(Path(out) / FOLDER, break_lock=config.break_lock)
    try:
        runner = _Runner(models, Path(out), config, opening)
        summary = Summary(Path(out))
        write_twins(files, Path(out), config)
        yield Files(0, len(files), "batch", left_out, rows=tuple(file.row for file in files))
        return (yield from _run_all(files, runner, summary, lock))
    finally:
        lock.release()


def _run_all(
    files: Sequence[Target], runner: "_Runner", summary: Summary, lock: Lock
) -> Generator[Progress, None, list[Row]]:
    """Run the files, two small ones at a time; the rows come in their order."""
    rows: list[Row] = []
    with contextlib.closing(in_turn(lambda file: _try(file, runner, summary), files)) as events:
        for event in events:
            if not isinstance(event, Ended):
                yield event
                continue
            lock.beat()
            row = event.result
            summary.put(row)
            rows.append(row)
            said = f"{row.file}: {row.state} {row.message}".rstrip()
            yield Files(len(rows), len(files), "batch", said, rows=(row,))
    return rows


def _try(file: Target, runner: "_Runner", summary: Summary) -> Generator[Progress | Turn, None, Row]:
    """Run one file; what is wrong with it is its row."""
    started = time.monotonic()
    row = dataclasses.replace(file.row, state="failed", model=" ".join(model.sha256[:16] for model in runner.models))
    try:
        row = yield from runner.run(file, row, summary)
    except GoneError:  # each of the others would wait for the same server, as long
        raise
    except (UnetError, OSError) as error:
        row = dataclasses.replace(row, message=_line(str(error)))
    except Exception as error:  # whatever readers of foreign files raise: a file in a hundred must not cost the others
        where = _log(runner.out, file)
        row = dataclasses.replace(row, message=_line(f"{file.name}: {type(error).__name__} {error}") + f"; see {where}")
    return dataclasses.replace(row, seconds=time.monotonic() - started)


def _line(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def _log(out: Path, file: Target) -> Path:
    """Add the traceback of the error at hand to the log of the folder; a full disk costs the log alone."""
    path = out / FOLDER / LOG
    with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as log:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        log.write(printable(without_secrets(f"{now} {file.name}\n{traceback.format_exc()}\n")))
    return path


@dataclasses.dataclass(frozen=True, slots=True)
class _Runner:
    models: tuple[Model, ...]
    out: Path
    config: PredictConfig
    opening: Opening

    @property
    def model(self) -> Model:
        """The one that gives the result."""
        return self.models[-1]

    def run(self, file: Target, row: Row, summary: Summary) -> Generator[Progress | Turn, None, Row]:
        """Run the model, unless it is done; count what came out."""
        stack = open_stack(file.source, **self.opening)
        yield Turn.SHARED if self._may_share(file, stack) else Turn.ALONE
        resampled = prepare(stack, self.models, self.config).resampling
        sizes = (*size_notes(stack, self.models[0], self.config), *resampled)
        target = self.out / file.result
        root = Path(stack.source or "") if self.config.in_source else target
        result = str(root.absolute()) if self.config.in_source else file.result
        row = dataclasses.replace(row, message=_line("; ".join([*stack.notes, *sizes])), result=result)
        earlier = self._earlier(stack, root)
        if earlier == "done":
            return dataclasses.replace(row, state="skipped", counts=self._counts(row, root, summary))
        config = dataclasses.replace(self.config, overwrite=self.config.overwrite or earlier == "grown")
        if earlier == "grown":
            row = dataclasses.replace(row, message=_line(f"{row.message}; {GROWN}".lstrip("; ")))
        summary.drop(row.file)
        labels = yield from predict(stack, self.models, target, config)
        return dataclasses.replace(row, state="done", counts=count_voxels(labels, self.model.task))

    def _may_share(self, file: Target, stack: Stack) -> bool:
        """Say whether the next image may be run beside this one: both are small, and their results lie apart."""
        apart = not self.config.in_source and not file.place
        return apart and len(self.models) == 1 and math.prod(stack.shape) <= SMALL

    def _counts(self, row: Row, root: Path, summary: Summary) -> Mapping[str, int]:
        """Return what the table says was counted of a result of the same models; count it where it does not say."""
        known = summary.rows.get(row.file)
        if known is not None and known.model == row.model and known.counts:
            return known.counts
        return count_voxels(open_stack(root / result_path(self.model, self.config.name)), self.model.task)

    def _earlier(self, stack: Stack, root: Path) -> str:
        """Say what an earlier run left: "done" is just this, "grown" the same of an image that was not all there yet.

        Raises
        ------
        OutputError
            Where one finished something else, naming the first setting that was another.
        """
        found = find(root, [result_path(self.model, self.config.name)], self.config.in_source)
        if found is None:
            return ""
        ready = prepare(stack, self.models, self.config)
        if self.opening.get("channel") is not None:  # another channel of one file is another image
            ready = ready.measured()
        different = list(differences(found[1].settings, ready))
        finished = Journal.of(*found).finished
        if not different:
            return "done" if finished else ""
        if _has_grown(different):
            return "grown"
        if finished and not self.config.overwrite:
            raise OutputError(
                f"{root} is the result of another run ({different[0]}); "
                "choose another place, or replace it with --overwrite"
            )
        return ""


def _has_grown(different: Sequence[Difference]) -> bool:
    """Say whether all that differs is that the image has more in it than when it was run, as during an acquisition."""
    names = {each.name for each in different}
    if not names & {f"image {name}" for name in ("modified", "shape", "files", "bytes")} or not names <= {
        f"image {name}" for name in GROWS
    }:
        return False
    return all(each.rises for each in different if each.name not in ("image intensities", "image digest"))


def count_voxels(result: Stack, task: Task) -> dict[str, int]:
    """Count the voxels of each class of a result, or its objects and their voxels, block by block."""
    if task.result != "labels":
        return {}
    if task.objects is not None:
        most = inside = 0
        for box in blocks(result.shape, result.chunks):
            labels = result.read(box)
            most, inside = max(most, int(labels.max())), inside + int(np.count_nonzero(labels))
        return {OBJECTS: most, FOREGROUND: inside}
    names = {0: BACKGROUND} if not getattr(task, "sparse", False) else {}
    names |= {int(p["label-value"]): str(p["class"]) for p in task.attributes().get("properties", ())}
    counts: collections.Counter[int] = collections.Counter()
    for box in blocks(result.shape, result.chunks):
        values, times = np.unique(result.read(box), return_counts=True)
        counts.update(dict(zip(map(int, values), map(int, times), strict=True)))
    return {name: counts[value] for value, name in names.items()}
