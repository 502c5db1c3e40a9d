"""Objects of an image in memory, or of a part of one: those that its edge does not cut are as they are in the whole."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from .components import components, measure_parts, scan_block, votes_of
from .config import ObjectConfig
from .grid import ObjectGrid
from .grow import grown
from .merge import final_ids

Ends = Sequence[tuple[bool, bool]]


def objects_of(classes: np.ndarray, config: ObjectConfig) -> np.ndarray:
    """Make objects from the classes of a whole image in memory: the labels that `decode` gives.

    Parameters
    ----------
    classes : (*S) integer array, 2-D or 3-D

    Returns
    -------
    (*S) unsigned array
    """
    return grown(_insides(classes, config), classes, config, classes.ndim)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PartObjects:
    """The objects of a part of an image.

    Parameters
    ----------
    labels : (..., *S) uint32 array
        1 ... N, in each place along other axes than the spatial ones in the order of first voxels.
    cut : (M,) int64 array
        The ids of objects that may be others in the whole image: the edge cuts them, or is so near that they or their
        neighbours may grow from beyond it.
    first : (N + 1,) int64 array
        By id, the flat index in the part of the first voxel before growth; of 0 it means nothing.
    votes : (N + 1, K) int64 array
        By id, as `votes_of` has them; K is 0 where objects have no classes.
    open : (..., *S) bool array
        Where there is no object, but perhaps a hole of one that is filled in the whole image.
    """

    labels: np.ndarray
    cut: np.ndarray
    first: np.ndarray
    votes: np.ndarray
    open: np.ndarray


def objects_of_part(classes: np.ndarray, config: ObjectConfig, spatial: int, goes_on: Ends) -> PartObjects:
    """Make objects of the classes of a part of an image.

    Parameters
    ----------
    classes : (..., *S) integer array
        What is along other axes than the last `spatial` is taken for itself.
    goes_on : sequence of (bool, bool)
        Whether the image goes on before and behind the part, per spatial axis.
    """
    labels, holes = np.zeros(classes.shape, np.uint32), np.zeros(classes.shape, bool)
    cut, first = [np.zeros(0, np.int64)], [np.zeros(1, np.int64)]
    votes, count = [np.zeros((1, len(config.kinds)), np.int64)], 0
    for number, at in enumerate(np.ndindex(classes.shape[: classes.ndim - spatial])):
        found = _objects(classes[at], config, goes_on)
        labels[at], holes[at] = np.where(found.labels > 0, found.labels + count, 0), found.open
        cut.append(found.cut + count)
        first.append(found.first[1:] + number * classes[at].size)
        votes.append(found.votes[1:])
        count += len(found.first) - 1
    return PartObjects(labels, np.concatenate(cut), np.concatenate(first), np.concatenate(votes), holes)


def _objects(classes: np.ndarray, config: ObjectConfig, goes_on: Ends) -> PartObjects:
    parts = _insides(classes, dataclasses.replace(config, min_size=0))
    size = np.bincount(parts.ravel())
    cut = np.zeros(len(size), bool)
    near = max(2 * config.grow, 1)  # an object grows so far, and what it meets there has come as far
    cut[np.concatenate([end.ravel() for end in _ends(parts, goes_on, near)])] = True
    cut[0] = False
    holes = _open(parts, cut, config.fill_holes, goes_on)
    large = size >= config.min_size
    large[0] = False
    ids = np.flatnonzero(cut | large)
    # What of a cut object lies beyond decides whether it is large enough and which wins a tie: they all win, or lose.
    strong = _grown(parts, ids[np.argsort(~cut[ids], kind="stable")], classes, config)
    sure = np.flatnonzero(large)
    weak = _grown(parts, sure[np.argsort(cut[sure], kind="stable")], classes, config)
    cut[np.unique(strong[strong != weak])] = True
    cut[np.unique(weak[strong != weak])] = True
    numbers = np.zeros(len(size), np.int64)
    numbers[ids] = np.arange(1, len(ids) + 1)
    named = numbers[parts]
    _, first = measure_parts(named, len(ids))
    votes = votes_of(named, classes, len(ids), config) if config.kinds else np.zeros((len(ids) + 1, 0), np.int64)
    return PartObjects(numbers[strong], numbers[ids[cut[ids]]], np.append(0, first), votes, holes)


def _ends(data: np.ndarray, goes_on: Ends, depth: int) -> list[np.ndarray]:
    """Return what lies within so many voxels of each end where the image goes on; nothing of none, as an empty one."""
    found = [data[:0]]
    for axis, (before, behind) in enumerate(goes_on, data.ndim - len(goes_on)):
        for there, part in ((before, slice(0, depth)), (behind, slice(-depth, None))):
            if there:
                found.append(data[(slice(None),) * axis + (part,)])
    return found


def _open(parts: np.ndarray, cut: np.ndarray, most: int, goes_on: Ends) -> np.ndarray:
    """Return what may be a hole of one object in the whole image, as an end or an object that is cut lies beside it."""
    if not most:
        return np.zeros(parts.shape, bool)
    rest, count = components(parts == 0, parts.ndim, full=True)
    small = np.bincount(rest.ravel(), minlength=count + 1) <= most
    beside = np.zeros(count + 1, bool)
    beside[np.concatenate([end.ravel() for end in _ends(rest, goes_on, 1)])] = True
    for axis in range(parts.ndim):
        low, high = (np.moveaxis(rest, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        by_low, by_high = (cut[np.moveaxis(parts, axis, 0)[part]] for part in (slice(None, -1), slice(1, None)))
        beside[low[by_high]] = beside[high[by_low]] = True
    beside[0] = False
    return np.asarray((small & beside)[rest])


def _insides(classes: np.ndarray, config: ObjectConfig) -> np.ndarray:
    """Return the numbers of objects before growth, in order of their first voxels."""
    grid = ObjectGrid(classes.shape, classes.shape, "zyx"[-classes.ndim :])
    labels, tables = scan_block(classes, grid.block(0), grid, config)
    size, first = (np.concatenate([[0], tables[name]]) for name in ("size", "first"))
    inside = np.arange(len(size)) <= int(tables["inside"])
    inside[0] = False
    ids, _ = final_ids(size, first, inside, np.arange(len(size)), tables["contacts"], config)
    ids[0] = 0
    return ids[labels]


def _grown(parts: np.ndarray, order: np.ndarray, classes: np.ndarray, config: ObjectConfig) -> np.ndarray:
    """Return parts grown, where those that come first in `order` win."""
    rank = np.zeros(int(parts.max(initial=0)) + 1, np.uint32)
    rank[order] = np.arange(1, len(order) + 1)
    return np.concatenate([[0], order])[grown(rank[parts], classes, config, classes.ndim)]
