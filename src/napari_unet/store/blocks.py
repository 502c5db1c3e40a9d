"""Writing blocks into the arrays of a result, from any process."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..arrays.views import Box
from ..errors import UsageError
from ..faults import persist
from ..files import disk
from .chunks import read_box, write_box
from .journal import Region
from .lock import Permit
from .ome import Output
from .verification import crc32

Regions = Mapping[str, tuple[Box, np.ndarray]]


@dataclasses.dataclass(frozen=True, slots=True)
class BlockWriter:
    """Writes blocks; who records them is another's business.

    Parameters
    ----------
    root : Path
        The result.
    arrays : mapping of path to zarr.Array
        Level 0 of each output.
    permit : Permit, optional
        In another process: whether the run goes on, checked before each block.
    """

    root: Path
    outputs: Mapping[str, Output]
    arrays: "Mapping[str, zarr.Array[Any]]"
    permit: Permit | None = None

    def check(self, regions: Regions) -> None:
        """Refuse regions that do not fit their arrays and chunks.

        Raises
        ------
        UsageError
        """
        for path, (box, data) in regions.items():
            self._check(path, box, data)

    def write(self, regions: Regions) -> list[Region]:
        """Write the regions of a block; return what is to be recorded of it."""
        return [region for region, _ in self.put(regions)]

    def put(self, regions: Regions) -> list[tuple[Region, int]]:
        """Write the regions of a block; return what is to be recorded of each, and the mark that `write_box` gave.

        Raises
        ------
        UsageError
            Where a region does not fit; nothing is written then.
        ResourceError
            Where the disk is full.
        OutputError
            Where the run does not go on any more.
        """
        self.check(regions)
        if self.permit is not None:
            self.permit.check()
        with disk(self.root):
            return [
                replaced(self.root / path / "0", f"{path}/0".lstrip("/"), self.arrays[path], box, data)
                for path, (box, data) in regions.items()
            ]

    def _check(self, path: str, box: Box, data: np.ndarray) -> None:
        output = self.outputs.get(path)
        if output is None:
            raise UsageError(f"there is no output {path!r}; the outputs are {', '.join(map(repr, self.outputs))}")
        if len(box) != len(output.shape) or data.dtype != output.dtype:
            raise UsageError(
                f"{output.name} is {output.shape} {output.dtype}, got a box {box} of {data.dtype}; "
                "give data of its axes and type"
            )
        if data.shape != tuple(b.stop - b.start for b in box):
            raise UsageError(
                f"{output.name}: data of shape {data.shape} does not fill the box {box}; give both one shape"
            )
        for axis, cut, n, unit in zip(output.axes, box, output.shape, output.unit, strict=True):
            if not 0 <= cut.start < cut.stop <= n or cut.step not in (None, 1):
                raise UsageError(
                    f"{output.name}: {cut} is outside axis {axis}, which has {n} elements; write within it"
                )
            if cut.start % unit or (cut.stop % unit and cut.stop != n):
                raise UsageError(
                    f"{output.name}: {cut} cuts a file of {unit} elements along {axis}; "
                    "blocks must be multiples of chunks and shards"
                )


def read_back(array: Any, box: Box) -> np.ndarray:
    """Read a box of what was written, more than once where the disk fails for a moment."""
    return persist(lambda: read_box(array, box))


def replaced(folder: Path, name: str, array: "zarr.Array[Any]", box: Box, data: np.ndarray) -> tuple[Region, int]:
    """Replace the files under a box, so that nothing damaged is read on the way: what is to be recorded, and a mark."""
    mark = write_box(folder, array, box, data)
    return Region(name, tuple(b.start for b in box), tuple(b.stop for b in box), crc32(data)), mark
