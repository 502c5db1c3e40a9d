"""What the tags of a TIFF say: is it complete, how large is a pixel, what are its channels called."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tifffile

from ..errors import DataError
from ..units import canonical, is_known

MICROMETER = "micrometer"
PRINT_MICROMETERS = 20.0
CHECKED_PAGES = 4096
Sizes = dict[str, tuple[float, str | None]]


def check_text(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse OME-XML with entities of its own, or that points to files outside of the folder, before it is parsed."""
    text = tif.pages.first.description or ""
    if "<OME" not in text and ":OME" not in text:
        return
    if "<!ENTITY" in text or "<!DOCTYPE" in text:
        raise DataError(f"{path}: its OME-XML defines entities, which no microscope writes; refused")
    for name in re.findall(r'FileName\s*=\s*"([^"]*)"', text):
        plain = html.unescape(name)
        if "/" in plain or "\\" in plain or plain == "..":
            raise DataError(f"{path}: its OME-XML points to {plain!r}, outside of its folder; refused")


def check_complete(
    path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, complaints: Sequence[str]
) -> None:
    """Refuse a file that was cut off: fewer pages than it declares, or data beyond its end.

    Raises
    ------
    DataError
        Naming how many pages are declared, and how many can be read.
    """
    length, readable = tif.filehandle.size, len(tif.pages)
    planes = math.prod(series.shape) // max(1, math.prod(series.keyframe.shape))
    declared = max(_declared(tif), planes)
    if len(series.pages) == 1 < declared and series.dataoffset is not None:
        readable = max(0, length - series.dataoffset) // max(1, series.keyframe.nbytes)
    elif series.kind == "ome" and len(series.pages) > 1:
        readable, declared = sum(page is not None for page in series.pages), len(series.pages)
    elif readable >= declared:
        declared = readable
    if readable >= declared and not _pages_fit(tif, length):
        readable = declared - 1
    if readable < declared:
        raise DataError(f"{path} is incomplete: it declares {declared} pages, {readable} readable; copy it again")
    errors = [line for line in complaints if line.startswith("ERROR")]
    if errors:
        raise DataError(f"{path} is damaged: {errors[0].partition(': ')[2]}; copy it again")


def _declared(tif: tifffile.TiffFile) -> int:
    """Return the number of pages that ImageJ, OME or tifffile metadata declare, 1 where there is none."""
    if tif.is_imagej and tif.imagej_metadata:
        return int(tif.imagej_metadata.get("images", 1))
    if tif.is_shaped and tif.shaped_metadata:
        shape = tif.shaped_metadata[0].get("shape", ())
        return int(math.prod(shape) // max(1, math.prod(tif.pages.first.shape)))
    pixels = _attributes(tif.pages.first.description or "", "Pixels")
    if not tif.is_ome or "Modulo" in (tif.pages.first.description or ""):
        return 1
    samples = int(_attributes(tif.pages.first.description or "", "Channel").get("SamplesPerPixel", 1))
    return math.prod(int(pixels.get(f"Size{a}", 1)) for a in "ZCT") // max(1, samples)


def _pages_fit(tif: tifffile.TiffFile, length: int) -> bool:
    count = len(tif.pages)
    step = max(1, math.ceil(count / CHECKED_PAGES))
    for number in {*range(0, count, step), count - 1}:
        page: Any = tif.pages[number]
        ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if max(ends, default=0) > length:
            return False
    return True


def _attributes(text: str, element: str) -> dict[str, str]:
    """Return the attributes of the first such element of an XML text."""
    found = re.search(rf"<(?:\w+:)?{element}\b([^>]*)>", text)
    pairs = re.findall(r'([\w:]+)\s*=\s*"([^"]*)"', found.group(1)) if found else []
    return {name: html.unescape(value) for name, value in pairs}


def channel_names(tif: tifffile.TiffFile) -> tuple[str, ...]:
    """Return the names of the channels, from OME-XML or ImageJ labels, or none."""
    text = tif.pages.first.description or ""
    if tif.is_ome:
        pixels = re.search(r"<(?:\w+:)?Pixels\b.*?</(?:\w+:)?Pixels>", text, re.DOTALL)
        channels = re.findall(r"<(?:\w+:)?Channel\b[^>]*>", pixels.group(0)) if pixels else []
        names = [_attributes(channel, "Channel").get("Name", "") for channel in channels]
        return tuple(names) if names and all(names) else ()
    return ()


def pixel_sizes(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Sizes:
    """Return the size of a step and its unit, by axis, as far as the file says."""
    if tif.is_ome:
        return _ome_sizes(_attributes(tif.pages.first.description or "", "Pixels"))
    if tif.is_lsm and tif.lsm_metadata:
        values = {a: float(tif.lsm_metadata.get(f"VoxelSize{a.upper()}", 0)) * 1e6 for a in "zyx"}
        return {a: (v, MICROMETER) for a, v in values.items() if v > 0}
    described: Mapping[str, Any] = tif.imagej_metadata or {}
    if not described and tif.is_shaped and tif.shaped_metadata:
        described = tif.shaped_metadata[0]
    return _tag_sizes(series.keyframe, described)


def _ome_sizes(pixels: Mapping[str, str]) -> Sizes:
    sizes: Sizes = {}
    for axis, key, default in (
        ("z", "PhysicalSizeZ", "µm"),
        ("y", "PhysicalSizeY", "µm"),
        ("x", "PhysicalSizeX", "µm"),
    ):
        _put(sizes, axis, pixels.get(key), pixels.get(f"{key}Unit", default))
    _put(sizes, "t", pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    return sizes


def _put(sizes: Sizes, axis: str, value: Any, unit: Any) -> None:
    """Keep a size that is a positive number, in a unit that is known."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return
    name = canonical(unit)
    if not is_known(name) or not math.isfinite(number) or number <= 0:
        return
    sizes[axis] = (number * 25400.0, MICROMETER) if name == "inch" else (number, name)


def _tag_sizes(page: tifffile.TiffPage, described: Mapping[str, Any]) -> Sizes:
    """Pixel size from the resolution tags, in ImageJ's unit where it names one, else in centimetres or inches.

    Sizes over `PRINT_MICROMETERS` in the tags' own units are for printers (72, 96, 300 dpi), not of the object.
    """
    sizes: Sizes = {}
    unit = str(described.get("unit", "")).strip()
    per_x, per_y = page.resolution
    if is_known(unit):
        _put(sizes, "x", 1 / per_x if per_x else None, unit)
        _put(sizes, "y", 1 / per_y if per_y else None, unit)
        _put(sizes, "z", described.get("spacing"), unit)
    else:
        micrometers = {2: 25400.0, 3: 10000.0}.get(int(page.resolutionunit or 1), 0.0)
        for axis, per in (("x", per_x), ("y", per_y)):
            if per > 0 and 0 < micrometers / per <= PRINT_MICROMETERS:
                sizes[axis] = (micrometers / per, MICROMETER)
    interval = described.get("finterval")
    if interval:
        _put(sizes, "t", interval, described.get("tunit", "s"))
    return sizes
