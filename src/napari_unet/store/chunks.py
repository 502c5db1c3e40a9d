"""Chunks of our own arrays: packed, written and read back in a few threads, without a round through an event loop.

What is read back right after it is written comes from memory, so that little is left to look at when a run ends::

    block |aaaa|bbbb|cccc|   a thread each: cut, pack, write, read, unpack, compare -> a mark of the file that is there
"""

import contextlib
import functools
import hashlib
import math
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import BytesCodec, ZstdCodec

from ..arrays.views import Box, overlap, within
from ..faults import persist
from ..files import read_plain, remove
from ..grid.blocks import box_at, places_under
from ..sources.zarrays import Guarded, decoded_size
from ..sources.zarrmeta import PACKED, ROOM
from ..threads import in_threads

Place = tuple[int, ...]
WORKERS = min(4, os.cpu_count() or 1)  # 4 pack 400 million voxels of labels a second, more than any network gives
UNMARKED = 0  # of what was not read back


def codec_of(array: "zarr.Array[Any]") -> Any:
    """Return what packs a chunk of an array as zarr does; None where zarr has to do it, as for shards."""
    meta: Any = array.metadata
    if array.shards is not None or array.fill_value != 0 or sys.byteorder != "little" or not array.dtype.isnative:
        return None
    if meta.zarr_format == 2:
        return None if meta.filters or meta.order != "C" else meta.compressor
    match meta.codecs:
        case (BytesCodec(), ZstdCodec() as zstd):
            return Zstd(level=zstd.level, checksum=zstd.checksum)
    return None


def write_box(folder: Path, array: "zarr.Array[Any]", box: Box, data: np.ndarray) -> int:
    """Replace the chunks under a box, which begins and ends where they do, or at the array's end.

    Returns
    -------
    A mark of the files as they were read back; `UNMARKED` where one does not hold what was written, or was not read.
    """
    places, codec = list(places_under(box, array.shards or array.chunks)), codec_of(array)
    if codec is None:
        for place in places:
            remove(folder / array.metadata.encode_chunk_key(place))
        persist(lambda: array.__setitem__(box, data))
        return UNMARKED
    work = functools.partial(_written, folder, array, codec, box, data)
    workers = min(WORKERS, len(places))
    found = in_threads(work, places, workers, workers) if workers > 1 else ((place, work(place)) for place in places)
    return marked(folder, array, box) if all(there for _, there in list(found)) else UNMARKED


def _written(folder: Path, array: "zarr.Array[Any]", codec: Any, box: Box, data: np.ndarray, place: Place) -> bool:
    """Write a chunk, but none of zeros alone; say whether it reads back as it was written."""
    cut = box_at(place, array.chunks, array.shape)
    part = data[tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(cut, box, strict=True))]
    if part.shape == array.chunks:
        chunk = np.ascontiguousarray(part)
    else:  # at the array's end: as in the middle, the rest is the fill value
        chunk = np.zeros(array.chunks, array.dtype)
        chunk[tuple(slice(0, n) for n in part.shape)] = part
    file, raw = folder / array.metadata.encode_chunk_key(place), chunk.reshape(-1).view(np.uint8)
    remove(file)
    if not raw.max():
        return True
    persist(functools.partial(_put, file, codec.encode(chunk)))
    return bool(np.array_equal(_unpacked(file, codec), raw))


def _unpacked(file: Path, codec: Any) -> np.ndarray:
    """Return the bytes of a chunk, none where it cannot be read: it is looked at again when the run ends."""
    try:
        return np.frombuffer(codec.decode(file.read_bytes()), np.uint8)
    except (OSError, ValueError, RuntimeError):
        return np.zeros(0, np.uint8)


def _put(file: Path, packed: Any) -> None:
    """Write a chunk, and set its time apart from that of any other way of writing there."""
    put_file(file, packed)
    with contextlib.suppress(OSError):
        # A nanosecond before its time: whoever writes there later, be it in the same tick of the clock, leaves another.
        found = file.stat()
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns - 1))


def put_file(file: Path, data: Any) -> None:
    """Write a file as zarr does, so that it is there whole or not at all."""
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(16)}.partial")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(data)
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def read_box(array: Any, box: tuple[slice, ...]) -> np.ndarray:
    """Read a box of what was written here: a few chunks of an array at once, all else as it reads itself.

    Raises
    ------
    ValueError, RuntimeError
        Where a chunk is damaged.
    """
    if not isinstance(array, zarr.Array):
        return np.asarray(array[box])
    places, codec, store = list(places_under(box, array.shards or array.chunks)), codec_of(array), array.store
    folder = store.folder if isinstance(store, Guarded) else getattr(store, "root", None)
    if (
        folder is None
        or len(places) > WORKERS
        or not isinstance(codec, Zstd)
        or any(part.step not in (None, 1) for part in box)
    ):
        return np.asarray(array[box])
    out = np.zeros([part.stop - part.start for part in box], array.dtype)  # as chunks that are not there read
    for place in places:
        file = folder / array.metadata.encode_chunk_key(place)
        size = math.prod(array.chunks) * array.dtype.itemsize
        try:
            packed = read_plain(file, PACKED * size + ROOM)
        except FileNotFoundError:
            continue
        if decoded_size("zstd", packed, size) != size:
            raise ValueError(f"chunk {file} does not unpack to the {size} bytes of a chunk")
        chunk = np.frombuffer(codec.decode(packed), array.dtype).reshape(array.chunks)
        met = overlap(cut := box_at(place, array.chunks, array.shape), box)
        out[within(met, box)] = chunk[within(met, cut)]
    return out


def marked(folder: Path, array: "zarr.Array[Any]", box: Box) -> int:
    """Return a mark of the files under a box, of their names, sizes and times: any change of one gives another."""
    places = list(places_under(box, array.shards or array.chunks))
    files = (folder / array.metadata.encode_chunk_key(place) for place in places)
    found = [persist(functools.partial(_look, file)) for file in files]
    return combined([str(folder), places, found])


def _look(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def combined(found: Iterable[Any]) -> int:
    """Return one number, of 64 bits and not 0, for several."""
    return int.from_bytes(hashlib.blake2b(repr(list(found)).encode(), digest_size=8).digest(), "little") or 1
