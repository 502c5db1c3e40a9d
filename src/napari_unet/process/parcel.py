"""What is sent between this process and one that it started: pickles, whose large arrays lie in files that both map.

An array that is mapped from a file already goes as its place in that file. One in memory is copied into a file, once as
long as it stays the same; the file goes when the array does, when no process needs it, or when this process ends. A
file and no shared memory: the system may put it on the disk when memory is short, and a disk that is full is an error
where shared memory would end both processes.
"""

import contextlib
import io
import mmap
import os
import pickle
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ..errors import UnetError
from ..text import byte_size

LARGE = 2**20  # bytes; a smaller array is copied within the pickle sooner than a file is made
PIECE = 2**24  # bytes that are copied at a time: a layer whose axes are in another order is not copied whole first
SPARE = 2**28  # bytes of the disk of temporary files that are left to others


class NotSentError(UnetError):
    """Something that cannot be sent to another process, or cannot be unpacked there."""


class Place(NamedTuple):
    """Where an array lies in a file; without a file it is zeros, of which only the shape matters.

    Parameters
    ----------
    offset : int
        Byte of its first element.
    strides : tuple of int, or None
        None where the elements lie one after the other.
    is_copy : bool
        Whether the file was made for this.
    """

    file: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int = 0
    strides: tuple[int, ...] | None = None
    is_copy: bool = False

    def array(self) -> np.ndarray:
        """Return the array; it cannot be written to."""
        if self.file is None:
            return np.broadcast_to(np.zeros((), self.dtype), self.shape)
        file = np.memmap(self.file, np.uint8, "r")
        if self.is_copy:
            _mapped_here.add(self.file)
        return np.ndarray(self.shape, self.dtype, file, self.offset, self.strides)


class _Copy(NamedTuple):
    """A copy of an array in a file, and what takes the file away."""

    of: "weakref.ref[np.ndarray]"
    place: Place
    end: "weakref.finalize[Any, Any]"


_copies: dict[int, _Copy] = {}
_mapped_here: set[str] = set()  # copies that another process made
_packing = threading.Lock()  # a copy is whole before another parcel takes it


def say(to: IO[bytes], *message: Any) -> None:
    """Write a message; what cannot be pickled is raised before anything is written."""
    data = pickle.dumps(message, protocol=5)
    to.write(data)
    to.flush()


def heard(where: IO[bytes]) -> Iterator[tuple[Any, ...]]:
    """Yield the messages that the other process writes, until it ends."""
    with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
        while True:
            yield pickle.load(where)  # noqa: S301 - of the process that started this one, or was started by it


def pack(what: object, *, hollow: bool = False) -> bytes:
    """Return something as it is sent; what of it lies in memory is copied.

    Parameters
    ----------
    what : object
        Anything that can be pickled.
    hollow : bool
        Whether large arrays go as zeros of their shape: for what reads no image.

    Raises
    ------
    NotSentError
        Where it cannot be pickled, as open files, locks and functions without a name in a module cannot; where there is
        no room for a copy on the disk of temporary files.
    """
    with _packing:
        file = io.BytesIO()
        pickler = _Pickler(file, hollow)
        try:
            pickler.dump(what)
            pickler.write()
        except Exception as error:  # whatever an object of others raises that does not want to be pickled
            for _, place in pickler.waiting:
                _forget(place)
            raise error if isinstance(error, NotSentError) else NotSentError(_about(error)) from error
        return file.getvalue()


def unpack(data: bytes) -> Any:
    """Return what was packed.

    Raises
    ------
    NotSentError
        Where it cannot be made here, as functions of the program that was started first cannot.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # whatever an object of others raises
        raise NotSentError(_about(error)) from error


def _about(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


class _Pickler(pickle.Pickler):
    """Sees every object that is pickled, and puts large arrays elsewhere."""

    def __init__(self, file: io.BytesIO, hollow: bool) -> None:
        super().__init__(file, protocol=5)
        self._hollow = hollow
        self.waiting: list[tuple[np.ndarray, Place]] = []

    def persistent_id(self, what: Any) -> Any:
        """Return where a large array lies, and its shape; what repeats along an axis lies there once."""
        if type(what) not in (np.ndarray, np.memmap) or what.nbytes < LARGE or what.dtype.hasobject:
            return None
        if self._hollow:
            return Place(None, what.dtype, what.shape), what.shape
        once = what[tuple(slice(None) if step else slice(0, 1) for step in what.strides)]
        return once.copy() if once.nbytes < LARGE else self._placed(what, once), what.shape

    def _placed(self, owner: np.ndarray, array: np.ndarray) -> Place:
        """Return where an array lies in a file, now or when all is written; a copy of it goes when its owner does."""
        found = _mapped(array) or _copied(owner, array)
        if found is None:
            found = _new_copy(owner, array)
            self.waiting.append((array, found))
        return found

    def write(self) -> None:
        """Copy what lies in memory.

        Raises
        ------
        NotSentError
            Where there is no room for it.
        """
        folder, size = tempfile.gettempdir(), sum(array.nbytes for array, _ in self.waiting)
        try:
            if self.waiting and size > shutil.disk_usage(folder).free - SPARE:
                raise NotSentError(f"{folder} has no room for a copy of {byte_size(size)}")
            for array, place in self.waiting:
                with Path(str(place.file)).open("wb") as file:
                    for part in _pieces(array):
                        file.write(_bits(part).data)
        except OSError as error:
            raise NotSentError(f"no copy can be written to {folder}: {error}") from error


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> np.ndarray:
        """Return the array that lies there."""
        place, shape = pid
        return np.broadcast_to(place.array() if isinstance(place, Place) else place, shape)


def forget_copies() -> None:
    """Take the copies away that are known here; they are made again where they are needed."""
    for copy in list(_copies.values()):
        copy.end()
    for name in _mapped_here:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _forget(place: Place) -> None:
    for copy in list(_copies.values()):
        if copy.place is place:
            copy.end()


def _mapped(array: np.ndarray) -> Place | None:
    """Return where an array lies that is mapped from a file; None of any other, and where changes stay in memory."""
    root: Any = array
    while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
        root = root.base
    if not isinstance(root, np.memmap) or root.filename is None or root.mode == "c":
        return None
    start = root.offset + array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return Place(os.fspath(root.filename), array.dtype, array.shape, start, array.strides)


def _copied(owner: np.ndarray, array: np.ndarray) -> Place | None:
    """Return the copy of an array that was made before; None where there is none, or the array is another now."""
    copy = _copies.get(id(owner))
    if copy is None or copy.of() is not owner:
        return None
    if (copy.place.dtype, copy.place.shape) == (array.dtype, array.shape):
        with contextlib.suppress(OSError, ValueError):  # somebody has cleared the folder
            pairs = zip(_pieces(array), _pieces(copy.place.array()), strict=True)
            if all(np.array_equal(_bits(one), _bits(other)) for one, other in pairs):
                return copy.place
    copy.end()
    return None


def _new_copy(owner: np.ndarray, array: np.ndarray) -> Place:
    """Return the place of a copy that is to be written."""
    number, name = tempfile.mkstemp(".layer", "napari-unet-")  # a new file, that others cannot read
    os.close(number)
    place, key = Place(name, array.dtype, array.shape, is_copy=True), id(owner)

    def end() -> None:
        if key in _copies and _copies[key].place is place:
            del _copies[key]
        with contextlib.suppress(OSError):  # Windows keeps a file that is still mapped
            Path(name).unlink()

    _copies[key] = _Copy(weakref.ref(owner), place, weakref.finalize(owner, end))
    return place


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the parts of an array, in the order of its elements."""
    step = max(1, PIECE * len(array) // array.nbytes) if array.ndim else 1
    if array.ndim and len(array) > step:
        for start in range(0, len(array), step):
            yield from _pieces(array[start : start + step])
    elif array.ndim and array.nbytes > PIECE and len(array) == 1:
        yield from _pieces(array[0])
    else:
        yield array


def _bits(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an array: of floats NaN is NaN."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
