"""Growth of objects over what lies around their insides, in counted steps: a halo of so many is enough."""

import itertools

import numpy as np

from .config import BORDER, INSIDE, ObjectConfig

FACE = 3  # length of a step over a face; of one over an edge 4, over a corner 5 (Borgefors 1986)
IDS = np.uint64(48)  # bits of an id in a key whose other bits are the distance: 2^48 objects, 2^16 thirds of a voxel
FAR = np.uint64(2**63)  # key of a place that nothing has reached: above any distance in 16 bits with its id


def grown(ids: np.ndarray, classes: np.ndarray, config: ObjectConfig, spatial: int) -> np.ndarray:
    """Let objects grow as `config` says.

    Parameters
    ----------
    ids : unsigned array, 0 is no object
    classes : integer array, shape of `ids`
    spatial : int
        How many of the last axes are spatial; nothing grows along the others.
    """
    free = free_of(classes, config)
    way = grow_to_nearest if config.nearest else grow
    return way(ids, free, config.grow, spatial)


def free_of(classes: np.ndarray, config: ObjectConfig) -> np.ndarray:
    """Return where objects may grow."""
    classes = config.parts(classes)
    free = classes == BORDER
    return free | (classes == INSIDE) if config.cores else free


def grow(ids: np.ndarray, free: np.ndarray, rounds: int, spatial: int) -> np.ndarray:
    """Let objects grow over `free`, all at once each round; the smallest id wins a contest.

    Parameters
    ----------
    ids : unsigned array, 0 is no object
    free : bool array, shape of `ids`
        Where objects may grow.
    rounds : int
        Steps, each to the neighbours that share a face.
    spatial : int
        How many of the last axes are spatial; nothing grows along the others.
    """
    padded, todo, cut = _framed(ids, free, spatial)
    steps = [stride // padded.itemsize for stride in padded.strides[ids.ndim - spatial :]]
    flat, one = padded.ravel(), ids.dtype.type(1)
    for _ in range(rounds):
        best = np.full(len(todo), np.iinfo(ids.dtype).max, ids.dtype)
        for step in steps:
            np.minimum(best, flat[todo - step] - one, out=best)
            np.minimum(best, flat[todo + step] - one, out=best)
        best += one
        flat[todo] = best
        todo = todo[best == 0]
    return padded[cut]


def grow_to_nearest(ids: np.ndarray, free: np.ndarray, reach: int, spatial: int) -> np.ndarray:
    """Give each free voxel to the nearest object within `reach`, the smallest id of those as near.

    Distances are those of paths through free voxels: 1 over a face, 4/3 over an edge, 5/3 over a corner, within 9 % of
    Euclid's in a plane. A path has at most `reach` steps, so a halo of `reach` voxels decides as the whole image does.

    Parameters
    ----------
    ids : unsigned array, 0 is no object
    free : bool array, shape of `ids`
    reach : int
        In voxels.
    spatial : int
        How many of the last axes are spatial; nothing grows along the others.

    References
    ----------
    Borgefors, Distance transformations in digital images, CVGIP 34, 1986.
    """
    padded, todo, cut = _framed(ids, free, spatial)
    if not len(todo) or not reach:
        return padded[cut]
    strides = [stride // padded.itemsize for stride in padded.strides[ids.ndim - spatial :]]
    steps = [
        (sum(a * b for a, b in zip(way, strides, strict=True)), np.uint64(FACE - 1 + sum(map(abs, way))) << IDS)
        for way in itertools.product((-1, 0, 1), repeat=spatial)
        if any(way)
    ]
    found = padded.ravel()
    key = np.where(found > 0, found.astype(np.uint64), FAR)
    grown_to = [todo]
    for step in range(1, reach + 1):
        best = key[todo]
        for offset, length in steps:
            np.minimum(best, key[todo + offset] + length, out=best)
        key[todo] = best
        todo = todo[best >> IDS >= FACE * (step + 1)]  # what is nearer has its last value: no longer path is shorter
    at = grown_to[0]
    near = (key[at] >> IDS) <= FACE * reach
    found[at] = np.where(near, key[at] & ((np.uint64(1) << IDS) - np.uint64(1)), 0)
    return padded[cut]


def _framed(ids: np.ndarray, free: np.ndarray, spatial: int) -> tuple[np.ndarray, np.ndarray, tuple[slice, ...]]:
    """Return ids in a frame of 0, the flat indices of free voxels of no object, and what lies within the frame."""
    first = ids.ndim - spatial
    frame = [(int(axis >= first),) * 2 for axis in range(ids.ndim)]
    padded = np.pad(ids, frame)
    todo = np.flatnonzero(np.pad(free, frame) & (padded == 0))
    return padded, todo, tuple(slice(1, -1) if axis >= first else slice(None) for axis in range(ids.ndim))
