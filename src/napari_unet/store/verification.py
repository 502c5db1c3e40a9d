"""Reading a result back, and holding it against what was written."""

import itertools
import math
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import OutputError
from ..events import Progress
from ..sources.zarrays import open_own
from ..stack import DECODING
from . import layout
from .journal import PLAN, Journal, Plan, Region

# What zarr and its codecs raise for damaged bytes: each flipped bit ends in one of these.
UNREADABLE = (*DECODING, TypeError, KeyError, MemoryError, OverflowError)


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
        plan = Plan.load(ledger)
        journal = Journal(ledger, plan.blocks)
        base = ledger.parents[len(Path(next(iter(plan.outputs))).parts)]
        if not journal.finished:
            problems.append(f"{ledger.parent} is unfinished: {len(journal.blocks)} of {plan.blocks} blocks are done")
        else:
            problems += filter(None, (_group_problem(base, path) for path in plan.outputs))
        arrays: dict[str, zarr.Array[Any]] = {}
        total = len(journal.records)
        for number, (unit, regions) in enumerate(journal.records.walk(), 1):
            for region in regions:
                problem = _open(base, region.array, arrays) or problem_of(arrays[region.array], base, region)
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


def _open(base: Path, name: str, arrays: dict[str, Any]) -> str:
    """Open an array once: what is wrong with it, or nothing."""
    if name not in arrays:
        try:
            arrays[name] = open_own(base / name)
        except UNREADABLE as error:
            return f"{base / name} cannot be opened ({error})"
    return ""


def problem_of(array: "zarr.Array[Any]", base: Path, region: Region) -> str:
    """Read a region back: what is wrong with it, naming the chunks, or nothing."""
    try:
        data = np.asarray(array[region.box])
    except UNREADABLE as error:
        return f"{region}: {_damaged_chunks(array, base, region)} cannot be read ({error})"
    if crc32(data) == region.crc32:
        return ""
    return f"{region} is not what was written: {_damaged_chunks(array, base, region)}"


def _damaged_chunks(array: "zarr.Array[Any]", base: Path, region: Region) -> str:
    """Name the files under a region that cannot be read, or are not there."""
    unit = array.shards or array.chunks
    cells = itertools.product(
        *(range(b.start // u, math.ceil(b.stop / u)) for b, u in zip(region.box, unit, strict=True))
    )
    broken, missing = [], []
    for cell in cells:
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


def crc32(data: np.ndarray) -> int:
    """Checksum of an array's bytes in C order."""
    return zlib.crc32(np.ascontiguousarray(data).data.cast("B"))
