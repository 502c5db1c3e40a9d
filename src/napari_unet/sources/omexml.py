"""The OME-XML of a TIFF: checked before tifffile follows it, and what it says of each of its images."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import tifffile

from ..errors import DataError
from .tiffheads import check_directories
from .tifftags import Sizes

# tifffile makes a list of all planes that an XML declares: 4 million are 32 MB, and more than any microscope wrote.
MOST_PLANES = 2**22
MOST_TEXT = 2**27  # bytes of a file of metadata, as of a tag: check_directories
# Attributes that are whole numbers, of elements that say where planes lie.
NUMBERS = ("IFD", "PlaneCount", "NumPlanes", "FirstZ", "FirstC", "FirstT")


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """One image of an OME-XML.

    Parameters
    ----------
    sizes : Sizes
        Pixel size along each axis.
    channel_names : tuple of str
        Nothing where not every channel has one.
    planes : int
        Number of TIFF pages that it declares.
    parts : tuple of (file name or None, first page, number of pages or 0)
        Where its planes lie; None is the file with the XML.
    several : tuple of (letter, size)
        Of z, c and t those of more than one.
    elsewhere : bool
        Whether the XML lies in another file, which alone knows of all planes.
    """

    name: str
    sizes: Sizes
    channel_names: tuple[str, ...]
    planes: int
    parts: tuple[tuple[str | None, int, int], ...]
    several: tuple[tuple[str, int], ...] = ()
    elsewhere: bool = False

    def holds(self, file: str, own: bool, page: int) -> bool:
        """Say whether a page of a file is one of its planes; `own` is the file with the XML."""
        return any(
            (name == file or (name is None and own)) and first <= page < first + (count or MOST_PLANES)
            for name, first, count in self.parts
        )


def read_ome(path: Path, tif: tifffile.TiffFile) -> tuple[Image, ...]:
    """Read the images of the OME-XML of a file, none where it has no such text.

    Raises
    ------
    DataError
        Where the text defines entities, declares more planes than there can be, or names files that do not lie in
        its folder or are none.
    """
    text = tif.pages.first.description or ""
    if "<OME" not in text and ":OME" not in text:
        return ()
    root = _checked(path, text)
    if not tif.is_ome:
        return ()
    pages, name = len(tif.pages), _master(path, root)
    if not name:
        return _images(path, root, pages)
    listed = _images(path, _checked(path, _text(path.parent / name)), pages, root.get("UUID"))
    found = [image for image in listed if image.holds(path.name, False, 0) or image.holds("", True, 0)]
    return tuple(dataclasses.replace(image, elsewhere=True) for image in found[:1])


def _master(path: Path, root: ElementTree.Element) -> str:
    """Return the name of the file which has the XML of all, where a file of several says only that."""
    only = next((child for child in root if _tag(child) == "BinaryOnly"), None)
    name = "" if only is None else only.get("MetadataFile", "")
    if name:
        check_file(path, name)
    return name if (path.parent / name).is_file() else ""


def _text(path: Path) -> str:
    """Return the OME-XML of another file, nothing where there is none."""
    if path.suffix.lower() in (".ome", ".xml"):
        with path.open("rb") as file:
            return file.read(MOST_TEXT).decode("utf-8", "replace")
    check_directories(path)
    with tifffile.TiffFile(path) as tif:
        return tif.pages.first.description or ""


def _checked(path: Path, text: str) -> ElementTree.Element:
    """Return the tree of an OME-XML of which nothing leads out of the folder."""
    if "<!ENTITY" in text or "<!DOCTYPE" in text:
        raise DataError(f"{path}: its OME-XML defines entities, which no microscope writes; refused")
    root = _parsed(text)
    for element in root.iter():
        if _tag(element)[:-1].endswith("Along"):
            _check_along(path, element.attrib)
        if "FileName" in element.attrib:
            check_file(path, element.attrib["FileName"])
    return root


def _images(path: Path, root: ElementTree.Element, pages: int, own: str | None = None) -> tuple[Image, ...]:
    own = own or root.get("UUID")
    images = tuple(_image(path, element, own) for element in root if _tag(element) == "Image")
    claimed = sum(image.planes + sum(count or pages for _, _, count in image.parts) for image in images)
    if claimed > MOST_PLANES:
        raise DataError(f"{path}: its OME-XML declares {claimed} planes, its file has {pages}; correct its sizes")
    return images


def _parsed(text: str) -> ElementTree.Element:
    """Return the tree of a text, an empty one where it is broken: tifffile then says so, and reads nothing of it."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text, True)
    except expat.ExpatError:
        return ElementTree.Element("OME")
    return builder.close()


def check_file(path: Path, name: str) -> None:
    """Refuse a file that metadata of `path` names, unless it lies in the same folder, and is a file if it is there.

    Links are followed. A folder of links to a data set is the folder that they lead to.
    """
    if "/" in name or "\\" in name or name in (".", ".."):
        raise DataError(f"{path}: its metadata points to {name!r}, outside of its folder; refused")
    other = path.parent / name
    if not name or not other.exists():
        return  # what is missing is counted where the planes are
    if other.resolve().parent not in (path.parent.resolve(), path.resolve().parent):
        raise DataError(f"{path}: its metadata points to {name!r}, a link outside of its folder; refused")
    if not other.is_file():
        raise DataError(f"{path}: its metadata points to {name!r}, which is not a regular file; refused")


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _check_along(path: Path, along: Mapping[str, str]) -> None:
    """Refuse a modulo axis (lifetimes, spectra) of more steps than there can be planes."""
    try:
        start, end, step = (float(along.get(k, d)) for k, d in (("Start", "0"), ("End", "0"), ("Step", "1")))
        steps = (end - start) / step
    except (ValueError, ArithmeticError):
        steps = math.inf
    if not -MOST_PLANES < steps < MOST_PLANES:
        raise DataError(
            f"{path}: its OME-XML declares an axis from {along.get('Start')} to {along.get('End')}; refused"
        )


def _image(path: Path, element: ElementTree.Element, own: str | None) -> Image:
    pixels = next((child for child in element if _tag(child) == "Pixels"), ElementTree.Element("Pixels"))
    channels = [child.attrib for child in pixels if _tag(child) == "Channel"]
    names = tuple(channel.get("Name", "") for channel in channels)
    samples = _whole(path, channels[0], "SamplesPerPixel", 1) if channels else 1
    planes = math.prod(_whole(path, pixels.attrib, f"Size{a}", 1) for a in "ZCT") // max(1, samples)
    return Image(
        name=element.attrib.get("Name", ""),
        sizes=_sizes(pixels.attrib),
        channel_names=names if all(names) else (),
        planes=planes,
        parts=tuple(_parts(path, pixels, own)),
        several=tuple((a.lower(), n) for a in "ZCT" if (n := _whole(path, pixels.attrib, f"Size{a}", 1)) > 1),
    )


def _parts(path: Path, pixels: ElementTree.Element, own: str | None) -> Iterator[tuple[str | None, int, int]]:
    """Yield where planes lie. A file that was renamed still knows its own by the id of the XML."""
    for data in pixels:
        if _tag(data) != "TiffData":
            continue
        first, count, more, *_ = (_whole(path, data.attrib, key, 0) for key in NUMBERS)
        uuid = next((child for child in data if _tag(child) == "UUID"), None)
        name = None if uuid is None or own in (uuid.text, None) else uuid.attrib.get("FileName")
        if uuid is not None and own is None and uuid.attrib.get("FileName", "").lower() != path.name.lower():
            name = uuid.attrib.get("FileName")
        yield name, first, count or more or int("IFD" in data.attrib)


def _whole(path: Path, attributes: Mapping[str, Any], key: str, default: int) -> int:
    """Return a count; tifffile reads the same text."""
    text = attributes.get(key, default)
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**63:
        raise DataError(f"{path}: its OME-XML has {key} {str(text)[:40]!r}, not a count; correct it")
    return number


def _sizes(pixels: Mapping[str, str]) -> Sizes:
    sizes = Sizes()
    for axis, key, unit in (*((a, f"PhysicalSize{a.upper()}", "µm") for a in "zyx"), ("t", "TimeIncrement", "s")):
        sizes.put(axis, pixels.get(key), pixels.get(f"{key}Unit", unit))
    return sizes
