"""Zarr in a zip archive: ``.zarr.zip`` and ``.ozx``, a place in it written as a path through it."""

import functools
import zipfile
from pathlib import Path, PurePosixPath

from ..errors import DataError, UnsafeError

ENDINGS = (".zip", ".ozx")
MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
END, END64 = b"PK\x05\x06", b"PK\x06\x06"  # of a zip's directory, and of one with 64-bit sizes (APPNOTE 4.3)
TAIL = 22 + 2**16 + 76  # bytes in which they lie: their own and the longest comment
MOST_DIRECTORY = 2**25  # bytes: some 400,000 files, of which Python keeps ten times as much in memory


class Archive:
    """The files of a zip archive that holds one zarr hierarchy.

    Raises
    ------
    UnsafeError
        Where a name in it leaves the archive.
    DataError
        Where it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_directory(path)
        try:
            with zipfile.ZipFile(path) as archive:
                self.files = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise DataError(f"{path} cannot be read as a zip archive: {error}; copy it again") from error
        for name in self.files:
            if name.startswith("/") or "\\" in name or ".." in name.split("/") or "\0" in name:
                raise UnsafeError(f"{path} holds the name {name!r}, outside of the archive; refused")
        self.root = self._root()

    def _root(self) -> str:
        """Return the folder of the only hierarchy in the archive, as its prefix: mostly none.

        What macOS packs beside it, in ``__MACOSX`` and ``.DS_Store``, is no group.
        """
        groups = {name.rpartition("/")[0] for name in self.files if name.rpartition("/")[2] in MARKS}
        top = min(groups, key=lambda group: group.count("/") + bool(group), default="")
        return f"{top}/" if top and all(group == top or group.startswith(f"{top}/") for group in groups) else ""

    def name(self, inside: str) -> str:
        """Return the name of a file or folder in the archive."""
        return self.root + ("" if inside == "." else inside)

    def size(self, name: str) -> int | None:
        """Return how many bytes a file unpacks to; None where it is not there."""
        info = self.files.get(name)
        return None if info is None else info.file_size

    def read(self, name: str, most: int) -> bytes | None:
        """Read a file as far as `most` bytes; None where it is not there."""
        if name not in self.files:
            return None
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                return file.read(most)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
            raise DataError(f"{self.path}: {name} cannot be read: {error}; copy it again") from error

    def folders(self, inside: str) -> list[str]:
        """List the folders directly inside one."""
        start = self.name(inside)
        start = f"{start.rstrip('/')}/" if start else ""
        below = (name[len(start) :] for name in self.files if name.startswith(start))
        return sorted({rest.partition("/")[0] for rest in below if "/" in rest})


def _check_directory(path: Path) -> None:
    """Refuse a list of files that would not fit into memory, before it is read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        tail = file.read(TAIL)
    at = tail.rfind(END)
    if at < 0:
        raise DataError(f"{path} is not a zip archive, or cut off; copy it again")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little")
    if (long := tail.rfind(END64)) >= 0:
        listed = max(listed % (2**32 - 1), int.from_bytes(tail[long + 40 : long + 48], "little"))
    if listed > MOST_DIRECTORY:
        raise DataError(f"{path} holds too many files ({listed} bytes of names); store it in shards, or unpack it")


@functools.lru_cache(maxsize=16)
def _archive(path: Path, modified: int, size: int) -> Archive:
    return Archive(path)


def archive(path: Path) -> Archive:
    """Return what an archive holds; read once as long as it stays the same."""
    found = path.stat()
    return _archive(path, found.st_mtime_ns, found.st_size)


def split(where: str | Path) -> tuple[Archive, str] | None:
    """Return the archive that a path leads through and the place inside it; None for other paths.

    Raises
    ------
    UnsafeError, DataError
        As `Archive` does.
    """
    if not any(ending in str(where).lower() for ending in ENDINGS):
        return None
    path = Path(where)
    for each in (path, *path.parents):
        if each.suffix.lower() in ENDINGS and each.is_file():
            return archive(each), PurePosixPath(path.relative_to(each)).as_posix()
    return None
