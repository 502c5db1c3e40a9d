"""Which id of one label array shares how many elements with which id of another, counted by blocks."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import DataError

DENSE = 1 << 22  # pairs of ids counted in one array of 32 MiB, faster than sorting them
COMPACT = 1 << 20  # pairs that wait to be added up: 24 MiB


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Contingency:
    """How many elements each truth id shares with each result id; tables of blocks add up to that of the whole.

    Parameters
    ----------
    truth, result : (N,) uint64 arrays
        Ids of the N pairs that occur, sorted by truth, then by result; 0 is background.
    count : (N,) int64 array
        Elements with that pair of ids.
    """

    truth: np.ndarray
    result: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray, result: np.ndarray) -> "Contingency":
        """Count the pairs of two arrays.

        Parameters
        ----------
        truth, result : integer or boolean arrays of one shape

        Raises
        ------
        DataError
            Where shapes differ, or ids are negative or no integers.
        """
        if truth.shape != result.shape:
            raise DataError(f"truth has shape {truth.shape}, the result {result.shape}; they must be the same")
        if truth.size == 0:
            return cls.empty()
        high = [_highest(array, name) for array, name in ((truth, "truth"), (result, "result"))]
        rows, columns = truth.ravel(), result.ravel()
        width = high[1] + 1
        if (high[0] + 1) * width <= DENSE:
            return cls._decoded(*_counted(rows.astype(np.int64) * width + columns.astype(np.int64)), width)
        # Labels come in runs, and there are far fewer of those to sort than elements.
        starts = np.flatnonzero(np.concatenate([[True], (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])]))
        count = np.diff(starts, append=rows.size)
        return _merge([cls(rows[starts].astype(np.uint64), columns[starts].astype(np.uint64), count)])

    @classmethod
    def _decoded(cls, code: np.ndarray, count: np.ndarray, width: int) -> "Contingency":
        return cls((code // width).astype(np.uint64), (code % width).astype(np.uint64), count)

    @classmethod
    def empty(cls) -> "Contingency":
        """Return the table of nothing, to which others are added."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))

    @classmethod
    def total(cls, tables: Iterable["Contingency"]) -> "Contingency":
        """Add many tables, such as those of all blocks of an image."""
        whole, waiting, pairs = cls.empty(), [], 0
        for table in tables:
            waiting.append(table)
            pairs += len(table.count)
            if pairs > max(COMPACT, len(whole.count)):
                whole, waiting, pairs = _merge([whole, *waiting]), [], 0
        return _merge([whole, *waiting])

    def __add__(self, other: "Contingency") -> "Contingency":
        """Return the table of both together; equal ids are the same object."""
        return _merge([self, other])

    def beside(self, other: "Contingency") -> "Contingency":
        """Return the table of both together; ids of `other` are objects of their own, as of another time point."""
        sides = []
        for mine, its in ((self.truth, other.truth), (self.result, other.result)):
            (_, here), (_, there) = ranks(mine), ranks(its)
            start = int(here.max(initial=0))
            sides.append(np.concatenate([here, np.where(there > 0, there + start, 0)]).astype(np.uint64))
        return _merge([Contingency(sides[0], sides[1], np.concatenate([self.count, other.count]))])

    def matrix(self, truth_values: Sequence[int], result_values: Sequence[int]) -> np.ndarray:
        """Return the confusion matrix of classes.

        Parameters
        ----------
        truth_values, result_values : sequences of int
            The value of each class, on either side.

        Returns
        -------
        (C, C) int64 array: rows are the truth, columns the result

        Raises
        ------
        DataError
            Naming values that are not classes.
        """
        rows = _classes(self.truth, truth_values, "the truth")
        columns = _classes(self.result, result_values, "the result")
        found = np.zeros((len(truth_values), len(result_values)), np.int64)
        np.add.at(found, (rows, columns), self.count)
        return found

    @property
    def n_truth(self) -> int:
        """Number of truth objects."""
        return len(np.unique(self.truth[self.truth > 0]))

    @property
    def n_result(self) -> int:
        """Number of result objects."""
        return len(np.unique(self.result[self.result > 0]))

    def without_border(self) -> "Contingency":
        """Return the table of the elements whose truth is not background."""
        keep = self.truth > 0
        return Contingency(self.truth[keep], self.result[keep], self.count[keep])

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the size of every truth id and of every result id, as int64, background included."""
        rows, columns = (np.unique(ids, return_inverse=True)[1] for ids in (self.truth, self.result))
        return summed(rows, self.count), summed(columns, self.count)


def _highest(array: np.ndarray, name: str) -> int:
    if array.dtype.kind not in "iub":
        raise DataError(f"{name} holds {array.dtype}, labels are integers; convert it with astype('uint16')")
    if array.dtype.kind == "i" and int(array.min()) < 0:
        raise DataError(f"{name} holds the label {int(array.min())}; labels are 0 (background) or positive")
    return int(array.max())


def _counted(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that occur and how often."""
    count = np.bincount(codes)
    code = np.flatnonzero(count)
    return code, count[code].astype(np.int64)


def _merge(tables: Sequence[Contingency]) -> Contingency:
    truth, result, count = (
        np.concatenate([getattr(table, field) for table in tables]) for field in ("truth", "result", "count")
    )
    if len(count) == 0:
        return Contingency.empty()
    order = np.lexsort((result, truth))
    truth, result, count = truth[order], result[order], count[order]
    first = np.ones(len(count), bool)
    first[1:] = (truth[1:] != truth[:-1]) | (result[1:] != result[:-1])
    return Contingency(truth[first], result[first], np.add.reduceat(count, np.flatnonzero(first)))


def ranks(ids: np.ndarray) -> tuple[int, np.ndarray]:
    """Return how many ids other than 0 there are, and the ids renumbered 1, 2, ... in order; 0 stays 0."""
    objects = np.unique(ids[ids > 0])
    return len(objects), np.where(ids > 0, np.searchsorted(objects, ids) + 1, 0)


def summed(at: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Add up the counts of each number in `at`: int64, one for each of 0, 1, ... its highest."""
    found = np.zeros(int(at.max(initial=-1)) + 1, np.int64)
    np.add.at(found, at, count)
    return found


def _classes(ids: np.ndarray, values: Sequence[int], name: str) -> np.ndarray:
    known = {int(value): i for i, value in enumerate(values)}
    unknown = sorted({int(value) for value in np.unique(ids)} - set(known))
    if unknown:
        raise DataError(f"{name} holds the values {unknown[:8]}, the classes are {list(known)}; give it those classes")
    return np.array([known[int(value)] for value in ids], np.intp)
