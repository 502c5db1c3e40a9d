"""An image made worse on purpose, computed where it is read: what a network learns to undo."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import ndimage

from .resample import resampled
from .stack import Stack
from .views import LazyArray, View, chunk_shape

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
    finest = min(stack.along(stack.spatial))
    sigma = tuple(
        blur * finest / s if a in stack.spatial else 0.0 for a, s in zip(stack.axes, stack.scale, strict=True)
    )
    stack = dataclasses.replace(stack, data=Blurred(stack.data, sigma))
    axes = stack.axes[len(stack.axes) - len(factors) :]
    sizes = zip(axes, factors, stack.along(axes), strict=True)
    return resampled(stack, {a: s * f for a, f, s in sizes if f > 1})


@dataclasses.dataclass(frozen=True, slots=True)
class Blurred:
    """A lazy array, blurred by a Gaussian, mirrored at its borders; float32.

    Parameters
    ----------
    base : lazy array
    sigma : tuple of float
        One an axis, in elements.
    """

    base: LazyArray
    sigma: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the base."""
        return tuple(self.base.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Chunks of the base."""
        return chunk_shape(self.base)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a region: one slice of step 1 or integer an axis."""
        parts = key if isinstance(key, tuple) else (key,)
        if Ellipsis in parts or len(parts) < self.ndim:
            return np.asarray(View.of(self)[key])
        spans = [
            part.indices(n)[:2] if isinstance(part, slice) else (range(n)[part], range(n)[part] + 1)
            for part, n in zip(parts, self.shape, strict=True)
        ]
        reach = [math.ceil(REACH * s) for s in self.sigma]
        wide = [(max(a - r, 0), min(b + r, n)) for (a, b), r, n in zip(spans, reach, self.shape, strict=True)]
        data = np.asarray(self.base[tuple(slice(*w) for w in wide)]).astype(np.float32)
        data = ndimage.gaussian_filter(data, self.sigma, mode="mirror", radius=reach) if any(self.sigma) else data
        inner = tuple(slice(a - w, b - w) for (a, b), (w, _) in zip(spans, wide, strict=True))
        return data[inner][tuple(slice(None) if isinstance(part, slice) else 0 for part in parts)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all of it."""
        return np.asarray(self[...], dtype=dtype)
