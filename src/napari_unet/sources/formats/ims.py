"""Imaris files: HDF5 with a dataset for each level, time point and channel."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...arrays.views import Box
from ...errors import DataError
from ...units import canonical
from ..arrange import Found
from .hdf5 import Dataset, dataset, open_file
from .infile import FileArray, named_errors, pick, read_frames

INFO = "DataSetInfo"
MOST = 2**20  # time points, or channels: of a file that is not forged


def _place(level: int, time: int, channel: int) -> str:
    return f"DataSet/ResolutionLevel {level}/TimePoint {time}/Channel {channel}"


class Series:
    """All time points and channels of a level as one image.

    Parameters
    ----------
    key : (level, number of time points, number of channels)
    """

    def __init__(self, path: Path, key: tuple[int, int, int]) -> None:
        self._path, self._level = path, key[0]
        self._parts: dict[tuple[int, ...], Dataset] = {}
        first = self._part((0, 0))
        with open_file(path) as file:
            sizes = _sizes(file, key[0], first.shape)
        self.shape, self.dtype = (*key[1:], *sizes), first.dtype
        self.chunks = (1, 1, *first.chunks)

    def _part(self, at: tuple[int, ...]) -> Dataset:
        if at not in self._parts:
            self._parts[at] = Dataset(self._path, f"{_place(self._level, *at)}/Data")
        return self._parts[at]

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        return read_frames(2, box, self.dtype, lambda at, inner: self._part(at).read(inner))

    def close(self) -> None:
        """Close the file."""
        for part in self._parts.values():
            part.close()


def _sizes(file: "h5py.File", level: int, stored: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of the image, which is stored in whole chunks."""
    group = file[_place(level, 0, 0)]
    sizes = tuple(int(_text(group, f"ImageSize{a}") or n) for a, n in zip("ZYX", stored, strict=True))
    if any(not 0 < size <= n for size, n in zip(sizes, stored, strict=True)):
        raise DataError(f"{file.filename} says the size {sizes} of what is stored in {stored}; it is damaged")
    return sizes


def _text(group: Any, name: str) -> str:
    """Return an attribute, which Imaris writes letter by letter."""
    value = group.attrs.get(name) if group is not None else None
    return "" if value is None else b"".join(np.asarray(value, "S").reshape(-1).tolist()).decode(errors="replace")


def find_ims(path: Path, level: int | None, series: int | str | None) -> Found:
    """Open an Imaris file."""
    level = level or 0
    with named_errors(path, "Imaris"), open_file(path) as file:
        levels = sum(f"ResolutionLevel {i}" in file["DataSet"] for i in range(len(file["DataSet"])))
        if not 0 <= level < levels:
            raise DataError(f"{path} has levels 0 to {levels - 1}, not {level}; choose one of these")
        times = min(MOST, len(file[f"DataSet/ResolutionLevel {level}"]))
        channels = min(MOST, len(file[_place(level, 0, 0).rpartition("/")[0]]))
        for at in ((t, c) for t in range(times) for c in range(channels)):
            dataset(file, f"{_place(level, *at)}/Data")
        data = FileArray(Series, path, (level, times, channels))
        pick(path, [path.stem], [data.shape], series)
        image = file.get(f"{INFO}/Image")
        scale, origin = _geometry(image, data.shape)
        unit = canonical(_text(image, "Unit") or "um")
        names = tuple(_text(file.get(f"{INFO}/Channel {c}"), "Name") for c in range(channels))
    return Found(
        data,
        "tczyx",
        path.stem,
        str(path),
        scale=scale,
        units=(None, None, unit, unit, unit),
        translation=origin,
        channel_names=names if all(names) else (),
    )


def _geometry(image: Any, shape: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the size of a pixel and where the first one's centre lies, from where the image begins and ends."""
    scale, origin = [1.0, 1.0], [0.0, 0.0]
    for number, size in zip((2, 1, 0), shape[2:], strict=True):
        try:
            low, high = (float(_text(image, f"Ext{end}{number}")) for end in ("Min", "Max"))
        except ValueError:
            low, high = 0.0, float(size)
        step = (high - low) / size
        step = step if math.isfinite(step) and step > 0 else 1.0
        scale.append(step)
        origin.append(low + step / 2 if low else 0.0)
    return tuple(scale), tuple(origin)
