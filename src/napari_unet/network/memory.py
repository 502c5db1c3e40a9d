"""What a training step holds in memory, computed from the network alone."""

import math
from collections.abc import Sequence

import torch

from . import KnownConfig, LearntConfig, build, footprint
from .unet import MOMENT, WAVES


def parameters(net: LearntConfig) -> int:
    """Return the number of weights of a network."""
    if isinstance(net, KnownConfig):
        with torch.device("meta"):
            return sum(part.numel() for part in build(net).parameters())
    features, kernels = net.features, [math.prod(k) for k in net.kernel_list]
    extra = {"none": 1, "instance": 2, "group": 2, "batch": 2}[net.norm]
    total, previous = 0, net.in_channels
    for f, k in zip(features, kernels, strict=True):
        total += k * f * (previous + f) + 2 * extra * f
        previous = f
    for i, stride in enumerate(net.stride_list):
        f = features[i]
        total += features[i + 1] * f * (math.prod(stride) if net.upsample == "transpose" else 1) + f
        total += kernels[i] * f * (f * (1 + net.skips) + f) + 2 * extra * f
    if net.upscale:
        f = features[0]
        total += f * f * (math.prod(net.upscale) if net.upsample == "transpose" else 1) + f
        total += kernels[0] * f * f + extra * f
    if net.timed:
        convolutions = sum(4 * f for f in features) - 2 * features[-1]  # their channels: of two and two per level
        total += (2 * WAVES + 1) * MOMENT + 2 * (MOMENT + 1) * convolutions
    return total + net.out_channels * (features[0] + 1)


def training_bytes(net: LearntConfig, patch: Sequence[int], batch: int, itemsize: int) -> int:
    """Estimate the bytes a training step holds: activations with their gradients, weights with optimiser and average.

    Parameters
    ----------
    patch : shape of what the network puts out
    itemsize : bytes of an activation
    """
    voxels = float(math.prod(n + 2 * m for n, m in zip(patch, footprint(net).margin, strict=True)))
    held, features = 0.0, net.features
    for level, f in enumerate(features):
        # Two convolutions and two norms; in the decoder as many again, the concatenation and the upsampled half.
        held += voxels * f * (4 if level == net.depth else 4 + 4 + 1 + (2 if net.skips else 0))
        if level < net.depth:
            voxels /= math.prod(net.stride_list[level])
    first = math.prod(patch) * math.prod(net.factors)
    held += 3 * first * features[0] * bool(net.upscale)
    widest = first * (4 * features[0] * itemsize + 4 * 4 * (net.out_channels + net.in_channels))
    weights = parameters(net) * (4 * 5 + itemsize)
    return int(batch * (held * itemsize + widest) + weights)
