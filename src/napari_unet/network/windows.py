"""How a network is run that takes statistics of what it is given: on all of an image, or in windows at fixed places.

Which it is follows from the network and the size of the image alone, never from memory or tiles::

    small          |iiiiiiiiiiii|               one pass over all of the image
    larger         |mm|cccc|mm|                 windows side by side: c, the core, is taken; m, the margin, is seen
                        |mm|cccc|mm|
    of nnU-Net     |gggggggg|                   windows that overlap by about half, weighed by a Gaussian, as its own;
                       |gggggggg|               around an image smaller than one of them are zeros
                          |gggggggg|
"""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .graph import GraphConfig
    from .known import KnownConfig

    Windowed = GraphConfig | KnownConfig

WHOLE = 2**25  # elements of the finest level, such as 1024 x 1024 of 32 features: one pass takes some 0.8 GiB
STEP = 2  # of a window's size, from one to the next; nnU-Net's own, as are the next two
SIGMA = 8  # of a window's size: what a Gaussian is wide
PEAK = 10.0  # of the Gaussian: what is far from the middle is more than the least float16 then


def is_blended(config: Any) -> TypeGuard["KnownConfig"]:
    """Whether a network runs in windows that overlap and are weighed."""
    return bool(getattr(config, "blended", False) and config.window)


def goes_whole(config: "Windowed", sizes: Sequence[int]) -> bool:
    """Whether an image of `sizes` along the axes that the network looks along goes through it in one pass."""
    if config.blended or not all(config.step):
        return False
    return math.prod(sizes) * config.base_features <= WHOLE


def starts(size: int, window: int) -> list[int]:
    """Return where windows begin on an axis; below 0 where one is larger than the axis, which lies in its middle."""
    if size <= window:
        return [-((window - size) // 2)]
    count = math.ceil((size - window) / (window / STEP)) + 1
    return [round((size - window) / (count - 1) * i) for i in range(count)]


@functools.lru_cache(maxsize=2)  # of a model, and of another that is compared with it
def importance(window: tuple[int, ...]) -> Tensor:
    """Return what each element of a window weighs: a Gaussian, in float16 nowhere 0."""
    found = np.full((1,) * len(window), PEAK)
    for axis, n in enumerate(window):
        away = np.arange(n) - n // 2
        line = np.exp(-0.5 * (away / (n / SIGMA)) ** 2)
        found = found * line.reshape([-1 if i == axis else 1 for i in range(len(window))])
    half = found.astype(np.float16)
    return torch.from_numpy(np.where(half == 0, half[half > 0].min(), half).astype(np.float32))
