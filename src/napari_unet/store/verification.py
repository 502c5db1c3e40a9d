"""Reading a result back, and holding it against what was written."""

import itertools
import math
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..arrays.stack import DECODING
from ..arrays.views import Box
from ..errors import OutputError
from ..events import Progress
from ..faults import persist
from ..files import refuse_link
from ..grid.blocks import places_under
from ..sources.zarrays import open_array
from ..sources.zarrmeta import read_node
from . import layout
from .journal import PLAN, Journal, Plan, Region
from .table import table_problem

# What zarr and its codecs raise for damaged bytes: each flipped bit ends in one of these.
UNREADABLE = (*DECODING, TypeError, KeyError, MemoryError, OverflowError)
AT_ONCE = 2**27  # bytes that are checked against a checksum at once; most blocks are smaller
NAMED = 4096  # chunks of a block that are checked one by one, to name those that are damaged
# For records that were damaged: their blocks are written again.
REMEDY = "run the same command again, which writes their blocks again"


def verify(root: Path) -> Generator[Progress, None, list[str]]:
    """Read all of a result and hold it against the checksums that were taken when it was written.

    Parameters
    ----------
    root : Path
        A result, its labels, or an image with labels of ours inside.

    Returns
    -------
    list of str
        Problems, each naming the array, the block and the chunk; empty where all is well.

    Raises
    ------
    OutputError
        Where no result of this program is there.
    """
    found = [ledger for ledger in layout.ledgers(Path(root)) if (ledger / PLAN).exists()]
    if not found:
        raise OutputError(f"{root} holds no result of this program that could be verified; name a result or its labels")
    problems: list[str] = []
    for ledger in found:
        layout.check_ledger(Path(root), ledger)
        plan = Plan.load(ledger)
        journal = Journal.of(ledger, plan)
        base = layout.check_place(ledger, plan)
        if not journal.finished:
            problems.append(f"{ledger.parent} is unfinished: {len(journal.blocks)} of {plan.blocks} blocks are done")
        else:
            problems += filter(None, (_group_problem(base, path) for path in plan.outputs))
        if journal.damaged:
            lines = "a line is" if journal.damaged == 1 else f"{journal.damaged} lines are"
            problems.append(f"{ledger.parent}: {lines} damaged in the record; {REMEDY}")
        arrays: dict[str, zarr.Array[Any]] = {}
        total = len(journal.records)
        for number, (unit, regions) in enumerate(journal.records.walk(), 1):
            for region in regions:
                problem = _problem(base, region, arrays)
                if problem:
                    problems.append(f"block {unit}: {problem}")
            yield Progress(number, total, "verify")
    return problems


def _group_problem(base: Path, path: str) -> str:
    """Look whether a group says what it holds: what is wrong with it, or nothing."""
    try:
        found = layout.read_group(base / path)
    except OutputError as error:
        return str(error)
    state = found[1].get("napari_unet", {}).get("state") if found else "not described"
    return "" if state == "complete" else f"{base / path} is {state}, though all of it was written"


def _problem(base: Path, region: Region, arrays: dict[str, Any]) -> str:
    """Read what was recorded back: what is wrong with it, or nothing."""
    if region.is_table:
        return table_problem(base, region)
    return _open(base, region.array, arrays) or problem_of(arrays[region.array], base, region)


def _open(base: Path, name: str, arrays: dict[str, Any]) -> str:
    """Open an array once, as any that comes from elsewhere: what is wrong with it, or nothing.

    Raises
    ------
    UnsafeError
        Where it, or a folder above it, is a link.
    """
    if name not in arrays:
        _refuse_links(base, name)
        try:
            node = read_node(str(base / name))
            if node is None or not node.is_array:
                return f"{base / name} cannot be opened (it has no metadata)"
            arrays[name] = open_array(node)
        except UNREADABLE as error:
            return f"{base / name} cannot be opened ({error})"
    return ""


def _refuse_links(base: Path, name: str) -> None:
    """Refuse an array that a link below the result leads to."""
    parts = Path(name).parts
    for depth in range(len(parts)):
        refuse_link(base.joinpath(*parts[: depth + 1]))


def problem_of(array: "zarr.Array[Any]", base: Path, region: Region) -> str:
    """Read a region back: what is wrong with it, naming the chunks, or nothing."""
    if array.ndim != len(region.box):
        return f"{region} is not what was written: the array has {array.ndim} axes"
    try:
        found = persist(lambda: _checksum(array, region.box))
    except UNREADABLE as error:
        return f"{region}: {_damaged_chunks(array, base, region)} cannot be read ({error})"
    if found == region.crc32:
        return ""
    return f"{region} is not what was written: {_damaged_chunks(array, base, region)}"


def _checksum(array: "zarr.Array[Any]", box: Box) -> int:
    """Return the checksum of a region, read in whole chunks along its first axis where it is large."""
    sizes = [part.stop - part.start for part in box]
    axis = next((i for i, n in enumerate(sizes) if n > 1), 0)
    unit = (array.shards or array.chunks)[axis]
    row = math.prod(sizes) // sizes[axis] * array.dtype.itemsize
    step = max(AT_ONCE // max(row, 1) // unit, 1) * unit
    found = 0
    for start in range(box[axis].start // unit * unit, box[axis].stop, step):
        part = slice(max(start, box[axis].start), min(start + step, box[axis].stop))
        found = crc32(np.asarray(array[(*box[:axis], part, *box[axis + 1 :])]), found)
    return found


def _damaged_chunks(array: "zarr.Array[Any]", base: Path, region: Region) -> str:
    """Name the files under a region that cannot be read, or are not there."""
    unit = array.shards or array.chunks
    broken, missing = [], []
    for cell in itertools.islice(places_under(region.box, unit), NAMED):
        key = array.metadata.encode_chunk_key(cell)
        try:
            array[tuple(slice(i * u, (i + 1) * u) for i, u in zip(cell, unit, strict=True))]
        except UNREADABLE:
            broken.append(key)
        if not (base / region.array / key).exists():
            missing.append(key)
    found = broken or missing
    if not found:
        return "chunks were written by something else"
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"chunk {', '.join(found[:3])}{more}{'' if broken else ' is missing'}"


def crc32(data: np.ndarray, before: int = 0) -> int:
    """Checksum of an array's bytes in C order, behind those of which `before` is the checksum."""
    return zlib.crc32(np.ascontiguousarray(data).data.cast("B"), before)
