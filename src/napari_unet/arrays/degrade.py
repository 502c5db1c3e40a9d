"""An image made worse on purpose, computed where it is read: what a network learns to undo."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import ndimage

from .resample import resampled
from .stack import Stack
from .views import Box, LazyArray, LazyBase

REACH = 4.0  # of a Gaussian, in its sigma


def degraded(stack: Stack, blur: float = 0.0, factors: tuple[int, ...] = ()) -> Stack:
    """Blur a stack, then take the mean of `factors` elements for one, lazily.

    Parameters
    ----------
    stack : Stack
        Its size along the last axes must be multiples of `factors`.
    blur : float
        Sigma of a Gaussian, in elements of the stack along y and x, and along z where it is as fine as these.
    factors : tuple of int
        Elements along the last axes that one of the result stands for.

    Returns
    -------
    Stack
        float32; its pixels cover the same part of the world.
    """
    finest = min(stack.scale_along(stack.spatial))
    sigma = tuple(
        blur * finest / s if a in stack.spatial else 0.0 for a, s in zip(stack.axes, stack.scale, strict=True)
    )
    stack = dataclasses.replace(stack, data=Blurred(stack.data, sigma))
    axes = stack.axes[len(stack.axes) - len(factors) :]
    sizes = zip(axes, factors, stack.scale_along(axes), strict=True)
    return resampled(stack, {a: s * f for a, f, s in sizes if f > 1})


@dataclasses.dataclass(frozen=True, slots=True)
class Blurred(LazyBase):
    """A lazy array, blurred by a Gaussian, mirrored at its borders; float32.

    Parameters
    ----------
    sigma : tuple of float
        One per axis, in elements.
    """

    base: LazyArray
    sigma: tuple[float, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    def read(self, box: Box) -> np.ndarray:
        """Blur a box, with what lies around it as far as the Gaussian reaches."""
        reach = [math.ceil(REACH * s) for s in self.sigma]
        wide = [slice(max(b.start - r, 0), min(b.stop + r, n)) for b, r, n in zip(box, reach, self.shape, strict=True)]
        data = np.asarray(self.base[tuple(wide)]).astype(np.float32)
        data = ndimage.gaussian_filter(data, self.sigma, mode="mirror", radius=reach) if any(self.sigma) else data
        return data[tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, wide, strict=True))]
