"""Ids carried on from one time point to the next, where objects lie on each other."""

import numpy as np


def overlaps(ids: np.ndarray) -> np.ndarray:
    """Count the voxels that objects of neighbouring places along the first axis share.

    Parameters
    ----------
    ids : (T, *S) unsigned array, 0 is not an object

    Returns
    -------
    (pairs, 3) int64 array
        Earlier id, later id, voxels.
    """
    before, after = ids[:-1].ravel(), ids[1:].ravel()
    both = (before > 0) & (after > 0)
    pairs, counts = np.unique(np.stack([before[both], after[both]], 1).astype(np.int64), axis=0, return_counts=True)
    return np.column_stack([pairs, counts])


def tracks(shared: np.ndarray, size: np.ndarray, least: float) -> np.ndarray:
    """Give objects that are each other's best partner one id.

    Parameters
    ----------
    shared : (pairs, 3) int64 array
        As `overlaps` returns them; a pair may come more than once.
    size : (N + 1,) int64 array
        Voxels of each object; ids are 1 ... N.
    least : float
        IoU from which on an id is carried on.

    Returns
    -------
    (N + 1,) int64 array
        The new id of each object: 1 ... M in the order of their first objects; 0 stays 0.
    """
    pairs, at = np.unique(shared[:, :2], axis=0, return_inverse=True)
    counts = np.bincount(at.ravel(), shared[:, 2], len(pairs))
    before, after = pairs.T
    iou = counts / (size[before] + size[after] - counts)
    likely = np.flatnonzero(iou >= least)
    before, after, iou = before[likely], after[likely], iou[likely]
    kept = np.intersect1d(_best(before, iou, after), _best(after, iou, before))
    root = connected(np.column_stack([before[kept], after[kept]]), len(size))
    _, first, of = np.unique(root, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[of.ravel()]


def connected(edges: np.ndarray, count: int) -> np.ndarray:
    """Return the number, from 0, of the connected component of each of `count` nodes; (edges, 2) say who is joined."""
    if not len(edges):
        return np.arange(count)
    from scipy.sparse import coo_array  # not at the top: a run of one block joins nothing
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])


def _best(side: np.ndarray, iou: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return where each of `side` has its highest IoU; of equals, with the smallest of `other`."""
    order = np.lexsort((other, -iou, side))
    return order[np.unique(side[order], return_index=True)[1]]
