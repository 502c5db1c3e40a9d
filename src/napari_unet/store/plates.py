"""A twin of a plate: groups that say where its wells and fields lie, for results to be put into."""

import json
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files import disk, make_folder
from ..sources.omezarr import ome
from ..sources.zarrmeta import below, read_node
from .layout import read_group, write_group


def is_plate(where: str) -> bool:
    """Say whether a plate of OME-Zarr lies there."""
    node = read_node(where)
    return node is not None and not node.is_array and isinstance(ome(node).get("plate"), dict)


def write_twin(where: str, root: Path, version: str, via: Path) -> None:
    """Make the groups of a plate and its wells, as those of the plate at `where`, around the results of its fields.

    Parameters
    ----------
    where : str
        The plate whose fields are run.
    root : Path
        The twin; its fields may be there already.
    version : str
        Of OME-Zarr.
    via : Path
        Folder for what is not whole yet.

    Raises
    ------
    OutputError
        Where something else lies at `root`.
    """
    plate = read_node(where)
    if plate is None:
        return
    about = dict(ome(plate)["plate"])
    there = read_group(root)
    if there is not None and "plate" not in {**there[1], **there[1].get("ome", {})}:
        raise OutputError(f"{root} is there and no plate; choose another folder for the results")
    with disk(root.parent):
        make_folder(root)
        make_folder(via)
        _write(root, version, "plate", about, via)
        for well in about.get("wells", ()):
            node = read_node(below(where, well["path"]))
            if node is None or not isinstance(ome(node).get("well"), dict):
                continue
            folder = Path(below(str(root), well["path"]))
            make_folder(folder.parent)
            write_group(folder.parent, version, {}, via)
            _write(folder, version, "well", dict(ome(node)["well"]), via)


def _write(folder: Path, version: str, kind: str, about: dict[str, Any], via: Path) -> None:
    """Write a group, where it is not what it should be already."""
    about = {**about, "version": version} if version == "0.4" else {k: v for k, v in about.items() if k != "version"}
    wanted = {kind: about} if version == "0.4" else {"ome": {"version": version, kind: about}}
    found = read_group(folder)
    if found is None or json.dumps(found[1], sort_keys=True) != json.dumps(wanted, sort_keys=True):
        write_group(folder, version, wanted, via)
