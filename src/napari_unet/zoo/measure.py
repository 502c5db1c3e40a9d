"""How far a network looks, and on which grid it may be cut: measured, by changing half of what it is given."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

# Across, per axes of the image: narrow images cost little, and hide nothing of a network that is alike everywhere.
WIDE = {2: 64, 3: 16}
SHIFTS = (1, 2, 4, 8, 16, 32, 64)  # strides that are tried
SAME = 1e-5  # of the range of the output: what rounding makes of sums in another order
SEEDS = 3  # images that are tried: a maximum hides what is below it
# What takes statistics from all that it sees, by the name of its operator.
WHOLE = (
    "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "InstanceNormalization", "GroupNormalization",
    "LayerNormalization", "MeanVarianceNormalization",
)  # fmt: skip

Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, slots=True)
class Reach:
    """How far a network looks per axis, None where further than was tried, and its grid."""

    radius: tuple[int | None, ...]
    stride: tuple[int, ...]


def look(run: Run, shape: tuple[int, ...], axis: int, factor: int) -> tuple[int | None, int]:
    """Measure a network along one axis, on images of noise.

    Parameters
    ----------
    run : callable
        The network: (1, C, *S) -> (1, K, *S).
    shape : tuple of int
        (1, C, *S); a network that looks further than half of S along the axis looks at all.
    axis : int
        Of S.
    factor : int
        Elements of the output for one of the input along it.

    Returns
    -------
    how far it looks, None where that is at all; and its stride
    """
    radius = _radius(run, shape, axis, factor)
    return radius, 1 if radius is None else _stride(run, shape, axis, radius, factor)


def _images(shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images of noise, rough and smooth, and others to take their place."""
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        one, other = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
        yield (one, other) if not seed else (one, 3 * other + 1)


def _radius(run: Run, shape: tuple[int, ...], axis: int, factor: int) -> int | None:
    """Return how far from where half of an image is another one the output is another one; None where everywhere.

    What is further away is computed alike to the last bit. Tiles begin at multiples of the stride, and end where that
    or the size of a window says: halves begin at such places.
    """
    size, most = shape[axis + 2], 0
    grid = next(s for s in reversed((1, *SHIFTS)) if 4 * s <= size or s == 1)
    others = tuple(i for i in range(len(shape)) if i != axis + 2)
    for one, other in _images(shape):
        plain = run(one)
        for at in {size // 2 // grid * grid, size // 2 // grid * grid + size % grid}:
            for beyond in (slice(at, size), slice(0, at)):
                mixed = one.copy()
                mixed[:, :, *(slice(None),) * axis, beyond] = other[:, :, *(slice(None),) * axis, beyond]
                changed = np.flatnonzero((run(mixed) != plain).any(others)) // factor
                if not changed.size:
                    continue
                most = max(most, int(at - changed[0] if beyond.start else changed[-1] - at + 1))
                if changed[0] == 0 and changed[-1] == size - 1:
                    return None
    return most


def _stride(run: Run, shape: tuple[int, ...], axis: int, radius: int, factor: int) -> int:
    """Return the least shift of an image by which the output is shifted alike, away from its ends."""
    (image, _), *_ = _images(shape)
    plain, size = run(image), shape[axis + 2]
    for shift in SHIFTS:
        kept = slice(radius * factor, (size - radius - shift) * factor)
        if kept.start >= kept.stop:
            break
        moved = np.roll(image, -shift, axis + 2)
        there = np.moveaxis(plain, axis + 2, 0)[kept.start + shift * factor : kept.stop + shift * factor]
        here = np.moveaxis(run(moved), axis + 2, 0)[kept]
        if np.abs(there - here).max() <= SAME * max(float(np.ptp(plain)), 1e-30):
            return shift
    return SHIFTS[-1]
