"""How far the intensities of an image go beyond its noise: percentiles stretch an empty field to the full range too."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

SPAN = 7.0  # times the noise: percentiles 1 to 99.8 of noise alone are 5.2 apart, of coarse 8-bit noise up to 6.5
PEAK = 8.0  # the highest of 2^24 values of noise lies 5.5 above the middle, of few photons 7
PATCH = 8  # pixels: about the smallest cell
PATCHES = 12.0  # the same of means of patches; noise that a camera or JPEG has spread reaches 11
UNEVEN = 12.0  # times the noise: light that falls off to the corners adds as much again; objects are brighter
STRIP = 256  # rows read at a time, whole patches
SEEN = 2**16  # values that middle and deviation are taken of
DEVIATION = 1.4826  # times the median of differences from the median is the standard deviation of normal values
# Deviations; 8192 patches of noise reach 4.7, of noise in light that no polynomial describes 6.5, the faintest nuclei
# at hand (confocal, 0.5 deviations above their background) 6.7.
PATCH_PEAK = 5.5
SKEWED = 0.6  # of means of patches: of noise to 0.4, of few photons multiplied; of the faintest nuclei 1.0
# Deviations of the least of 2 x 2 pixels: of noise to 4.7; a hot pixel is no square. Where noise is smoothed the four
# are nearly one: to 5.7.
SQUARE_PEAK, SMOOTHED_PEAK = 5.0, 6.0
# Degrees of the polynomial that is taken for illumination: 2 is lenses', 6 a laser's, which is brighter in the middle.
COARSEST, FINE = 2, 6
MANY_PATCHES = 24  # along an axis, 192 pixels: in fewer one of degree 6 follows single objects too
# Of fields without objects below 0.5, but where noise was smoothed: then half of the values lie near the middle of the
# range, at 0.45 where they are normal, at 0.31 to 0.59 of fields with few spots. What has neither is not looked at.
COARSE, MIDDLE = 0.75, (0.3, 0.6)
# Excess kurtosis of differences over two pixels: noise that is smoothed, by 3 pixels, reaches 0.25, by 5 in 19 of 20
# fields 0.32; electron microscopy begins at 0.37, membranes of plants at 0.55, embryos at 1.2, natural images at 4.
TAILED, APART = 0.35, 2
TAILED_PATCHES = 0.7  # the same of means of neighbouring patches, which are fewer: of an edge through the image 5
UNKNOWN = math.nan


@dataclasses.dataclass(frozen=True, slots=True)
class Contrast:
    """Range and noise of a channel.

    Parameters
    ----------
    span : float
        The range between the percentiles, in standard deviations of the noise; infinite where no noise is seen.
    only_noise : bool
        Whether there is nothing else: neither in the range, nor a pixel or patch that stands out.
    level : float
        Where in the range the middle of all values lies: near 0 for bright objects on dark, near 1 in bright field.
    rough : float
        Noise over the standard deviation: 1 where each pixel is for itself.
    coarse : float
        Standard deviation of means of patches over that of pixels, without what varies slowly: 1/8 of noise alone.
    plain : bool
        Whether no patch and no square of pixels stands out, whatever the noise is like.
    normal : bool
        Whether, besides, values and their differences are spread as those of smoothed noise: no edges, no middle to a
        side.

    The last five are NaN or False where they are not known.
    """

    span: float = math.inf
    only_noise: bool = False
    level: float = UNKNOWN
    rough: float = UNKNOWN
    coarse: float = UNKNOWN
    plain: bool = False
    normal: bool = False

    @classmethod
    def of(cls, planes: np.ndarray, scale: float, low: float = 0.0) -> "Contrast":
        """Measure (..., Y, X) intensities whose percentiles are `low` and `scale` more.

        The noise is what a pixel differs from its neighbour by, over the root of 2.
        """
        planes = planes.reshape(-1, *planes.shape[-2:])
        steps = np.sum([_steps(strip, axis) for plane in planes for strip in _strips(plane) for axis in (0, 1)], 0)
        noise = noise_of(*steps)
        if not noise or not scale:
            return cls()
        some = planes.ravel()[:: (planes.size // SEEN) | 1].astype(np.float64)  # an odd step meets all columns
        level = (float(np.median(some)) - low) / scale
        found = cls(scale / noise, False, level, noise / max(float(some.std()), noise / 2))
        if min(planes.shape[1:]) < PATCH:
            return found
        means = [np.concatenate([_patches(strip) for strip in _strips(plane)]) for plane in planes]
        left = np.stack([each - _slow(each, each.shape) for each in means])
        rest = float(some.var() - np.stack(means).var() + left.var())  # of pixels without what varies slowly
        coarse = float(left.std()) / math.sqrt(rest) if rest > 0 else 1.0
        even = MIDDLE[0] < level < MIDDLE[1]
        cut = list(_cut(planes, some)) if even or coarse < COARSE else []
        plain = bool(cut) and _is_plain(planes, cut, SQUARE_PEAK if coarse < COARSE else SMOOTHED_PEAK)
        normal = plain and even and _kurtosis(cut, APART) < TAILED and _kurtosis(list(left), 1) < TAILED_PATCHES
        found = dataclasses.replace(found, coarse=coarse, plain=plain, normal=normal)
        if found.span > UNEVEN:
            return found
        peak = max(float(plane.max()) for plane in planes)
        only = found.span <= SPAN and not _stands_out(np.stack(means), peak, noise)
        return dataclasses.replace(found, only_noise=only or _is_even(planes, means, noise))


def _cut(planes: np.ndarray, some: np.ndarray) -> Iterator[np.ndarray]:
    """Yield planes with single pixels that stand far out, as hot ones do, cut off."""
    middle = float(np.median(some))
    away = DEVIATION * float(np.median(np.abs(some - middle))) or float(some.std()) / 2
    return (np.clip(plane.astype(np.float32), middle - PEAK * away, middle + PEAK * away) for plane in planes)


def _kurtosis(planes: list[np.ndarray], apart: int) -> float:
    """Return how much longer the tails of differences of pixels so far apart are than those of normal values.

    Whatever linear filter noise went through, it is 0; edges of things make it large (Field 1987, of natural images).
    """
    sums = np.zeros(3)
    for plane in planes:
        for axis in (0, 1):
            line = np.moveaxis(plane, axis, 0)
            squares = np.square(line[apart:] - line[:-apart])
            sums += squares.size, squares.sum(dtype=np.float64), np.square(squares).sum(dtype=np.float64)
    count, second, fourth = sums
    return float(fourth * count / second**2 - 3) if second else math.inf


def _is_plain(planes: np.ndarray, cut: list[np.ndarray], peak: float) -> bool:
    """Whether no patch, and no square of 2 x 2 pixels by `peak` deviations, stands out of planes in even light."""
    means = [_patches(plane) for plane in cut]
    left = np.stack([each - _slow(each, each.shape) for each in means])
    off = left - np.median(left)
    sd, all_sd = DEVIATION * float(np.median(np.abs(off))), float(left.std())
    if np.abs(off).max() > PATCH_PEAK * sd or abs(float((off**3).mean())) > SKEWED * all_sd**3:
        return False
    return all(_has_no_square(*each, peak) for each in zip(planes, means, strict=True))


def _has_no_square(plane: np.ndarray, means: np.ndarray, peak: float) -> bool:
    even = plane - _slow(means, plane.shape)
    even -= np.median(even)
    least = np.minimum(even[1:], even[:-1])
    least = np.minimum(least[:, 1:], least[:, :-1])
    away = DEVIATION * float(np.median(np.abs(even))) or float(even.std()) / 2
    sd = float(np.clip(even, -PEAK * away, PEAK * away).std())
    return float(least.max() - np.median(least)) <= peak * sd


def _is_even(planes: np.ndarray, means: list[np.ndarray], noise: float) -> bool:
    """Whether nothing but noise is left of what varies as slowly as illumination does over each plane."""
    slow = [_slow(each, plane.shape) for each, plane in zip(means, planes, strict=True)]
    left = np.stack([each - _slow(each, each.shape) for each in means])
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


def _slow(means: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return, without its mean, the polynomial nearest to the means of patches, at as many places over the plane.

    Products of polynomials that are orthonormal along each axis are orthonormal over the grid of patches: what is
    nearest is a projection, and no array of all powers at all places is made.
    """
    degree = FINE if min(means.shape) >= MANY_PATCHES else COARSEST
    (own_y, y), (own_x, x) = (_orthonormal(*sizes, degree) for sizes in zip(means.shape, shape, strict=True))
    weights = own_y.T @ means @ own_x
    weights[np.add.outer(*map(np.arange, weights.shape)) > degree] = 0
    found = y @ weights @ x.T
    return np.asarray(found - found.mean())


def _orthonormal(patches: int, places: int, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return polynomials up to a degree, orthonormal over patches along an axis: there, and at as many places."""
    edge = 1 if places == patches else PATCH
    own, there = (2 * (np.arange(n) + 0.5) / m - 1 for n, m in ((patches, patches), (places, edge * patches)))
    powers = range(min(degree, patches - 1) + 1)
    found, triangle = np.linalg.qr(np.stack([own**i for i in powers], 1))
    return found, np.linalg.solve(triangle.T, np.stack([there**i for i in powers])).T


def _steps(strip: np.ndarray, axis: int) -> np.ndarray:
    """Return the sum of squares of the differences of neighbours, and their number."""
    found = np.diff(strip, axis=axis)
    return np.array([np.square(found, out=found).sum(dtype=np.float64), found.size])


def noise_of(squares: float, count: float) -> float:
    """Return the standard deviation of noise by squared differences of neighbours, summed (von Neumann 1941)."""
    return math.sqrt(squares / count / 2) if count else 0.0
