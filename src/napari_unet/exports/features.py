"""Shapes of objects: how large, how long, how round, and how bright, in micrometres where the pixel size is known."""

import dataclasses
import itertools
import math
from collections.abc import Mapping

import numpy as np
from scipy import ndimage, spatial

# What a pixel of a border adds to its length, by the sum of its neighbourhood weighted so (Benkrid and Crookes 2000).
NEIGHBOURS = np.array([[10, 2, 10], [2, 1, 2], [10, 2, 10]])
STEPS = {  # straight on, askew, and from one to the other
    **dict.fromkeys((5, 7, 15, 17, 25, 27), 1.0),
    **dict.fromkeys((21, 33), math.sqrt(2)),  # the diagonal of a pixel
    **dict.fromkeys((13, 23), (1 + math.sqrt(2)) / 2),  # half of each
}
AXES = {1: ("major",), 2: ("major", "minor"), 3: ("major", "middle", "minor")}
SPREAD = {1: 12.0, 2: 16.0, 3: 20.0}  # (length / sd)^2 of the axis of a line, an ellipse, an ellipsoid


@dataclasses.dataclass(frozen=True, slots=True)
class Ruler:
    """The size of a pixel per axis, and the unit of what is measured with it."""

    scale: tuple[float, ...]
    unit: str


def shape_features(mask: np.ndarray, ruler: Ruler) -> dict[str, float]:
    """Measure one object in the box around it.

    Parameters
    ----------
    mask : (Y, X) or (Z, Y, X) bool array
    ruler : Ruler

    Returns
    -------
    dict
        ``area`` or ``volume``, ``equivalent_diameter`` of the disc or ball of that size, ``major``, (``middle``) and
        ``minor`` axis of the ellipse or ellipsoid of the same second moments, ``perimeter`` in 2-D, ``solidity``: its
        part of its convex hull.
    """
    size = math.prod(ruler.scale)
    count = int(mask.sum())
    measure = count * size
    flat = mask.ndim == 2
    found = {"area" if flat else "volume": measure}
    found["equivalent_diameter"] = 2 * math.sqrt(measure / math.pi) if flat else (6 * measure / math.pi) ** (1 / 3)
    points = np.argwhere(mask) * ruler.scale
    covariance = np.cov(points.T, bias=True) + np.diag(np.square(ruler.scale) / 12)  # of pixels, which have a size
    lengths = np.sqrt(SPREAD[mask.ndim] * np.maximum(np.linalg.eigvalsh(np.atleast_2d(covariance)), 0))[::-1]
    found |= dict(zip(AXES[mask.ndim], map(float, lengths), strict=True))
    if flat:
        found["perimeter"] = perimeter(mask) * math.sqrt(size)
    found["solidity"] = measure / _hull(mask, ruler.scale)
    return found


def perimeter(mask: np.ndarray) -> float:
    """Return the length of the border of a mask in pixels, through the centres of its outer pixels.

    References
    ----------
    Benkrid and Crookes 2000, Design and FPGA implementation of a perimeter estimator.
    """
    padded = np.pad(mask, 2)
    border = padded & ~ndimage.binary_erosion(padded)
    sums = ndimage.convolve(border.astype(np.int64), NEIGHBOURS, mode="constant") * border
    return float(
        sum(STEPS.get(int(value), 0.0) * n for value, n in zip(*np.unique(sums, return_counts=True), strict=True))
    )


def _hull(mask: np.ndarray, scale: tuple[float, ...]) -> float:
    """Return the size of the convex hull of the pixels, whole ones."""
    outer = np.argwhere(mask & ~ndimage.binary_erosion(np.pad(mask, 1))[(slice(1, -1),) * mask.ndim])
    corners = (outer[:, None] + np.array(list(itertools.product((0, 1), repeat=mask.ndim)))).reshape(-1, mask.ndim)
    return float(spatial.ConvexHull(np.unique(corners, axis=0) * np.array(scale)).volume)


def intensity_features(mask: np.ndarray, channels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return mean, lowest and highest intensity of an object in each channel."""
    found: dict[str, float] = {}
    for name, data in channels.items():
        values = data[mask]
        mean = float(values.mean(dtype=np.float64))
        found |= {f"mean_{name}": mean, f"min_{name}": float(values.min()), f"max_{name}": float(values.max())}
    return found
