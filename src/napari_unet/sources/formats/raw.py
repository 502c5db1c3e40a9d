"""Arrays whose elements lie in a file as they are in memory: .npy, .npz, MRC and NRRD."""

import bz2
import gzip
import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ...arrays.views import Box
from ...errors import DataError, UnsafeError
from ...units import canonical
from ..arrange import SAMPLES, UNKNOWN, Found, check_dtype
from .infile import WHOLE, FileArray, named_errors, pick, plane_chunks, taken

Layout = tuple[int, str, tuple[int, ...], bool]  # offset in bytes, dtype, shape, whether the first dimension is fastest
LOCAL_HEADER = 30  # bytes of a zip's header of one file before its name (APPNOTE 4.3.7)
ANGSTROM = "angstrom"
NSYMBT = 92  # where the header of an MRC says the size of its extended header (MRC 2014, word 24)
NRRD_TYPES = {
    **{"char": "i1", "uchar": "u1", "unsigned char": "u1", "short": "i2", "ushort": "u2", "unsigned short": "u2"},
    **{"int": "i4", "uint": "u4", "unsigned int": "u4", "longlong": "i8", "long long": "i8", "ulonglong": "u8"},
    **{"unsigned long long": "u8", "float": "f4", "double": "f8"},
    **{f"{u}int{8 * n}": f"{u[:1] or 'i'}{n}" for u in ("u", "") for n in (1, 2, 4, 8)},
}


class Mapped:
    """An array that is mapped from its file, as long as a box of it is read: what stays mapped counts as memory."""

    by_box = True

    def __init__(self, path: Path, layout: Layout) -> None:
        offset, dtype, shape, fortran = layout
        needed, there = offset + math.prod(shape) * np.dtype(dtype).itemsize, path.stat().st_size
        if needed > there:
            raise DataError(f"{path} is cut off: it has {there} bytes of {needed}; copy it again")
        self._path, self._offset, self._order = path, offset, "F" if fortran else "C"
        self.shape, self.dtype = shape, np.dtype(dtype)
        chunks = plane_chunks(shape[::-1] if fortran else shape, self.dtype.itemsize)
        self.chunks = chunks[::-1] if fortran else chunks

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        data = np.memmap(self._path, self.dtype, "r", self._offset, self.shape, order=cast("Any", self._order))
        return np.array(data[box])

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


class Packed:
    """An array that is packed in one piece: it is unpacked whole, up to `WHOLE` bytes.

    Parameters
    ----------
    key : (how it is packed, name in a zip, Layout)
    """

    def __init__(self, path: Path, key: tuple[str, str, Layout]) -> None:
        self._path, (self._kind, self._name, self._layout) = path, key
        _, dtype, self.shape, self._fortran = self._layout
        self.dtype = np.dtype(dtype)
        if math.prod(self.shape) * self.dtype.itemsize > WHOLE:
            raise DataError(f"{path} is packed in one piece of more than {WHOLE >> 30} GiB; save it unpacked")

    @property
    def chunks(self) -> tuple[int, ...]:
        """All of it."""
        return self.shape

    def read(self, box: Box) -> np.ndarray:
        """Read a box of it."""
        size = math.prod(self.shape) * self.dtype.itemsize
        with self._path.open("rb") as file:
            raw = self._unpacked(file, size)
        if len(raw) < size:
            raise DataError(f"{self._path} is cut off: it unpacks to {len(raw)} bytes of {size}; copy it again")
        return np.frombuffer(raw, self.dtype).reshape(self.shape, order="F" if self._fortran else "C")[box]

    def _unpacked(self, file: IO[bytes], size: int) -> bytes:
        offset = self._layout[0]
        if self._kind == "zip":
            with zipfile.ZipFile(file) as archive, archive.open(self._name) as member:
                member.read(offset)
                return member.read(size)
        file.seek(offset)
        with gzip.GzipFile(fileobj=file) if self._kind == "gzip" else bz2.BZ2File(file) as unpacked:
            return unpacked.read(size)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


def _numpy_layout(file: IO[bytes], name: str) -> Layout:
    """Read the header of an array; one of objects, which only running code would make, is refused."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise UnsafeError(f"{name} holds Python objects, which reading would have to run code for; refused")
    check_dtype(dtype, name)
    return file.tell(), dtype.str, tuple(shape), bool(fortran)


def find_npy(path: Path, series: int | str | None) -> Found:
    """Open an array of numpy."""
    with named_errors(path, "a numpy array"), path.open("rb") as file:
        layout = _numpy_layout(file, str(path))
        names = [path.stem]
        pick(path, names, [layout[2]], series)
        return Found(FileArray(Mapped, path, layout), UNKNOWN * len(layout[2]), path.stem, str(path))


def find_npz(path: Path, series: int | str | None) -> Found:
    """Open an array of an archive of numpy: mapped where it is stored as it is, else unpacked whole."""
    with named_errors(path, "an archive of numpy"), zipfile.ZipFile(path) as archive:
        members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
        layouts, unsafe = {}, None
        for member in members:
            try:
                with archive.open(member) as file:
                    layouts[member.filename.removesuffix(".npy")] = (member, _numpy_layout(file, str(path)))
            except (UnsafeError, DataError) as error:
                unsafe = error
        images = {n: found for n, found in layouts.items() if len(found[1][2]) > 1 or len(layouts) == 1}
        if not images and unsafe is not None:
            raise unsafe
        names, shapes = list(images), [layout[2] for _, layout in images.values()]
        chosen = pick(path, names, shapes, series)
        member, layout = images[names[chosen]]
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            with path.open("rb") as file:
                file.seek(member.header_offset)
                header = file.read(LOCAL_HEADER)
            start = LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            data = FileArray(Mapped, path, (member.header_offset + start + layout[0], *layout[1:]))
        else:
            data = FileArray(Packed, path, ("zip", member.filename, layout))
        known, notes = UNKNOWN * len(layout[2]), taken(names, shapes, chosen, series)
        return Found(data, known, path.stem, str(path), notes=notes)


def find_mrc(path: Path, series: int | str | None) -> Found:
    """Open a volume, an image or a stack of images of electron microscopy (MRC 2014)."""
    import mrcfile
    from mrcfile import utils

    with named_errors(path, "MRC"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _check_extended(path)
        with mrcfile.open(path, header_only=True, permissive=True) as file:
            header, size = file.header, file.voxel_size
            dtype, shape = utils.data_dtype_from_header(header), utils.data_shape_from_header(header)
        pick(path, [path.stem], [shape], series)
        offset = header.nbytes + int(header.nsymbt)
        letters = [("xyz"[int(n) - 1] if 1 <= n <= 3 else UNKNOWN) for n in (header.maps, header.mapr, header.mapc)]
        letters = list("zyx") if len(set(letters)) < 3 else letters
        known = UNKNOWN * (len(shape) - 3) + "".join(letters)[-min(3, len(shape)) :]
        notes = () if int(header.ispg) or len(shape) < 3 else ("a stack of images, taken as planes of z",)
        steps = [float(size[a]) if a in "xyz" else 1.0 for a in known]
        sized = all(step > 0 for step in steps[-2:])
        layout = (offset, dtype.str, tuple(int(n) for n in shape), False)
        origin = [float(header.origin[a]) if a in "xyz" and sized else 0.0 for a in known]
        return Found(
            FileArray(Mapped, path, layout),
            known,
            path.stem,
            str(path),
            scale=tuple(step if sized and step > 0 else 1.0 for step in steps),
            units=tuple(ANGSTROM if sized and a in "xyz" else None for a in known),
            translation=tuple(origin),
            notes=notes,
        )


def _check_extended(path: Path) -> None:
    """Refuse an extended header that is longer than the file, before room is made for it."""
    with path.open("rb") as file:
        raw = file.read(NSYMBT + 4)[NSYMBT:]
    if min(int.from_bytes(raw, "little"), int.from_bytes(raw, "big")) > path.stat().st_size:
        raise DataError(f"{path} is cut off: its extended header is longer than the file; copy it again")


def find_nrrd(path: Path, series: int | str | None) -> Found:
    """Open an array of "nearly raw raster data", its fastest dimension last."""
    import nrrd

    with named_errors(path, "NRRD", nrrd.NRRDError), path.open("rb") as file:
        header = nrrd.read_header(file)
        sizes = tuple(int(n) for n in header["sizes"])
        pick(path, [path.stem], [sizes], series)
        word = str(header["type"]).lower().removeprefix("signed ").removesuffix(" int").removesuffix("_t")
        dtype = np.dtype(NRRD_TYPES[word]).newbyteorder(">" if header.get("endian") == "big" else "<")
        place, offset = _nrrd_data(path, header, file.tell())
        if header.get("byte skip", 0) == -1:
            offset = place.stat().st_size - math.prod(sizes) * dtype.itemsize
        layout = (offset, dtype.str, sizes[::-1], False)
        encoding = str(header.get("encoding", "raw")).lower()
        packed = {"gzip": "gzip", "gz": "gzip", "bzip2": "bz2", "bz2": "bz2"}.get(encoding)
        if encoding != "raw" and packed is None:
            raise DataError(f"{path} is encoded as {encoding}; save it as raw or gzip")
        known, scale, units = _nrrd_axes(header, len(sizes))
        data = FileArray(Packed, place, (packed, "", layout)) if packed else FileArray(Mapped, place, layout)
        return Found(data, known, path.stem, str(path), scale=scale, units=units)


def _nrrd_data(path: Path, header: dict[str, Any], at: int) -> tuple[Path, int]:
    """Return the file that the elements lie in and where they begin: of a header apart, a file beside it."""
    detached = header.get("data file", header.get("datafile"))
    lines, skip = int(header.get("line skip", 0)), max(0, int(header.get("byte skip", 0)))
    if lines:
        raise DataError(f"{path} has lines of text before its elements; save it again without")
    if detached is None:
        return path, at + skip
    if Path(str(detached)).name != str(detached) or "%" in str(detached):
        raise UnsafeError(f"{path} names the file {str(detached)!r}, which is not beside it; refused")
    beside = path.with_name(str(detached))
    if not beside.is_file():
        raise DataError(f"{path} has its elements in {beside.name}, which is not beside it; copy that too")
    return beside, skip


def _nrrd_axes(header: dict[str, Any], ndim: int) -> tuple[str, tuple[float, ...], tuple[str | None, ...]]:
    """Name the dimensions by their kinds, or by which of them have a direction in space, and say their steps."""
    rows = header.get("space directions")
    steps = [float(s) for s in header.get("spacings", [math.nan] * ndim)]
    if rows is not None:
        steps = [math.nan if row is None else float(np.linalg.norm(row)) for row in rows]
    kinds = [str(kind).lower() for kind in header.get("kinds", [])] or [
        "space" if math.isfinite(step) else UNKNOWN for step in steps
    ]
    letters, space = [], iter("xyz")
    for kind in kinds:
        is_space = kind in ("domain", "space")
        letters.append(next(space, UNKNOWN) if is_space else {"time": "t", UNKNOWN: UNKNOWN}.get(kind, SAMPLES))
    units = header.get("units", header.get("space units", []))
    named = dict(zip([a for a in letters if a in "xyz"], units, strict=False)) if len(units) < ndim else {}
    found = [named.get(a) if named else (units[i] if units else None) for i, a in enumerate(letters)]
    scale = tuple(step if math.isfinite(step) and step > 0 else 1.0 for step in steps)
    return "".join(letters)[::-1], scale[::-1], tuple(canonical(u) if u else None for u in found)[::-1]
