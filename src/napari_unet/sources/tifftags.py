"""What the tags of a TIFF say of its pixels: how large they are, and what the channels are called."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import tifffile

from ..units import canonical, factor, is_length

MICROMETER = "micrometer"
INCH_MICROMETERS = 25400.0  # resolutions of TIFF are per inch where nothing else is said
PRINT_MICROMETERS = 20.0  # 1270 dots per inch; a microscope that has larger pixels says so in its metadata
PRINTED = ("inch", "thou", "line", "point")  # which OME-TIFF and printers have, and OME-Zarr has not
TAG_UNITS = {2: "inch", 3: "centimeter"}  # values of the tag ResolutionUnit
NO_RESOLUTION = 1.0  # the resolution tags of files without a pixel size
POSITION = re.compile(r"\b[ctz]:\s*\d+/\d+\b")  # "c:1/2 z:3/5 - DAPI": where a plane lies, before its name
MICRO_MANAGER = 51123  # tag with the settings of a plane, as JSON


@dataclasses.dataclass
class Sizes:
    """Size of a step and its unit along each axis, as far as a file says, and what in it could not be understood."""

    found: dict[str, tuple[float, Any]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def put(self, axis: str, value: Any, unit: Any) -> None:
        """Keep a size; its sign only says in which direction a stage moved."""
        if value is None or value == "":
            return
        try:
            number = abs(float(str(value).replace(",", ".")))
        except ValueError:
            number = math.nan
        if number == 0:
            return  # how many programs write that it is not known
        if not math.isfinite(number):
            self.notes.append(f"the pixel size {str(value)[:40]!r} along {axis} is not a number, and taken as unknown")
            return
        printed = factor(unit, MICROMETER) if canonical(unit) in PRINTED else None
        self.found[axis] = (number, unit) if printed is None else (float(f"{number * printed:.12g}"), MICROMETER)


def channel_names(tif: tifffile.TiffFile, channels: int) -> tuple[str, ...]:
    """Return the names of the channels: ImageJ's labels, where each channel has one of its own, or Micro-Manager's."""
    meta: Mapping[str, Any] = tif.imagej_metadata or {}
    labels = meta.get("Labels")
    if isinstance(labels, list) and channels > 1 and str(meta.get("order", "czt")).startswith("c"):
        names = [{_plain(label) for label in labels[c::channels]} for c in range(channels)]
        single = [next(iter(each)) for each in names if len(each) == 1]
        if len(set(single)) == channels and all(single):
            return tuple(single)
    listed = _summary(tif).get("ChNames")
    if isinstance(listed, list) and len(listed) == channels and all(isinstance(name, str) for name in listed):
        return tuple(listed)
    return ()


def _plain(label: Any) -> str:
    return POSITION.sub("", str(label)).strip(" -;:")


def pixel_sizes(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Sizes:
    """Return the pixel size that a file without OME-XML gives: in its maker's metadata, else in its resolution tags."""
    sizes = Sizes()
    if tif.is_lsm and tif.lsm_metadata:
        for axis in "zyx":
            sizes.put(axis, float(tif.lsm_metadata.get(f"VoxelSize{axis.upper()}", 0)) * 1e6, MICROMETER)
        return sizes
    if tif.is_micromanager:
        _put_micromanager(sizes, tif)
    if sizes.found:
        return sizes
    described: Mapping[str, Any] = tif.imagej_metadata or {}
    if not described and tif.is_shaped and tif.shaped_metadata:
        described = tif.shaped_metadata[0]
    _put_tags(sizes, series.keyframe, described, tif.is_imagej)
    if described.get("finterval"):
        sizes.put("t", described["finterval"], described.get("tunit", "s"))
    return sizes


def _summary(tif: tifffile.TiffFile) -> Mapping[str, Any]:
    found = (tif.micromanager_metadata or {}).get("Summary") if tif.is_micromanager else None
    return found if isinstance(found, dict) else {}


def _put_micromanager(sizes: Sizes, tif: tifffile.TiffFile) -> None:
    """Put what Micro-Manager says: of the plane (``PixelSizeUm``), else of the whole (``PixelSize_um``)."""
    tag = tif.pages.first.tags.get(MICRO_MANAGER)
    plane = tag.value if tag is not None and isinstance(tag.value, dict) else {}
    known = {re.sub("[^a-z]", "", str(k).lower()): v for part in (_summary(tif), plane) for k, v in part.items() if v}
    for axes, key, unit in (("yx", "pixelsizeum", MICROMETER), ("z", "zstepum", MICROMETER), ("t", "intervalms", "ms")):
        for axis in axes:
            sizes.put(axis, known.get(key), unit)


def _put_tags(sizes: Sizes, page: tifffile.TiffPage, described: Mapping[str, Any], imagej: bool) -> None:
    """Put the pixel size of the resolution tags, in ImageJ's unit where it names one, else in centimetres or inches.

    Sizes over `PRINT_MICROMETERS` in the tags' own units are for printers (72, 96, 300 dpi), not of the object.
    """
    unit = described.get("unit")
    named = canonical(unit) is not None
    tag_unit = TAG_UNITS.get(int(page.resolutionunit or 1))
    for axis, per in zip("xy", page.resolution, strict=True):
        if not per > 0:
            continue
        of_object = tag_unit is not None and 0 < INCH_MICROMETERS * _inches(tag_unit) / per <= PRINT_MICROMETERS
        own = described.get(f"{axis}unit", unit)
        if tag_unit and of_object and (not named or is_length(own)):
            target = own if named else MICROMETER
            sizes.put(axis, (factor(tag_unit, target) or 1.0) / per, target)
        elif named:
            sizes.put(axis, 1 / per, own)
        elif imagej and tag_unit is None and per != NO_RESOLUTION:
            sizes.put(axis, 1 / per, None)
    if named or imagej:
        sizes.put("z", described.get("spacing"), described.get("zunit", unit))


def _inches(unit: str) -> float:
    return factor(unit, "inch") or 1.0
