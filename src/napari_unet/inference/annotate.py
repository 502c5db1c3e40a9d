"""Where to annotate next: the patches in which the network is the least certain."""

import heapq
import itertools
import math
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..sources import open_stack
from ..stack import Stack

PATCH = {2: 128, 3: 32}
COUNT = 10
MOST_VOXELS = 2**27


def annotate_next(result: Path, count: int = COUNT, patch: int | None = None) -> list[tuple[tuple[float, ...], float]]:
    """Find the patches whose annotation would teach the network the most; reads patch by patch, at a coarse level.

    Parameters
    ----------
    result : Path
        A finished result with uncertainty.
    count : int
        Patches; no two overlap.
    patch : int, optional
        About its edge, in pixels of the finest axis; 128 in 2-D and 32 in 3-D if not given.

    Returns
    -------
    list of (centre, uncertainty)
        The centre in pixels of the result, an axis of the labels; the mean uncertainty, 0 to 1; the highest first, of
        equals the first in the image.

    Raises
    ------
    DataError
        Where the result has no uncertainty.

    References
    ----------
    Settles 2009, Active learning literature survey, section 3.1.
    """
    folder = Path(result) / "uncertainty"
    if not folder.is_dir():
        raise DataError(f"{result} has no uncertainty; predict with --uncertainty first")
    finest = open_stack(folder)
    stack = _coarse(folder, finest)
    found: list[tuple[float, tuple[int, ...]]] = []
    cuts = [_cuts(n, e) for n, e in zip(stack.shape, _patch(finest, stack, patch), strict=True)]
    for box in itertools.product(*cuts):
        mean = float(stack.read(box).mean(dtype=np.float64)) / 255
        heapq.heappush(found, (mean, tuple(-(b.start + b.stop) for b in box)))
        if len(found) > count:
            heapq.heappop(found)
    zoom = [a / b for a, b in zip(finest.shape, stack.shape, strict=True)]
    return [
        (tuple(-negative / 2 * z - 0.5 for negative, z in zip(middle, zoom, strict=True)), mean)
        for mean, middle in sorted(found, reverse=True)
    ]


def _cuts(size: int, edge: int) -> list[slice]:
    """Cut an axis into parts of one size, as near to `edge` as they can be."""
    count = max(1, round(size / edge))
    ends = [i * size // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def _coarse(folder: Path, finest: Stack) -> Stack:
    """Open the finest level that is not too large to be read."""
    levels = sum(path.name.isdigit() for path in folder.iterdir())
    stack = finest
    for level in range(1, levels):
        if math.prod(stack.shape) <= MOST_VOXELS:
            break
        stack = open_stack(folder, level=level)
    return stack


def _patch(finest: Stack, stack: Stack, patch: int | None) -> tuple[int, ...]:
    """Return the patch in elements of a level: as wide along each axis as along the finest."""
    spatial = [a for a in stack.axes if a in "zyx" and stack.size(a) > 1]
    edge = patch or PATCH[3 if len(spatial) == 3 else 2]
    width = edge * min(finest.along("".join(spatial)))
    return tuple(
        max(1, min(round(width / scale), n)) if a in spatial else 1
        for a, n, scale in zip(stack.axes, stack.shape, stack.scale, strict=True)
    )
