"""The weight map of the 2015 paper: what lies between two objects that are close counts more."""

import numpy as np

from ..errors import DataError

LEVELS = 16  # steps of weight that a target tells apart
SIGHT = 2.5  # in sigma: objects farther than that add less than 5 % of the weight's height, exp(-2.5^2 / 2)


def border_weights(ids: np.ndarray, spacing: tuple[float, ...], w0: float, sigma: float) -> np.ndarray:
    """Return 1 + w0 exp(-(d1 + d2)^2 / 2 sigma^2) in sixteenths, d1 and d2 the distances to the two nearest objects.

    Parameters
    ----------
    ids : (*S) integer array of 1 ... n; 0 is not an object
    spacing : tuple of float
        Size of a voxel per axis; all 1 where it is empty.
    w0, sigma : float
        Height, and width in the unit of `spacing`.

    Returns
    -------
    (*S) int64 array

    References
    ----------
    Ronneberger et al. 2015, eq. 2.
    """
    if not w0:
        return np.full(ids.shape, LEVELS, np.int64)
    weight = LEVELS * (1 + w0 * closeness(ids, spacing or (1.0,) * ids.ndim, sigma))
    return np.asarray(np.rint(weight).astype(np.int64))


def closeness(ids: np.ndarray, spacing: tuple[float, ...], sigma: float) -> np.ndarray:
    """Return exp(-(d1 + d2)^2 / 2 sigma^2), d1 and d2 the distances to the two nearest objects; 0 far from two.

    Parameters
    ----------
    ids : (*S) integer array of 1 ... n; 0 is not an object
    spacing : tuple of float
        Size of a voxel per axis.
    sigma : float
        In the unit of `spacing`.

    Returns
    -------
    (*S) float32 array
    """
    from scipy import ndimage  # not at the top: only who trains needs it

    nearest = np.full(ids.shape, np.inf, np.float32)
    second = nearest.copy()
    margin = [int(np.ceil(SIGHT * sigma / s)) for s in spacing]
    for number, box in enumerate(ndimage.find_objects(ids), 1):
        if box is None:
            continue
        wide = tuple(slice(max(b.start - m, 0), b.stop + m) for b, m in zip(box, margin, strict=True))
        distance = np.asarray(ndimage.distance_transform_edt(ids[wide] != number, spacing), np.float32)
        first = nearest[wide]
        second[wide] = np.minimum(second[wide], np.maximum(first, distance))
        nearest[wide] = np.minimum(first, distance)
    return np.exp(-((nearest + second) ** 2) / (2 * sigma**2))


def check_border(w0: float, sigma: float, spacing: tuple[float, ...]) -> None:
    """Refuse what is not a weight.

    Raises
    ------
    DataError
        Naming the number that is out of range.
    """
    if not (w0 >= 0 and sigma > 0 and np.isfinite([w0, sigma]).all()):
        raise DataError(f"w0 {w0} and sigma {sigma}: w0 must be 0 or above, sigma above 0, both finite")
    if any(s <= 0 for s in spacing):
        raise DataError(f"spacing is {spacing}; each must be above 0")
