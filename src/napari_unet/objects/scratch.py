"""The folder that holds what is known so far: components of each block, and the marks of finished blocks."""

import json
import math
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd

from ..arrays.views import Box, overlap, within
from ..errors import UNUSABLE, LedgerError, OutputError
from ..faults import out_of_memory, persist
from ..files import PARTIAL, disk, make_folder, open_to_read, read, replace, replacing
from ..grid.blocks import boxes_of
from .config import ObjectConfig
from .grid import ObjectGrid
from .packed import read_arrays, write_arrays

PART = {2: 256, 3: 64}  # edge of what is packed together: 256 kB to 1 MiB, unpacked in less than a ms
FAST = 1  # level of zstd, its fastest: labels have long runs, which it packs to a hundredth as well as others do
JOB = "job.json"
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
        self._lay_out(folder, grid, config)
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
                replace(folder / JOB, json.dumps(job).encode())

    def _lay_out(self, folder: Path, grid: ObjectGrid, config: ObjectConfig) -> None:
        self.folder, self.config, self._grid = folder, config, grid
        most = [PART[len(grid.spatial)] if i in grid.spatial else 1 for i in range(len(grid.shape))]
        self._edges = [-(-b // -(-b // m)) for b, m in zip(grid.core, most, strict=True)]

    def keep(self, number: int, labels: np.ndarray, tables: Mapping[str, np.ndarray]) -> None:
        """Keep the local labels of a block with its tables, all of them or none."""
        parts = {_name(part): _packed(labels[part]) for part in boxes_of(labels.shape, self._edges)}
        self.save(f"scan-{number}", {**tables, **parts})

    def read(self, box: Box) -> np.ndarray:
        """Return local labels of a region."""
        out = np.empty([b.stop - b.start for b in box], np.uint32)
        for place in self._grid.under(box):
            block, number = self._grid.box(place), self._grid.number(place)
            met = overlap(block, box)
            wanted, shape = within(met, block), [b.stop - b.start for b in block]
            parts = [
                part for part in boxes_of(shape, self._edges) if all(p.start < p.stop for p in overlap(part, wanted))
            ]
            name = f"scan-{number}"
            for part, data in zip(parts, self.load(name, *map(_name, parts)), strict=True):
                inner = overlap(part, wanted)
                at = tuple(
                    slice(i.start + b.start - o.start, i.stop + b.start - o.start)
                    for i, b, o in zip(inner, block, box, strict=True)
                )
                out[at] = self._unpacked(name, data, part)[within(inner, part)]
        return out

    def _unpacked(self, name: str, data: np.ndarray, part: Box) -> np.ndarray:
        shape = [p.stop - p.start for p in part]
        try:
            raw = Zstd().decode(data[1:], bytearray(int(data[0]) * math.prod(shape)))
            return np.frombuffer(raw, f"u{data[0]}").reshape(shape)
        except (RuntimeError, *UNUSABLE) as error:
            if out_of_memory(error):
                raise
            raise _damaged(self._path(name)) from error

    def has(self, name: str) -> bool:
        """Return whether the tables `name` are there."""
        return self._path(name).exists()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.arrays"

    def save(self, name: str, tables: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under one name, all of them or none."""
        with disk(self.folder):
            persist(lambda: self._save(name, tables))

    def _save(self, name: str, tables: Mapping[str, np.ndarray]) -> None:
        with replacing(self._path(name)) as file:
            write_arrays(file, tables)

    def load(self, name: str, *keys: str) -> list[np.ndarray]:
        """Return the arrays `keys` of the tables `name`."""
        with disk(self.folder):
            return persist(lambda: self._load(name, keys))

    def _load(self, name: str, keys: tuple[str, ...]) -> list[np.ndarray]:
        path = self._path(name)
        with open_to_read(path) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                return read_arrays(file, keys, size)
            except (*UNUSABLE, struct.error) as error:
                raise _damaged(path) from error

    def remove(self) -> None:
        """Delete the folder."""
        discard(self.folder)


class InMemory(Scratch):
    """The same where it is done again sooner than kept on a disk, as of a small image.

    Parameters
    ----------
    grid : ObjectGrid
    config : ObjectConfig
    """

    def __init__(self, grid: ObjectGrid, config: ObjectConfig) -> None:
        self._lay_out(Path("memory"), grid, config)
        self._tables: dict[str, Mapping[str, np.ndarray]] = {}

    def has(self, name: str) -> bool:
        """Return whether the tables `name` are there."""
        return name in self._tables

    def save(self, name: str, tables: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under one name."""
        self._tables[name] = dict(tables)

    def load(self, name: str, *keys: str) -> list[np.ndarray]:
        """Return the arrays `keys` of the tables `name`."""
        return [self._tables[name][key] for key in keys]

    def remove(self) -> None:
        """Forget all."""
        self._tables.clear()


def _name(part: Box) -> str:
    return "labels-" + "-".join(str(p.start) for p in part)


def _packed(labels: np.ndarray) -> np.ndarray:
    """Pack labels as bytes, the first of which is how many each label has."""
    narrow = labels.astype(np.min_scalar_type(int(labels.max(initial=0))))
    packed = Zstd(FAST).encode(np.ascontiguousarray(narrow))
    return np.frombuffer(bytes([narrow.itemsize]) + bytes(packed), np.uint8)


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
