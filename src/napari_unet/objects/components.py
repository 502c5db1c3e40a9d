"""Within one block: connected components, and what merging needs to know of them."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import cc3d
import numpy as np

from ..arrays.views import Box
from .config import CORE, INSIDE, PARTS, ObjectConfig
from .grid import ObjectGrid

MARKED = 64  # marks for each value: as much time as sorting
SUMMED = 2**18  # elements whose intensities are added up at once: 2 MiB of rows, and few calls for a small image


def components(mask: np.ndarray, spatial: int, full: bool = False) -> tuple[np.ndarray, int]:
    """Find and number the connected components of a mask, each time point by itself.

    Parameters
    ----------
    mask : (T, ...) or (...) bool array
    spatial : int
        How many of the last axes are spatial, 2 or 3.
    full : bool
        Whether diagonals connect; otherwise faces only.

    Returns
    -------
    uint32 array, shape of `mask`, 1 ... n in the components; and n
    """
    connectivity = cast("Any", {2: (4, 8), 3: (6, 26)}[spatial][full])
    alone = mask.ndim == spatial
    out, count = np.zeros((0,) if alone else mask.shape, np.uint32), 0
    for at in np.ndindex(mask.shape[:-spatial]):
        # With diagonals cc3d 4.1 goes wrong on some masks of odd size, for which it reserves too few labels
        room = np.pad(mask[at], [(0, full * (n % 2)) for n in mask.shape[-spatial:]])
        part, new = cc3d.connected_components(
            room, connectivity=connectivity, binary_image=True, return_N=True, out_dtype=np.uint32
        )
        part = part[tuple(slice(n) for n in mask.shape[-spatial:])]
        if alone:
            return part, new
        out[at] = np.where(part > 0, part + np.uint32(count), 0) if count else part
        count += new
    return out, count


def runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label, first flat index and length of each run of one label above 0 along the last axis."""
    there, differ = labels > 0, labels[..., 1:] != labels[..., :-1]
    begins, ends = there.copy(), there
    begins[..., 1:] &= differ
    ends[..., :-1] &= differ
    at = np.flatnonzero(begins)
    return labels.ravel()[at], at, np.flatnonzero(ends) - at + 1


def unique_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distinct pairs of two arrays of local labels, as (pairs, 2) int64, without those of two zeros."""
    keys = (a.ravel().astype(np.uint64) << np.uint64(32)) | b.ravel()
    keys = keys[np.flatnonzero(np.diff(keys, prepend=np.uint64(0)))]
    keys = np.unique(keys[keys > 0])
    return np.stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)], axis=1).astype(np.int64)


def scan_block(
    classes: np.ndarray, box: Box, grid: ObjectGrid, config: ObjectConfig
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Find the components of a block.

    Parameters
    ----------
    classes : integer array, the block at `box` of `grid`

    Returns
    -------
    labels : uint32 array
        1 ... inside: parts of objects; then parts of possible holes; 0: the rest, which fills no hole.
    tables : dict of arrays
        ``inside`` (number of parts of objects), ``size`` and ``first`` (flat index in the volume) of each
        part, ``contacts`` (pairs of an object and a possible hole that share a face), ``low0`` ... ``high2``
        (the outermost planes of `labels` along each spatial axis); with classes of objects ``votes`` as `votes_of`.
    """
    inside = _is_part(classes, config)
    labels, count = components(inside, len(grid.spatial))
    total = count
    contacts = np.zeros((0, 2), np.int64)
    if config.fill_holes:
        holes, found = _possible_holes(~inside, box, grid, config.fill_holes)
        if found:
            labels = np.where(holes > 0, holes + np.uint32(count), labels)
            total += found
            contacts = _contacts(labels, grid)
    size, first = measure_parts(labels, total)
    corner = np.array([part.start for part in box])
    where = np.array(np.unravel_index(first, labels.shape)) + corner[:, None]
    tables = {
        "inside": np.array(count),
        "size": size,
        "first": np.ravel_multi_index(tuple(where), grid.shape),
        "contacts": contacts,
    }
    if config.kinds:
        tables["votes"] = votes_of(labels, classes, total, config)[1:]
    for number, axis in enumerate(grid.spatial):
        tables[f"low{number}"] = labels.take([0], axis)
        tables[f"high{number}"] = labels.take([-1], axis)
    return labels, tables


def _is_part(classes: np.ndarray, config: ObjectConfig) -> np.ndarray:
    """Return where objects are seen for sure: inside of them, or in their cores."""
    return np.asarray(config.parts(classes) == (CORE if config.cores else INSIDE))


def votes_of(labels: np.ndarray, classes: np.ndarray, count: int, config: ObjectConfig) -> np.ndarray:
    """Count for each object, or part of one, the voxels inside of it that the network took for each class of objects.

    Whole numbers of voxels that are each decided for themselves: sums over blocks do not depend on how these are cut.

    Parameters
    ----------
    labels : unsigned array of 0 ... count
    classes : integer array, shape of `labels`

    Returns
    -------
    (count + 1, kinds) int64 array; row 0 means nothing

    References
    ----------
    Graham et al.: HoVer-Net, Medical Image Analysis 58, 2019, section 3.2, for the majority of an object's pixels.
    """
    inside = _is_part(classes, config) & (labels > 0)
    kinds = len(config.kinds)
    keys = labels[inside].astype(np.int64) * kinds + classes[inside] // PARTS
    return np.bincount(keys, minlength=(count + 1) * kinds).reshape(count + 1, kinds)


def measure_parts(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the size and the first flat index of the labels 1 ... count."""
    value, at, length = runs(labels)
    first = np.empty(count + 1, np.int64)
    first[value[::-1]] = at[::-1]
    return np.bincount(value, length, count + 1).astype(np.int64)[1:], first[1:]


def _possible_holes(mask: np.ndarray, box: Box, grid: ObjectGrid, most: int) -> tuple[np.ndarray, int]:
    """Find the components of `mask` that are small enough and do not touch the border of the volume, and their number.

    Without any the labels mean nothing.
    """
    labels, count = components(mask, len(grid.spatial), full=True)
    # mostly there is one, all around the objects
    size = np.bincount(labels.ravel(), minlength=count + 1) if count > 1 else np.array([0, np.count_nonzero(mask)])
    possible = size[: count + 1] <= most
    possible[0] = False
    for plane in border_planes(labels, box, grid):
        possible[plane.ravel()] = False
    if not possible.any():
        return labels, 0
    numbers = np.where(possible, np.cumsum(possible), 0).astype(np.uint32)
    return numbers[labels], int(possible.sum())


def border_planes(labels: np.ndarray, box: Box, grid: ObjectGrid) -> Iterator[np.ndarray]:
    """Yield the planes of a block that lie on the border of the volume; an axis of size 1 has no border."""
    for axis in grid.spatial:
        if grid.shape[axis] > 1:
            if box[axis].start == 0:
                yield labels.take(0, axis)
            if box[axis].stop == grid.shape[axis]:
                yield labels.take(-1, axis)


def _contacts(labels: np.ndarray, grid: ObjectGrid) -> np.ndarray:
    """Return the pairs (object, possible hole) that share a face: only such parts can differ there."""
    found = [np.zeros((0, 2), np.int64)]
    for axis in grid.spatial:
        moved = np.moveaxis(labels, axis, 0)
        here, there = moved[:-1], moved[1:]
        meet = (here != there) & (here > 0) & (there > 0)
        here, there = here[meet], there[meet]
        found.append(unique_pairs(np.minimum(here, there), np.maximum(here, there)))
    return np.unique(np.concatenate(found), axis=0)


def measure_objects(
    ids: np.ndarray, box: Box, grid: ObjectGrid, image: np.ndarray | None = None
) -> Mapping[str, np.ndarray]:
    """Return columns of the objects of a block: id, voxels, ends, sums of coordinates and intensities, border.

    Parameters
    ----------
    ids : unsigned array, the block at `box` of `grid`
    image : (C, *S) array, optional
        Its intensities.

    Returns
    -------
    dict of arrays, one row per object: ``id``, ``count`` (n,), ``low``, ``high``, ``sum`` (n, axes) in voxels
    of the volume, `high` exclusive, ``border`` (n,) bool
    """
    value, at, length = runs(ids)
    objects, row = _distinct(value)
    start = [axis + part.start for axis, part in zip(np.unravel_index(at, ids.shape), box, strict=True)]
    low = np.full((len(objects), len(box)), np.iinfo(np.int64).max)
    high, total = np.zeros_like(low), np.zeros_like(low)
    for axis, first in enumerate(start):
        more = length - 1 if axis == len(box) - 1 else 0
        if axis:
            np.minimum.at(low[:, axis], row, first)
            np.maximum.at(high[:, axis], row, first + more + 1)
        else:  # runs are in order of it: the first has the least, the last the greatest
            low[row[::-1], 0], high[row, 0] = first[::-1], first + more + 1
        # in doubles, exact: a block's sums of whole numbers are far below 2^53
        total[:, axis] = np.bincount(row, length * first + length * more // 2, len(objects))
    border = np.zeros(len(objects), bool)
    for plane in border_planes(ids, box, grid):
        border |= np.isin(objects, plane)
    count = np.bincount(row, length, len(objects)).astype(np.int64)
    intensity_sum = np.zeros((len(objects), 0)) if image is None else _sums(objects, ids, image)
    found = {"id": objects, "count": count, "low": low, "high": high, "sum": total, "border": border}
    return found | {"light": intensity_sum}  # the key of runs that are unfinished


def _distinct(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `np.unique` does with the inverse; ids of a block that are close together are marked, not sorted."""
    low, high = (int(value.min()), int(value.max())) if len(value) else (0, 0)
    if high - low > MARKED * len(value):
        distinct, row = np.unique(value, return_inverse=True)
        return distinct, row
    there = np.zeros(high - low + 1, bool)
    at = (value - value.dtype.type(low)).astype(np.intp)
    there[at] = True
    found = np.flatnonzero(there)
    return found.astype(value.dtype) + value.dtype.type(low), (np.cumsum(there) - 1)[at]


def _sums(objects: np.ndarray, ids: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the sums of (C, *S) intensities over each object, (n, C); some planes at a time, to hold little."""
    sums = np.zeros((len(objects), len(image)))
    step = max(1, SUMMED // max(1, ids[:1].size))
    for first in range(0, len(ids), step):
        part = ids[first : first + step]
        inside = part > 0
        rows = np.searchsorted(objects, part[inside])
        for channel in range(len(image)):
            sums[:, channel] += np.bincount(rows, image[channel, first : first + step][inside], len(objects))
    return sums
