"""Which of the images of a TIFF is opened, and how many of its planes are there."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile

from ..errors import DataError
from .manager import KINDS, series_of
from .omexml import Image

CHECKED_PAGES = 4096  # planes whose data is looked for in the file, spread over all of them
SHOWN = 8  # names in a message: a line on a screen
MANY_FILES = ("ome", *KINDS)  # kinds of series whose planes may lie in other files, and be missing


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """The image of a file that is opened.

    Parameters
    ----------
    index : int
        Its number in the file.
    image : Image, optional
        What the OME-XML says of it.
    notes : tuple of str
        What was chosen from, and how.
    """

    index: int
    series: tifffile.TiffPageSeries
    image: Image | None
    notes: tuple[str, ...]


def images_of(tif: tifffile.TiffFile) -> list[tuple[int, tifffile.TiffPageSeries]]:
    """Return the images of a file with their numbers, without those that are only coarser copies of another."""
    numbered = list(enumerate(series_of(tif)))
    return [(i, s) for i, s in numbered if not _is_coarser_copy(s, [o for _, o in numbered if o is not s])]


def _is_coarser_copy(series: tifffile.TiffPageSeries, others: Sequence[tifffile.TiffPageSeries]) -> bool:
    page = series.keyframe
    if not (page.is_subifd or page.is_reduced):
        return False
    return any(
        other.keyframe.dtype == page.dtype
        and other.keyframe.imagewidth > page.imagewidth
        and other.keyframe.imagelength > page.imagelength
        and _same_shape(other.keyframe, page)
        for other in others
    )


def _same_shape(large: Any, small: Any) -> bool:
    """Say whether a page has the shape of a larger one, to a pixel; a macro image has a shape of its own."""
    factor = large.imagewidth / small.imagewidth
    return abs(large.imagelength / factor - small.imagelength) <= 1 and large.samplesperpixel == small.samplesperpixel


def choose_series(path: Path, tif: tifffile.TiffFile, images: Sequence[Image], series: int | str | None) -> Chosen:
    """Choose an image of a file.

    Of an OME-TIFF of several files it is the image whose planes lie in this one. Where there are several still it is
    the one of most elements, the first of these.

    Parameters
    ----------
    images : sequence of Image
        Of its OME-XML.
    series : int or str, optional
        Number or name of an image.

    Raises
    ------
    DataError
        Where there is no image, or none of that number or name; it names those there are.
    """
    found = images_of(tif)
    if not found:
        raise DataError(f"{path} is a TIFF without an image; copy it again")
    if series is not None:
        index = _given(path, found, series)
        chosen = dict(found)[index]
        return Chosen(index, chosen, _image_of(tif, images, chosen, index), ())
    here = [(i, s) for i, s in found if any(p is not None and p.parent.filename == tif.filename for p in s.pages)]
    candidates = here or found
    index, chosen = max(candidates, key=lambda each: (math.prod(each[1].shape), -each[0]))
    notes = []
    if len(candidates) > 1:
        notes.append(
            f"image {_name(index, chosen)} of {len(candidates)} in the file was taken, the one of most pixels; another "
            f"is chosen with series (--series): {_list([c for c in candidates if c[0] != index])}"
        )
    if len(found) > len(candidates) == 1 and chosen.kind in KINDS:
        notes.append(f"{chosen.name} of {len(found)} was taken: its planes lie in this file")
    image = _image_of(tif, images, chosen, index)
    if len(images) > len(candidates) == 1 and image is not None:
        notes.append(f"image {image.name!r} of {len(images)} in the metadata was taken: its planes lie in this file")
    return Chosen(index, chosen, image, tuple(notes))


def _given(path: Path, found: Sequence[tuple[int, tifffile.TiffPageSeries]], series: int | str) -> int:
    for index, each in found:
        if isinstance(series, str) and series and each.name == series:
            return index
    number = int(series) if str(series).isdecimal() else -1
    if number not in [index for index, _ in found]:
        raise DataError(f"{path} has no image {series!r}; it has {_list(found)}")
    return number


def _name(index: int, series: tifffile.TiffPageSeries) -> str:
    return f"{index} {series.name!r}" if series.name else str(index)


def _list(found: Sequence[tuple[int, tifffile.TiffPageSeries]]) -> str:
    shown = [f"{_name(i, s)} ({' x '.join(map(str, s.shape))} {s.dtype})" for i, s in found[:SHOWN]]
    return ", ".join(shown) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _image_of(
    tif: tifffile.TiffFile, images: Sequence[Image], series: tifffile.TiffPageSeries, index: int
) -> Image | None:
    """Return what the OME-XML says of a series: the image that its first plane belongs to."""
    page = next((p for p in series.pages if p is not None), None)
    if page is not None and len(images) > 1:
        file, own = page.parent.filename, page.parent is tif or page.parent.filename == tif.filename
        for image in images:
            if image.holds(file, own, page.index):
                return image
    return images[index] if index < len(images) else None


@dataclasses.dataclass(frozen=True, slots=True)
class Planes:
    """How many pages an image declares, how many are listed in the file, and how many from the first on are whole."""

    declared: int
    listed: int
    whole: int


def count_planes(tif: tifffile.TiffFile, chosen: Chosen) -> Planes:
    """Count the planes of an image: those declared, and those that are there."""
    series, length = chosen.series, tif.filehandle.size
    planes = math.prod(series.shape) // max(1, math.prod(series.keyframe.shape))
    declared = max(_declared(tif, chosen), planes)
    if len(series.pages) == 1 < declared and series.kind not in KINDS and series.dataoffset is not None:
        whole = min(declared, max(0, length - series.dataoffset) // max(1, series.keyframe.nbytes))
        return Planes(declared, whole, whole)
    if (len(series.pages) > 1 and series.kind in MANY_FILES) or series.kind in KINDS:
        listed = sum(page is not None for page in series.pages)
        there = next((i for i, page in enumerate(series.pages) if page is None), listed)
        return Planes(len(series.pages), listed, _whole(series.pages, there, tif))
    pages = tif.pages if len(tif.series) == 1 else series.pages
    return Planes(max(declared, len(pages)), len(pages), _whole(pages, len(pages), tif))


def _declared(tif: tifffile.TiffFile, chosen: Chosen) -> int:
    """Return the number of pages that ImageJ, OME or tifffile metadata declare, 1 where there is none."""
    if tif.is_imagej and tif.imagej_metadata and chosen.index == 0:
        return int(tif.imagej_metadata.get("images", 1))
    if tif.is_shaped and tif.shaped_metadata and chosen.index == 0:
        shape = tif.shaped_metadata[0].get("shape", ())
        return int(math.prod(shape) // max(1, math.prod(tif.pages.first.shape)))
    image = chosen.image if tif.is_ome else None
    if image is None or image.elsewhere or "Modulo" in (tif.pages.first.description or ""):
        return 1
    return image.planes


def _whole(pages: Sequence[Any], there: int, tif: tifffile.TiffFile) -> int:
    """Count the pages from the first on whose data lies within the file; of more than a few thousand a part is seen."""
    step = max(1, math.ceil(there / CHECKED_PAGES))
    for number in sorted({*range(0, there, step), there - 1} - {-1}):
        page = pages[number]
        ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if page.parent.filename == tif.filename and max(ends, default=0) > tif.filehandle.size:
            return number if step == 1 else max(0, number - step)
    return there


def leading_box(shape: Sequence[int], planes: int) -> list[slice]:
    """Return the largest box from the first plane on that `planes` fill, the last axis fastest.

    >>> leading_box((10, 5), 32), leading_box((10, 5), 3)
    ([slice(0, 6, None), slice(0, 5, None)], [slice(0, 1, None), slice(0, 3, None)])
    """
    box = []
    for axis, size in enumerate(shape):
        inner = math.prod(shape[axis + 1 :])
        count = max(1, min(size, planes // inner))
        box.append(slice(0, count))
        if planes >= inner:
            return [*box, *(slice(0, n) for n in shape[axis + 1 :])]
    return box
