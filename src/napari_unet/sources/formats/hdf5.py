"""HDF5: a dataset of a file, chosen by its path; nothing outside of the file is followed."""

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...arrays.stack import SPATIAL
from ...arrays.views import Box
from ...errors import DataError, UnsafeError
from ..arrange import UNKNOWN, Found, axis_letters, letters_of
from ..zarrmeta import PACKED, ROOM
from .infile import FileArray, named_errors, pick, plane_chunks, taken

MOST_DATASETS = 2**16  # that are looked through for images: 10 s
SLACK = 1024  # bytes that a codec may add to a chunk: checksums and headers
SIZES = "element_size_um"  # of Fiji, ilastik and PlantSeg: micrometres along z, y, x
KINDS = "biuf"


def open_file(path: Path) -> "h5py.File":
    """Open a file for reading, also where the disk has no locks."""
    return h5py.File(path, "r", locking="best-effort")


def dataset(file: "h5py.File", name: str) -> "h5py.Dataset":
    """Return a dataset whose elements all lie in the file.

    Raises
    ------
    UnsafeError
        For a link to another place, and elements in other files.
    DataError
        Where there is none.
    """
    parts = [part for part in name.split("/") if part]
    for i in range(len(parts)):
        link = file.get("/".join(parts[: i + 1]), getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise UnsafeError(f"{file.filename}: {name} is a link, which may lead to another file; refused")
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{file.filename} has no dataset {name!r}; choose one that napari-unet info shows")
    if found.external or found.is_virtual:
        raise UnsafeError(f"{file.filename}: the elements of {name} lie in other files; refused, copy them into one")
    return found


class Dataset:
    """A dataset in an open file, each packed chunk of which is looked at before it is unpacked."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = open_file(path)
        self._data = dataset(self._file, name)
        self.shape, self.dtype = tuple(self._data.shape), self._data.dtype
        self.chunks = self._data.chunks or plane_chunks(self.shape, self.dtype.itemsize)

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        if self._data.chunks is not None:
            _check_chunks(self._data, box)
        return np.asarray(self._data[box])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _check_chunks(data: "h5py.Dataset", box: Sequence[slice]) -> None:
    """Refuse chunks that are stored, or unpack, to more than a chunk holds."""
    steps, size = data.chunks, math.prod(data.chunks) * data.dtype.itemsize
    grid = [range(b.start // step * step, b.stop, step) for b, step in zip(box, steps, strict=True)]
    deflated = data.compression == "gzip"
    for flat in range(math.prod(map(len, grid))):
        at = tuple(int(g[i]) for g, i in zip(grid, np.unravel_index(flat, [len(g) for g in grid]), strict=True))
        stored = data.id.get_chunk_info_by_coord(at)
        if stored.byte_offset is None:
            continue
        too_large = stored.size > PACKED * size + ROOM
        if not too_large and deflated and not stored.filter_mask:
            too_large = _unpacks_to_more(data.id.read_direct_chunk(at)[1], size)
        if too_large:
            raise DataError(f"chunk {at} of {data.name} holds more than {size} bytes; it is damaged or forged")


def _unpacks_to_more(raw: bytes, size: int) -> bool:
    """Say whether a chunk is a bomb: room for what it unpacks to is made by HDF5 without an end."""
    try:
        return len(zlib.decompressobj().decompress(raw, size + SLACK + 1)) > size + SLACK
    except zlib.error:
        return False  # HDF5 says it


def find_hdf5(path: Path, series: int | str | None) -> Found:
    """Open a dataset of a file: by its path, or the largest.

    Raises
    ------
    DataError, UnsafeError
    """
    with named_errors(path, "HDF5"), open_file(path) as file:
        if series is not None and not str(series).isdecimal():
            dataset(file, str(series))  # says what is wrong with it, where it is none of the images
        images = _images(file)
        names, shapes = list(images), list(images.values())
        chosen = pick(path, names, shapes, None if series is None else str(series).strip("/"))
        data = dataset(file, names[chosen])
        known, sizes, said = _axes(data)
        notes = taken(names, shapes, chosen, series)
        place = FileArray(Dataset, path, names[chosen])
    scale = tuple(sizes.get(a, 1.0) for a in known)
    units = tuple("micrometer" if a in sizes else None for a in known)
    return Found(place, known, path.stem, str(path), scale=scale, units=units, notes=(*notes, *said))


def _images(file: "h5py.File") -> dict[str, tuple[int, ...]]:
    """List the datasets that may be images: numbers, of two dimensions or more, or of one where there are no others."""
    found: dict[str, tuple[int, ...]] = {}
    seen = 0

    def look(name: str, item: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(item, h5py.Dataset) and item.dtype.kind in KINDS and len(item.shape or ()) > 1:
            found[name] = tuple(item.shape)
        return True if seen > MOST_DATASETS else None

    file.visititems(look)
    return found


def _axes(data: "h5py.Dataset") -> tuple[str, dict[str, float], tuple[str, ...]]:
    """Name the dimensions as the dataset does, with the micrometres along those of space, and notes."""
    labels = [str(each.label).lower() for each in data.dims]
    tags = data.attrs.get("axistags")
    if tags is not None:
        entries = json.loads(tags if isinstance(tags, str) else bytes(tags)).get("axes", [])
        labels = [str(entry.get("key", "")).lower() for entry in entries]
    letters = list(axis_letters(labels))
    if len(letters) != data.ndim:
        letters = [UNKNOWN] * data.ndim
    notes = letters_of(labels, data.ndim)[1] if set(letters) == {UNKNOWN} else ()
    given = np.atleast_1d(data.attrs.get(SIZES, ()))
    sizes = [float(s) for s in given] if given.dtype.kind in "iuf" and given.size == len(SPATIAL) else []
    if set(letters) == {UNKNOWN} and sizes and data.ndim == len(SPATIAL):
        letters = list(SPATIAL)
    found = {a: s for a, s in zip(SPATIAL, sizes, strict=False) if math.isfinite(s) and s > 0}
    return "".join(letters), found, notes
