"""Across blocks: which parts are one object, and the final id of every part."""

import itertools
from collections.abc import Generator, Iterator, Sequence

import numpy as np

from ..arrays.views import Box, overlap, within
from ..errors import ResourceError
from .components import unique_pairs
from .config import ObjectConfig
from .grid import ObjectGrid
from .link import connected, overlaps, tracks
from .scratch import Scratch

MOST_PARTS = 2**31 - 2  # scipy numbers the nodes of a graph with 32 bits


def label_dtype(count: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest of uint32 and uint64 that holds the ids 1 ... `count`."""
    return np.dtype(np.uint32 if count < 2**32 else np.uint64)


def name_parts(scratch: Scratch, grid: ObjectGrid, config: ObjectConfig) -> Generator[int, None, None]:
    """Give every part its final id, and keep the result as the tables ``ids``.

    Parts of all blocks are numbered through: part `n` (from 1) of block `b` is ``offset[b] + n``; 0 is all
    that fills no hole. ``ids`` holds ``offset`` (blocks + 1), ``id`` (by part; 0 is none) and ``count``; and ``track``,
    by id: the one that is written, which is another where ids are carried on from time to time; and ``votes``, by the
    one that is written: what all parts of it have, where objects have classes.

    Parameters
    ----------
    scratch : Scratch
        With the tables of every block.

    Yields
    ------
    int
        Blocks finished.

    Raises
    ------
    ResourceError
        Where there are more than 2^31 - 2 parts.
    """
    offset = np.zeros(len(grid) + 1, np.int64)
    columns: list[list[np.ndarray]] = [[np.zeros(1, np.int64)], [np.zeros(1, np.int64)], [np.zeros(1, bool)]]
    contacts = [np.zeros((0, 2), np.int64)]
    edges = [np.zeros((0, 2), np.int64)]
    for block in range(len(grid)):
        inside, size, first, touching = scratch.load(f"scan-{block}", "inside", "size", "first", "contacts")
        offset[block + 1] = offset[block] + len(size)
        for column, new in zip(columns, (size, first, np.arange(len(size)) < inside), strict=True):
            column.append(new)
        contacts.append(touching + offset[block])
    if offset[-1] > MOST_PARTS:
        raise ResourceError(f"{offset[-1]} parts of objects, at most {MOST_PARTS} can be merged; cut the volume")
    holes = [not column.all() for column in columns[2][1:]]
    size, first, is_inside = map(np.concatenate, columns)
    for block in range(len(grid)):
        for pairs, faces in _meetings(scratch, grid, block, offset, holes):
            left, right = is_inside[pairs].T
            alike = left == right
            if faces:
                mixed = ~alike & (pairs > 0).all(axis=1)
                contacts.append(np.where(left[:, None], pairs, pairs[:, ::-1])[mixed])
            edges.append(pairs[alike if faces else ~left & ~right])
        yield block + 1
    ids, count = final_ids(
        size, first, is_inside, connected(np.concatenate(edges), len(size)), np.concatenate(contacts), config
    )
    sizes = np.bincount(ids, size, count + 1).astype(np.int64)
    track = yield from _linked(scratch, grid, config, (offset, ids), sizes)
    found = {"offset": offset, "id": ids, "count": track.max(), "track": track}
    if config.kinds:
        found["votes"] = _votes(scratch, len(grid), len(config.kinds), (offset, track[ids]))
    scratch.save("ids", found)


def _votes(scratch: Scratch, blocks: int, kinds: int, parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Add up what the parts of each id that is written have: (ids, kinds)."""
    offset, ids = parts
    votes = np.zeros((int(ids.max(initial=0)) + 1, kinds), np.int64)
    for block in range(blocks):
        (found,) = scratch.load(f"scan-{block}", "votes")
        np.add.at(votes, ids[offset[block] + 1 : offset[block + 1] + 1], found)
    return votes


def named(scratch: Scratch, grid: ObjectGrid, box: Box, offset: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the ids of a region, before growth.

    Parameters
    ----------
    offset, ids : int64 array, unsigned array
        Of the tables ``ids``.
    """
    parts, places = scratch.read(box), list(grid.under(box))
    labels = np.empty(parts.shape, ids.dtype)
    for place in places:
        number = np.ravel_multi_index(place, grid.counts)
        part = overlap(grid.box(place), box)
        at = within(part, box)
        own = ids[offset[number] : offset[number + 1] + 1].copy()
        own[0] = 0
        if len(places) == 1:
            return own.take(parts)
        labels[at] = own.take(parts[at])
    return labels


def _linked(
    scratch: Scratch, grid: ObjectGrid, config: ObjectConfig, parts: tuple[np.ndarray, np.ndarray], sizes: np.ndarray
) -> Generator[int, None, np.ndarray]:
    """Return the id that each object is written with."""
    axis = grid.link_axis
    if not config.link or axis is None:
        return np.arange(len(sizes))
    shared = [np.zeros((0, 3), np.int64)]
    for block in range(len(grid)):
        box = list(grid.block(block))
        box[axis] = slice(max(box[axis].start - 1, 0), box[axis].stop)
        shared.append(overlaps(np.moveaxis(named(scratch, grid, tuple(box), *parts), axis, 0)))
        yield len(grid)
    return tracks(np.concatenate(shared), sizes, config.link)


def _meetings(
    scratch: Scratch, grid: ObjectGrid, block: int, offset: np.ndarray, holes: Sequence[bool]
) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield pairs of parts that meet where `block` ends and a later one begins, and whether they share a face.

    Over edges and corners holes alone are connected: they are left out where neither block has a possible one.
    """
    axes = range(len(grid.spatial))
    place = grid.place(block)
    for way in itertools.product((-1, 0, 1), repeat=len(grid.spatial)):
        if way <= (0,) * len(way):
            continue
        to = list(place)
        for axis in axes:
            to[grid.spatial[axis]] += way[axis]
        other, steps = grid.number(tuple(to)), sum(map(abs, way))
        if other is None:
            continue
        diagonal = holes[block] or holes[other]
        if steps > 1 and not diagonal:
            continue
        here = _side(scratch, grid, block, way)
        there = _side(scratch, grid, other, tuple(-step for step in way))
        shifts = [(-1, 0, 1) if diagonal and way[axis] == 0 else (0,) for axis in axes]
        for shift in itertools.product(*shifts):
            a, b = (here, there)
            for axis, step in zip(grid.spatial, shift, strict=True):
                a, b = _shifted(a, b, axis, step)
            pairs = unique_pairs(a, b)
            own = np.where(pairs > 0, pairs + offset[[block, other]], 0)
            yield own, steps == 1 and not any(shift)


def _side(scratch: Scratch, grid: ObjectGrid, block: int, way: tuple[int, ...]) -> np.ndarray:
    """Return the face, edge or corner of a block that looks along `way`."""
    first = next(axis for axis, step in enumerate(way) if step)
    (plane,) = scratch.load(f"scan-{block}", f"{'high' if way[first] > 0 else 'low'}{first}")
    for axis, step in zip(grid.spatial, way, strict=True):
        if step:
            plane = plane.take([-1 if step > 0 else 0], axis)
    return plane


def _shifted(a: np.ndarray, b: np.ndarray, axis: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut both so that equal places are `step` apart along `axis`."""
    if step < 0:
        b, a = _shifted(b, a, axis, -step)
    elif step > 0:
        size = a.shape[axis]
        a, b = a.take(range(size - 1), axis), b.take(range(1, size), axis)
    return a, b


def final_ids(
    size: np.ndarray,
    first: np.ndarray,
    is_inside: np.ndarray,
    root: np.ndarray,
    contacts: np.ndarray,
    config: ObjectConfig,
) -> tuple[np.ndarray, int]:
    """Name the parts.

    Parameters
    ----------
    size, first : (N,) int64 arrays
        Voxels and first flat index of each part; part 0 is all that fills no hole.
    is_inside : (N,) bool array
        Whether a part is of an object; the others are possible holes.
    root : (N,) integer array
        What each part belongs to, numbered from 0.
    contacts : (pairs, 2) int64 array
        A part of an object and a possible hole that share a face.

    Returns
    -------
    (N,) unsigned array
        The id of each part; 0 is none.
    int
        Number of objects.
    """
    count = int(root.max()) + 1
    whole = np.bincount(root, size, count).astype(np.int64)
    start = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(start, root, first)
    is_object = np.zeros(count, bool)
    is_object[root[is_inside]] = True
    touching = np.unique(root[contacts], axis=0)
    touching = touching[(touching[:, 1] != root[0]) & (whole[touching[:, 1]] <= config.fill_holes)]
    owners = np.bincount(touching[:, 1], minlength=count)
    filled = touching[owners[touching[:, 1]] == 1]
    np.add.at(whole, filled[:, 0], whole[filled[:, 1]])
    kept = np.flatnonzero(is_object & (whole >= config.min_size))
    ids = np.zeros(count, label_dtype(len(kept)))
    ids[kept[np.argsort(start[kept])]] = np.arange(1, len(kept) + 1)
    ids[filled[:, 1]] = ids[filled[:, 0]]
    return ids[root], len(kept)
