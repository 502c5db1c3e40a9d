"""Scores of membranes and other borders: V_Rand and V_info of ISBI 2012."""

import numpy as np
from scipy import ndimage

from ..errors import DataError
from .contingency import Contingency


def v_scores(truth: np.ndarray, result: np.ndarray) -> tuple[float, float]:
    """Compare the cells that two border maps separate, however wide the borders are.

    Parameters
    ----------
    truth, result : (Y, X) boolean or integer arrays
        0 is membrane, all else cell.

    Returns
    -------
    v_rand, v_info : float
        1.0 is best. Both 1.0 where neither has a cell, 0.0 where one has none.

    Notes
    -----
    Cells are 4-connected components; those of the result grow into its membranes to the nearest cell, which takes
    the borders' width away; the truth's membranes are not counted.

    References
    ----------
    Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics",
    foreground-restricted scores after border thinning.
    """
    if truth.ndim != 2 or truth.shape != result.shape:
        raise DataError(
            f"borders are scored on planes of one shape, not {truth.shape} and {result.shape}; give planes of one image"
        )
    cells, found = truth != 0, result != 0
    if not cells.any() or not found.any():
        same = 1.0 if cells.any() == found.any() else 0.0
        return same, same
    table = Contingency.of(components(cells), thinned(found)).without_border()
    return v_rand(table), v_info(table)


def components(cells: np.ndarray) -> np.ndarray:
    """Return the 4-connected components of a (Y, X) boolean array, numbered from 1; int32, 0 elsewhere."""
    return np.asarray(ndimage.label(cells)[0])


def thinned(cells: np.ndarray) -> np.ndarray:
    """Return the components of (Y, X) boolean cells, every other pixel given to the nearest; int32, none is 0."""
    ids = components(cells)
    at = ndimage.distance_transform_edt(~cells, return_distances=False, return_indices=True)
    return np.asarray(ids[tuple(np.asarray(at))])


def v_rand(table: Contingency) -> float:
    """Return sum p_ij^2 / (0.5 sum s_i^2 + 0.5 sum t_j^2): the F-score of pairs, split and merge weighing the same.

    Parameters
    ----------
    table : Contingency
        Of the truth's foreground; p is its joint distribution, s and t those of either side. 1.0 where it is empty.
    """
    if len(table.count) == 0:
        return 1.0
    p, s, t = (float(np.square(n.astype(np.float64)).sum()) for n in (table.count, *table.sums()))
    return 2.0 * p / (s + t)


def v_info(table: Contingency) -> float:
    """Return I(S;T) / (0.5 H(S) + 0.5 H(T)) of a table as of `v_rand`; 1.0 where both sides are one object."""
    joint, s, t = (_entropy(n) for n in (table.count, *table.sums()))
    return max(0.0, 2.0 * (s + t - joint) / (s + t)) if s + t > 0 else 1.0


def _entropy(count: np.ndarray) -> float:
    p = count / max(int(count.sum()), 1)
    return abs(float(-(p * np.log(p)).sum()))
