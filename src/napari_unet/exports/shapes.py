"""Outlines of objects as files: ImageJ's ROIs, and GeoJSON as QuPath reads it."""

import json
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..arrays.stack import Stack
from ..errors import DataError, UsageError
from .boxes import Item
from .outlines import Ring, joined, outlines

FEW = 2**16  # ROIs of an archive without the 64-bit directory that ImageJ cannot read
REACH = 2**15 - 1  # pixels that the coordinates of a ROI reach in 16 bits
NAMESPACE = uuid.UUID("8e1c1b0e-5c1f-4d55-9d6e-6f0f1d2a7b11")  # so that an object has the same id in each export


def planes(item: Item) -> Iterator[tuple[int, list[list[Ring]]]]:
    """Yield the outline of an object in each plane: z, and its parts."""
    y, x = item.start[-2:]
    mask = item.mask.reshape(-1, *item.mask.shape[-2:])
    first = item.start[0] if item.mask.ndim == 3 else 0
    for shift, plane in enumerate(mask):
        if plane.any():
            yield first + shift, outlines(plane, (y, x))


def geojson_features(item: Item, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield an object as QuPath has it: a detection for each plane, in pixels, of a class if it has one."""
    more = {} if kind is None else {"classification": {"name": kind}}
    for z, parts in planes(item):
        polygons = [[_closed(ring) for ring in part] for part in parts]
        single = len(polygons) == 1
        geometry = {"type": "Polygon" if single else "MultiPolygon", "coordinates": polygons[0] if single else polygons}
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(NAMESPACE, f"{item.id} {item.time} {z}")),
            "geometry": {**geometry, "plane": {"c": -1, "z": z, "t": item.time}},
            "properties": {"objectType": "detection", "name": str(item.id), "measurements": {"id": item.id}, **more},
        }


def _closed(ring: Ring) -> list[list[int]]:
    """Return a ring whose last point is its first (RFC 7946, 3.1.6)."""
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]


def write_geojson(file: TextIO, found: Iterator[Item], kinds: Mapping[int, str]) -> None:
    """Write objects as a collection of features, one per line, with their classes by id."""
    file.write('{"type": "FeatureCollection", "features": [')
    before = "\n"
    for item in found:
        for feature in geojson_features(item, kinds.get(item.id)):
            file.write(before + json.dumps(feature))
            before = ",\n"
    file.write("\n]}\n")


def rois(item: Item, labels: Stack) -> Iterator[Any]:
    """Yield an object as ImageJ's ROI for each plane.

    Raises
    ------
    UsageError
        Where roifile is not installed.
    DataError
        Where the image is larger than ImageJ's coordinates reach.
    """
    try:
        import roifile
    except ImportError as error:
        raise UsageError(f"ROIs are written by roifile: pip install 'napari-unet-stacks[export]' ({error})") from None
    if max(labels.values_along("yx", "shape")) > REACH:
        raise DataError(f"{labels.name} has planes of more than {REACH} pixels, which ROIs do not reach; use .geojson")
    for z, parts in planes(item):
        ring = joined(parts)
        stacked = labels.size("z") > 1 or labels.size("t") > 1
        place = {"z": z, "t": item.time} if stacked else {}
        roi = roifile.ImagejRoi.frompoints(
            ring.astype(np.int32), name=f"{item.id:06d}-{item.time:04d}-{z:04d}", **place
        )
        roi.roitype = roifile.ROI_TYPE.POLYGON
        if stacked:
            roi.position = item.time * labels.size("z") + z + 1
        yield roi


def write_rois(path: Path, found: Iterator[Item], labels: Stack, single: bool) -> None:
    """Write ROIs into an archive for ImageJ's ROI Manager, or one into a file.

    Raises
    ------
    DataError
        Where there are more than fit.
    """
    every = (roi for item in found for roi in rois(item, labels))
    if single:
        first, second = next(every, None), next(every, None)
        if first is None or second is not None:
            raise DataError(f"a .roi holds one outline, the result has {'several' if second else 'none'}; use .zip")
        path.write_bytes(first.tobytes())
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=False) as archive:
        for number, roi in enumerate(every):
            if number >= FEW - 1:
                raise DataError(f"there are more than {FEW - 1} outlines, which ImageJ does not open; use .geojson")
            archive.writestr(f"{roi.name}.roi", roi.tobytes())
