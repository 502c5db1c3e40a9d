"""The border between objects that touch, as wide as each of them leaves room for."""

from typing import Any, cast

import cc3d
import numpy as np

REACH = {2: 2, 3: 1}  # widest border of an object towards others, in pixels, by the dimensions
WIDE = 12  # pixels across from which an object has a border of 2: a third of it; of one of 8 it would be nearly half
NARROW = 6  # voxels across up to which an object has a border of faces alone
SPECK = 0.05  # of an object's largest piece: a smaller one is no piece of its own
ONE_SIDE, FACES, ONE, TWO = range(4)  # how wide a border is; see `borders`


def touching(ids: np.ndarray, reach: int | None = None) -> np.ndarray:
    """Return where an object has another one within `reach`, diagonals counted.

    Parameters
    ----------
    ids : (*S) integer array, 0 is no object
    reach : int, optional
        In pixels; 2, in 3-D 1, if not given.

    Returns
    -------
    (*S) bool array
    """
    from scipy import ndimage  # not at the top: only who trains needs it

    size = 2 * (reach or REACH[ids.ndim]) + 1
    highest = ndimage.maximum_filter(ids, size)
    lowest = ndimage.minimum_filter(np.where(ids > 0, ids, ids.max(initial=0) + 1), size)
    return np.asarray((ids > 0) & (highest != lowest))


def borders(ids: np.ndarray) -> np.ndarray:
    """Return the voxels that keep objects apart, so that what is left of each is its inside, in one piece.

    Each object has the widest border that leaves its inside in as many pieces as the object itself has; two that touch
    have that of the narrower one on both sides, so that growth meets where they do::

        TWO       others within 2 pixels, for objects of `WIDE` pixels and more; in 2-D alone
        ONE       others within 1 pixel
        FACES     others that share a face
        ONE_SIDE  the same, but only the wider object, or the one of the smaller id, has the border

    Parameters
    ----------
    ids : (*S) integer array of 1 ... n, 0 is no object

    Returns
    -------
    (*S) bool array
    """
    count = int(ids.max(initial=0))
    if not (found := touching(ids)).any():
        return found
    whole, across = count_pieces(ids, count), _widths(ids, count)
    level = np.where(across >= WIDE, TWO, ONE) if ids.ndim == 2 else np.full(count + 1, ONE)
    level[across < NARROW] = FACES
    for _ in range(TWO + 1):  # a narrower border of one object also narrows those of its neighbours, never widens them
        found = _border_at(ids, level)
        broken = (count_pieces(np.where(found, 0, ids), count) != whole) & (level > ONE_SIDE)
        if not broken.any():
            break
        level = level - broken
    return found | _crumbs(np.where(found, 0, ids), count)


def _border_at(ids: np.ndarray, level: np.ndarray) -> np.ndarray:
    at = level[ids]
    found = touching(np.where(at >= ONE, ids, 0), 1)
    if ids.ndim == 2 and (level == TWO).any():
        found |= touching(np.where(at >= TWO, ids, 0), 2)
    for axis in range(ids.ndim):
        low, high = np.moveaxis(ids, axis, 0)[:-1], np.moveaxis(ids, axis, 0)[1:]
        left, right = np.moveaxis(at, axis, 0)[:-1], np.moveaxis(at, axis, 0)[1:]
        meet = (low != high) & (low > 0) & (high > 0)
        both = (left > ONE_SIDE) & (right > ONE_SIDE)
        first = np.where(left == right, low < high, left > right)
        border = np.moveaxis(found, axis, 0)
        border[:-1] |= meet & (both | first)
        border[1:] |= meet & (both | ~first)
    return found


def _widths(ids: np.ndarray, count: int) -> np.ndarray:
    """Return the widest place of each of the ids 0 ... n: twice the farthest that a voxel lies from its outside."""
    from scipy import ndimage

    edge = np.zeros(ids.shape, bool)
    for axis in range(ids.ndim):
        part, line = np.moveaxis(ids, axis, 0), np.moveaxis(edge, axis, 0)
        differ = part[1:] != part[:-1]
        line[1:] |= differ
        line[:-1] |= differ
    widest = np.zeros(count + 1)
    np.maximum.at(widest, ids.ravel(), 2 * (ndimage.distance_transform_edt(~edge).ravel() + 1))
    return widest


def _parts(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pieces of ids that faces connect, numbered, and the id of each; 0 is none."""
    connectivity = cast("Any", {2: 4, 3: 6}[ids.ndim])
    parts = cc3d.connected_components(ids.astype(np.uint32), connectivity=connectivity)
    owner = np.zeros(int(parts.max(initial=0)) + 1, np.int64)
    owner[parts.ravel()] = ids.ravel()
    return parts, owner


def count_pieces(ids: np.ndarray, count: int) -> np.ndarray:
    """Return in how many pieces each of the ids 0 ... n is."""
    return np.bincount(_parts(ids)[1][1:], minlength=count + 1)


def _crumbs(inside: np.ndarray, count: int) -> np.ndarray:
    """Return pieces of insides that are too small to be objects: growth gives them back to the one they are near."""
    parts, owner = _parts(inside)
    size = np.bincount(parts.ravel(), minlength=len(owner))
    largest = np.zeros(count + 1, np.int64)
    np.maximum.at(largest, owner[1:], size[1:])
    small = size < SPECK * largest[owner]
    small[0] = False
    return np.asarray(small[parts])
