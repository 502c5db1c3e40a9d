"""A copy of labels to be painted on: of one level, as coarser ones would not follow, and without a record of bytes."""

import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..errors import OutputError
from ..events import Progress
from ..files import disk
from ..grid.blocks import boxes_of
from ..sources.omezarr import OURS
from . import layout
from .ome import group_attributes
from .pyramid import levels_of
from .save import KEPT_BYTES, lay_out, storable_name

VERSION = "0.5"
PARTIAL = ".partial"  # of a copy that is not whole yet: no name of an OME-Zarr
EDITED = "edited from"  # of what a copy was made of, in its provenance


def editable_copy(
    labels: Stack, root: Path, name: str, attributes: Mapping[str, Any]
) -> Generator[Progress, None, Path]:
    """Write labels as an OME-Zarr whose array may be written to, and return the path of that array.

    Parameters
    ----------
    root : Path
        The group to make, there when it is whole.
    name : str
        Of the labels in it.
    attributes : mapping
        ``colors`` and ``properties`` of the labels, as OME-Zarr has them.

    Raises
    ------
    OutputError
        Where something is there already.
    """
    if root.exists() or root.is_symlink():
        raise OutputError(f"{root} exists; choose another name")
    output, block = lay_out(labels, "labels", storable_name(name), attributes)
    level, partial, stack = levels_of(output)[0], root.with_name(root.name + PARTIAL), cached(labels, KEPT_BYTES)
    made = {OURS: {"state": "complete", "provenance": {EDITED: labels.source or labels.name}}}
    boxes = list(boxes_of(labels.shape, block))
    with disk(root):
        if partial.is_dir():
            shutil.rmtree(partial)  # a copy that was stopped
        partial.mkdir(parents=True)
        layout.write_group(partial, VERSION, made, partial)
        layout.list_labels(partial, VERSION, via=partial, add=[output.path])
        layout.write_group(
            partial / output.path, VERSION, group_attributes(output, [level], VERSION, (), inside=False), partial
        )
        array = layout.make_array(partial / output.path / "0", output, level, VERSION)
        for number, box in enumerate(boxes, 1):
            array[box] = stack.read(box)
            yield Progress(number, len(boxes), "copy")
        partial.rename(root)
    return root / output.path / "0"
