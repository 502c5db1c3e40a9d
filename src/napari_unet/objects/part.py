"""Objects of an image in memory, or of a part of one: those that its edge does not cut are as they are in the whole."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from .components import scan_block
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


def objects_of_part(
    classes: np.ndarray, config: ObjectConfig, spatial: int, goes_on: Ends
) -> tuple[np.ndarray, np.ndarray]:
    """Make objects of the classes of a part of an image.

    Parameters
    ----------
    classes : (..., *S) integer array
        What is along other axes than the last `spatial` is taken for itself.
    goes_on : sequence of (bool, bool)
        Whether the image goes on before and behind the part, per spatial axis.

    Returns
    -------
    labels : (..., *S) uint32 array
    cut : (N,) array
        The ids of objects that may be others in the whole image: the edge cuts them, or is so near that they or their
        neighbours may grow from beyond it.
    """
    labels, cut, count = np.zeros(classes.shape, np.uint32), [np.zeros(0, np.int64)], 0
    for at in np.ndindex(classes.shape[: classes.ndim - spatial]):
        found, ids = _objects(classes[at], config, goes_on)
        labels[at] = np.where(found > 0, found + count, 0)
        cut.append(ids + count)
        count += int(found.max(initial=0))
    return labels, np.concatenate(cut)


def _objects(classes: np.ndarray, config: ObjectConfig, goes_on: Ends) -> tuple[np.ndarray, np.ndarray]:
    parts = _insides(classes, dataclasses.replace(config, min_size=0))
    size = np.bincount(parts.ravel())
    cut = np.zeros(len(size), bool)
    near = max(2 * config.grow, 1)  # an object grows so far, and what it meets there has come as far
    for axis, (before, behind) in enumerate(goes_on):
        for there, part in ((before, slice(0, near)), (behind, slice(-near, None))):
            if there:
                cut[np.unique(parts[(slice(None),) * axis + (part,)])] = True
    cut[0] = False
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
    return numbers[strong], numbers[ids[cut[ids]]]


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
