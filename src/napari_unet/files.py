"""Files that are there whole or not at all, opened through no link; what a disk refuses, said as an error of ours.

Every small file of ours goes through `replacing`: a temporary file of a random name, made anew, is written, synced and
put in place, then its folder is synced, so that after a loss of power either the old file is there or the new one.
Chunks are not synced: their checksums are in the ledger. What the run that ends wrote was read back as it was written;
what one before it wrote, or another process, is verified before the run is finished.
"""

import contextlib
import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .errors import OutputError, ResourceError, UnetError, UnsafeError, UsageError
from .faults import persist

PARTIAL = re.compile(r".*\.[0-9a-f]{32}\.partial")  # ours and zarr's
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room left, for the disk, the user or the file
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)  # may not be written by this user, or is not a folder
IN_THE_WAY = (errno.EISDIR, errno.ENOTEMPTY)  # a folder lies where a file belongs, or holds what is not ours
MOST_BYTES_OF_NAME = 255  # of ext4, XFS, APFS and NTFS alike
LONG_PATH = 1000  # letters: macOS takes 1024 bytes, Linux 4096; some disks take short names only, in any path
BYTES = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# Windows has none of these; links there are looked for before anything is opened.
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | BYTES
NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # a named pipe would be waited for without end
LINKED = (errno.ELOOP, errno.EMLINK)  # what opening a link gives: Linux and macOS, FreeBSD


def explained(error: OSError, place: Path) -> UnetError | None:
    """Return what a disk refused as an error that says so; None where it is another fault.

    Parameters
    ----------
    place : Path
        What was to be written.
    """
    if error.errno in FULL:
        folder = existing(place)
        free = shutil.disk_usage(folder).free
        return ResourceError(
            f"the disk of {folder} is full ({free} bytes free, {error.strerror}); finished work is kept: "
            "free some space and run the same command again"
        )
    if error.errno in REFUSED:
        return ResourceError(f"{place} cannot be written ({error.strerror}); choose a folder that you may write")
    if error.errno in IN_THE_WAY:
        return OutputError(
            f"{error.filename or place} is in the way ({error.strerror}): this program writes another thing of that "
            "name there; it is left as it is: move it away"
        )
    if error.errno == errno.ENOENT:
        return OutputError(
            f"{error.filename or place} is gone: it was removed or renamed while it was used; look what has become of "
            "it, and run the same command again"
        )
    if error.errno == errno.ENAMETOOLONG:
        named = [Path(p) for p in (error.filename, error.filename2) if isinstance(p, str)]
        return _too_long((place, *named))
    return None


def _too_long(paths: Collection[Path]) -> UsageError:
    name = max((part for path in paths for part in path.parts), key=len)
    path = max(map(str, paths), key=len)
    if len(os.fsencode(name)) <= MOST_BYTES_OF_NAME and len(path) > LONG_PATH:
        return UsageError(f"the path {path[:40]}... has {len(path)} letters, more than the system takes; shorten it")
    return UsageError(f"the name {name[:40]}... has {len(name)} letters, more than the disk allows; shorten it")


def refuse_long(path: Path) -> None:
    """Refuse a path with a name that no disk allows, before folders are made on the way to it.

    Raises
    ------
    UsageError
    """
    for name in path.parts:
        if len(os.fsencode(name)) > MOST_BYTES_OF_NAME:
            raise _too_long([path])


@contextlib.contextmanager
def disk(root: Path) -> Iterator[None]:
    """Turn what a disk refuses into an error that says which disk.

    Raises
    ------
    ResourceError
        Where it is full or may not be written.
    UsageError
        Where a name is too long for it.
    """
    try:
        yield
    except UnetError:
        raise
    except OSError as error:
        found = explained(error, root)
        if found is None:
            raise
        raise found from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there."""
    persist(lambda: folder.mkdir(parents=True, exist_ok=True))


def remove(path: Path) -> None:
    """Remove a file, there or not."""
    persist(lambda: path.unlink(missing_ok=True))


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))


@contextlib.contextmanager
def replacing(path: Path, via: Path | None = None, at_once: bool = True) -> Iterator[BinaryIO]:
    """Write a file so that it is there whole or not at all; after an error the earlier file is still there.

    Parameters
    ----------
    path : Path
        Put in place at the end; a link of that name is replaced, what it points to is not touched.
    via : Path, optional
        Folder of the same disk for the temporary file; the file's own if not given.
    at_once : bool
        Sync its folder too. Without, the earlier file may be there again after a loss of power, still whole.
    """
    # Of a long name the beginning: with it, the temporary one has at most 255 bytes in any script.
    name = f".{path.name[:50].strip('.')}.{secrets.token_hex(16)}.partial"
    temporary = (via or path.parent) / name
    try:
        with create(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        persist(lambda: temporary.replace(path))
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if at_once:
        _sync_folder(path.parent)


def replace_json(path: Path, values: Mapping[str, Any], via: Path | None = None, at_once: bool = True) -> None:
    """Write a JSON object as `replacing` does."""
    replace(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode(), via, at_once)


def replace(path: Path, data: bytes, via: Path | None = None, at_once: bool = True) -> None:
    """Write bytes as `replacing` does."""
    persist(lambda: _replaced(path, data, via, at_once))


def _replaced(path: Path, data: bytes, via: Path | None, at_once: bool) -> None:
    with replacing(path, via, at_once) as file:
        file.write(data)


def check_replaceable(path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Refuse to write where something lies that is not a file of that kind of ours.

    Parameters
    ----------
    is_ours : callable
        Whether a file, which may be any, is of that kind.
    what : str
        The kind, in words: "scores of evaluate".

    Raises
    ------
    OutputError
        Naming the file.
    UnsafeError
        Where it is a link.
    """
    refuse_link(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; choose another name for the {what}")
    if path.exists() and not (path.is_file() and is_ours(path)):
        raise OutputError(f"{path} exists and is no {what}; it is left as it is: choose another name")


def following(path: Path) -> Path:
    """Return the name after this: ``a.ome.zarr``, ``a-2.ome.zarr``, ``a-3.ome.zarr``."""
    stem = path.name.removesuffix(".ome.zarr")
    base, _, number = stem.rpartition("-")
    following = f"{base}-{int(number) + 1}" if base and number.isdigit() else f"{stem}-2"
    return path.with_name(f"{following}.ome.zarr")


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a place where something lies, unless it is a file that may be replaced.

    Raises
    ------
    OutputError
        Naming it.
    """
    if path.is_dir() or path.is_symlink() or (path.exists() and not overwrite):
        raise OutputError(f"{path} exists; choose another name, or replace a file with --overwrite")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        persist(lambda: _synced(folder))


def _synced(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems sync no folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def _opened(path: Path, flags: int) -> int:
    """Open a plain file, never through a link.

    Raises
    ------
    UnsafeError
        Where it is a link, a pipe or a device.
    """
    refuse_link(path)
    try:
        return _plain(path, flags | NO_LINK)
    except OSError as error:
        if error.errno in LINKED:
            raise _linked(path) from error
        raise


def _plain(path: Path, flags: int) -> int:
    """Open what is there; refuse a pipe or a device, which would be waited for or never end."""
    descriptor = persist(lambda: os.open(path, flags | NO_WAIT, 0o644))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise UnsafeError(f"{path} is not a plain file; it is neither read nor written: remove it")


def create(path: Path) -> BinaryIO:
    """Make a file that is not there yet and open it for writing."""
    return os.fdopen(_opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet; what a disk that fails has left of it goes before it is tried again."""
    persist(lambda: _write_new(path, data))


def _write_new(path: Path, data: bytes) -> None:
    with create(path) as file:
        try:
            file.write(data)
            file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise


def open_to_read(path: Path) -> BinaryIO:
    """Open a file of ours for reading, which must be no link."""
    return os.fdopen(_opened(path, os.O_RDONLY), "rb")


def open_plain(path: Path) -> BinaryIO:
    """Open a file from elsewhere for reading, through links too.

    Raises
    ------
    UnsafeError
        Where it is a pipe or a device.
    """
    return os.fdopen(_plain(path, os.O_RDONLY | BYTES), "rb")


def read_plain(path: Path, most: int) -> bytes:
    """Read a file from elsewhere of at most so many bytes; ValueError where it is longer."""
    data = persist(lambda: _read(open_plain(path), most + 1))
    if len(data) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return data


def open_to_append(path: Path) -> BinaryIO:
    """Open a file of ours, made where it is not there, for lines at its end; unbuffered, and it must be no link."""
    return os.fdopen(_opened(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "ab", buffering=0)


def read(path: Path, most: int) -> bytes:
    """Read a file of ours of at most so many bytes.

    Raises
    ------
    OutputError
        Where it is longer.
    """
    data = persist(lambda: _read(open_to_read(path), most + 1))
    if len(data) > most:
        raise OutputError(f"{path} has more than {most} bytes, so this program did not make it; move it away")
    return data


def _read(opened: BinaryIO, most: int) -> bytes:
    with opened as file:
        return file.read(most)


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link.

    Raises
    ------
    UnsafeError
    """
    if path.is_symlink():
        raise _linked(path)


def _linked(path: Path) -> UnsafeError:
    return UnsafeError(f"{path} is a symbolic link; results are not written through links: remove it")


def refuse_links(folder: Path) -> None:
    """Refuse a folder that is a link, or that holds one however deep.

    Raises
    ------
    UnsafeError
        Naming the first that is found.
    """
    refuse_link(folder)
    for item in below(folder):
        if item.is_symlink():
            raise _linked(Path(item.path))


def below(folder: Path, apart: Collection[str] = ()) -> Iterator[os.DirEntry[str]]:
    """Yield all that lies in a folder and its folders, following no link; nothing where it is not there.

    Parameters
    ----------
    apart : collection of str
        Names of folders that are not looked into.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                items = list(found)  # all of a folder before any of it is removed
        except (FileNotFoundError, NotADirectoryError):
            continue
        for item in items:
            if item.is_dir(follow_symlinks=False) and item.name not in apart:
                waiting.append(item.path)
            yield item


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove the temporary files that killed writers left in folders and below; call it where no other writes."""
    for folder in folders:
        for item in below(folder):
            if PARTIAL.fullmatch(item.name) and not item.is_dir(follow_symlinks=False):
                remove(Path(item.path))


def plain(value: Any, odd: Callable[[float], Any] = str) -> Any:
    """Return what JSON gives back: dicts, lists, numbers; the rest as text, NaN and infinity as `odd` says."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, odd) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item, odd) for item in value]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # of numpy, which need not be loaded here
        return plain(value.tolist(), odd)
    if isinstance(value, float) and not math.isfinite(value):
        return odd(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)
