"""Plates of OME-Zarr, as small as they are wanted, for tests. It loads no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr


def _group(folder: Path, about: dict[str, Any], version: str) -> None:
    about = about if version == "0.4" else {"ome": {"version": "0.5", **about}} if about else {}
    zarr.create_group(str(folder), attributes=about, zarr_format=2 if version == "0.4" else 3)


def plate(root: Path, images: Mapping[str, np.ndarray], version: str = "0.5") -> Path:
    """Write images (Y, X) at their places, ``A/1/0``, with pixels of half a micrometre."""
    kind = {"version": version} if version == "0.4" else {}
    wells: dict[str, list[str]] = {}
    for place in images:
        well, _, field = place.rpartition("/")
        wells.setdefault(well, []).append(field)
    rows, columns = (list(dict.fromkeys(well.split("/")[i] for well in wells)) for i in (0, 1))
    at = {well: (rows.index(well.split("/")[0]), columns.index(well.split("/")[1])) for well in wells}
    about = {
        "name": root.stem,
        "field_count": max(map(len, wells.values())),
        "rows": [{"name": name} for name in rows],
        "columns": [{"name": name} for name in columns],
        "wells": [{"path": well, "rowIndex": i, "columnIndex": j} for well, (i, j) in at.items()],
        **kind,
    }
    _group(root, {"plate": about}, version)
    for name in rows:
        _group(root / name, {}, version)
    for well, fields in wells.items():
        _group(root / well, {"well": {"images": [{"path": field} for field in fields], **kind}}, version)
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    scale = {"coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}
    for place, data in images.items():
        image = {"axes": axes, "datasets": [{"path": "0", **scale}], **kind}
        _group(root / place, {"multiscales": [image]}, version)
        zarr.create_array(str(root / place / "0"), data=data, chunks=data.shape, zarr_format=2 if kind else 3)
    return root
