"""How alike two images look: structural similarity, at several scales, and Fourier ring correlation; plane by plane."""

import numpy as np
from scipy import fft, ndimage

from ..errors import DataError

SIGMA, RADIUS = 1.5, 5  # Wang et al. 2004: a window of 11 x 11
K1, K2 = 0.01, 0.03  # Wang et al. 2004
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the five scales: Wang, Simoncelli, Bovik 2003
SMALLEST = (2 * RADIUS + 1) * 2 ** (len(SCALES) - 1)  # the window fits the coarsest scale
THRESHOLD = 1 / 7  # Rosenthal and Henderson 2003


def ssim(truth: np.ndarray, result: np.ndarray, data_range: float) -> float:
    """Return the structural similarity of two planes; 1.0 is best.

    Parameters
    ----------
    truth, result : (Y, X) arrays
    data_range : float
        Range of the truth's intensities.

    Raises
    ------
    DataError
        Where the planes are not 2-D and of one shape.

    References
    ----------
    Wang et al. 2004; a Gaussian window of sigma 1.5, 11 pixels wide, only where all of it lies in the image.
    """
    return _parts(*_checked(truth, result), data_range)[0]


def ms_ssim(truth: np.ndarray, result: np.ndarray, data_range: float) -> float | None:
    """Return the structural similarity over five scales; None where the planes are smaller than 176 pixels.

    References
    ----------
    Wang, Simoncelli, Bovik 2003.
    """
    a, b = _checked(truth, result)
    if min(a.shape) < SMALLEST:
        return None
    total = 1.0
    for number, weight in enumerate(SCALES):
        whole, contrast = _parts(a, b, data_range)
        last = number == len(SCALES) - 1
        total *= max(whole if last else contrast, 0.0) ** weight
        a, b = _halved(a), _halved(b)
    return total


def ring_correlation(truth: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Return the correlation of the Fourier transforms of two planes, ring by ring from frequency 0 to Nyquist.

    Parameters
    ----------
    truth, result : (Y, X) arrays
        Taken to 0 at their borders by a Hann window.

    Returns
    -------
    (min(Y, X) // 2 + 1,) float64 array; ring i has i periods along the shorter axis.

    References
    ----------
    Saxton and Baumeister 1982; van Heel 1987.
    """
    a, b = _checked(truth, result)
    window = np.hanning(a.shape[0] + 2)[1:-1, None] * np.hanning(a.shape[1] + 2)[1:-1]
    one, other = (fft.fft2((x - x.mean()) * window) for x in (a, b))
    shorter = min(a.shape)
    frequency = np.hypot(fft.fftfreq(a.shape[0])[:, None], fft.fftfreq(a.shape[1])) * shorter
    ring = np.rint(frequency).astype(int).ravel()
    rings = shorter // 2 + 1
    cross, p, q = (
        np.bincount(ring, values.ravel(), rings)[:rings]
        for values in ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2)
    )
    below = np.sqrt(p * q)
    return np.divide(cross, below, out=np.zeros(rings), where=below > 0)


def resolution(correlation: np.ndarray, shorter: int) -> float:
    """Return the finest detail that is still right, in pixels: where the correlation falls below 1/7 first.

    Parameters
    ----------
    correlation : as `ring_correlation` gives it
    shorter : int
        Pixels along the shorter axis. The answer is 2 (Nyquist) where it never falls so low.
    """
    below = np.flatnonzero(correlation[1:] < THRESHOLD)
    if not below.size:
        return 2.0
    ring = int(below[0]) + 1
    high, low = correlation[ring - 1], correlation[ring]
    at = ring - 1 + (high - THRESHOLD) / (high - low) if high > THRESHOLD else float(ring)
    return shorter / max(at, 1.0)


def _checked(truth: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if truth.ndim != 2 or truth.shape != result.shape:
        raise DataError(
            f"similarity is of planes of one shape, not {truth.shape} and {result.shape}; give planes of one image"
        )
    return truth.astype(np.float64), result.astype(np.float64)


def _parts(a: np.ndarray, b: np.ndarray, data_range: float) -> tuple[float, float]:
    """Return mean similarity, and mean of its contrast and structure alone."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    ma, mb, aa, bb, ab = (_windowed(x) for x in (a, b, a * a, b * b, a * b))
    va, vb, vab = aa - ma * ma, bb - mb * mb, ab - ma * mb
    below = va + vb + c2
    contrast = np.divide(2 * vab + c2, below, out=np.ones_like(below), where=below > 0)
    luminance = ma * ma + mb * mb + c1
    whole = contrast * np.divide(2 * ma * mb + c1, luminance, out=np.ones_like(luminance), where=luminance > 0)
    inner = tuple(slice(RADIUS, -RADIUS) if n > 2 * RADIUS else slice(None) for n in a.shape)
    return float(whole[inner].mean()), float(contrast[inner].mean())


def _windowed(x: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(x, SIGMA, radius=RADIUS, mode="reflect"))


def _halved(x: np.ndarray) -> np.ndarray:
    even = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
    return np.asarray((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4)
