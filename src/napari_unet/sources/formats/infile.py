"""An image inside a file that a library reads: opened when it is read, shared by threads, sent to other processes."""

import atexit
import contextlib
import dataclasses
import itertools
import math
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...arrays.views import Box, LazyBase
from ...errors import DataError, UnetError

MOST_OPEN = 16  # a training has more images than a process may have open files
PLANE = 2**24  # bytes of a plane up to which it is read whole: a camera's frame
WHOLE = 2 * 2**30  # bytes of what can only be read in one piece, as the chunk of a zarr array
# What libraries raise for bytes that are not what they should be; some have classes of their own besides.
FOREIGN = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, OSError, EOFError, RuntimeError),
    *(ArithmeticError, NameError, struct.error, SyntaxError, zipfile.BadZipFile, zlib.error),
)


class Image(Protocol):
    """An image in an open file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each dimension."""

    @property
    def dtype(self) -> Any:
        """Element type."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """What is read at once, per dimension."""

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""

    def close(self) -> None:
        """Close the file."""


class Opener(Protocol):
    """What opens an image of a file: a class, which another process knows by its name."""

    def __call__(self, path: Path, key: Any, /) -> Image:
        """Open it."""


@dataclasses.dataclass(slots=True)
class _Entry:
    image: Image
    lock: threading.Lock
    readers: int = 0


class _Pool:
    """Images that are open, the least recently used of which is closed where there are many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Hashable, _Entry] = OrderedDict()

    @contextlib.contextmanager
    def borrowed(self, opener: Opener, path: Path, key: Hashable) -> Iterator[Image]:
        """Lend an image to one reader at a time; a file that was replaced is opened again."""
        found = path.stat()
        name = (opener, path, key, found.st_mtime_ns, found.st_size)
        with self._lock:
            if name not in self._open:
                self._open[name] = _Entry(opener(path, key), threading.Lock())
            entry = self._open[name]
            entry.readers += 1
            self._open.move_to_end(name)
        try:
            with entry.lock:
                yield entry.image
        finally:
            with self._lock:
                entry.readers -= 1
                self._close_some()

    def _close_some(self) -> None:
        idle = [name for name, entry in self._open.items() if not entry.readers]
        for name in idle[: max(0, len(self._open) - MOST_OPEN)]:
            self._open.pop(name).image.close()

    def close(self) -> None:
        """Close all, before the modules go that libraries need for it."""
        while self._open:
            self._open.popitem()[1].image.close()


_pool = _Pool()
atexit.register(_pool.close)


class FileArray(LazyBase):
    """An image inside a file as a lazy array.

    Parameters
    ----------
    key : hashable
        Which image of the file, as the opener knows it.

    Attributes
    ----------
    dims : tuple of str
        What the library calls the dimensions, if it does.
    by_box : bool
        Whether a part of a chunk is read without the rest of it, as from what is mapped: then none need be kept.
    """

    def __init__(self, opener: Opener, path: Path, key: Hashable = None) -> None:
        self._opener, self._path, self._key = opener, path.absolute(), key  # workers have folders of their own
        with _pool.borrowed(opener, self._path, key) as image:
            self._shape = tuple(int(n) for n in image.shape)
            self._dtype, self._chunks = np.dtype(image.dtype), tuple(image.chunks)
            self.dims = tuple(getattr(image, "dims", ()))
            self.by_box = bool(getattr(image, "by_box", False))
        if math.prod(self._chunks) * self._dtype.itemsize > WHOLE:
            raise DataError(
                f"{path}: it can only be read in pieces of {self._chunks} {self._dtype}, more than {WHOLE >> 30} GiB; "
                "convert it to OME-Zarr"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return FileArray, (self._opener, self._path, self._key)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each dimension."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self._dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """What is read at once, per dimension."""
        return self._chunks

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        try:
            with _pool.borrowed(self._opener, self._path, self._key) as image:
                return np.asarray(image.read(box))
        except (UnetError, OSError):
            raise
        except FOREIGN as error:
            raise DataError(f"{type(error).__name__} {error}; copy it again") from error


def read_frames(outer: int, box: Box, dtype: Any, frame: Callable[[tuple[int, ...], Box], np.ndarray]) -> np.ndarray:
    """Read a box of an image that is stored in frames.

    Parameters
    ----------
    outer : int
        Number of dimensions before those of a frame.
    frame : callable
        Takes the place of a frame and the box inside it.
    """
    out = np.empty([b.stop - b.start for b in box], dtype)
    for at in itertools.product(*(range(b.start, b.stop) for b in box[:outer])):
        out[tuple(i - b.start for i, b in zip(at, box, strict=False))] = frame(at, box[outer:])
    return out


def plane_chunks(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return planes as chunks, or bands of one where it is larger than `PLANE`."""
    if len(shape) < 2:
        return tuple(shape)
    rows = max(1, min(shape[-2], PLANE // max(1, shape[-1] * itemsize)))
    return (*(1,) * (len(shape) - 2), rows, shape[-1])


@contextlib.contextmanager
def named_errors(path: Path, kind: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what a library raises into an error of ours that names the file.

    Raises
    ------
    DataError
    """
    try:
        yield
    except UnetError:
        raise
    except ImportError as error:
        raise DataError(f"{path}: {error}; install what it names") from error
    except FOREIGN + more as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path} cannot be read as {kind}: {type(error).__name__} {error}; copy it again") from error
    except MemoryError as error:
        raise DataError(
            f"{path} cannot be read as {kind}: it declares sizes beyond this machine's memory; copy it again"
        ) from error


def pick(path: Path, names: Sequence[str], shapes: Sequence[Sequence[int]], series: int | str | None) -> int:
    """Choose an image of a file: by its name, or its number; else the one of most pixels, the first of these.

    Raises
    ------
    DataError
        Where there is none, or not that one; it names those there are.
    """
    if not names:
        raise DataError(f"{path} holds no image that is read; convert it to OME-Zarr or TIFF")
    if series is None:
        return max(range(len(names)), key=lambda i: (math.prod(shapes[i]), -i))
    if str(series) in names:
        return list(names).index(str(series))
    if str(series).isdecimal() and int(series) < len(names):
        return int(series)
    raise DataError(f"{path} has no image {series!r}; it has {listed(names, shapes)}")


def taken(names: Sequence[str], shapes: Sequence[Sequence[int]], chosen: int, series: Any) -> tuple[str, ...]:
    """Say which image was taken where none of several was chosen."""
    if series is not None or len(names) < 2:
        return ()
    others = [i for i in range(len(names)) if i != chosen]
    rest = listed([names[i] for i in others], [shapes[i] for i in others])
    return (
        f"image {names[chosen]!r} of {len(names)} in the file was taken, the one of most pixels; another is chosen "
        f"with series (--series): {rest}",
    )


def listed(names: Sequence[str], shapes: Sequence[Sequence[int]], most: int = 8) -> str:
    """List images in a line."""
    lines = [f"{name!r} ({' x '.join(map(str, shape))})" for name, shape in zip(names, shapes, strict=True)]
    return ", ".join(lines[:most]) + (" ..." if len(lines) > most else "")
