"""Outlines of objects along the edges of their pixels, so that filling them gives just these pixels again."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

Ring = np.ndarray  # (N, 2) integers, x and y of the corners; outer ones clockwise on the screen, holes the other way
RIGHT = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}  # turns, y pointing down


def outlines(mask: np.ndarray, start: Sequence[int] = (0, 0)) -> list[list[Ring]]:
    """Trace a mask: for each part that hangs together by edges its outer ring, then its holes.

    Parameters
    ----------
    mask : (Y, X) bool array
    start : (y, x)
        Where its first pixel lies in the image.
    """
    padded = np.pad(mask, 1)
    parts, count = ndimage.label(padded)
    found: list[list[Ring]] = [[] for _ in range(count)]
    holes: list[tuple[int, Ring]] = []
    for part, ring in _rings(padded, parts):
        placed = ring + np.array((start[1] - 1, start[0] - 1))
        if _area(ring) > 0:
            found[part - 1].insert(0, placed)
        else:
            holes.append((part, placed))
    for part, ring in holes:
        found[part - 1].append(ring)
    return found


def _edges(mask: np.ndarray, parts: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """Return for each corner the edges that leave it, as steps with the pixels on their right, and of which part."""
    found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    sides = (((0, -1), (0, 0), (1, 0)), ((1, 0), (1, 0), (0, 1)), ((0, 1), (1, 1), (-1, 0)), ((-1, 0), (0, 1), (0, -1)))
    for (dx, dy), (cx, cy), step in sides:
        ys, xs = np.nonzero(mask & ~np.roll(mask, (-dy, -dx), (0, 1)))
        for x, y, part in zip(xs.tolist(), ys.tolist(), parts[ys, xs].tolist(), strict=True):
            found.setdefault((x + cx, y + cy), []).append((*step, part))
    return found


def _rings(mask: np.ndarray, parts: np.ndarray) -> Iterator[tuple[int, Ring]]:
    edges = _edges(mask, parts)
    while edges:
        start, leaving = next(iter(edges.items()))
        step = leaving[0]
        at = start
        ring: list[tuple[int, int]] = []
        while True:
            leaving = edges[at]
            # where two pixels touch by a corner, the ring stays at the one that it goes around
            turned = [each for each in leaving if each[:2] == RIGHT[step[:2]]]
            following = step if not ring else (turned or leaving)[0]
            leaving.remove(following)
            if not leaving:
                del edges[at]
            if not ring or following[:2] != step[:2]:
                ring.append(at)
            step = following
            at = (at[0] + step[0], at[1] + step[1])
            if at == start:
                break
        yield from ((step[2], np.array(each)) for each in _simple(ring))


def _simple(ring: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Cut a ring where it comes to a corner again: a hole that touches the outside there is a ring of its own."""
    path: dict[tuple[int, int], None] = {}
    for corner in ring:
        if corner in path:
            cut = [path.popitem()[0]]
            while cut[-1] != corner:
                cut.append(path.popitem()[0])
            yield cut[::-1]
        path[corner] = None
    yield list(path)


def _area(ring: Ring) -> float:
    """Return the area in a ring, negative where it goes around a hole (shoelace formula)."""
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def joined(parts: Sequence[Sequence[Ring]]) -> Ring:
    """Return one ring of several, and of those with holes, joined by lines without a width.

    Filled by the even-odd rule, as ImageJ does, it gives the same pixels.
    """
    rings = [ring for part in parts for ring in part]
    out = [*rings[0], rings[0][0]]
    for ring in rings[1:]:
        out += [*ring, ring[0], rings[0][0]]
    return np.array(out if len(rings) > 1 else rings[0])
