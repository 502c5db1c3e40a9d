"""The table of objects of some labels: where it lies, and what the record of a run holds of it."""

import zlib
from pathlib import Path

from ..files import open_to_read, refuse_link
from .marks import TABLE_MARK, mark
from .plan import FORMER_TABLE, TABLE, Region

TABLE_UNIT = "objects.csv"  # of the record


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
    place.parent.mkdir(exist_ok=True)
    mark(place.parent, version, TABLE_MARK, via)
    return place


def table_written(root: Path, labels: str) -> Region:
    """Return what is recorded of the table that was written of some labels; one of an earlier version goes."""
    (root / labels / FORMER_TABLE).unlink(missing_ok=True)
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
