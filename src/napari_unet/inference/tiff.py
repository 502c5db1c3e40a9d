"""A result as one TIFF: it is an OME-Zarr beside it until it is finished, and then written plane by plane."""

import dataclasses
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal

from ..arrays.stack import Stack
from ..errors import UsageError
from ..events import Progress
from ..files import check_replaceable, disk, replacing
from ..sources import open_stack
from ..store.admission import discard
from ..store.layout import ledgers
from ..store.plan import PLAN
from ..store.table import table_of
from ..store.tiff import check_tiff, is_ours, replacement, save_tiff
from .config import PredictConfig
from .instances import is_table

ALONE = ("probabilities", "uncertainty", "error", "each_sample")
Then = Callable[[Stack], Iterator[Progress]]
MakeResult = Callable[[Path, PredictConfig, Then], Generator[Progress, None, Stack]]


def into_tiff(
    run: MakeResult, out: Path, config: PredictConfig, kind: Literal["labels", "image"]
) -> Generator[Progress, None, Stack]:
    """Write a result as a TIFF; where it was stopped, the same call goes on.

    The run makes ``OUT.ome.zarr``. When it is finished the TIFF is written from it, and it is removed when the TIFF is
    whole. The table of objects goes to ``NAME.objects.csv``; of ``NAME.ome.tif`` to ``NAME.ome.objects.csv``.

    Parameters
    ----------
    run : callable
        Makes a result in a store, and calls what it is given on it before it is closed to others.
    kind : "labels" or "image"

    Returns
    -------
    Stack
        The TIFF, lazily.

    Raises
    ------
    UsageError
        Where something is chosen that a TIFF has no place for.
    OutputError
        Where something is there already.
    """
    chosen = [name for name in ALONE if getattr(config, name)]
    if chosen:
        raise UsageError(f"{', '.join(chosen)}: a TIFF holds the result alone; choose another place, NAME.ome.zarr")
    scratch, table = out.with_name(f"{out.name}.ome.zarr"), out.with_name(f"{plain_name(out)}.objects.csv")

    def finish(result: Stack) -> Iterator[Progress]:
        made = table_of(Path(result.source or ""))
        if made.is_file():
            check_replaceable(table, is_table, "table of objects")
            with disk(table), replacing(table) as file, made.open("rb") as old:
                shutil.copyfileobj(old, file)
        saving = save_tiff(result, out, kind=kind, overwrite=config.overwrite)
        yield from (event for event in saving if event.stage != "overwrite")  # is said before the run

    if _is_left(scratch, out):
        discard(scratch)
    check_tiff(out, config.overwrite)
    if kind == "labels":
        check_replaceable(table, is_table, "table of objects")
    yield from replacement(out, *([table] if kind == "labels" else []))
    yield from run(scratch, dataclasses.replace(config, overview=False), finish)
    with disk(scratch):
        discard(scratch)
    return open_stack(out)


def plain_name(out: Path) -> str:
    """Return the name of a TIFF as its table has it: two TIFFs in a folder have two tables."""
    return out.name.removesuffix(".tif")


def _is_left(scratch: Path, out: Path) -> bool:
    """Whether a TIFF was whole, and its run was killed before it had removed the store that it was made from."""
    plans = [ledger / PLAN for ledger in ledgers(scratch)] if scratch.is_dir() and out.is_file() else []
    return any(plan.exists() and plan.stat().st_mtime_ns <= out.stat().st_mtime_ns for plan in plans) and is_ours(out)
