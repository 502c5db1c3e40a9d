"""Files of microscopes: Nikon's ND2, Leica's LIF, Zeiss' CZI, through a library for each, plane by plane."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...arrays.views import Box
from ...errors import DataError
from ..arrange import SAMPLES, UNKNOWN, Found
from .infile import FileArray, named_errors, pick, read_frames, taken

Series = int | str | None
FRAME = "CYXS"  # dimensions of a frame of an ND2
MAPPED = 2**26  # 64 MiB of an ND2 that was read: what stays mapped counts as memory, until it is opened anew
MICRO = 1e6  # micrometers of a meter
TILE = 1024  # pixels that are composed at once, of a mosaic
LEICA = (b"\x70\x00\x00\x00", 0x2A)  # what a LIF begins with, and its ninth byte
MOST_XML = 2**28  # bytes of XML, which is read as a whole: no more than fits beside an image


def _letters(dims: Any) -> str:
    """Name dimensions: those that every format has, in lower case."""
    return "".join(d.lower() if d in "TCZYX" else SAMPLES if d == "S" else UNKNOWN for d in dims)


class Nd2:
    """A position of an ND2 file, whose frames are mapped from it where they are not packed: parts of them are read."""

    def __init__(self, path: Path, position: int) -> None:
        import nd2

        self._file = nd2.ND2File(path)
        sizes = dict(self._file.sizes)
        self._loops = {a: n for a, n in sizes.items() if a not in FRAME}
        self._frame = [n for a, n in sizes.items() if a in FRAME]
        self._position = position
        self.dims = [a for a in sizes if a != "P"]
        self.shape, self.dtype = tuple(sizes[a] for a in self.dims), self._file.dtype
        self._outer = len(self.dims) - len(self._frame)
        self.chunks = (*(1,) * self._outer, *self._frame)
        self.by_box = self._file.attributes.compressionType is None
        self._mapped = 0

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        out = read_frames(self._outer, box, self.dtype, self._read)
        self._mapped += math.prod(b.stop - b.start for b in box[: self._outer]) * self._bytes
        if self._mapped > MAPPED:
            self._file.close()
            self._file.open()
            self._mapped = 0
        return out

    @property
    def _bytes(self) -> int:
        return math.prod(self._frame) * self.dtype.itemsize

    def _read(self, at: tuple[int, ...], inner: Box) -> np.ndarray:
        rest = iter(at)
        place = [self._position if a == "P" else next(rest) for a in self._loops]
        number = np.ravel_multi_index(place, list(self._loops.values())) if place else 0
        return self._file.read_frame(int(number)).reshape(self._frame)[inner]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def find_nd2(path: Path, series: Series) -> Found:
    """Open an ND2 file: a position of several."""
    import nd2

    with named_errors(path, "ND2"), nd2.ND2File(path) as file:
        sizes = dict(file.sizes)
        frames = math.prod(n for a, n in sizes.items() if a not in FRAME)
        if file.attributes.sequenceCount < frames:
            there = file.attributes.sequenceCount
            raise DataError(f"{path} is incomplete: it declares {frames} frames, {there} readable; export it again")
        count = sizes.get("P", 1)
        names = _positions(file, count)
        shape = [n for a, n in sizes.items() if a != "P"]
        chosen = pick(path, names, [shape] * count, series)
        voxel = dict(zip("XYZ", file.voxel_size(), strict=True))
        period = [float(loop.parameters.periodMs) for loop in file.experiment if loop.type == "TimeLoop"]
        channels = tuple(each.channel.name for each in (file.metadata.channels or ())) if file.metadata else ()
    data = FileArray(Nd2, path, chosen)
    steps = {a: (float(s), "micrometer") for a, s in voxel.items() if s} | (
        {"T": (period[0] / 1000, "second")} if period and period[0] > 0 else {}
    )
    return _found(path, data, steps, channels, taken(names, [shape] * count, chosen, series))


def _positions(file: Any, count: int) -> list[str]:
    points = [p for loop in file.experiment if loop.type == "XYPosLoop" for p in loop.parameters.points]
    return [str(points[i].name or i) if i < len(points) else str(i) for i in range(count)]


def _found(
    path: Path,
    data: FileArray,
    steps: Mapping[str, tuple[float, str]],
    channels: tuple[str, ...],
    notes: tuple[str, ...],
) -> Found:
    given = [steps.get(a, (1.0, None)) for a in data.dims]
    return Found(
        data,
        _letters(data.dims),
        path.stem,
        str(path),
        scale=tuple(step for step, _ in given),
        units=tuple(unit for _, unit in given),
        channel_names=channels if "C" in data.dims and all(channels) else (),
        notes=notes,
    )


class Lif:
    """An image of a LIF file."""

    def __init__(self, path: Path, number: int) -> None:
        import liffile

        self._file = liffile.LifFile(path)
        self._image: Any = self._file.images[number]
        sizes = dict(self._image.sizes)
        self.dims, self.shape, self.dtype = list(sizes), tuple(sizes.values()), self._image.dtype
        inner = self._image.frames.frame_dims
        if self.dims[len(self.dims) - len(inner) :] != list(inner):
            raise DataError(
                f"{path}: the planes of {self._image.path!r} are not stored one by one; save it as OME-TIFF"
            )
        self._outer = len(self.dims) - len(inner)
        self.chunks = (*(1,) * self._outer, *self.shape[self._outer :])

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        return read_frames(self._outer, box, self.dtype, self._read)

    def _read(self, at: tuple[int, ...], inner: Box) -> np.ndarray:
        return self._image.frame(**dict(zip(self.dims, at, strict=False)))[inner]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def find_lif(path: Path, series: Series) -> Found:
    """Open an image of a LIF file, of several the one that is chosen by number or name."""
    import liffile

    with named_errors(path, "LIF"):
        _check_lif(path)
        with liffile.LifFile(path) as file:
            images = list(file.images)
            names, shapes = [image.path for image in images], [image.shape for image in images]
            chosen = pick(path, names, shapes, series)
            image = images[chosen]
            coords = image.coords
            channels = _dyes(image.xml_element)
        steps = {}
        for a, along in coords.items():
            step = float(along[1] - along[0]) if len(along) > 1 else 0.0
            if step and a in "XYZT":
                steps[a] = (abs(step), "second") if a == "T" else (float(f"{abs(step) * MICRO:.12g}"), "micrometer")
        data = FileArray(Lif, path, chosen)
    return _found(path, data, steps, channels, taken(names, shapes, chosen, series))


def _check_lif(path: Path) -> None:
    """Refuse what is not a LIF: projects in XML name other files."""
    with path.open("rb") as file:
        head = file.read(13)
    if not head.startswith(LEICA[0]) or head[8:9] != bytes([LEICA[1]]):
        raise DataError(f"{path} is not a LIF; save the image as LIF or OME-TIFF")
    if 2 * int.from_bytes(head[9:13], "little") > MOST_XML:
        raise DataError(f"{path} says that its description has more than {MOST_XML >> 20} MiB; it is damaged")


def _dyes(element: Any) -> tuple[str, ...]:
    """Return the dye, or the colour, of each channel."""
    found = []
    for each in element.findall("./Data/Image/ImageDescription/Channels/ChannelDescription"):
        said = {p.findtext("Key"): p.findtext("Value") for p in each.findall("ChannelProperty")}
        found.append(said.get("DyeName") or each.get("LUTName") or "")
    return tuple(found) if len(set(found)) == len(found) else ()


class Czi:
    """A scene of a CZI file, its mosaic composed where it is read.

    Parameters
    ----------
    key : (scene, x, y, width, height)
        -1 is a file without scenes.
    """

    def __init__(self, path: Path, key: tuple[int, int, int, int, int]) -> None:
        from pylibCZIrw import czi

        self._file = czi.CziReader(str(path))
        self._scene = key[0] if key[0] >= 0 else None
        self._at = key[1:3]
        limits = self._file.total_bounding_box_no_pyramid
        self._outer = [a for a in "TZC" if a in limits]
        self._start = [limits[a][0] for a in self._outer]
        self._kind = max(self._file.pixel_types.values(), key=_width)
        colours = self._kind.startswith("Bgr")
        self.dtype = np.dtype({8: "u1", 16: "u2", 24: "u1", 48: "u2", 32: "f4", 96: "f4"}[_width(self._kind)])
        outer = [limits[a][1] - limits[a][0] for a in self._outer]
        self.dims = [*self._outer, "Y", "X", *(["S"] if colours else [])]
        self.shape = (*outer, key[4], key[3], *((3,) if colours else ()))
        tile = (min(TILE, key[4]), min(TILE, key[3]))
        self.chunks = (*(1,) * len(outer), *tile, *((3,) if colours else ()))

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        return read_frames(len(self._outer), box, self.dtype, self._read)

    def _read(self, at: tuple[int, ...], inner: Box) -> np.ndarray:
        y, x = inner[:2]
        place = {a: start + i for a, start, i in zip(self._outer, self._start, at, strict=True)}
        roi = (self._at[0] + x.start, self._at[1] + y.start, x.stop - x.start, y.stop - y.start)
        found = self._file.read(roi=roi, plane=place, scene=self._scene, pixel_type=self._kind)
        return found[..., ::-1][..., inner[2]] if len(inner) > 2 else found[..., 0]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _width(kind: str) -> int:
    """Return the bits of a pixel, as its kind says them: Gray16, Bgr24, Gray32Float."""
    return int("".join(c for c in kind if c.isdecimal()))


def find_czi(path: Path, series: Series) -> Found:
    """Open a scene of a CZI file, of several the one that is chosen by number or name."""
    from pylibCZIrw import czi

    with named_errors(path, "CZI"):
        with czi.open_czi(str(path)) as file:
            scenes = file.scenes_bounding_rectangle_no_pyramid or {-1: file.total_bounding_rectangle_no_pyramid}
            said = file.metadata["ImageDocument"]["Metadata"]
        titles = {
            int(e["@Index"]): e.get("@Name")
            for e in _within(said, "Information", "Image", "Dimensions", "S", "Scenes", "Scene")
        }
        names = [str(titles.get(n) or max(n, 0)) for n in scenes]
        shapes = [(r.h, r.w) for r in scenes.values()]
        chosen = pick(path, names, shapes, series)
        scene, place = list(scenes.items())[chosen]
        data = FileArray(Czi, path, (scene, place.x, place.y, place.w, place.h))
        channels = _within(said, "Information", "Image", "Dimensions", "Channels", "Channel")
        named = tuple(str(e.get("@Name") or "") for e in channels)
        steps = {}
        for each in _within(said, "Scaling", "Items", "Distance"):
            step = float(each.get("Value") or 0) * MICRO
            if math.isfinite(step) and step > 0:
                steps[each["@Id"]] = (float(f"{step:.12g}"), "micrometer")
    return _found(path, data, steps, named, taken(names, shapes, chosen, series))


def _within(said: Any, *names: str) -> list[Any]:
    """Return the elements of that name at a place in XML; one of them stands there without a list."""
    for name in names:
        said = (said or {}).get(name) if isinstance(said, dict) else None
    return said if isinstance(said, list) else [said] if isinstance(said, dict) else []
