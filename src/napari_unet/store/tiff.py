"""Any stack, written plane by plane as one TIFF that ImageJ and OME readers open with its axes and pixel size."""

import dataclasses
import itertools
import math
import os
import sys
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..arrays.views import Box
from ..errors import DataError, OutputError, UsageError
from ..events import Progress
from ..files import check_replaceable, disk, make_folder, replacing
from ..grid.blocks import boxes_of
from ..sources.tiff import TIFF_ERRORS
from ..text import byte_size, escaped
from ..units import canonical, factor, in_one, is_length, short
from .admission import check_apart
from .save import layout_of

SOFTWARE = "napari-unet-stacks"
SUFFIXES = (".tif", ".tiff")
ORDER = "tzcyx"  # of the planes in the file: the one order that ImageJ knows, and OME knows it too
CLASSIC_BYTES = 2**32 - 2**25  # the most that the offsets of a classic TIFF reach, less room for its tags
PLANE_BYTES = 2**28  # a larger plane is cut into tiles, which ImageJ reads with Bio-Formats only
SLAB_BYTES = 2**28  # planes that are held at a time: the chunks of a result are up to 128 planes deep
COLUMN = 512  # pixels that are read at a time each way: larger than most chunks, and a few chunks of a result
TILE = 1024  # the chunk of 2-D results, so that each is unpacked once
IMAGEJ_TYPES = ("uint8", "uint16", "float32")  # that ImageJ itself opens
IMAGEJ_SIZES = (1e-6, 1e6)  # pixel sizes that fractions of 32 bits hold to 6 digits
OME_TYPES = (*IMAGEJ_TYPES, "int8", "int16", "int32", "uint32", "float64")  # that the schema of OME-XML names
# Types that few readers of TIFF take, to the next that holds all of their values.
WIDENED = {"bool": "uint8", "float16": "float32"}
LABEL_TYPES = ("uint16", "uint32")  # 16 bits are opened by every program
# As the schema of OME-XML writes them; metres and their parts follow one rule.
OME_UNITS = {"angstrom": "Å", "inch": "in", "foot": "ft", "yard": "yd", "mile": "mi", "parsec": "pc"}
OME_UNITS |= {"minute": "min", "hour": "h", "day": "d"}


def names_tiff(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a TIFF, to be written or there already; a folder of such a name is none."""
    return Path(path).suffix.lower() in SUFFIXES and not Path(path).is_dir()


def check_tiff(path: Path, overwrite: bool) -> None:
    """Refuse to write where something lies, but a TIFF of this program with `overwrite`.

    Raises
    ------
    OutputError
        Naming the file.
    """
    if path.is_file() and not path.is_symlink() and is_ours(path) and not overwrite:
        raise OutputError(f"{path} exists; choose another name, or replace it with --overwrite")
    check_replaceable(path, is_ours, "TIFF that this program wrote")


def replacement(*paths: Path) -> Iterator[Progress]:
    """Say which files are there, and will be replaced, before anything is made."""
    listed = ", ".join(f"{path} ({byte_size(path.stat().st_size)})" for path in paths if path.is_file())
    if listed:
        yield Progress(0, 0, "overwrite", f"replaces {listed}")


def save_tiff(
    stack: Stack, path: str | os.PathLike[str], *, kind: str = "image", overwrite: bool = False
) -> Generator[Progress, None, Path]:
    """Write a stack as one TIFF: axes, pixel size, units and channel names; memory is a few planes.

    A name that ends in ``.ome.tif`` gives an OME-TIFF. Any other gives an ImageJ hyperstack where ImageJ has the type
    and the size (8 and 16 bits and float32, up to 4 GiB), and an OME-TIFF where it has not: past 4 GiB a BigTIFF, with
    planes of more than 256 MiB in tiles. Labels are written in the fewest bits, 16 or more, that hold the highest. The
    file appears when it is whole; where the work stops before, nothing is left.

    Parameters
    ----------
    path : path
        Ends in ``.tif`` or ``.tiff``.
    kind : {"image", "labels"}
    overwrite : bool
        Replace a TIFF that this program wrote.

    Returns
    -------
    Path of the file.

    Raises
    ------
    UsageError
        Where the name is not a TIFF's.
    OutputError
        Where something is there already.
    DataError
        Where TIFF has no such numbers, or the source is damaged.
    ResourceError
        Where the disk is full or may not be written.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} is not a name of a TIFF; it must end in {' or '.join(SUFFIXES)}")
    check_apart(path, stack, "choose another name")
    check_tiff(path, overwrite)
    yield from replacement(path)
    stack = cached(stack)
    dtype = (yield from _label_type(stack)) if kind == "labels" else _image_type(stack)
    form = _Form.of(stack, dtype, path, kind)
    yield Progress(0, form.planes, "tiff")
    with disk(path):
        make_folder(path.parent)
    with disk(path), replacing(path) as file:
        handle = tifffile.FileHandle(file, name=path.name)  # else it would ask the file, which may have no name
        with tifffile.TiffWriter(handle, bigtiff=form.big) as tif:
            for number, plane in enumerate(_planes(stack, form), 1):
                tif.write(plane, shape=form.shape[-2:], dtype=dtype, **form.options(number == 1))
                yield Progress(number, form.planes, "tiff")
        check_tiff(path, overwrite)
    return path


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    """How a stack lies in a file.

    Parameters
    ----------
    axes, shape
        Of what is written, in the order of `ORDER`.
    imagej : bool
        A hyperstack of ImageJ; otherwise OME-TIFF.
    tags : mapping
        Of the first page: description, resolution and the like.
    packed : bool
        Compressed without loss, as labels are; every program knows zlib.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    imagej: bool
    tags: dict[str, Any]
    packed: bool

    @classmethod
    def of(cls, stack: Stack, dtype: np.dtype[Any], path: Path, kind: str) -> "_Form":
        """Choose the form for a stack."""
        axes = "".join(a for a in ORDER if a in stack.axes)
        shape = tuple(stack.size(a) for a in axes)
        size = math.prod(shape) * dtype.itemsize
        sizes, unit = _pixel_size(stack)
        imagej = (
            not path.stem.lower().endswith(".ome")
            and dtype.name in IMAGEJ_TYPES
            and size <= CLASSIC_BYTES
            and math.prod(shape[-2:]) * dtype.itemsize <= PLANE_BYTES
            and all(IMAGEJ_SIZES[0] <= s <= IMAGEJ_SIZES[1] for s in sizes.values())
        )
        tags = _imagej_tags(stack, axes, sizes, unit) if imagej else _ome_tags(stack, axes, dtype)
        return cls(axes, shape, dtype, imagej, tags, kind == "labels")

    @property
    def planes(self) -> int:
        """Number of pages."""
        return math.prod(self.shape[:-2])

    @property
    def big(self) -> bool:
        """Whether it needs offsets of 64 bits."""
        return math.prod(self.shape) * self.dtype.itemsize > CLASSIC_BYTES

    @property
    def tiled(self) -> bool:
        """Whether its planes are too large to be held."""
        return math.prod(self.shape[-2:]) * self.dtype.itemsize > PLANE_BYTES

    def options(self, first: bool) -> dict[str, Any]:
        """Return what one page is written with."""
        found: dict[str, Any] = {"photometric": "minisblack", "metadata": None, "software": SOFTWARE}
        found |= {"compression": "zlib"} if self.packed else {}
        found |= {"tile": (TILE, TILE)} if self.tiled else {}
        found |= {key: value for key, value in self.tags.items() if first or key.startswith("resolution")}
        return found


def _planes(stack: Stack, form: _Form) -> Iterator[Any]:
    """Yield the pages in the order of the file: arrays, or of large ones the tiles from the top left on."""
    lead = form.axes[:-2]
    if form.tiled:
        for index in np.ndindex(form.shape[:-2]):
            yield _tiles(stack.select(**dict(zip(lead, map(int, index), strict=True))), form.dtype)
        return
    z = stack.axes.index("z") if "z" in stack.axes else None
    held = SLAB_BYTES // (math.prod(form.shape[-2:]) * stack.dtype.itemsize * stack.size("c"))
    depth = 1 if z is None else max(1, min(held, stack.chunks[z]))
    order = [stack.axes.index(a) for a in form.axes]
    for t, start in itertools.product(range(stack.size("t")), range(0, stack.size("z"), depth)):
        part = {"t": slice(t, t + 1), "z": slice(start, min(start + depth, stack.size("z")))}
        box = tuple(part.get(a, slice(0, n)) for a, n in zip(stack.axes, stack.shape, strict=True))
        yield from _pages(_read(stack, box).transpose(order), form)


def _pages(slab: np.ndarray, form: _Form) -> Iterator[np.ndarray]:
    for page in slab.reshape(-1, *form.shape[-2:]):
        yield np.ascontiguousarray(page, form.dtype)


def _read(stack: Stack, box: Box) -> np.ndarray:
    """Read a region by columns of chunks: read at once, all the chunks it touches would be unpacked together."""
    found = np.empty([part.stop - part.start for part in box], stack.dtype)
    steps = [math.ceil(COLUMN / c) * c for c in stack.chunks[-2:]]
    for y, x in itertools.product(*(range(0, n, s) for n, s in zip(stack.shape[-2:], steps, strict=True))):
        part = (slice(y, min(y + steps[0], stack.size("y"))), slice(x, min(x + steps[1], stack.size("x"))))
        found[(..., *part)] = stack.read((*box[:-2], *part))
    return found


def _tiles(plane: Stack, dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    rows, columns = plane.shape
    for y, x in itertools.product(range(0, rows, TILE), range(0, columns, TILE)):
        tile = plane.read((slice(y, min(y + TILE, rows)), slice(x, min(x + TILE, columns))))
        yield np.ascontiguousarray(tile, dtype)


def _image_type(stack: Stack) -> np.dtype[Any]:
    """Return the type that is written, which holds every value of the stack's.

    Raises
    ------
    DataError
        Where TIFF readers know none.
    """
    name = WIDENED.get(stack.dtype.name, stack.dtype.newbyteorder("=").name)
    if name not in OME_TYPES:
        raise DataError(
            f"{stack.name} holds {stack.dtype}, which TIFF readers do not know; convert it with astype, or keep it "
            "as OME-Zarr"
        )
    return np.dtype(name)


def _label_type(stack: Stack) -> Generator[Progress, None, np.dtype[Any]]:
    """Return the smallest type for labels that holds those of the stack."""
    if stack.dtype.kind not in "biu":
        raise DataError(f"{stack.name} holds {stack.dtype}, labels are integers; convert it with astype('uint16')")
    if stack.dtype.name in ("bool", "uint8", "uint16"):
        return np.dtype(WIDENED.get(stack.dtype.name, stack.dtype.name))
    least, most = 0, 0
    boxes = list(boxes_of(stack.shape, layout_of(stack)[1]))
    for number, box in enumerate(boxes, 1):
        part = stack.read(box)
        least, most = min(least, int(part.min())), max(most, int(part.max()))
        yield Progress(number, len(boxes), "tiff")
    if least < 0:
        raise DataError(f"{stack.name} has the label {least}; labels begin at 0, the background: renumber them")
    fitting = [name for name in LABEL_TYPES if most <= np.iinfo(name).max]
    if not fitting:
        raise DataError(f"{stack.name} has the label {most}, a TIFF holds up to {2**32 - 1}; keep it as OME-Zarr")
    return np.dtype(fitting[0])


def _pixel_size(stack: Stack) -> tuple[dict[str, float], str | None]:
    """Return the pixel size by spatial axis, in one unit, and the unit; empty where none is given."""
    axes = stack.spatial
    given = stack.values_along(axes, "units")
    if all(canonical(unit) is None for unit in given) and set(stack.scale_along(axes)) == {1.0}:
        return {}, None
    sizes, unit = in_one(stack.scale_along(axes), given)
    return dict(zip(axes, sizes, strict=True)), unit


def _imagej_tags(stack: Stack, axes: str, sizes: dict[str, float], unit: str | None) -> dict[str, Any]:
    about: dict[str, Any] = {"mode": "composite"} if 1 < stack.size("c") <= 7 else {}
    word = "micron" if unit == "micrometer" else short(unit)
    about |= {"unit": word} if word.isascii() and sizes else {}
    about |= {"spacing": sizes["z"]} if "z" in sizes else {}
    interval = _interval(stack)
    about |= {"finterval": interval} if interval else {}
    shape = tuple(stack.size(a) for a in axes)
    text = tifffile.imagej_description(shape, axes=axes.upper(), **about)
    tags: dict[str, Any] = {"description": text}
    if sizes:
        tags |= {"resolution": (1 / sizes["x"], 1 / sizes["y"]), "resolutionunit": "none"}
    if stack.channel_names:
        names = [escaped(name) for name in stack.channel_names]
        labels = {"Labels": names * (stack.size("t") * stack.size("z"))}
        tags["extratags"] = tifffile.imagej_metadata_tag(labels, "<" if sys.byteorder == "little" else ">")
    return tags


def _interval(stack: Stack) -> float | None:
    """Return the seconds between time points, None without a unit of time."""
    if "t" not in stack.axes:
        return None
    (step,), (unit,) = stack.scale_along("t"), stack.values_along("t", "units")
    seconds = factor(unit, "second") if canonical(unit) else None
    return None if seconds is None else step * seconds


def _ome_tags(stack: Stack, axes: str, dtype: np.dtype[Any]) -> dict[str, Any]:
    about: dict[str, Any] = {"Name": escaped(stack.name)}
    for axis in axes:
        (size,), (unit,) = stack.scale_along(axis), stack.values_along(axis, "units")
        if axis in "zyx" and (size != 1 or canonical(unit)):
            about[f"PhysicalSize{axis.upper()}"] = size
            about[f"PhysicalSize{axis.upper()}Unit"] = _ome_unit(unit) if is_length(unit) else "pixel"
        if axis == "t" and _interval(stack) is not None:
            about |= {"TimeIncrement": size, "TimeIncrementUnit": _ome_unit(unit)}
    if stack.channel_names:
        about["Channel"] = {"Name": [escaped(name) for name in stack.channel_names]}
    shape = tuple(stack.size(a) for a in axes)
    stored = (math.prod(shape[:-2]), 1, 1, shape[-2], shape[-1], 1)
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{stack.source} {stack.name} {shape} {dtype}")  # equal runs, equal bytes
    xml = tifffile.OmeXml(Creator=SOFTWARE, UUID=f"urn:uuid:{name}")
    xml.addimage(dtype, shape, stored, axes=axes.upper(), **about)
    return {"description": xml.tostring().encode()}


def _ome_unit(unit: Any) -> str:
    name = canonical(unit) or ""
    return OME_UNITS.get(name) or short(name).replace("u", "µ")


def is_ours(path: Path) -> bool:
    """Whether a file is a TIFF that says this program wrote it."""
    try:
        with tifffile.TiffFile(path) as tif:
            return tif.pages.first.software == SOFTWARE
    except (OSError, ValueError, RuntimeError):
        return False


def holds_labels(path: Path) -> bool:
    """Whether a file is a TIFF of labels that this program wrote: images it does not compress."""
    try:
        with tifffile.TiffFile(path) as tif:
            first = tif.pages.first
            return bool(first.software == SOFTWARE and first.compression != tifffile.COMPRESSION.NONE)
    except TIFF_ERRORS:  # who opens it says what is wrong with it
        return False
