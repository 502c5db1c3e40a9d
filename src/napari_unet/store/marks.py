"""Folders of ours that hold no image, marked as empty arrays: no reader of zarr looks into one or warns of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import replace_json
from .ome import VERSIONS

RECORD = "no image: the record of a run of napari-unet"
TABLE_MARK = "no image: the table of the objects in these labels"
# The least that readers of zarr take without a warning for a folder that is not an image.
EMPTY_ARRAY: Mapping[int, tuple[str, Mapping[str, Any]]] = {
    3: (
        "zarr.json",
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [0],
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes"}],
        },
    ),
    2: (
        ".zarray",
        {
            "zarr_format": 2,
            "shape": [0],
            "chunks": [1],
            "dtype": "|u1",
            "compressor": None,
            "fill_value": 0,
            "order": "C",
            "filters": None,
        },
    ),
}


def mark(folder: Path, version: str, description: str, via: Path | None = None) -> None:
    """Make a folder a part of the zarr hierarchy that it lies in.

    Parameters
    ----------
    folder : Path
        It exists.
    version : str
        Of OME-Zarr.
    description : str
        What the folder holds, for those who open the array; zarr v2 has no place for it in the same file.
    via : Path, optional
        Folder of the same disk for the temporary file.
    """
    name, values = EMPTY_ARRAY[VERSIONS[version]]
    if not (folder / name).exists():
        more = {"attributes": {"description": description}} if name == "zarr.json" else {}
        replace_json(folder / name, {**values, **more}, via, at_once=False)  # made again where it is gone
