"""Tables of objects: one row each, as CSV or Parquet; and their tracks, as napari's Tracks takes them."""

import csv
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..arrays.stack import Stack
from ..errors import UsageError
from ..units import METRES, canonical, factor, is_length
from .boxes import Item
from .features import Ruler, intensity_features, shape_features

BATCH = 2**14  # rows that are written at a time
MICRO = "micrometer"


def ruler_of(labels: Stack, axes: str) -> Ruler:
    """Return what lengths along some axes are measured with: micrometres where all have a size, else pixels."""
    units, scale = labels.values_along(axes, "units"), labels.scale_along(axes)
    if all(is_length(unit) and canonical(unit) in METRES for unit in units):
        return Ruler(tuple(s * (factor(u, MICRO) or 1.0) for s, u in zip(scale, units, strict=True)), MICRO)
    return Ruler((1.0,) * len(axes), "pixel")


def row_of(item: Item, labels: Stack, image: Stack | None, axes: str) -> dict[str, Any]:
    """Measure one object: where it lies, its shape, and its intensities.

    Parameters
    ----------
    item : Item
    labels : Stack
    image : Stack, optional
        On the same pixels.
    axes : str
        Of space, those along which objects have a size: ``zyx`` or ``yx``.
    """
    ruler = ruler_of(labels, axes)
    mask = item.mask.reshape(item.mask.shape[-len(axes) :])
    start = np.array(item.start[-len(axes) :], int)
    centre = (np.argwhere(mask).mean(0) + start) * ruler.scale
    row: dict[str, Any] = {"id": item.id, "t": item.time, "unit": ruler.unit, "voxels": int(mask.sum())}
    row |= {f"centroid_{a}": float(c) for a, c in zip(axes, centre, strict=True)}
    row |= {f"first_{a}": int(s) for a, s in zip(axes, start, strict=True)}
    row |= {f"last_{a}": int(s) for a, s in zip(axes, start + mask.shape - 1, strict=True)}
    row |= shape_features(mask, ruler)
    if image is not None:
        row |= intensity_features(mask, _channels(item, image, mask.shape))
    return row


def _channels(item: Item, image: Stack, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Read the box around an object from each channel of the image."""
    space = iter(item.box[-len(image.spatial) :])
    box = [slice(item.time, item.time + 1) if a == "t" else next(space) for a in image.axes if a != "c"]
    found = {}
    for channel in range(image.size("c")):
        whole = list(box)
        if "c" in image.axes:
            whole.insert(image.axes.index("c"), slice(channel, channel + 1))
        name = image.channel_names[channel] if image.channel_names else str(channel)
        found[name] = image.read(tuple(whole)).reshape(shape)
    return found


def track_of(item: Item, axes: str) -> dict[str, Any]:
    """Return one point of a track: its id, its time, and the centre of the object in pixels."""
    mask = item.mask.reshape(item.mask.shape[-len(axes) :])
    centre = np.argwhere(mask).mean(0) + item.start[-len(axes) :]
    return {"track_id": item.id, "t": item.time, **{a: float(c) for a, c in zip(axes, centre, strict=True)}}


def write_csv(file: TextIO, rows: Iterable[Mapping[str, Any]], like: Mapping[str, Any]) -> None:
    """Write rows with the columns of one that is given; numbers with all of their digits."""
    table = csv.DictWriter(file, list(like), restval="")
    table.writeheader()
    table.writerows(rows)


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], like: Mapping[str, Any]) -> None:
    """Write rows as Parquet, some thousand at a time, with the columns and types of one that is given.

    Raises
    ------
    UsageError
        Where pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(f"Parquet is written by pyarrow: pip install 'napari-unet-stacks[export]' ({error})") from None
    schema = pyarrow.Table.from_pylist([dict(like)]).schema
    left = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while waiting := [dict(row) for row in itertools.islice(left, BATCH)]:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))
