"""Scores of labels and images, from tables that are counted block by block and added.

Where there is nothing to compare, a score is 1.0 if both sides are empty and 0.0 if one is.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from ..errors import DataError
from .contingency import Contingency, ranks, summed

# What programs write for the foreground of a mask: 1, or the highest value of an integer type.
MASKS = frozenset({1, 128, *(2**bits - 1 for bits in (7, 8, 12, 15, 16, 31, 32))})
THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))  # IoU 0.5 to 0.95 in steps of 0.05, as COCO has them


def dice(confusion: np.ndarray) -> np.ndarray:
    """Dice coefficient (F1 of elements) of each class: (C,) floats of a (C, C) confusion matrix (Dice 1945)."""
    return _ratio(2 * np.diagonal(confusion), confusion.sum(0) + confusion.sum(1))


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class: (C,) floats of a (C, C) confusion matrix (Jaccard 1912)."""
    both = np.diagonal(confusion)
    return _ratio(both, confusion.sum(0) + confusion.sum(1) - both)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; 1.0 where a class is in neither."""
    found = np.ones(len(whole), np.float64)
    return np.divide(part, whole, out=found, where=whole > 0)


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Return the part of all elements that have the right class; 1.0 where there is none."""
    total = int(confusion.sum())
    return int(np.trace(confusion)) / total if total else 1.0


def pixel_error(confusion: np.ndarray) -> float:
    """Return the part of all elements that have a wrong class (ISBI 2012)."""
    return 1.0 - pixel_accuracy(confusion)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """The pairs of a truth and a result object that overlap.

    Parameters
    ----------
    truth, result : (P,) intp arrays
        Objects, numbered from 0.
    iou, covered, within : (P,) float64 arrays
        Intersection over union; part of the truth object that the result object covers; part of the result object that
        lies within the truth object.
    n_truth, n_result : int
        Objects on either side, those without a partner included.
    """

    truth: np.ndarray
    result: np.ndarray
    iou: np.ndarray
    covered: np.ndarray
    within: np.ndarray
    n_truth: int
    n_result: int

    @classmethod
    def of(cls, table: Contingency) -> "Overlaps":
        """Find the pairs in a table of all elements."""
        (n_truth, rows), (n_result, columns) = ranks(table.truth), ranks(table.result)
        row_sums, column_sums = summed(rows, table.count), summed(columns, table.count)
        both = (rows > 0) & (columns > 0)
        rows, columns, shared = rows[both], columns[both], table.count[both]
        union = row_sums[rows] + column_sums[columns] - shared
        covered, within = shared / row_sums[rows], shared / column_sums[columns]
        return cls(rows - 1, columns - 1, shared / union, covered, within, n_truth, n_result)

    def split(self) -> np.ndarray:
        """Return the truth objects that hold more than half of each of two result objects or more, ascending."""
        return _repeated(self.truth[self.within > 0.5])

    def merged(self) -> np.ndarray:
        """Return the result objects that cover more than half of each of two truth objects or more, ascending."""
        return _repeated(self.result[self.covered > 0.5])

    def matched(self, threshold: float = 0.5) -> np.ndarray:
        """Match objects one to one, as many as can be, where their IoU is at least `threshold`: the IoU of each match.

        Returns
        -------
        (TP,) float64 array

        Notes
        -----
        From 0.5 on the IoUs do not depend on which of several largest matchings is taken: an object has several
        partners only where each has an IoU of exactly 0.5.
        """
        return self.matches(threshold)[2]

    def matches(self, threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Match as `matched` does: (TP,) arrays of the truth object, the result object and their IoU."""
        from scipy.sparse import csr_array  # not at the top: a run has no use for scores
        from scipy.sparse.csgraph import maximum_bipartite_matching

        keep = self.iou >= threshold
        rows, columns = (ids[keep].astype(np.int32) for ids in (self.truth, self.result))  # older scipy takes no others
        pairs = csr_array((self.iou[keep], (rows, columns)), shape=(self.n_truth + 1, self.n_result + 1))
        partner = maximum_bipartite_matching(pairs, perm_type="column")
        found = np.flatnonzero(partner >= 0)
        ious = np.asarray(pairs[found, partner[found]], np.float64).ravel() if len(found) else np.zeros(0)
        return found, partner[found], ious


def _repeated(numbers: np.ndarray) -> np.ndarray:
    values, counts = np.unique(numbers, return_counts=True)
    return np.asarray(values[counts > 1])


def average_precision(overlaps: Overlaps, threshold: float = 0.5) -> float:
    """Return TP / (TP + FP + FN) of objects matched at an IoU of `threshold` (Caicedo et al. 2019, DSB 2018)."""
    tp = len(overlaps.matched(threshold))
    return _part(tp, overlaps.n_truth + overlaps.n_result - tp)


def _part(part: float, whole: float) -> float:
    return float(part / whole) if whole else 1.0


def seg(overlaps: Overlaps) -> float:
    """Return SEG of the Cell Tracking Challenge (Maska et al. 2014): the mean Jaccard index of truth objects.

    A truth object's partner is the result object that covers more than half of it; without one it counts 0.
    """
    if overlaps.n_truth == 0:
        return 0.0 if overlaps.n_result else 1.0
    return float(overlaps.iou[overlaps.covered > 0.5].sum() / overlaps.n_truth)


def instance_scores(table: Contingency) -> dict[str, float]:
    """Score objects: average precision, F1, precision and recall, panoptic quality, SEG, and how many there are.

    Parameters
    ----------
    table : Contingency
        Of all elements, background included.

    Returns
    -------
    dict
        ``ap_50``, ``ap_50_95`` (mean over IoU 0.5, 0.55, ... 0.95), ``f1_50``, ``precision_50``, ``recall_50``, ``pq``
        (Kirillov et al. 2019), ``seg``, ``n_result``, ``n_truth``, and how many truth objects are split (``n_split``)
        and result objects are merged from several (``n_merged``).
    """
    overlaps = Overlaps.of(table)
    matched = overlaps.matched(0.5)
    tp, n_truth, n_result = len(matched), overlaps.n_truth, overlaps.n_result
    nothing = 0.0 if n_truth or n_result else 1.0
    return {
        "ap_50": _part(tp, n_truth + n_result - tp),
        "ap_50_95": float(np.mean([average_precision(overlaps, t) for t in THRESHOLDS])),
        "f1_50": _part(2 * tp, n_truth + n_result),
        "precision_50": tp / n_result if n_result else nothing,
        "recall_50": tp / n_truth if n_truth else nothing,
        "pq": _part(2 * float(matched.sum()), n_truth + n_result),
        "seg": seg(overlaps),
        "n_result": float(n_result),
        "n_truth": float(n_truth),
        "n_split": float(len(overlaps.split())),
        "n_merged": float(len(overlaps.merged())),
    }


@dataclasses.dataclass(frozen=True, slots=True)
class Intensity:
    """Sums that intensity scores are made of; those of blocks add up to those of the whole.

    Parameters
    ----------
    n : int
        Elements.
    squared, absolute : float
        Sum of squared, and of absolute differences.
    power : float
        Sum of the truth's squares.
    low, high : float
        The truth's extremes.
    sums : (truth, result) of float
        Sum of either side.
    found_power, product : float
        Sum of the result's squares, and of the products of both sides.
    """

    n: int = 0
    squared: float = 0.0
    absolute: float = 0.0
    power: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    sums: tuple[float, float] = (0.0, 0.0)
    found_power: float = 0.0
    product: float = 0.0

    @classmethod
    def of(cls, truth: np.ndarray, result: np.ndarray) -> "Intensity":
        """Sum over two arrays of one shape; refuse what is not finite."""
        if truth.shape != result.shape:
            raise DataError(f"truth has shape {truth.shape}, the result {result.shape}; they must be the same")
        right, found = truth.astype(np.float64), result.astype(np.float64)
        for name, array in (("truth", right), ("result", found)):
            bad = int(array.size - np.isfinite(array).sum())
            if bad:
                raise DataError(f"{name} holds {bad} elements that are NaN or infinite; replace them")
        if right.size == 0:
            return cls()
        off: Any = found - right
        of_both = (float(np.square(off).sum()), float(np.abs(off).sum()), float(np.square(right).sum()))
        extremes = float(right.min()), float(right.max())
        sums, powers = (
            (float(right.sum()), float(found.sum())),
            (float(np.square(found).sum()), float((right * found).sum())),
        )
        return cls(right.size, *of_both, *extremes, sums, *powers)

    def __add__(self, other: "Intensity") -> "Intensity":
        """Return the sums of both together."""
        return Intensity(
            self.n + other.n,
            self.squared + other.squared,
            self.absolute + other.absolute,
            self.power + other.power,
            min(self.low, other.low),
            max(self.high, other.high),
            (self.sums[0] + other.sums[0], self.sums[1] + other.sums[1]),
            self.found_power + other.found_power,
            self.product + other.product,
        )

    def moments(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return mean and standard deviation of the truth, and of the result."""
        means = tuple(total / max(self.n, 1) for total in self.sums)
        squares = (self.power / max(self.n, 1), self.found_power / max(self.n, 1))
        (a, b), (c, d) = means, (float(np.sqrt(max(s - m**2, 0.0))) for s, m in zip(squares, means, strict=True))
        return (a, c), (b, d)

    def scores(self) -> dict[str, float]:
        """Return psnr, si_psnr, nrmse and mae.

        Returns
        -------
        dict
            ``psnr`` in dB, its range the truth's highest less its lowest value: infinite where nothing differs,
            -infinite where the truth is constant and something does. ``nrmse``: root mean square error by the
            truth's root mean square, as in ``skimage.metrics``: infinite where the truth is 0 and something differs.
            ``mae``: mean absolute error. ``si_psnr``: psnr after the result is scaled and shifted to fit best (Weigert
            et al. 2018).
        """
        if not self.squared:
            return {"psnr": float("inf"), "si_psnr": float("inf"), "nrmse": 0.0, "mae": 0.0}
        mse, data_range = self.squared / self.n, self.high - self.low
        psnr = 10.0 * float(np.log10(data_range**2 / mse)) if data_range else -float("inf")
        nrmse = float(np.sqrt(self.squared / self.power)) if self.power else float("inf")
        return {"psnr": psnr, "si_psnr": self._fitted(data_range), "nrmse": nrmse, "mae": self.absolute / self.n}

    def _fitted(self, data_range: float) -> float:
        """Return the psnr of the line through the result that is nearest to the truth."""
        truth, found = (s / self.n for s in self.sums)
        variance, other = self.power / self.n - truth**2, self.found_power / self.n - found**2
        shared = self.product / self.n - truth * found
        left = variance - shared**2 / other if other > 0 else variance
        if not data_range:
            return -float("inf")
        return 10.0 * float(np.log10(data_range**2 / left)) if left > variance * 1e-14 else float("inf")


def same_classes(truth: list[int], result: list[int], masks: bool = True) -> tuple[list[int], list[int]] | None:
    """Say which label values of two sides mean the same class.

    Parameters
    ----------
    truth, result : rising label values
    masks : bool
        Whether two values may be those of a mask; False where more classes are known of.

    Returns
    -------
    The value of each class in the truth, and in the result: equal values are equal classes. The order decides for two
    masks, as 0, 255 and 0, 1, and for grey levels that stand for 0, 1, 2, ..., as 0, 85, 170. None where it cannot be
    told.
    """
    one, other = {*truth} - {0}, {*result} - {0}
    either = sorted({*truth, *result})
    if len(one) <= 1 and len(other) <= 1:
        foreground = max(one | other, default=None)
        if foreground is None:
            return [0], [0]
        if len(one | other) == 1 or (masks and one | other <= MASKS):
            return [0, *(one or {foreground})], [0, *(other or {foreground})]
        return [0, *sorted(one | other)], [0, *sorted(one | other)]
    if {*truth} <= {*result} or {*result} <= {*truth}:
        return either, either
    shared = one & other
    runs = all(values[-1] - values[0] == len(values) - 1 for values in (truth, result))
    found = (either, either) if shared or len(truth) == len(result) else None
    if shared and len(truth) == len(result) and runs:
        found = truth, result
    elif not shared and _are_levels(truth) and result[-1] < len(truth):
        found = truth, list(range(len(truth)))
    elif not shared and _are_levels(result) and truth[-1] < len(result):
        found = list(range(len(result))), result
    return found


def _are_levels(values: list[int]) -> bool:
    """Say whether values are grey levels at equal steps of more than 1, from 0."""
    steps = {b - a for a, b in itertools.pairwise(values)}
    return values[0] == 0 and len(steps) == 1 and min(steps) > 1
