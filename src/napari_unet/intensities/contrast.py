"""How far the intensities of an image go beyond its noise: percentiles stretch an empty field to the full range too."""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

SPAN = 7.0  # times the noise: percentiles 1 to 99.8 of noise alone are 5.2 apart, of coarse 8-bit noise up to 6.5
PEAK = 8.0  # the highest of 2^24 values of noise lies 5.5 above the middle, of few photons 7
PATCH = 8  # pixels: about the smallest cell
PATCHES = 12.0  # the same of means of patches; noise that a camera or JPEG has spread reaches 11
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
        steps, peak, means = np.zeros(2), -math.inf, [np.empty(0)]
        for plane in planes:
            for first in range(0, len(plane), STRIP):
                strip = plane[first : first + STRIP].astype(np.float32)
                steps += _steps(strip, 1) + _steps(strip, 0)
                peak = max(peak, float(strip.max()))
                y, x = (n // PATCH for n in strip.shape)
                patches = strip[: y * PATCH, : x * PATCH].reshape(y, PATCH, x, PATCH)
                means.append(patches.mean((1, 3), dtype=np.float64).ravel())
        patch = np.concatenate(means)
        noise = noise_of(*steps)
        if not noise or not scale:
            return cls()
        span = scale / noise
        if span > SPAN or not patch.size:
            return cls(span)
        middle = float(np.median(patch))
        stands_out = peak - middle > PEAK * noise or float(patch.max()) - middle > PATCHES * noise / PATCH
        return cls(span, not stands_out)


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
