"""The numbers of a U-Net: how far it looks, and on which grid it may be tiled."""

import math
from collections.abc import Sequence

from ..grid.tiles import Footprint
from .config import UNetConfig
from .graph import GraphConfig
from .known import KnownConfig
from .windows import goes_whole


def footprint(config: UNetConfig | GraphConfig | KnownConfig, sizes: Sequence[int] = ()) -> Footprint:
    """Compute how far the network looks, and on which grid it may be tiled.

    Parameters
    ----------
    sizes : sequence of int, optional
        Of the image, along the axes that the network looks along: how one that takes statistics of what it is given is
        run follows from them. Of a large one if not given.
    """
    none = (0,) * config.ndim
    if not isinstance(config, UNetConfig) and config.window:
        if sizes and goes_whole(config, sizes):
            return Footprint(config.stride, _up(sizes, config.stride), none, none)
        if config.blended:
            return Footprint(config.stride, _up(config.window, config.stride), none, none)
        return Footprint(config.core, config.core, none, none)  # one more window on each side holds the margins
    if isinstance(config, KnownConfig):
        return Footprint(config.stride, config.halo or none, none, none)
    if isinstance(config, GraphConfig):
        return Footprint(config.stride, config.halo, none, none, config.least)
    parts = [_axis_same(config, i) if config.padding == "same" else _axis_valid(config, i) for i in range(config.ndim)]
    halo, margin, remainder = zip(*parts, strict=True)
    return Footprint(config.stride, halo, margin, remainder)


def _up(sizes: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.ceil(n / s) * s for n, s in zip(sizes, stride, strict=True))


def receptive_radius(config: UNetConfig) -> tuple[int, ...]:
    """Return how many elements the output at any place sees at most to either side, per axis."""
    return tuple(_radius(config, axis) for axis in range(config.ndim))


def _reach(config: UNetConfig, axis: int, low: int, high: int) -> tuple[int, int]:
    """Return the input interval that outputs [low, high) depend on; convolutions centred (Araujo et al. 2019)."""
    radius = [level[axis] // 2 * 2 for level in config.kernel_list]
    stride = [level[axis] for level in config.stride_list]
    finer = -(-(config.kernel_list[0][axis] // 2) // config.factors[axis]) if config.upscale else 0
    low, high = low - finer, high + finer
    skips = []
    for r, s in zip(radius, stride, strict=False):
        low, high = low - r, high + r
        skips.append((low, high))
        low, high = low // s, -(-high // s)
    low, high = low - radius[-1], high + radius[-1]
    for level in reversed(range(config.depth)):
        low, high = low * stride[level], high * stride[level]
        if config.skips:
            low, high = min(low, skips[level][0]), max(high, skips[level][1])
        low, high = low - radius[level], high + radius[level]
    return low, high


def _radius(config: UNetConfig, axis: int) -> int:
    reach = [_reach(config, axis, i, i + 1) for i in range(config.stride[axis])]
    return max(max(i - low, high - 1 - i) for i, (low, high) in enumerate(reach))


def _axis_same(config: UNetConfig, axis: int) -> tuple[int, int, int]:
    """Return (halo, margin, remainder) of one axis of same convolutions."""
    stride = config.stride[axis]
    low, high = _reach(config, axis, 0, stride)
    return math.ceil(max(-low, high - stride) / stride) * stride, 0, 0


def _axis_valid(config: UNetConfig, axis: int) -> tuple[int, int, int]:
    """Return (halo, margin, remainder) of one axis of valid convolutions."""
    loss = [level[axis] // 2 * 4 for level in config.kernel_list]
    stride = [level[axis] for level in config.stride_list]
    bottom = 1
    while True:
        size_in, size_out = bottom + loss[-1], bottom
        sizes = []
        for level in reversed(range(config.depth)):
            size_in = size_in * stride[level] + loss[level]
            size_out = size_out * stride[level] - loss[level]
            sizes.append(size_out)
        if min(sizes, default=1) > 0:
            return 0, (size_in - size_out) // 2, size_out
        bottom += 1
