"""What stands out in the intensities of an image and spoils their range: hot pixels, scale bars, padding."""

import numpy as np

TOP = 0.02  # share of the values that may be hot pixels or a scale bar
GAP = 0.5  # of the range that is used: nothing lies between what stands out and the rest
FEW = 1000  # values from which on shares of them mean something
CORNER = 8  # pixels: all of them 0 in two corners is no chance
MOVED = 0.1  # of the range: by so much does padding move its lower end


def outliers(ordered: np.ndarray, counts: np.ndarray, low: float, high: float, upper: float) -> str | None:
    """Say what lies far above all other values, where it decides the upper end of the range.

    Parameters
    ----------
    ordered, counts : arrays
        The values that occur, ascending, and how often.
    low, high : float
        Range that is used.
    upper : float
        Percentile that `high` is.
    """
    total = int(counts.sum())
    if len(ordered) < 3 or total < FEW:
        return None
    above = np.cumsum(counts[::-1])[::-1] / total  # share of the values from each on
    gaps = np.diff(ordered.astype(np.float64))
    candidates = np.flatnonzero((above[1:] <= TOP) & (gaps > GAP * (high - low)) & (ordered[1:] <= high))
    if not candidates.size:
        return None
    first = int(candidates[0]) + 1
    share = 100 * float(above[first])
    better = np.floor(10 * (100 - 2 * share)) / 10
    return (
        f"{share:.2g} % of the values lie far above all others (from {ordered[first]:g}; the others end at "
        f"{ordered[first - 1]:g}) and stretch the range: if they are hot pixels, a burnt-in scale bar or saturated, "
        f"leave them out with --percentiles 1 {min(better, upper):g}"
    )


def empty_corners(planes: np.ndarray) -> bool:
    """Say whether two corners or more of (..., Y, X) planes are exactly 0, as padding is."""
    if min(planes.shape[-2:]) < 4 * CORNER:
        return False
    cuts = (slice(0, CORNER), slice(-CORNER, None))
    return sum(not planes[..., y, x].any() for y in cuts for x in cuts) >= 2


def padded(planes: np.ndarray, low: float, high: float, without: float) -> str | None:
    """Say that values of exactly 0 decide the lower end of the range.

    Parameters
    ----------
    low, high : float
        Range that is used.
    without : float
        Lower end that values without 0 have.
    """
    if without - low <= MOVED * (high - low):
        return None
    share = 100 * (1 - np.count_nonzero(planes) / planes.size)
    return (
        f"{share:.2g} % of the values are exactly 0, whole corners among them, and the others begin at {without:g}: if "
        "that is padding, measure without it with --padding 0"
    )
