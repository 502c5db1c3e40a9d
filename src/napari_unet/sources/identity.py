"""Which image it is: how many files it is stored in, their sizes and times, so that a change between runs is known.

The time of a zarr's metadata alone does not show that chunks were written after it, as during an acquisition.
"""

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..files import below
from .zarrmeta import is_remote

STORED = ("files", "bytes", "digest")
MOST_LOOKED_AT = 2**16  # files whose sizes and times are asked for: 0.2 s on a local disk, some 30 s on a network's
CHUNK = re.compile(r"(.+/)?(c[/.])?\d+([/.]\d+)*")
APART = ("labels", ".napari_unet")  # what is made of an image lies in it, and changes nothing of it


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """What an image is stored in.

    Parameters
    ----------
    files : int
        Chunks that are there, of all levels; 1 of an image that is a file.
    bytes : int
        Of the files examined: all, or an even choice of 65536.
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

    def new_since(self, marks: np.ndarray) -> int:
        """Count the files that are new, or others, since `marks` were taken."""
        return int(np.setdiff1d(self.marks, marks).size)


def stored(stack: Stack) -> Stored | None:
    """Look what a stack is stored in on this machine's disks; None where it is elsewhere, or in memory."""
    if stack.source is None or is_remote(stack.source):
        return None
    path = Path(stack.source)
    if path.is_file():
        return Stored(1, path.stat().st_size, np.zeros(0, np.uint64))
    names = sorted(_chunks(path))
    sizes, marks = 0, []
    for name in names[:: -(-len(names) // MOST_LOOKED_AT) or 1]:
        try:
            found = (path / name).stat()
        except OSError:  # gone since it was listed: it is missed in the count of the next run
            continue
        sizes += found.st_size
        text = f"{name}\0{found.st_size}\0{found.st_mtime_ns}".encode(errors="surrogateescape")
        marks.append(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))
    return Stored(len(names), sizes, np.sort(np.array(marks, np.uint64)))


def _chunks(folder: Path) -> list[str]:
    """List the chunk files below a zarr group or array."""
    start = len(str(folder)) + 1
    found = (item.path[start:].replace("\\", "/") for item in below(folder, APART))
    return [name for name in found if CHUNK.fullmatch(name)]
