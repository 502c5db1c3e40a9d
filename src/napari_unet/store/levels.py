"""Coarser levels of a result, made while the run goes on: of blocks in memory as soon as all under a part are written.

A part is a box of whole files of a level, a unit of the ledger like a block::

    level 0   |aaaa|bbbb|cccc|dddd|   blocks; of each what it gives of the next level is held
    level 1   |aabb|ccdd|             a part, as soon as b is written, then one
    level 2   |abcd|                  of those

What was not held, as after a kill or where many parts are begun, is read back.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..arrays.cached import Recent
from ..arrays.views import Box, overlap, within
from ..errors import DataError
from ..events import Progress
from ..grid.blocks import Blocks
from ..threads import in_threads
from . import layout
from .blocks import read_back, replaced
from .chunks import UNMARKED
from .journal import Journal, Region
from .ome import Output
from .plan import Unit
from .pyramid import Level, above, parts, reduce
from .verification import UNREADABLE, problem_of

HELD = 2**26  # 64 MiB: what the blocks of a slab of 2048 x 2048 give of the next level, several times
Place = tuple[str, int, int]  # path of an output, level, number of the part
Piece = tuple[Box, np.ndarray]


class Pyramids:
    """The levels above the blocks of each output.

    Parameters
    ----------
    levels : mapping of path to levels
        Of each output, the finest first.
    written : callable
        Whether all under a box of an output's level 0 is written.
    """

    def __init__(
        self,
        root: Path,
        outputs: Mapping[str, Output],
        levels: Mapping[str, Sequence[Level]],
        journal: Journal,
        version: str,
        written: Callable[[str, Box], bool],
    ) -> None:
        self._root, self._outputs, self._levels, self._journal = root, outputs, levels, journal
        self._version, self._written = version, written
        self._grids = {
            (path, i): parts(level, outputs[path].unit, outputs[path].dtype.itemsize)
            for path, found in levels.items()
            for i, level in enumerate(found)
            if i
        }
        self._held: Recent[Place, tuple[Piece, ...]] = Recent(HELD, lambda held: sum(data.nbytes for _, data in held))
        self._arrays: dict[tuple[str, int], zarr.Array[Any]] = {}
        self._sound: set[Unit] = set()  # read back since the store was opened

    def over(self, path: str, box: Box) -> list[Unit]:
        """Return the parts, of those that are recorded, that a box of level 0 is under; what was held of them goes."""
        found: list[Unit] = []
        for i, level in list(enumerate(self._levels[path]))[1:]:
            box, grid = _below(box, level), self._grids[path, i]
            for key in _parts_under(path, i, grid, box):
                held = self._held.get(key) or ()
                if any(_meet(box, common) for common, _ in held):
                    self._held.drop(key)
                found += [unit for unit in (_unit(*key),) if unit in self._journal.records]
        self._sound.difference_update(found)
        return found

    def take(self, path: str, box: Box, data: np.ndarray, i: int = 0) -> None:
        """Take up a box of level `i` that was written, and make what is complete with it."""
        if (path, i + 1) not in self._grids:
            return
        level, grid = self._levels[path][i + 1], self._grids[path, i + 1]
        coarse, exact = _below(box, level), _is_whole(box, level, self._levels[path][i].shape)
        less = reduce(data, level.factors, self._outputs[path].kind) if exact else None
        for key in _parts_under(path, i + 1, grid, coarse):
            part = grid.block(key[2])
            if less is not None:
                common = overlap(coarse, part)
                piece = common, less[within(common, coarse)].copy()
                self._held.put(key, (*(self._held.get(key) or ()), piece))
            if _unit(*key) not in self._journal.records and self._is_ready(key, part):
                held = self._held.get(key) or ()
                self._held.drop(key)
                with contextlib.suppress(DataError):  # of an earlier run, and damaged since: seen when the run ends
                    self._record(key, *self._made(key, held))

    def _is_ready(self, key: Place, part: Box) -> bool:
        """Whether all that a part is made of is written."""
        path, i, _ = key
        finer = above(part, self._levels[path][i], self._levels[path][i - 1].shape)
        if i == 1:
            return self._written(path, finer)
        under = _parts_under(path, i - 1, self._grids[path, i - 1], finer)
        return all(_unit(*each) in self._journal.records for each in under)

    def _made(self, key: Place, held: tuple[Piece, ...] = ()) -> tuple[np.ndarray, Region, int]:
        """Write a part, of what was held of it or else read back: its data, what is to be recorded, and a mark."""
        path, i, number = key
        level, box = self._levels[path][i], self._grids[path, i].block(number)
        data = np.empty([b.stop - b.start for b in box], self._outputs[path].dtype)
        if sum(each.size for _, each in held) == data.size:
            for common, each in held:
                data[within(common, box)] = each
        else:
            finer = self._read(path, i - 1, above(box, level, self._levels[path][i - 1].shape))
            data = reduce(finer, level.factors, self._outputs[path].kind)
        name = _name(path, i)
        return data, *replaced(self._root / name, name, self._array(path, i), box, data)

    def _read(self, path: str, i: int, box: Box) -> np.ndarray:
        try:
            return read_back(self._array(path, i), box)
        except UNREADABLE as error:
            where = self._root / _name(path, i)
            raise DataError(f"{where} cannot be read back at {box} ({error}); run the same command again") from error

    def _record(self, key: Place, data: np.ndarray, region: Region, mark: int) -> None:
        """Record a part, and make what is complete with it."""
        unit = _unit(*key)
        self._journal.append(unit, [region])
        if mark != UNMARKED:
            self._sound.add(unit)
        self.take(key[0], region.box, data, key[1])

    def _array(self, path: str, i: int) -> "zarr.Array[Any]":
        if (path, i) not in self._arrays:
            folder, level = self._root / path / str(i), self._levels[path][i]
            self._arrays[path, i] = layout.make_array(folder, self._outputs[path], level, self._version)
        return self._arrays[path, i]

    def build(self) -> Iterator[Progress]:
        """Make what is not made yet; parts that an earlier run made are read back, and made again where they differ."""
        total, count = sum(map(len, self._grids.values())), 0
        for (path, i), grid in self._grids.items():
            self._array(path, i - 1), self._array(path, i)
            keys = ((path, i, number) for number in range(len(grid)))
            for key, made in in_threads(self._lacking, keys):
                if made is not None:
                    unit = _unit(*key)
                    self._journal.append(unit, [made[1]])
                    self._sound.update([unit] if made[2] != UNMARKED else [])
                count += 1
                yield Progress(count, total, "pyramid")

    def _lacking(self, key: Place) -> tuple[np.ndarray, Region, int] | None:
        """Make a part that is not there; None where it is."""
        unit, array = _unit(*key), self._array(key[0], key[1])
        if unit in self._journal.records:
            known = () if unit in self._sound else self._journal.records[unit]
            if not any(problem_of(array, self._root, region) for region in known):
                return None
        return self._made(key)


def _parts_under(path: str, i: int, grid: Blocks, box: Box) -> Iterator[Place]:
    for place in grid.under(box):
        yield path, i, int(np.ravel_multi_index(place, grid.counts))


def _meet(one: Box, other: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _name(path: str, i: int) -> str:
    return f"{path}/{i}".lstrip("/")


def _unit(path: str, i: int, number: int) -> str:
    return f"{_name(path, i)}#{number}"


def _below(box: Box, level: Level) -> Box:
    """Return the box of a level that a box of the one above it touches."""
    return tuple(slice(b.start // f, math.ceil(b.stop / f)) for b, f in zip(box, level.factors, strict=True))


def _is_whole(box: Box, level: Level, shape: Sequence[int]) -> bool:
    """Whether no element of a level is made of parts of a box and of its neighbour."""
    return all(
        b.start % f == 0 and (b.stop % f == 0 or b.stop == n) for b, f, n in zip(box, level.factors, shape, strict=True)
    )
