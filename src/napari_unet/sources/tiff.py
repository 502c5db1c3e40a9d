"""TIFF, OME-TIFF, ImageJ hyperstacks and BigTIFF through tifffile's zarr view: nothing is read whole."""

import contextlib
import dataclasses
import logging
import math
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from ..arrays.stack import AXES, DECODING
from ..arrays.views import Box, LazyArray, LazyBase, View
from ..errors import DataError
from .arrange import SAMPLES, UNKNOWN, Found
from .manager import KINDS, channels_of, check_manager, series_of
from .omexml import Image, read_ome
from .tiffheads import check_directories
from .tiffseries import Chosen, choose_series, count_planes, images_of, leading_box
from .tifftags import channel_names, pixel_sizes
from .transforms import Placing
from .zarrmeta import MAX_CHUNK

WHOLE_PAGE = 2**24  # 16 MiB: pages up to that size are read as a whole, larger ones by strips or tiles
TIFF_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OSError,
    EOFError,
    RuntimeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    tifffile.TiffFileError,
)  # what tifffile raises for bytes that are not what they should be
# Of these, what it raises while planes are read; the others are what damaged or unreachable values give in any format.
OF_STRUCTURE = tuple(kind for kind in TIFF_ERRORS if not issubclass(kind, DECODING))


def find_tiff(
    path: Path, level: int | None, series: int | str | None = None, *, allow_incomplete: bool = False
) -> Found:
    """Open an image of a TIFF file lazily.

    Parameters
    ----------
    level : int, optional
        Of a pyramid, 0 the finest.
    series : int or str, optional
        Number or name of the image, of several in the file; `choose_series` says which is taken without it.
    allow_incomplete : bool
        Open what is there of a file that lacks planes: the largest box from the first plane on.

    Raises
    ------
    DataError
        Where it is damaged, incomplete, or stored in a way that is not read.
    """
    with _opened(path) as (tif, images, complaints):
        chosen = choose_series(path, tif, images, series)
        box, notes = _complete(path, tif, chosen, complaints, allow_incomplete)
        found = _found(path, tif, chosen, level or 0)
        behind = _pages_behind(tif)
        notes += [f"{behind} pages behind the stack were left out"] if behind else []
        return _cut(dataclasses.replace(found, notes=(*chosen.notes, *found.notes, *notes)), box)


def tiff_levels(path: Path, series: int | str | None = None) -> int:
    """Return the number of pyramid levels of an image of a TIFF file."""
    with _opened(path) as (tif, images, _):
        return len(choose_series(path, tif, images, series).series.levels)


def tiff_images(path: Path) -> list[tuple[int, str]]:
    """Return number and a line of text for each image of a TIFF file: its name, and its sizes."""
    with _opened(path) as (tif, _, _):
        return [
            (i, f"{f'{s.name}, ' if s.name else ''}{s.axes.lower()} {' x '.join(map(str, s.shape))}, {s.dtype}")
            for i, s in images_of(tif)
        ]


def tiff_names(path: Path) -> dict[int, str]:
    """Return number and name of each image of a TIFF file, first of the one that is taken without a choice."""
    with _opened(path) as (tif, images, _):
        taken = choose_series(path, tif, images, None).index
        return {i: s.name for i, s in sorted(images_of(tif), key=lambda each: (each[0] != taken, each[0]))}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[tifffile.TiffFile, tuple[Image, ...], list[str]]]:
    """Open a file, with what its OME-XML says and what tifffile complained of; nothing of it is followed unchecked."""
    with _named_errors(path):
        check_directories(path)
    with _named_errors(path), _strict_log() as complaints, _file(path) as tif:
        if not tif.pages:
            raise DataError(f"{path} is a TIFF without a page; copy it again")
        images = read_ome(path, tif)
        check_manager(path, tif)
        yield tif, images, complaints


@contextlib.contextmanager
def _file(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a file; pages of another kind behind a stack of ImageJ, which tifffile leaves out or refuses, are images."""
    with contextlib.ExitStack() as files:
        tif = files.enter_context(tifffile.TiffFile(path))
        if _pages_behind(tif):
            plain = files.enter_context(tifffile.TiffFile(path, is_imagej=False))
            if len(plain.series) > 1:
                vars(plain)["is_imagej"] = True  # what it says of sizes and axes counts all the same
                tif = plain
        yield tif


def _pages_behind(tif: tifffile.TiffFile) -> int:
    """Count the pages behind a stack of ImageJ that stores one page a plane; -1 where tifffile cannot read them."""
    if not tif.is_imagej:
        return 0
    try:
        series = tif.series
    except RuntimeError:
        return -1
    planes = math.prod(series[0].shape) // math.prod(series[0].keyframe.shape) if len(series) == 1 else 0
    return max(0, len(tif.pages) - planes) if planes > 1 else 0


def _complete(
    path: Path, tif: tifffile.TiffFile, chosen: Chosen, complaints: Sequence[str], allow_incomplete: bool
) -> tuple[list[slice | int], list[str]]:
    """Return the box of what is there, and what is to be said of it; refuse a file that was cut off or is damaged."""
    series = chosen.series
    planes = count_planes(tif, chosen)
    whole: list[slice | int] = [slice(0, n) for n in series.shape]
    if planes.whole >= planes.declared:
        errors = [line for line in complaints if line.startswith("ERROR")]
        if errors and not allow_incomplete:
            raise DataError(f"{path} is damaged: {errors[0].partition(': ')[2]}; copy it again")
        return whole, [line.partition(": ")[2] for line in errors]
    readable = planes.listed if planes.listed < planes.declared else planes.whole
    counts = f"it declares {planes.declared} pages, {readable} readable"
    if not allow_incomplete or not planes.whole:
        raise DataError(
            f"{path} is incomplete: {counts}; copy it again, or open the rest with allow_incomplete "
            "(--allow-incomplete)"
        )
    outer = len(series.shape) - len(series.keyframe.shape)
    box = leading_box(series.shape[:outer], planes.whole)
    return [*box, *whole[outer:]], [f"incomplete: {counts}; the rest was opened"]


def _found(path: Path, tif: tifffile.TiffFile, choice: Chosen, level: int) -> Found:
    series, image = choice.series, choice.image
    if not 0 <= level < len(series.levels):
        raise DataError(f"{path} has levels 0 to {len(series.levels) - 1}, not {level}; choose one of these")
    chosen = series.levels[level]
    known = _letters(tif, series, image)
    data: LazyArray = _lazy(path, choice.index, series, level)
    if tuple(data.shape) != tuple(chosen.shape):
        raise DataError(
            f"{path}: level {level} has shape {tuple(data.shape)}, its metadata says {tuple(chosen.shape)}; "
            "save it again"
        )
    data, notes = _samples(data, known, series.keyframe)
    sizes = image.sizes if image is not None else pixel_sizes(tif, series)
    given = [sizes.found.get(a, (1.0, None)) for a in known]
    finest = Placing(tuple(size for size, _ in given), (0.0,) * len(known))
    placed = finest.through([each.shape for each in series.levels[: level + 1]])
    channels = data.shape[known.index("c")] if "c" in known else 1
    names = channels_of(tif, channels) or channel_names(tif, channels)
    return Found(
        data,
        known,
        _stem(path),
        str(path),
        scale=placed.scale,
        units=tuple(unit for _, unit in given),
        translation=placed.translation,
        channel_names=image.channel_names if image is not None else names,
        notes=(*notes, *sizes.notes),
    )


def _cut(found: Found, box: Sequence[slice | int]) -> Found:
    """Take a part of what was found; an integer removes the axis."""
    if all(isinstance(part, slice) and part.stop >= n for part, n in zip(box, found.data.shape, strict=True)):
        return found
    left = [i for i, part in enumerate(box) if isinstance(part, slice)]
    fields = ("scale", "units", "translation")
    kept: dict[str, Any] = {name: tuple(getattr(found, name)[i] for i in left) for name in fields}
    data = View.of(found.data).cut(box)
    return dataclasses.replace(found, data=data, known="".join(found.known[i] for i in left), **kept)


def _letters(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, image: Image | None) -> str:
    """Name the axes; pages that tifffile takes for a plain list are what ImageJ, or the XML, has more than one of."""
    known = "".join(_letter(a) for a in series.axes)
    if known.startswith(UNKNOWN) and image is not None and image.elsewhere:
        fits = [axis for axis, size in image.several if size == series.shape[0] and axis not in known]
        return fits[0] + known[1:] if len(fits) == 1 else known
    if known.startswith(UNKNOWN) and tif.imagej_metadata:
        meta = tif.imagej_metadata
        several = [a for a, key in (("t", "frames"), ("z", "slices"), ("c", "channels")) if meta.get(key, 1) > 1]
        if len(several) == 1 and several[0] not in known:
            return several[0] + known[1:]
    return known


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
    notes = ["RGB taken as three channels" if colours == 3 else f"{count} samples per pixel taken as channels"]
    if alpha:
        data = View.of(data).cut([slice(0, colours) if i == at else slice(None) for i in range(len(known))])
        notes.append("the alpha channel was left out")
    return data, notes


class TiffArray(LazyBase):
    """The pixels of a TIFF file as a lazy array that can be sent to another process, where the file is opened again.

    Parameters
    ----------
    image, level : int
        Of the images in the file, and of that image's pyramid.
    store : tifffile.ZarrTiffStore
        tifffile's view of it. Its files are open while a box is read and no longer: a training, or an evaluation, has
        more stacks than a process may have open files.
    files : tuple of Path
        In which the planes lie, where these are several.
    """

    def __init__(self, path: Path, image: int, level: int, store: Any, files: tuple[Path, ...] = ()) -> None:
        self._path, self._image, self._level, self.files = path, image, level, files
        self.base: zarr.Array[Any] = zarr.open_array(store=store, mode="r")  # zarr v2 or v3, by tifffile's release
        self._store, self._lock, self._readers = store, threading.Lock(), 0

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        with self._lock:
            self._readers += 1
        try:
            return np.asarray(self.base[box])
        except OF_STRUCTURE as error:
            raise DataError(
                f"its tables of planes and tiles are damaged ({type(error).__name__} {error}); copy it again"
            ) from error
        finally:
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    self._store.close()  # it opens again what is read

    def coarser(self) -> "Iterator[TiffArray]":
        """Yield the coarser levels of the pyramid that it is one of."""
        with _opened(self._path) as (tif, _, _):
            series = series_of(tif)[self._image]
            for level in range(self._level + 1, len(series.levels)):
                yield _lazy(self._path, self._image, series, level)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._path.absolute(), self._image, self._level)  # workers have folders of their own


def _reopened(path: Path, image: int, level: int) -> Any:
    with _opened(path) as (tif, _, _):
        return _lazy(path, image, series_of(tif)[image], level)


def _lazy(path: Path, image: int, series: tifffile.TiffPageSeries, level: int) -> Any:
    """Return the lazy array: pages as chunks where they are small, else their strips or tiles, or the mapped file."""
    chosen = series.levels[level]
    page = chosen.keyframe
    page.decode(None, 0)
    small = math.prod(page.shape) * np.dtype(page.dtype).itemsize <= WHOLE_PAGE
    alone = not small and series.kind not in KINDS  # numbers of such images are ours, not tifffile's
    mapped = alone and not page.is_tiled and page.is_memmappable and chosen.dataoffset is not None
    if mapped and (chosen.dataoffset or 0) + chosen.nbytes <= page.parent.filehandle.size:
        return tifffile.memmap(path, series=image, level=level, mode="r")
    store = series.aszarr(level=level, chunkmode=2 if small and not page.is_tiled else 0)
    files = {page.parent.filehandle.path for page in series.pages if page} if series.is_multifile else ()
    data = TiffArray(path, image, level, store, tuple(map(Path, sorted(files))))
    if math.prod(data.base.chunks) * data.dtype.itemsize > MAX_CHUNK:
        raise DataError(f"{path}: one strip or tile is larger than {MAX_CHUNK >> 30} GiB; save it as OME-Zarr")
    return data


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
        raise DataError(f"{path} cannot be read as TIFF: {type(error).__name__} {error}; copy it again") from error
    except MemoryError as error:
        raise DataError(
            f"{path} cannot be read as TIFF: it declares sizes beyond this machine's memory; copy it again"
        ) from error


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
