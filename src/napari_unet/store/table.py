"""The table of objects of some labels: where it lies, and what the record of a run holds of it."""

import csv
import dataclasses
import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..files import make_folder, open_to_read, refuse_link, remove
from .marks import TABLE_MARK, mark
from .ome import Output
from .plan import FORMER_TABLE, TABLE, Region

TABLE_UNIT = "objects.csv"  # of the record
CLASS_COLUMNS = ("class", "class_share")  # of objects that have classes, the last two
ALL = 2**31  # rows: of all objects that labels can hold
TIFFS = (".tif", ".tiff")  # whose table lies beside them
MOST_PROPERTIES = 2**22  # 4 MiB of metadata: some 80,000 objects, which readers take; the table has them all
MOST_ROWS = 100_000  # of a table in the window: more cannot be scrolled through


def table_of(labels: Path) -> Path:
    """Return where the table of labels is, or would be; earlier versions wrote it beside their arrays."""
    former = labels / FORMER_TABLE
    return former if former.is_file() and not (labels / TABLE).is_file() else labels / TABLE


def make_place(labels: Path, version: str, via: Path) -> Path:
    """Make the folder that a table is written into.

    Parameters
    ----------
    labels : Path
        The group of the labels.
    version : str
        Of OME-Zarr.
    via : Path
        Folder of the same disk for temporary files.

    Returns
    -------
    Path of the table

    Raises
    ------
    UnsafeError
        Where the folder is a link.
    """
    place = labels / TABLE
    refuse_link(place.parent)
    make_folder(place.parent)
    mark(place.parent, version, TABLE_MARK, via)
    return place


def table_written(root: Path, labels: str) -> Region:
    """Return what is recorded of the table that was written of some labels; one of an earlier version goes."""
    remove(root / labels / FORMER_TABLE)
    name = f"{labels}/{TABLE}"
    return table_region(root / name, name)


def table_region(path: Path, name: str) -> Region:
    """Return what is recorded of a table: its bytes, and their checksum."""
    size = crc = 0
    with open_to_read(path) as file:
        while piece := file.read(2**20):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return Region(name, (0,), (size,), crc)


def table_problem(root: Path, region: Region) -> str:
    """Hold a table below `root` against its checksum: what is wrong with it, or nothing."""
    path = root / region.array
    refuse_link(path.parent)
    try:
        found = table_region(path, region.array)
    except FileNotFoundError:
        return f"{region.array} is missing"
    except OSError as error:
        return f"{region.array} cannot be read ({error})"
    return "" if found == region else f"{region.array} is not what was written"


def read_table(path: Path) -> dict[str, Any]:
    """Read a table of objects.

    Parameters
    ----------
    path : Path
        The file, or the labels that it lies beside.

    Returns
    -------
    dict of column name to (N + 1,) array
        Row i is label i, row 0 the background; ``index`` instead of ``id``, and ``class`` as text. Empty where there
        are too many rows, or several of one id, as of objects that are linked over time.
    """
    path = table_of(path) if path.is_dir() else path
    with path.open(newline="", encoding="utf-8") as file:
        names = next(csv.reader(file))
        rows = list(itertools.islice(csv.reader(file), MOST_ROWS + 1))
    if len(rows) > MOST_ROWS:
        return {}
    texts = {name: [row[at] for row in rows] for at, name in enumerate(names) if name == CLASS_COLUMNS[0]}
    numbers = [[0 if name in texts else value for name, value in zip(names, row, strict=True)] for row in rows]
    values = np.array([[0] * len(names), *numbers], np.float64)
    if (values[:, 0] != np.arange(len(values))).any():
        return {}
    whole = {"id", "voxels", "touches_border"}
    found = {
        "index" if name == "id" else name: column.astype(int) if name in whole else column
        for name, column in zip(names, values.T, strict=True)
    }
    return found | {name: np.array(["", *column]) for name, column in texts.items()}


def with_classes(output: Output, root: Path) -> Output:
    """Return labels with the class of each object among their attributes, where their table has it.

    Of linked objects an id has one class at all time points.
    """
    table = table_of(root / output.path)
    found = classes_in(table) if output.kind == "labels" and table.is_file() else {}
    properties = [{"label-value": number, "class": name} for number, name in sorted(found.items())]
    if not properties or len(json.dumps(properties)) > MOST_PROPERTIES:
        return output
    return dataclasses.replace(output, attributes={"properties": properties})


def classes_in(path: Path, most: int = MOST_ROWS) -> dict[int, str]:
    """Return the class of each object by its id; nothing where objects have none, or there are too many rows."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if CLASS_COLUMNS[0] not in (rows.fieldnames or ()):
            return {}
        found = list(itertools.islice(rows, most + 1))
    return {int(row["id"]): row[CLASS_COLUMNS[0]] for row in found} if len(found) <= most else {}


def kinds_in(source: str | None) -> dict[int, str]:
    """Return the class of each object that the table of a result has; nothing where it has none."""
    place = Path(source or "-")
    path = (
        place.with_name(f"{place.name.removesuffix('.tif')}.objects.csv")
        if place.suffix.lower() in TIFFS
        else table_of(place)
    )
    return classes_in(path, ALL) if path.is_file() else {}
