"""Which image it is: how many files it is stored in, their sizes and times, so that a change between runs is known.

The time of a zarr's metadata alone does not show that chunks were written after it, as during an acquisition. Of an
image at an address the server is asked for the sizes and versions of its metadata and of some chunks.
"""

import dataclasses
import hashlib
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.stack import Stack
from ..files import below
from . import remote
from .zarrays import base_array
from .zarrmeta import is_remote

if TYPE_CHECKING:
    import zarr

STORED = ("files", "bytes", "digest")
MOST_LOOKED_AT = 2**16  # files whose sizes and times are asked for: 0.2 s on a local disk, some 30 s on a network's
MOST_ASKED_FOR = 64  # files of an address: answers of a second's tenth each, many at a time
CHUNK = re.compile(r"(.+/)?(c[/.])?\d+([/.]\d+)*")
APART = ("labels", ".napari_unet")  # what is made of an image lies in it, and changes nothing of it


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """What an image is stored in.

    Parameters
    ----------
    files : int
        Chunks that are there, of all levels; files of a TIFF of several, 1 of an image that is one file; of an address
        those that were asked for.
    bytes : int
        Of the files examined: all, or an even choice of 65536, of an address of 64.
    marks : (N,) uint64 array
        One for each of these, of its name, size and time; ascending.
    """

    files: int
    bytes: int
    marks: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return what is compared between runs."""
        digest = hashlib.blake2b(self.marks.tobytes(), digest_size=8).hexdigest()
        return dict(zip(STORED, (self.files, self.bytes, digest), strict=True))

    def __eq__(self, other: object) -> bool:
        """Whether nothing has changed between the two."""
        return isinstance(other, Stored) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def new_since(self, marks: np.ndarray) -> int:
        """Count the files that are new, or others, since `marks` were taken."""
        return int(np.setdiff1d(self.marks, marks).size)


def stored(stack: Stack) -> Stored | None:
    """Look what a stack is stored in, on this machine's disks or at an address; None where it is in memory.

    Raises
    ------
    UnreachableError
        Where a server does not answer.
    """
    if stack.source is None:
        return None
    if is_remote(stack.source):
        return _at_address(stack.data)
    path = Path(stack.source)
    if path.is_file():
        others = getattr(base_array(stack)[0], "files", ())
        if not others:  # its time is compared for itself
            return Stored(1, path.stat().st_size, np.zeros(0, np.uint64))
        path, names = path.parent, [os.path.relpath(file, path.parent) for file in others]
    else:
        names = sorted(_chunks(path))
    sizes, marks = 0, []
    for name in names[:: -(-len(names) // MOST_LOOKED_AT) or 1]:
        try:
            found = (path / name).stat()
        except OSError:  # gone since it was listed: it is missed in the count of the next run
            continue
        sizes += found.st_size
        marks.append(_mark(name, found.st_size, found.st_mtime_ns))
    return Stored(len(names), sizes, np.sort(np.array(marks, np.uint64)))


def on_disk(stack: Stack) -> Stored | None:
    """Look what a stack is stored in now, to compare it with later; None where it is not on this machine's disks."""
    return None if stack.source is None or is_remote(stack.source) else stored(stack)


def _mark(name: str, size: int, version: int | str) -> int:
    text = f"{name}\0{size}\0{version}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _at_address(data: Any) -> Stored | None:
    """Ask a server for the metadata and an even choice of the chunks of the array that is read in the end."""
    while not hasattr(data, "store") and getattr(data, "base", None) is not None:
        data = data.base
    where = getattr(getattr(data, "store", None), "where", None)
    if where is None:
        return None
    names = ["zarr.json" if data.metadata.zarr_format == 3 else ".zarray", *_keys(data)]
    found = [(name, told) for name, told in zip(names, remote.versions(where, names), strict=True) if told is not None]
    marks = np.array([_mark(name, *told) for name, told in found], np.uint64)
    return Stored(len(found), sum(size for _, (size, _) in found), np.sort(marks))


def _keys(array: "zarr.Array[Any]") -> list[str]:
    """Name an even choice of the files that an array may have."""
    sizes = array.shards or array.chunks
    grid = [-(-n // size) for n, size in zip(array.shape, sizes, strict=True)]
    total = math.prod(grid)
    places = sorted({total * i // MOST_ASKED_FOR for i in range(MOST_ASKED_FOR)}) if total else []
    return [array.metadata.encode_chunk_key(at) for at in zip(*_unravelled(places, grid), strict=True)]


def _unravelled(places: list[int], grid: list[int]) -> list[list[int]]:
    """Return the positions in a grid, which may have more places than numpy counts, per axis."""
    axes = []
    for n in reversed(grid):
        axes.append([place % n for place in places])
        places = [place // n for place in places]
    return axes[::-1]


def _chunks(folder: Path) -> list[str]:
    """List the chunk files below a zarr group or array."""
    start = len(str(folder)) + 1
    found = (item.path[start:].replace("\\", "/") for item in below(folder, APART))
    return [name for name in found if CHUNK.fullmatch(name)]
