"""What is done with labels in another process: they are measured, exported, and copied to be painted on."""

import collections
import csv
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..events import Progress
from ..files import following
from ..grid.blocks import boxes_of

if TYPE_CHECKING:
    from .. import Stack

WHOLE = ("t", "voxels")  # columns of whole numbers
ZARR = ".zarr"


def measure(labels: "Stack", image: "Stack | None") -> Generator[Progress, None, dict[str, Any]]:
    """Measure each object: size, place and shape, and intensities where the image lies on the same pixels.

    Returns
    -------
    dict of column name to array
        A row for each object and time point; ``index`` is its label.
    """
    from .. import export

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = yield from export(labels, Path(folder) / "objects.csv", image if _fits(image, labels) else None)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    return {("index" if name == "id" else name): _column(name, rows) for name in (rows[0] if rows else ())}


def count(labels: "Stack") -> Generator[Progress, None, dict[int, int]]:
    """Count the voxels of each label, block by block."""
    found: collections.Counter[int] = collections.Counter()
    boxes = list(boxes_of(labels.shape, labels.chunks))
    for number, box in enumerate(boxes, 1):
        values, times = np.unique(labels.read(box), return_counts=True)
        found.update(dict(zip(map(int, values), map(int, times), strict=True)))
        yield Progress(number, len(boxes), "measure")
    return dict(found)


def _fits(image: "Stack | None", labels: "Stack") -> bool:
    """Whether an image lies on the same pixels as labels."""
    return (
        image is not None
        and image.axes.replace("c", "") == labels.axes
        and image.values_along(labels.axes, "shape") == labels.shape
    )


def _column(name: str, rows: list[dict[str, str]]) -> Any:
    values = [row[name] for row in rows]
    if name == "unit":
        return values
    return np.array(values, np.int64 if name in ("id", *WHOLE) or name.startswith(("first_", "last_")) else float)


def save(
    labels: "Stack", path: Path, image: "Stack | None", attributes: Mapping[str, Any]
) -> Generator[Progress, None, Path]:
    """Write labels for another program, in the kind of file that the ending names: OME-Zarr, or what `export` writes.

    Raises
    ------
    UsageError, OutputError, DataError
        Where the ending says nothing, something is there already, or nothing fits into such a file.
    """
    from .. import export
    from ..store.save import save_stack

    if path.suffix.lower() != ZARR:
        return (yield from export(labels, path, image if _fits(image, labels) else None))
    if path.exists():
        raise UsageError(f"{path} exists; choose another name")
    yield from save_stack(labels, path, kind="labels", attributes=attributes)
    return path


def copy(labels: "Stack", result: Path, attributes: Mapping[str, Any]) -> Generator[Progress, None, Path]:
    """Write a copy of large labels that can be painted on beside their result; return the path of its array."""
    from ..sources.pairs import stem
    from ..store.editable import editable_copy

    root = result.with_name(f"{stem(result)}-edited.ome.zarr")
    while root.exists():
        root = following(root)
    return (yield from editable_copy(labels, root, "edited", attributes))
