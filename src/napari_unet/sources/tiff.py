"""TIFF, OME-TIFF, ImageJ hyperstacks and BigTIFF through tifffile's zarr view: nothing is read whole."""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from ..errors import DataError
from ..stack import AXES, LazyArray, View
from .arrange import SAMPLES, UNKNOWN, Found
from .tifftags import channel_names, check_complete, check_text, pixel_sizes
from .zarrmeta import MAX_CHUNK

WHOLE_PAGE = 2**24
TIFF_ERRORS = (ValueError, TypeError, LookupError, OSError, RuntimeError, ArithmeticError, tifffile.TiffFileError)


def find_tiff(path: Path, level: int | None) -> Found:
    """Open the first series of a TIFF file lazily.

    Parameters
    ----------
    path : Path
    level : int, optional
        Of a pyramid, 0 the finest.

    Raises
    ------
    DataError
        Where it is damaged, incomplete, or stored in a way that is not read.
    """
    with _named_errors(path), _strict_log() as complaints, tifffile.TiffFile(path) as tif:
        if not tif.pages:
            raise DataError(f"{path} is a TIFF without a page; copy it again")
        check_text(path, tif)
        series = tif.series[0]
        check_complete(path, tif, series, complaints)
        return _found(path, tif, series, level or 0)


def tiff_levels(path: Path) -> int:
    """Return the number of pyramid levels of the first series of a TIFF file."""
    with _named_errors(path), _strict_log(), tifffile.TiffFile(path) as tif:
        return len(tif.series[0].levels)


def _found(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, level: int) -> Found:
    if not 0 <= level < len(series.levels):
        raise DataError(f"{path} has levels 0 to {len(series.levels) - 1}, not {level}")
    chosen = series.levels[level]
    known = "".join(_letter(a) for a in series.axes)
    if len(set(known.replace(UNKNOWN, ""))) < len(known.replace(UNKNOWN, "")):
        known = UNKNOWN * len(known)
    data: LazyArray = _lazy(path, series, level)
    if tuple(data.shape) != tuple(chosen.shape):
        raise DataError(f"{path}: level {level} has shape {tuple(data.shape)}, its metadata says {tuple(chosen.shape)}")
    notes = [] if len(tif.series) == 1 else [f"the first of {len(tif.series)} images in the file was taken"]
    data, more = _samples(data, known, series.keyframe)
    factors = [a / b for a, b in zip(series.shape, chosen.shape, strict=True)]
    sizes = pixel_sizes(tif, series)
    scale = [sizes.get(a, (1.0, None))[0] * (f if a in "zyx" else 1.0) for a, f in zip(known, factors, strict=True)]
    return Found(
        data,
        known,
        _stem(path),
        str(path),
        scale=tuple(scale),
        units=tuple(sizes.get(a, (1.0, None))[1] for a in known),
        translation=tuple(
            (s - s / f) / 2 if a in "zyx" else 0.0 for a, s, f in zip(known, scale, factors, strict=True)
        ),
        channel_names=channel_names(tif),
        notes=(*notes, *more),
    )


def _letter(axis: str) -> str:
    if axis == "S":
        return SAMPLES
    return axis.lower() if axis.lower() in AXES else UNKNOWN


def _stem(path: Path) -> str:
    stem = path.stem
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem


def _samples(data: LazyArray, known: str, page: tifffile.TiffPage) -> tuple[LazyArray, list[str]]:
    """Say what the samples of a pixel were taken as; leave out an alpha channel."""
    photometric = getattr(page.photometric, "name", str(page.photometric))
    if photometric == "PALETTE":
        return data, ["the numbers of the palette were taken, not its colours"]
    if photometric == "MINISWHITE":
        return data, ["the file shows 0 as white"]
    if SAMPLES not in known:
        return data, []
    at = known.index(SAMPLES)
    count = data.shape[at]
    colours = {"RGB": 3, "YCBCR": 3, "MINISBLACK": 1}.get(photometric, count)
    alpha = len(page.extrasamples or ()) == 1 and int(page.extrasamples[0]) in (1, 2) and count == colours + 1
    notes = ["RGB taken as three channels" if colours == 3 else f"{count} samples a pixel taken as channels"]
    if alpha:
        data = View.of(data).cut([slice(0, colours) if i == at else slice(None) for i in range(len(known))])
        notes.append("the alpha channel was left out")
    return data, notes


class TiffArray:
    """The pixels of a TIFF file as a lazy array that can be sent to another process, where the file is opened again.

    Parameters
    ----------
    path : Path
    level : int
    data : zarr.Array
        tifffile's view of it.
    """

    def __init__(self, path: Path, level: int, data: "zarr.Array[Any]") -> None:
        self._path, self._level, self._data = path, level, data
        self.shape, self.dtype, self.chunks = data.shape, data.dtype, data.chunks
        self.ndim = data.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a region."""
        return np.asarray(self._data[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        return np.asarray(self[...], dtype=dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._path.absolute(), self._level)  # workers have folders of their own


def _reopened(path: Path, level: int) -> Any:
    with _named_errors(path), tifffile.TiffFile(path) as tif:
        return _lazy(path, tif.series[0], level)


def _lazy(path: Path, series: tifffile.TiffPageSeries, level: int) -> Any:
    """Return the lazy array: pages as chunks where they are small, else their strips or tiles, or the mapped file."""
    chosen = series.levels[level]
    page = chosen.keyframe
    page.decode(None, 0)
    small = math.prod(page.shape) * np.dtype(page.dtype).itemsize <= WHOLE_PAGE
    if not small and not page.is_tiled and page.is_memmappable and chosen.dataoffset is not None:
        return tifffile.memmap(path, series=0, level=level, mode="r")
    store = series.aszarr(level=level, chunkmode=2 if small and not page.is_tiled else 0)
    data = zarr.open_array(store=store, mode="r")  # zarr v2 or v3, by the release of tifffile
    if math.prod(data.chunks) * data.dtype.itemsize > MAX_CHUNK:
        raise DataError(f"{path}: one strip or tile is larger than {MAX_CHUNK >> 30} GiB; save it as OME-Zarr")
    return TiffArray(path, level, data)


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{path}: its compression needs the package imagecodecs ({error}); install it") from error
    except TIFF_ERRORS as error:
        if "imagecodecs" in str(error):
            raise DataError(f"{path}: {error}; install the package imagecodecs") from error
        raise DataError(f"{path} cannot be read as TIFF: {type(error).__name__} {error}") from error
    except MemoryError as error:
        raise DataError(f"{path} cannot be read as TIFF: it declares sizes beyond this machine's memory") from error


class _Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a record."""
        self.lines.append(f"{record.levelname}: {record.getMessage()}")


@contextlib.contextmanager
def _strict_log() -> Iterator[list[str]]:
    """Collect what tifffile would only have logged."""
    logger, handler = logging.getLogger("tifffile"), _Collect()
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
