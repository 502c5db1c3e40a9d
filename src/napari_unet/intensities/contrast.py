"""How far the intensities of an image go beyond its noise: percentiles stretch an empty field to the full range too."""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

SPAN = 7.0  # times the noise: percentiles 1 to 99.8 of noise alone are 5.2 apart, of coarse 8-bit noise up to 6.5
PEAK = 8.0  # the highest of 2^24 values of noise lies 5.5 above the middle, of few photons 7
PATCH = 8  # pixels: about the smallest cell
PATCHES = 12.0  # the same of means of patches; noise that a camera or JPEG has spread reaches 11
UNEVEN = 12.0  # times the noise: light that falls off to the corners adds as much again; objects are brighter
STRIP = 256  # rows read at a time, whole patches


@dataclasses.dataclass(frozen=True, slots=True)
class Contrast:
    """Range and noise of a channel.

    Parameters
    ----------
    span : float
        The range between the percentiles, in standard deviations of the noise; infinite where no noise is seen.
    only_noise : bool
        Whether there is nothing else: neither in the range, nor a pixel or patch that stands out.
    """

    span: float = math.inf
    only_noise: bool = False

    @classmethod
    def of(cls, planes: np.ndarray, scale: float) -> "Contrast":
        """Measure (..., Y, X) intensities whose percentiles are `scale` apart.

        The noise is what a pixel differs from its neighbour by, over the root of 2.
        """
        planes = planes.reshape(-1, *planes.shape[-2:])
        steps = np.sum([_steps(strip, axis) for plane in planes for strip in _strips(plane) for axis in (0, 1)], 0)
        noise = noise_of(*steps)
        if not noise or not scale:
            return cls()
        span = scale / noise
        if span > UNEVEN or min(planes.shape[1:]) < PATCH:
            return cls(span)
        means = [np.concatenate([_patches(strip) for strip in _strips(plane)]) for plane in planes]
        peak = max(float(plane.max()) for plane in planes)
        if span <= SPAN and not _stands_out(np.stack(means), peak, noise):
            return cls(span, True)
        return cls(span, _is_even(planes, means, noise))


def _is_even(planes: np.ndarray, means: list[np.ndarray], noise: float) -> bool:
    """Whether nothing but noise is left of what varies as slowly as illumination does, a quadratic over each plane."""
    slow = [_quadratic(each, plane.shape) for each, plane in zip(means, planes, strict=True)]
    left = np.stack([each - _quadratic(each, each.shape) for each in means])
    if _stands_out(left, -math.inf, noise):
        return False
    even = np.concatenate([(plane - each).ravel() for plane, each in zip(planes, slow, strict=True)])
    low, high = np.percentile(even, (1, 99.8))
    return high - low <= SPAN * noise and not _stands_out(left, float(even.max()), noise)


def _stands_out(means: np.ndarray, peak: float, noise: float) -> bool:
    middle = float(np.median(means))
    return peak - middle > PEAK * noise or float(means.max()) - middle > PATCHES * noise / PATCH


def _strips(plane: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a plane in parts, as its differences take four times its memory and more."""
    for first in range(0, len(plane), STRIP):
        yield plane[first : first + STRIP].astype(np.float32)


def _patches(strip: np.ndarray) -> np.ndarray:
    """Return the means of whole patches."""
    y, x = (n // PATCH for n in strip.shape)
    patches = strip[: y * PATCH, : x * PATCH].reshape(y, PATCH, x, PATCH)
    return np.asarray(patches.mean((1, 3), dtype=np.float64))


def _quadratic(means: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return, without its mean, the quadratic nearest to the means of patches, at as many places over the plane."""
    fit = np.linalg.lstsq(_powers(means.shape, means.shape), means.ravel(), rcond=None)[0]
    found = _powers(shape, means.shape) @ fit
    return np.asarray((found - found.mean()).reshape(shape))


def _powers(shape: tuple[int, ...], patches: tuple[int, ...]) -> np.ndarray:
    """Return 1, y, x, yy, yx, xx at `shape` places, from 0 to 1 over whole patches."""
    edge = PATCH if shape != patches else 1
    y, x = ((np.arange(n) + 0.5) / (edge * m) for n, m in zip(shape, patches, strict=True))
    grid_y, grid_x = (part.ravel() for part in np.broadcast_arrays(y[:, None], x[None]))
    return np.stack([np.ones(grid_y.size), grid_y, grid_x, grid_y**2, grid_y * grid_x, grid_x**2], 1)


def _steps(strip: np.ndarray, axis: int) -> np.ndarray:
    """Return the sum of squares of the differences of neighbours, and their number."""
    found = np.diff(strip, axis=axis)
    return np.array([np.square(found, out=found).sum(dtype=np.float64), found.size])


def noise_of(squares: float, count: float) -> float:
    """Return the standard deviation of noise by squared differences of neighbours, summed (von Neumann 1941)."""
    return math.sqrt(squares / count / 2) if count else 0.0


def least_contrast(images: Iterable[Iterable[Contrast]]) -> float | None:
    """Return the least of images, each by its best channel; None where none is known."""
    spans = [max((each.span for each in channels), default=math.inf) for channels in images]
    known = [span for span in spans if math.isfinite(span)]
    return round(min(known), 2) if known else None
