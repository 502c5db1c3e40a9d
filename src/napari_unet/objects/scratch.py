"""The folder that holds what is known so far: components of each block, and the marks of finished blocks."""

import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from ..arrays.views import Box
from ..errors import UNUSABLE, LedgerError, OutputError
from ..faults import out_of_memory, persist
from ..files import PARTIAL, disk, make_folder, open_to_read, read, replace, replacing
from ..sources.zarrays import open_own
from .config import ObjectConfig
from .grid import ObjectGrid

CHUNK = {2: 256, 3: 64}  # edge: 256 kB to 1 MiB, a file that is written in a few ms
JOB = "job.json"
LABELS = "labels.zarr"
MOST_OF_JOB = 2**16  # bytes: axes, sizes and settings


class Scratch:
    """Local labels of a volume and small tables by name, on disk; each is there whole or not at all.

    Parameters
    ----------
    folder : Path
        Made where it is not there; its parent is.

    Raises
    ------
    OutputError
        Where the folder holds something else: another job, or files of the user.
    ResourceError
        Where the disk refuses.
    """

    def __init__(self, folder: Path, grid: ObjectGrid, config: ObjectConfig) -> None:
        self.folder, self.config = folder, config
        job = json.loads(json.dumps({"grid": _about(grid), "config": config.to_json()}))
        with disk(folder):
            shutil.rmtree(_trash(folder), ignore_errors=True)
            make_folder(folder)
            if (folder / JOB).exists():
                found = _job(folder / JOB)
                if found != job:
                    raise OutputError(f"{folder} belongs to {found}, not to {job}; name another folder or delete it")
            elif any(not (PARTIAL.fullmatch(p.name) or p.suffix == ".tmp") for p in folder.iterdir()):
                raise OutputError(f"{folder} holds files that are not of this work; name an empty or a new folder")
            else:
                self._put(JOB, json.dumps(job).encode())
            self._labels = persist(lambda: self._open(grid))

    def _open(self, grid: ObjectGrid) -> "zarr.Array[Any]":
        sizes = [CHUNK[len(grid.spatial)] if i in grid.spatial else 1 for i in range(len(grid.shape))]
        blocks = [min(b, n) for b, n in zip(grid.core, grid.shape, strict=True)]
        chunks = tuple(_part(b, most) for b, most in zip(blocks, sizes, strict=True))
        store = LocalStore(self.folder / LABELS)
        if (self.folder / LABELS / "zarr.json").exists():
            found = open_own(self.folder / LABELS, "r+")
            if (found.shape, found.chunks, found.dtype) == (grid.shape, chunks, np.dtype("u4")):
                return found
            raise _damaged(self.folder / LABELS)
        return zarr.create_array(store, shape=grid.shape, chunks=chunks, dtype="uint32", fill_value=0)

    def _put(self, name: str, data: bytes) -> None:
        replace(self.folder / name, data)

    def read(self, box: Box) -> np.ndarray:
        """Return local labels of a region."""
        with disk(self.folder):
            try:
                return persist(lambda: np.asarray(self._labels[box]))
            except (RuntimeError, ValueError) as error:
                if out_of_memory(error):
                    raise
                raise _damaged(self.folder / LABELS) from error

    def write(self, box: Box, labels: np.ndarray) -> None:
        """Keep local labels of a region."""
        with disk(self.folder):
            persist(lambda: self._labels.__setitem__(box, labels))

    def has(self, name: str) -> bool:
        """Return whether the tables `name` are there."""
        return (self.folder / f"{name}.npz").exists()

    def save(self, name: str, tables: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under one name, all of them or none."""
        with disk(self.folder):
            persist(lambda: self._save(name, tables))

    def _save(self, name: str, tables: Mapping[str, np.ndarray]) -> None:
        with replacing(self.folder / f"{name}.npz") as file:
            np.savez(file, **tables)  # type: ignore[arg-type]

    def load(self, name: str, *keys: str) -> list[np.ndarray]:
        """Return the arrays `keys` of the tables `name`."""
        with disk(self.folder):
            return persist(lambda: self._load(name, keys))

    def _load(self, name: str, keys: tuple[str, ...]) -> list[np.ndarray]:
        path = self.folder / f"{name}.npz"
        with open_to_read(path) as file:
            data = io.BytesIO(file.read())  # in one: zipfile takes a disk that fails for a file that is no archive
        try:
            with np.load(data, allow_pickle=False) as tables:
                return [tables[key] for key in keys]
        except (*UNUSABLE, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise _damaged(path) from error

    def remove(self) -> None:
        """Delete the folder."""
        discard(self.folder)


def _part(block: int, most: int) -> int:
    """Return the edge of a chunk: blocks are written at the same time, so none may have a chunk with another one."""
    edge = max(n for n in range(1, min(block, most) + 1) if block % n == 0)
    return edge if 4 * edge >= min(block, most) else block  # of a large prime number, whole


def _job(path: Path) -> Any:
    """Read what a scratch folder is of."""
    try:
        return json.loads(read(path, MOST_OF_JOB))
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> OutputError:
    return LedgerError(f"{path} is damaged; delete the folder {path.parent} and run the same command again")


def _about(grid: ObjectGrid) -> dict[str, Any]:
    return {"axes": grid.axes, "shape": grid.shape, "block": grid.core, "ndim": grid.ndim}


def _trash(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.trash")


def discard(folder: Path) -> None:
    """Delete a scratch folder, there or not: its name is free at once, its files go after that."""
    with disk(folder):
        if folder.is_dir():
            shutil.rmtree(_trash(folder), ignore_errors=True)
            persist(lambda: folder.replace(_trash(folder)))
        if _trash(folder).is_dir():
            persist(lambda: shutil.rmtree(_trash(folder)))
