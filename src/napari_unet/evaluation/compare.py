"""What of a result is right, as labels to look at: hits, misses and false objects."""

import dataclasses
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ..arrays.views import Box
from ..events import Progress
from ..grid.blocks import boxes_of
from ..metrics.contingency import Contingency
from ..metrics.objects import Overlaps
from ..sources.open import More, Reading
from ..store import Output, ResultStore
from ..store.admission import check_apart, removal
from ..store.save import layout_of
from .sides import Case, Sides

KINDS = ("hits", "misses", "false")  # arrays that are written, one of each, whatever was found


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Ids of objects of one time point, ascending.

    Parameters
    ----------
    hits, false : arrays
        Of the result: matched, and not.
    misses, split : arrays
        Of the truth: not matched; in several pieces.
    merged : array
        Of the result: several objects in one.
    """

    hits: np.ndarray
    false: np.ndarray
    misses: np.ndarray
    split: np.ndarray
    merged: np.ndarray

    @classmethod
    def of(cls, table: Contingency, threshold: float) -> "Matched":
        """Match the objects of a table of all elements."""
        overlaps = Overlaps.of(table)
        truth, result = (np.unique(ids[ids > 0]) for ids in (table.truth, table.result))
        right_truth, right, _ = overlaps.matches(threshold)
        return cls(
            hits=result[np.sort(right)],
            false=np.delete(result, right),
            misses=np.delete(truth, right_truth),
            split=truth[overlaps.split()],
            merged=result[overlaps.merged()],
        )


class Comparing(More, total=False):
    """How sides are opened, and what is done where something is there already."""

    overwrite: bool
    break_lock: bool


def compare(
    result: Any,
    truth: Any,
    out: Path,
    axes: str | None = None,
    threshold: float = 0.5,
    **more: Unpack[Comparing],
) -> Generator[Progress, None, list[Matched]]:
    """Write which objects were found, missed or made up as ``labels/hits``, ``misses`` and ``false`` of an OME-Zarr.

    Memory is a block and a row an overlap, whatever the volume.

    Parameters
    ----------
    result, truth : path, Stack or array
        Labels of one shape.
    out : Path
        The OME-Zarr to make.
    axes : str, optional
        Of both sides, as for `open_stack`.
    threshold : float
        IoU from which on an object is found.
    **more
        ``overwrite``: replace what this wrote there earlier; ``break_lock``: take over from a run on another machine
        that is known to be gone. Of both sides, as for `open_stack`: ``series``, ``allow_incomplete``.

    Returns
    -------
    list of Matched
        One a time point.

    Raises
    ------
    DataError
        Where either side cannot be read, or the two do not fit each other.
    OutputError, ResourceError
        Where `out` is what is compared, or lies in it or around it; and as `ResultStore.create`.
    """
    overwrite, break_lock = more.get("overwrite", False), more.get("break_lock", False)
    allow_incomplete = more.get("allow_incomplete", False)
    opening: Reading = {"axes": axes, "series": more.get("series"), "allow_incomplete": allow_incomplete}
    pair = Case(result, truth, "", opening).open(floats=False)
    for stack in (pair.result, pair.truth):
        check_apart(Path(out), stack, "it is compared: choose another place")
    tables = [Contingency.total(Contingency.of(*time.read(box)) for box in time.boxes()) for time in pair.times()]
    found = [Matched.of(table, threshold) for table in tables]
    chunks, block = layout_of(pair.result)
    boxes = list(boxes_of(pair.result.shape, block))
    geometry = {field: getattr(pair.result, field) for field in ("axes", "shape", "scale", "units", "translation")}
    dtype = np.result_type(_unsigned(pair.result.dtype), _unsigned(pair.truth.dtype))
    outputs = [Output(path=f"labels/{kind}", kind="labels", dtype=dtype, chunks=chunks, **geometry) for kind in KINDS]
    settings = {"result": pair.result.source, "truth": pair.truth.source, "threshold": threshold}
    yield from removal(Path(out), [output.path for output in outputs]) if overwrite else ()
    how: dict[str, Any] = {"overwrite": overwrite, "break_lock": break_lock}
    with ResultStore.create(out, outputs, blocks=len(boxes), settings=settings, provenance={}, **how) as store:
        yield from store.notices()
        for number in store.pending():
            regions = {f"labels/{kind}": part.astype(dtype) for kind, part in _parts(pair, boxes[number], found)}
            store.write(number, {path: (boxes[number], part) for path, part in regions.items()})
            yield Progress(store.count, len(boxes), "compare")
        yield from store.finish()
    return found


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _parts(pair: Sides, box: Box, found: list[Matched]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each kind of object within a box."""
    truth, result = pair.read(box)
    at = pair.truth.axes.find("t")
    times = range(box[at].start, box[at].stop) if at >= 0 else [0]
    for kind in KINDS:
        whole = truth if kind == "misses" else result
        planes = whole if at >= 0 else whole[None]
        kept = [
            np.where(np.isin(plane, getattr(found[t], kind)), plane, 0) for t, plane in zip(times, planes, strict=True)
        ]
        yield kind, np.stack(kept) if at >= 0 else kept[0]
