"""Stacks of Micro-Manager and NDTiff: each position, or whatever else was varied, is an image of its own.

::

    index    {"position": "A1", "time": 0, "channel": "DAPI", "z": 3} -> plane 17
             |-- an image -----|  |-- its axes t, c and z ---------|
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..errors import DataError
from .omexml import MOST_PLANES, check_file

KINDS = ("mmstack", "ndtiff")  # of tifffile's series
INDEX = "NDTiff.index"  # beside the files of NDTiff: which plane lies where
OWN = "TCZ"  # axes of a stack that an image has itself
WORDS = {"R": "position", "J": "column", "K": "row"}  # tifffile's letters
COLUMNS = 4  # of an index of Micro-Manager: channel, slice, frame and position, before the offset


def check_manager(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse indices of Micro-Manager that declare absurd sizes, or lead out of the folder, before they are followed.

    Raises
    ------
    DataError
        Naming what the index says.
    """
    if not tif.is_micromanager:
        return
    meta = tif.micromanager_metadata or {}
    sizes: Sequence[int] = ()
    if meta.get("IndexMap") is not None:
        sizes = [int(n) + 1 for n in meta["IndexMap"][:, :COLUMNS].max(axis=0)]
        summary = meta.get("Summary") or {}
        declared = [int(summary.get(k) or 1) for k in ("Channels", "Slices", "Frames", "Positions")]
        sizes = list(map(max, sizes, declared))
    index = path.parent / INDEX
    if index.exists() and meta.get("MajorVersion", 0) >= 2:
        check_file(path, INDEX)
        for name in {entry[1] for entry in tifffile.read_ndtiff_index(index)}:
            check_file(path, name)
        sizes = [len(values) for values in _values(tif).values()]
    if math.prod(sizes) > MOST_PLANES:
        raise DataError(
            f"{path}: its index declares {math.prod(sizes)} planes, its file has {len(tif.pages)}; copy it again"
        )


def series_of(tif: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """Return the images of a file; of one of Micro-Manager each position, and each value of any axis but t, c and z."""
    return list(itertools.chain.from_iterable(_parts(tif, series) for series in tif.series))


def _parts(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> list[tifffile.TiffPageSeries]:
    outer = len(series.shape) - len(series.keyframe.shape)
    beyond = [i for i in range(outer) if series.axes[i] not in OWN]
    if series.kind not in KINDS or not beyond:
        return [series]
    pages = np.empty(math.prod(series.shape[:outer]), object)
    pages[:] = list(series.pages)
    pages = pages.reshape(series.shape[:outer])
    left = [i for i in range(len(series.shape)) if i not in beyond]
    words = [WORDS.get(series.axes[i], "other") for i in beyond]
    places, found = _places(tif), []
    for at in itertools.product(*(range(series.shape[i]) for i in beyond)):
        part = pages[tuple(at[beyond.index(i)] if i in beyond else slice(None) for i in range(outer))]
        own = list(part.ravel()) if isinstance(part, np.ndarray) else [part]
        first = next((page for page in own if page is not None), None)
        if first is None:
            continue
        image = tifffile.TiffPageSeries(
            own,
            shape=tuple(series.shape[i] for i in left),
            dtype=series.dtype,
            axes="".join(series.axes[i] for i in left),
            parent=tif,
            name=places.get(_place(first)) or ", ".join(f"{w} {n}" for w, n in zip(words, at, strict=True)),
            kind=series.kind,
            multifile=series.is_multifile,
        )
        image.keyframe = series.keyframe  # of a file that is open; all planes have one shape
        found.append(image)
    return found


def _place(page: Any) -> tuple[str, int]:
    return page.parent.filename, page.dataoffsets[0]


def _places(tif: tifffile.TiffFile) -> dict[tuple[str, int], str]:
    """Return the name of the image that each plane of NDTiff belongs to: what was varied, and its value."""
    code, values = tifffile.TIFF.AXES_CODES, _values(tif)
    varied = [axis for axis, each in values.items() if code.get(axis.lower()) not in tuple(OWN) and len(each) > 1]
    if not varied:
        return {}
    return {
        (file, offset): ", ".join(f"{axis} {axes[axis]}" for axis in varied if axis in axes)
        for axes, file, offset, *_ in tifffile.read_ndtiff_index(_index(tif))
    }


def _index(tif: tifffile.TiffFile) -> Path:
    return Path(tif.filehandle.dirname) / INDEX


def _values(tif: tifffile.TiffFile) -> dict[str, list[Any]]:
    """Return the axes of NDTiff's index with their values: numbers from least to greatest, names as they come."""
    if not tif.is_ndtiff:
        return {}
    seen: dict[str, dict[Any, None]] = {}
    for axes, *_ in tifffile.read_ndtiff_index(_index(tif)):
        for axis, value in axes.items():
            seen.setdefault(str(axis), {})[value] = None
    return {axis: _range(list(values)) for axis, values in seen.items()}


def _range(values: list[Any]) -> list[Any]:
    whole = all(isinstance(value, int) for value in values)
    if whole and max(values) - min(values) < MOST_PLANES:
        return list(range(min(values), max(values) + 1))
    return values


def channels_of(tif: tifffile.TiffFile, count: int) -> tuple[str, ...]:
    """Return the names of so many channels, as an index of NDTiff has them; nothing where it has not."""
    values = next((values for axis, values in _values(tif).items() if axis.lower() == "channel"), [])
    return tuple(values) if len(values) == count and all(isinstance(value, str) for value in values) else ()
