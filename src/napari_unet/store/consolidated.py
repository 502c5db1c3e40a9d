"""Consolidated metadata, which some writers keep in a group: one copy of all metadata below it, that readers trust.

Labels that are added to such a group are seen by others only where the copy is renewed: that of the group, of
``labels`` and of the groups around them, as of a plate. Zarr v2 keeps it in ``.zmetadata``, v3 within ``zarr.json``.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files import REFUSED, replace

LARGEST = 2**28  # bytes: a plate of 10,000 images with five levels has 2**26
# The file that repeats the metadata of all that lies below a group, by version of zarr.
HOLDERS = {3: "zarr.json", 2: ".zmetadata"}
FILES = {3: ("zarr.json",), 2: (".zgroup", ".zarray", ".zattrs")}  # whose contents it repeats
MARKS = ("zarr.json", ".zgroup")


def renew(root: Path, paths: Sequence[str], zarr_format: int, via: Path) -> None:
    """Bring every copy of the metadata of labels to what lies on disk; nothing happens where there is none.

    Parameters
    ----------
    root : Path
        The image that labels were added to, or removed from.
    paths : sequence of str
        Of the labels (``labels/NAME``).
    zarr_format : int
        Of the image: 2 or 3.
    via : Path
        Folder for temporary files.
    """
    root = root.absolute()
    for group in (root / "labels", root, *_around(root)):
        try:
            _renew_one(group, root, paths, zarr_format, via)
        except OSError as error:
            if error.errno not in REFUSED or group in (root / "labels", root):  # the plate is not ours to insist on
                raise


def _around(root: Path) -> Iterator[Path]:
    """Yield the groups that a group lies in, the innermost first."""
    for folder in root.parents:
        if not any((folder / mark).is_file() for mark in MARKS):
            return
        yield folder


def _renew_one(group: Path, root: Path, paths: Sequence[str], zarr_format: int, via: Path) -> None:
    holder = group / HOLDERS[zarr_format]
    values = _read(holder)
    copy = values.get("consolidated_metadata") if zarr_format == 3 else values
    listed = copy.get("metadata") if isinstance(copy, dict) else None
    if not isinstance(copy, dict) or not isinstance(listed, dict) or not _holds(listed, group, root, zarr_format):
        return
    ours = [(root / path).relative_to(group).as_posix() for path in paths]
    kept = {k: v for k, v in listed.items() if not any(k == name or k.startswith(f"{name}/") for name in ours)}
    places = [root / "labels"] * (group != root / "labels")
    for path in paths:
        places += [root / path, *sorted((f for f in (root / path).glob("*") if f.name.isdigit()), key=lambda f: f.name)]
    for place in places:
        kept |= _metadata(place, place.relative_to(group).as_posix(), zarr_format)
    if kept == listed:
        return
    copy["metadata"] = kept
    same_disk = via.stat().st_dev == group.stat().st_dev
    replace(holder, (json.dumps(values, indent=2) + "\n").encode(), via if same_disk else None)


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none that could be renewed."""
    if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST:
        return {}
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(file.read_bytes())
        return values if isinstance(values, dict) else {}
    return {}


def _holds(listed: dict[str, Any], group: Path, root: Path, zarr_format: int) -> bool:
    """Say whether a copy knows the image at all: labels of one that it does not would hang in the air."""
    if group in (root, root / "labels"):
        return True
    name = root.relative_to(group).as_posix()
    return any(key in listed for key in ([name] if zarr_format == 3 else [f"{name}/{file}" for file in FILES[2]]))


def _metadata(place: Path, name: str, zarr_format: int) -> dict[str, Any]:
    """Return the metadata of a group or an array, by the keys that it has in a copy."""
    found = {}
    for file in FILES[zarr_format]:
        values = _read(place / file)
        if values or (place / file).is_file():
            values.pop("consolidated_metadata", None)
            found[name if zarr_format == 3 else f"{name}/{file}"] = values
    return found
