"""Write a result as a file of another program, object by object, whatever its size."""

import contextlib
import dataclasses
import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..errors import DataError, UsageError
from ..events import Progress
from ..files import check_free, disk, make_folder
from ..sources import open_labels, open_stack
from ..store.admission import check_apart
from ..store.table import kinds_in
from ..store.tiff import replacement, save_tiff
from .boxes import Item, flat, items
from .linked import Node, Track, tracks_of
from .shapes import write_geojson, write_rois
from .tables import row_of, track_of, write_csv, write_parquet

KINDS = (".tif", ".tiff", ".zip", ".roi", ".geojson", ".csv", ".parquet")
PARTIAL = ".partial"


@dataclasses.dataclass(slots=True)
class _Counted:
    """Objects as they are read, and what is to be said of them."""

    labels: Stack
    kinds: Mapping[int, str] = dataclasses.field(default_factory=dict)
    too_large: list[str] = dataclasses.field(default_factory=list)
    count: int = 0

    def __iter__(self) -> Iterator[Item]:
        for _, count, item in items(self.labels):
            self.count = count
            if isinstance(item, Item):
                yield item
            else:
                self.too_large.append(str(item[1]))


def export(
    result: Any,
    path: str | os.PathLike[str],
    image: Any = None,
    *,
    tracks: bool = False,
    trackastra: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Generator[Progress, None, Path]:
    """Write the objects of a result for another program; what is written follows from the ending.

    ``.tif`` and ``.ome.tif``: labels. ``.zip`` and ``.roi``: outlines as ImageJ's ROIs. ``.geojson``: outlines as
    QuPath reads them. ``.csv`` and ``.parquet``: a row for each object and time point: its size, shape, intensities.
    Outlines for QuPath and rows have the class of the object where the result's table has one.

    Parameters
    ----------
    result : path, address or Stack
        Anything that opens as labels.
    path : path
    image : path, address or Stack, optional
        Whose intensities are measured, on the same pixels; the image in the result's own store if not given and there.
    tracks : bool
        In place of shapes, id, time and centre in pixels, as napari's Tracks takes them: of objects that were linked.
    trackastra : path or str, optional
        For tracks, link objects by a model of trackastra, its folder or a name that trackastra knows, and not by the
        ids that they have: ``track_id`` is then its, ``label`` the id, ``parent`` the track that one came of.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    Path of the file

    Raises
    ------
    UsageError
        Where the ending says nothing, or its package is not installed.
    DataError
        Where image and result do not lie on the same pixels, or nothing fits into such a file.
    OutputError
        Where something is there already.
    """
    path = Path(path).expanduser()
    _check_name(path, tracks)
    if trackastra is not None and not tracks:
        raise UsageError("trackastra links objects for tracks; choose tracks too")
    labels = result if isinstance(result, Stack) else open_labels(result)
    if tracks and "t" not in labels.axes:
        raise DataError(f"{labels.name} has no time points; there are no tracks in it")
    ending = path.suffix.lower()
    if ending in (".tif", ".tiff"):
        return (yield from save_tiff(labels, path, kind="labels", overwrite=overwrite))
    check_apart(path, labels, "choose another name")
    check_free(path, overwrite)
    yield from replacement(path)
    wanted = ending in (".csv", ".parquet") and (not tracks or trackastra is not None)
    beside = _image(labels, image) if wanted else None
    yield Progress(0, 1, "export", f"objects of {labels.name}")
    links = None if trackastra is None else tracks_of(labels, beside, str(trackastra))
    found = _Counted(labels, kinds_in(labels.source))
    with disk(path.parent), _replacing(path) as partial:
        _write(partial, ending, found, beside, _Points(links) if tracks else None)
    said = f"{found.count} objects"
    if found.too_large:
        said += f"; too large to be held in memory, and left out: {', '.join(found.too_large[:20])}"
    yield Progress(1, 1, "export", said)
    return path


def _check_name(path: Path, tracks: bool) -> None:
    """Refuse a name that says no kind of file, or not one of tracks."""
    ending = path.suffix.lower()
    if ending not in KINDS:
        raise UsageError(f"{path} says no kind of file; its name must end in one of {', '.join(KINDS)}")
    if tracks and ending not in (".csv", ".parquet"):
        raise UsageError(f"{path}: tracks are written as .csv or .parquet; give it such a name")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to, which becomes `path` when it is whole; its folder is made."""
    make_folder(path.parent)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, slots=True)
class _Points:
    """Points of tracks: of those that ids say, or of those that objects were linked to."""

    links: Mapping[Node, Track] | None

    def row(self, item: Item, axes: str) -> dict[str, Any]:
        """Return the point that an object is."""
        point = track_of(item, axes)
        if self.links is None:
            return point
        track = self.links.get((item.time, item.id), Track(0, 0))
        return point | {"track_id": track.number, "label": item.id, "parent": track.parent}


def _write(path: Path, ending: str, found: _Counted, image: Stack | None, points: _Points | None) -> None:
    labels = found.labels
    if ending in (".zip", ".roi"):
        write_rois(path, iter(found), labels, ending == ".roi")
        return
    if ending == ".geojson":
        with path.open("w", encoding="utf-8") as file:
            write_geojson(file, iter(found), found.kinds)
        return
    axes = "yx" if flat(labels) else labels.spatial

    def row(item: Item) -> dict[str, Any]:
        cells = row_of(item, labels, image, axes) if points is None else points.row(item, axes)
        return {**cells, "class": found.kinds.get(item.id, "")} if found.kinds else cells

    # What a table of no objects has, too, and whose type each column has: the row of one pixel.
    pixel = Item(0, 0, (slice(0, 1),) * len(labels.axes), np.ones((1,) * len(labels.spatial), bool))
    if ending == ".parquet":
        write_parquet(path, map(row, found), row(pixel))
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, map(row, found), row(pixel))


def _image(labels: Stack, image: Any) -> Stack | None:
    """Return the image whose intensities are measured, on the same pixels as the labels.

    Raises
    ------
    DataError
        Where one was given and is on other pixels.
    """
    stack = image if isinstance(image, Stack) or image is None else open_stack(image)
    if image is None:
        root = str(labels.source or "").partition("/labels/")[0]
        with contextlib.suppress(DataError):
            stack = open_stack(root) if root and root != labels.source else None
    if stack is None:
        return None
    same = stack.axes.replace("c", "") == labels.axes and all(stack.size(a) == labels.size(a) for a in labels.axes)
    if not same and image is not None:
        raise DataError(
            f"{stack.name} has the axes {stack.axes} and the shape {stack.shape}, {labels.name} {labels.axes} and "
            f"{labels.shape}; give the image that the result was made of"
        )
    return cached(stack) if same else None
