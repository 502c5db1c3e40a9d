"""Whether a run may begin or go on at a place: outputs that can be, room on the disk, nothing that is not ours."""

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..arrays.stack import Stack
from ..errors import OutputError, ResourceError, UnetError, UsageError
from ..events import Progress
from ..files import existing, make_folder
from ..sources import zips
from ..sources.zarrmeta import is_remote
from ..text import byte_size
from . import layout
from .journal import PLAN, Journal, Plan
from .lock import Lock
from .ome import VERSIONS, Output
from .pyramid import levels_of

FILE_ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")  # of files, where a result is a folder
# What a store takes on disk, as a part of its size in memory: labels compress well, images may not at all.
SHARE_ON_DISK = {"labels": 0.25, "image": 1.0}


def check_outputs(outputs: Sequence[Output], blocks: int, version: str, inside: bool) -> None:
    """Refuse outputs that cannot stand together.

    Raises
    ------
    UsageError
        Naming them and what is allowed.
    """
    paths = [output.path for output in outputs]
    if version not in VERSIONS:
        raise UsageError(f"OME-Zarr {version} is not written; choose one of {', '.join(VERSIONS)}")
    if not outputs or blocks < 1 or len({p.lower() for p in paths}) < len(paths):
        raise UsageError(f"outputs {paths} in {blocks} blocks; give at least one of each, no path twice")
    if inside and any(output.kind != "labels" for output in outputs):
        raise UsageError(f"outputs {paths}; only labels are added to an image that is there")
    if version == "0.4" and any(output.shards for output in outputs):
        raise UsageError("OME-Zarr 0.4 has no shards; choose 0.5 or no shards")


def check_folder(root: Path) -> None:
    """Refuse the name of a picture for a store, which is a folder; a store of such a name that is there goes on.

    Raises
    ------
    UsageError
    """
    if root.suffix.lower() in FILE_ENDINGS and not root.is_dir():
        raise UsageError(f"{root} is the name of a file, the result is a folder; choose {root.stem}.ome.zarr")


def check_apart(root: Path, stack: Stack, remedy: str) -> None:
    """Refuse to write over, into or around where a stack lies.

    Raises
    ------
    OutputError
    """
    place, source = root.resolve(), Path(stack.source or "-").resolve()
    if place == source or source in place.parents or place in source.parents:
        raise OutputError(f"{root} is where the image {stack.name} lies; {remedy}")


def own_root(stack: Stack) -> Path:
    """Return the group in which an image lies, to write into it.

    Raises
    ------
    UsageError
        Where it lies at an address, or in an archive.
    """
    if stack.source is not None and (is_remote(stack.source) or zips.split(stack.source) is not None):
        raise UsageError(f"{stack.source} is no folder on a disk; name a place for the result with --out")
    return Path(stack.source or "")


def admit(root: Path, plan: Plan, overwrite: bool, reopen: bool = False) -> tuple[Path, Plan] | None:
    """Find the run that is there, and refuse what must not be resumed; reads only.

    With `reopen` a finished run with the same settings is taken up too.
    """
    found = layout.find(root, list(plan.outputs), plan.inside)
    if found is None:
        return None
    if found[1].made_by_hand and not plan.made_by_hand:
        raise OutputError(
            f"{root / next(iter(found[1].outputs))} was saved by hand, and is not a result of a run; "
            "it is left as it is: choose another place or name"
        )
    if overwrite:
        return found
    changed = found[1].difference(plan)
    if Journal.of(*found).finished and not (reopen and not changed):
        raise OutputError(
            f"{root / next(iter(plan.outputs))} is finished already; "
            "choose another place, or replace it with --overwrite"
        )
    if changed:
        raise OutputError(
            f"{root} is an unfinished run with other settings: {changed}; use the same, or start again with --overwrite"
        )
    return found


def removal(root: Path, paths: Sequence[str], inside: bool = False, by_hand: bool = False) -> Iterator[Progress]:
    """Say what `overwrite` removes of an earlier result, by size, before anything of it is.

    Only what is saved `by_hand` replaces what was.
    """
    found = layout.find(root, list(paths), inside)
    if found is None or (found[1].made_by_hand and not by_hand):
        return
    sizes = dict.fromkeys(found[1].outputs, 0)
    for file in layout.own_files(root, found[1]):
        inner = file.relative_to(root).as_posix()
        within = [path for path in sizes if not path or inner.startswith(f"{path}/")]
        sizes[max(within, key=len, default=next(iter(sizes)))] += file.stat().st_size
    listed = ", ".join(f"{path or 'the image'} ({byte_size(size)})" for path, size in sizes.items())
    yield Progress(0, 0, "overwrite", f"of the earlier result in {root} goes: {listed}")


def enter(root: Path, plan: Plan, overwrite: bool, break_lock: bool, reopen: bool = False) -> Lock:
    """Take the lock; with `overwrite` remove the run that is there."""
    ledger = layout.ledger_of(root, list(plan.outputs))
    found = admit(root, plan, overwrite, reopen)
    notice = _remove(root, *found, break_lock) if found and overwrite else ""
    make_folder(ledger)
    lock = Lock.acquire(ledger, break_lock=break_lock)
    lock.notice = lock.notice or notice
    try:
        admit(root, plan, False, reopen)
    except UnetError:
        lock.release()
        raise
    return lock


def _remove(root: Path, ledger: Path, plan: Plan, break_lock: bool) -> str:
    """Remove what a run made, under its lock; return what is to be said of that."""
    lock = Lock.acquire(ledger, break_lock=break_lock)
    try:
        layout.clear(root, ledger, plan)
    finally:
        lock.release()
    layout.prune(root, plan)
    return lock.notice


def discard(root: Path) -> None:
    """Remove a result of this program, and nothing else; its folder too, where it is empty then.

    Raises
    ------
    OutputError
        Where a file is there that the run did not make, or another run is at work.
    """
    for ledger in layout.ledgers(root):
        if (ledger / PLAN).exists():
            _remove(root, ledger, Plan.load(ledger), False)
    if not any(root.iterdir()):
        root.rmdir()


def room_of(outputs: Sequence[Output]) -> float:
    """Return the bytes that outputs may take on disk, coarser levels included."""
    return sum(
        math.prod(level.shape) * output.dtype.itemsize * SHARE_ON_DISK[output.kind]
        for output in outputs
        for level in levels_of(output)
    )


def check_room(root: Path, outputs: Sequence[Output], found: tuple[Path, Plan] | None, overwrite: bool) -> None:
    """Refuse to begin what the disk cannot hold.

    Labels are taken to compress to a quarter, images not at all; coarser levels add what they add.
    """
    needed = room_of(outputs)
    place = existing(root)
    free = shutil.disk_usage(place).free
    if found and overwrite:
        free += sum(f.stat().st_size for path in found[1].outputs for f in (root / path).rglob("*") if f.is_file())
    elif found:
        needed *= 1 - Journal.of(*found).records.count / found[1].blocks
    if needed > free:
        raise ResourceError(
            f"the result needs about {needed / 2**20:,.0f} MiB, the disk of {place} has {free / 2**20:,.0f} MiB free; "
            "free some space or choose another disk"
        )
