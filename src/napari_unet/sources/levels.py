"""Coarser levels of a pyramid, found from the array that a stack is read from: they tell where it has content.

::

    . . . . . . . .       the finest level, in cells          . . #       a coarser one, which is read whole:
    . . . . . # # .       of which few hold more than         . . .       one look, in place of one for each cell
    . . . . . . . .       one value
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import LazyArray, View
from ..errors import UnetError
from .omezarr import levels_there, ome, pyramid
from .tiff import TiffArray
from .zarrays import Guarded, base_array, open_array
from .zarrmeta import below, read_node

LOOK = 2**24  # elements read of a level: 16 MiB of bytes, some seconds over a network
FEWEST = 4  # elements of a level under a cell; of fewer a small specimen leaves no trace


def cells_with_content(stack: Stack, size: Sequence[int]) -> np.ndarray | None:
    """Say of each cell of a stack whether a coarser level of its pyramid holds more than one value there.

    Parameters
    ----------
    size : sequence of int
        Of a cell, in elements of the stack.

    Returns
    -------
    array of bool, one for each cell; None where there is no level that can be looked at, or all it says is the same
    """
    view, (data, index) = View.of(stack.data), base_array(stack)
    if len(index) != len(data.shape):
        return None
    with contextlib.suppress(UnetError, OSError, ValueError, LookupError):  # it is a help, and not needed
        for level in _coarser(data):
            found = _part(level, data.shape, index, view.order, size)
            if found is not None:
                return found if found.any() and not found.all() else None
    return None


def _part(
    level: LazyArray, shape: Sequence[int], index: Sequence[slice | int], order: Sequence[int], size: Sequence[int]
) -> np.ndarray | None:
    """Look at the part of a level under a view of the finest; None where that is too much, or shows too little."""
    if len(level.shape) != len(shape):
        return None
    factors = [n / m for n, m in zip(shape, level.shape, strict=True)]
    cut = [
        slice(int(part.start // f), min(math.ceil(part.stop / f), m)) if isinstance(part, slice) else int(part // f)
        for part, f, m in zip(index, factors, level.shape, strict=True)
    ]
    under = math.prod(s / factors[axis] for axis, s in zip(order, size, strict=True))
    part = View(level, tuple(cut), tuple(order))
    if math.prod(map(float, part.shape)) > LOOK or under < FEWEST:
        return None
    low = high = np.asarray(part[...])
    for at, (axis, step) in enumerate(zip(order, size, strict=True)):
        here = index[axis]
        start, stop = (here.start, here.stop) if isinstance(here, slice) else (here, here + 1)
        begins = (np.arange(start, stop, step) / factors[axis]).astype(int) - int(start // factors[axis])
        edges = np.minimum(begins, low.shape[at] - 1)
        low, high = np.minimum.reduceat(low, edges, at), np.maximum.reduceat(high, edges, at)
    return np.asarray(low != high)


def _coarser(data: Any) -> Iterator[LazyArray]:
    """Yield the levels of a pyramid that are coarser than an array of it, the finer first."""
    if isinstance(data, TiffArray):
        yield from data.coarser()
    store = getattr(data, "store", None)
    if isinstance(store, Guarded):
        yield from _zarr_levels(store.where)


def _zarr_levels(where: str) -> Iterator[LazyArray]:
    path = where.rstrip("/").split("/")
    for up in (1, 2):  # the level of a group is called "0", or "scale0/image"
        group = read_node("/".join(path[:-up]))
        if group is None or group.is_array or "multiscales" not in ome(group):
            continue
        image = pyramid(group)
        own = [level.path for level in image.levels].index("/".join(path[-up:]))
        for at in levels_there(image):
            node = read_node(below(group.where, image.levels[at].path)) if at > own else None
            if node is not None:
                yield open_array(node)
        return
