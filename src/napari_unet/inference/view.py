"""The result where somebody looks: exact, computed once, the nearest first."""

import math
from collections.abc import Iterator

import numpy as np

from ..allocation import freed_memory_kept, main_memory
from ..tiles import Box, Factor, TileGrid, remoteness
from .engine import Engine
from .lazy import CACHE_BYTES, LazyBlocks, joined

CORE = {2: (192, 192), 3: (8, 96, 96)}
MOST = {2: 2**22, 3: 2**21}


class Preview:
    """The result of a model, block by block where somebody looks; what was computed is kept.

    Parameters
    ----------
    engine : Engine
    limit : int
        Bytes of results that are kept, those not asked for longest going first.
    core : tuple of int, optional
        Block, an axis of ``engine.axes``; small ones, flat in 3-D, where it is not given.
    """

    def __init__(self, engine: Engine, limit: int = CACHE_BYTES, core: tuple[int, ...] | None = None) -> None:
        shape = tuple(engine.stack.size(a) for a in engine.axes)
        core = core or (1,) * engine.batch_axes + CORE[engine.model.config.ndim]
        self.lazy = LazyBlocks(engine, TileGrid(shape, core, engine.footprint), limit)
        self._most = MOST[engine.model.config.ndim]

    def box_of(self, box: Box) -> Box:
        """Return the whole blocks under a box, as one box; where they are too many, those around its centre.

        Parameters
        ----------
        box : box
            In indices along the tiled axes; may reach beyond the image, or lie beside it.
        """
        grid = self.lazy.grid
        spans = []
        for b, c, n in zip(box, grid.core, grid.shape, strict=True):
            low, high = max(0, min(b.start, n - 1)), max(1, min(b.stop, n))
            spans.append([low // c, max(math.ceil(high / c), low // c + 1)])
        centre = _centre(box)
        while math.prod((s[1] - s[0]) * c for s, c in zip(spans, grid.core, strict=True)) > self._most:
            sizes = [(s[1] - s[0] > 1) * (s[1] - s[0]) * c for s, c in zip(spans, grid.core, strict=True)]
            if not any(sizes):
                break
            axis = sizes.index(max(sizes))
            middle = sum(spans[axis]) * grid.core[axis] / 2
            spans[axis][0 if centre[axis] > middle else 1] += 1 if centre[axis] > middle else -1
        corners = [grid.box([s[0] for s in spans]), grid.box([s[1] - 1 for s in spans])]
        return tuple(slice(a.start, b.stop) for a, b in zip(*corners, strict=True))

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Elements of the result for one of the image, an axis."""
        return self.lazy.engine.factors

    def blocks(self, box: Box) -> Iterator[tuple[Box, np.ndarray]]:
        """Yield the blocks under a box with their results: those that are kept at once, then from its centre outward.

        Parameters
        ----------
        box : box
            As `box_of` gives it; of another one, whole blocks are given that may reach beyond it.

        Yields
        ------
        (box, array)
            A block's place in the image, and what the task makes of it, of several channels the first. It is computed
            when it is asked for, so that closing the iterator leaves the rest.
        """
        grid = self.lazy.grid
        centre, missing = _centre(box), []
        for at in grid.under(box):
            found = self.lazy.cached(at)
            if found is None:
                missing.append(at)
            else:
                yield grid.box(at), self._first(found)
        if not missing:
            return
        with freed_memory_kept(), main_memory() as call:
            for at in sorted(missing, key=lambda at: remoteness(grid.box(at), centre)):
                yield grid.box(at), self._first(call(self.lazy.block, at))

    def _first(self, values: np.ndarray) -> np.ndarray:
        engine = self.lazy.engine
        return values.take(0, int(engine.axes.startswith("t"))) if self.lazy.channels > 1 else values

    def read(self, box: Box) -> np.ndarray:
        """Return the result in just this box, which lies in the image; finer where the result is."""
        return joined(box, self.blocks(box), self.factors)


def _centre(box: Box) -> tuple[float, ...]:
    return tuple((b.start + b.stop - 1) / 2 for b in box)
