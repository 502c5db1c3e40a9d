"""Many files, one run each, and a table of what happened to every one."""

import collections
import csv
import dataclasses
import itertools
import os
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from .device import choose_device
from .errors import DataError, OutputError, UnetError, UsageError
from .evaluation import blocks
from .events import Progress
from .inference import PredictConfig
from .inference.cascade import cascade, passed
from .inference.job import fitted
from .inference.outputs import result_path
from .inference.predict import predict
from .inference.preflight import changed
from .lock import Lock
from .losses import BACKGROUND
from .model import Model, Models
from .sources import list_images, open_stack
from .sources.pairs import stem
from .stack import Stack
from .store import find
from .store.journal import FOLDER, Journal
from .store.layout import disk
from .store.ome import check_path
from .task import Task

SUMMARY = "summary.csv"
COLUMNS = ("file", "state", "seconds", "message", "result", "model")
VOXELS = "voxels_"


class Opening(TypedDict, total=False):
    """How the images are opened, as `open_stack` takes it."""

    axes: str | None
    level: int | None
    channel: int | str | None
    time: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What happened to one file.

    Parameters
    ----------
    file : str
        Its path in the folder.
    state : {"waiting", "done", "skipped", "failed"}
        Skipped is what an earlier run finished with the same model and settings.
    seconds : float
    message : str
        Why it failed; otherwise what was decided on opening it.
    result : str
        Its result, in the folder of the results; the image itself where labels are written into that.
    model : str
        First characters of the model's SHA-256; of each model of a cascade.
    counts : mapping of str to int
        Voxels of each class, by its name.
    """

    file: str
    state: str
    seconds: float
    message: str = ""
    result: str = ""
    model: str = ""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def to_csv(self) -> dict[str, Any]:
        """Return its cells by column."""
        cells = {name: getattr(self, name) for name in COLUMNS}
        return cells | {"seconds": f"{self.seconds:.1f}"} | {VOXELS + name: n for name, n in self.counts.items()}

    @classmethod
    def from_csv(cls, cells: Mapping[str, str]) -> "Row":
        """Build from the cells of a line."""
        counts = {k.removeprefix(VOXELS): int(v) for k, v in cells.items() if k.startswith(VOXELS) and v}
        fixed: dict[str, Any] = {name: cells[name] for name in COLUMNS}
        return cls(**fixed | {"seconds": float(cells["seconds"]), "counts": counts})


@dataclasses.dataclass(frozen=True, slots=True)
class Files(Progress):
    """How far a batch is.

    Parameters
    ----------
    rows : tuple of Row
        At the beginning one a file, all waiting; then that of the file that was tried.
    """

    rows: tuple[Row, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    name: str
    source: Path
    result: str


def run_batch(
    folder: Path,
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
    folder : Path
        Its images, TIFF, PNG, JPEG or OME-Zarr.
    model : Model, path or name, or a sequence of them
    out : Path
        Folder for the results, ``NAME.ome.zarr``, and the summary.
    config : PredictConfig, optional
    pattern : str, optional
        Take only what this matches, as in ``*_raw.tif`` or ``*/images/*.png``.
    **opening
        ``axes``, ``level``, ``channel`` and ``time`` of every image, as `open_stack` takes them.

    Yields
    ------
    Progress
        `Files` at the beginning and after each file, between the events of `predict`.

    Returns
    -------
    list of Row
        One a file, in natural order.

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
    config, models = config or PredictConfig(), cascade(model)
    choose_device(config.device)
    config.applied(models[-1].task)
    check_path(result_path(models[-1], config.name), models[-1].task.result)
    jobs = _jobs(Path(folder).expanduser(), Path(out), config, pattern)
    _check_summary(Path(out) / SUMMARY)
    with disk(Path(out)):
        (Path(out) / FOLDER).mkdir(parents=True, exist_ok=True)
    lock = Lock.acquire(Path(out) / FOLDER)
    try:
        summary, rows = _Summary(Path(out)), []
        runner = _Runner(models, Path(out), config, opening)
        waiting = tuple(Row(job.name, "waiting", 0.0) for job in jobs)
        yield Files(0, len(jobs), "batch", rows=waiting)
        for number, job in enumerate(jobs, 1):
            lock.beat()
            row = yield from _try(job, runner, summary)
            summary.put(row)
            rows.append(row)
            said = f"{row.file}: {row.state} {row.message}".rstrip()
            yield Files(number, len(jobs), "batch", said, rows=(row,))
        return rows
    finally:
        lock.release()


def _jobs(folder: Path, out: Path, config: PredictConfig, pattern: str | None) -> list[_Job]:
    """Say which images there are, and where the result of each goes.

    Raises
    ------
    UsageError
        Where results would come to lie among the images.
    DataError
        Where there is no image, or two would have the same result.
    """
    images = list_images(folder, pattern)
    base = folder if folder not in images else folder.parent
    place = out.resolve()
    if place in (base.resolve(), folder.resolve()) and not config.in_source:
        raise UsageError(f"{out}: the results would lie among the images; give another folder for them")
    if base.resolve() in place.parents:
        images = [path for path in images if place not in path.resolve().parents]
    if not images:
        raise DataError(f"{folder} holds no image but the results in {out}")
    jobs: dict[str, _Job] = {}
    for path in images:
        name = path.relative_to(base)
        result = (name.parent / f"{stem(name)}.ome.zarr").as_posix()
        job = jobs.setdefault(result.lower(), _Job(name.as_posix(), path, result))
        if job.source != path:
            raise DataError(
                f"{job.name} and {name} would have the same result, {result}; rename one, or choose with --pattern"
            )
    return list(jobs.values())


def _try(job: _Job, runner: "_Runner", summary: "_Summary") -> Generator[Progress, None, Row]:
    """Run one file; what is wrong with it is its row."""
    started = time.monotonic()
    row = Row(job.name, "failed", 0.0, model=" ".join(model.sha256[:16] for model in runner.models))
    try:
        row = yield from runner.run(job, row, summary)
    except (UnetError, OSError) as error:
        row = dataclasses.replace(row, message=" ".join(str(error).split()))
    return dataclasses.replace(row, seconds=time.monotonic() - started)


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

    def run(self, job: _Job, row: Row, summary: "_Summary") -> Generator[Progress, None, Row]:
        """Run the model, unless it is done; count what came out."""
        stack = open_stack(job.source, **self.opening)
        target = self.out / job.result
        root = Path(stack.source or "") if self.config.in_source else target
        result = str(root) if self.config.in_source else job.result
        row = dataclasses.replace(row, message="; ".join(stack.notes), result=result)
        if self._is_done(stack, root):
            earlier = summary.rows.get(job.name)
            if earlier is not None and earlier.model == row.model and earlier.counts:
                return dataclasses.replace(row, state="skipped", counts=earlier.counts)
            labels = open_stack(root / result_path(self.model, self.config.name))
            return dataclasses.replace(row, state="skipped", counts=voxels(labels, self.model.task))
        summary.drop(job.name)
        labels = yield from predict(stack, self.models, target, self.config)
        return dataclasses.replace(row, state="done", counts=voxels(labels, self.model.task))

    def _is_done(self, stack: Stack, root: Path) -> bool:
        """Say whether an earlier run finished just this; refuse to go over one that finished something else.

        Raises
        ------
        OutputError
            Naming the first setting that was another.
        """
        found = find(root, [result_path(self.model, self.config.name)], self.config.in_source)
        if found is None or not Journal(found[0]).finished:
            return False
        measured = None
        if self.opening.get("channel") is not None:
            read = fitted(passed(stack, self.models[:-1], self.config), self.model, self.config)
            measured = self.model.normalisation.measure(read, fill=self.config.fill)
        taken = passed(stack, self.models[:-1], self.config, measure=False)
        difference = changed(found[1].settings, taken, self.models, self.config, measured)
        if difference and not self.config.overwrite:
            raise OutputError(
                f"{root} is the result of another run ({difference}); "
                "choose another place, or replace it with --overwrite"
            )
        return not difference


def voxels(result: Stack, task: Task) -> dict[str, int]:
    """Count the voxels of each class of a result, or its objects, block by block."""
    if task.result != "labels":
        return {}
    if task.objects is not None:
        return {"objects": max(int(result.read(box).max()) for box in blocks(result.shape, result.chunks))}
    names = {0: BACKGROUND} if not getattr(task, "sparse", False) else {}
    names |= {int(p["label-value"]): str(p["class"]) for p in task.attributes().get("properties", ())}
    counts: collections.Counter[int] = collections.Counter()
    for box in blocks(result.shape, result.chunks):
        values, times = np.unique(result.read(box), return_counts=True)
        counts.update(dict(zip(map(int, values), map(int, times), strict=True)))
    return {name: counts[value] for value, name in names.items()}


class _Summary:
    """The table of all files that batches into this folder have seen; written whole or not at all."""

    def __init__(self, out: Path) -> None:
        self._path = out / SUMMARY
        self.rows = {row.file: row for row in _check_summary(self._path)}

    def put(self, row: Row) -> None:
        """Write it with the row of a file put in place."""
        self.rows[row.file] = row
        self._write()

    def drop(self, file: str) -> None:
        """Write it without the row of a file, whose result is about to change."""
        if self.rows.pop(file, None) is not None:
            self._write()

    def _write(self) -> None:
        lines = [row.to_csv() for row in self.rows.values()]
        columns = dict.fromkeys(itertools.chain(COLUMNS, *lines))
        temporary = self._path.parent / FOLDER / f"{SUMMARY}.tmp"
        with disk(self._path.parent):
            with temporary.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, list(columns), restval="")
                table.writeheader()
                table.writerows(lines)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)


def _check_summary(path: Path) -> list[Row]:
    """Read the table of earlier batches; refuse a file that is none."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OutputError(f"{path} is a link or a folder; choose another folder for the results")
    try:
        return list(_rows(path)) if path.exists() else []
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise OutputError(
            f"{path} exists and is not the table of a batch; move it away, or choose another folder for the results"
        ) from error


def _rows(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ())[: len(COLUMNS)] != COLUMNS:
            raise ValueError(f"columns are {table.fieldnames}")
        yield from map(Row.from_csv, table)
