"""Structural similarity as a loss: differentiable, 2-D and 3-D."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004
K1, K2 = 0.01, 0.03  # Wang et al. 2004
RANGE = 4.0  # of normalised intensities: two standard deviations to either side


def similarity(found: Tensor, truth: Tensor) -> Tensor:
    """Return the mean structural similarity of (B, C, *S) intensities of mean 0 and standard deviation 1.

    References
    ----------
    Wang et al. 2004: a Gaussian window of 11 elements and sigma 1.5.
    """
    a, b = (x.reshape(-1, 1, *x.shape[2:]).float() for x in (found, truth))
    means = [_blurred(x) for x in (a, b, a * a, b * b, a * b)]
    ma, mb, aa, bb, ab = means
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    top = (2 * ma * mb + c1) * (2 * (ab - ma * mb) + c2)
    below = (ma * ma + mb * mb + c1) * ((aa - ma * ma) + (bb - mb * mb) + c2)
    return (top / below).mean()


def _blurred(x: Tensor) -> Tensor:
    """Blur (N, 1, *S), one axis after the other; a window no larger than the image."""
    run: Any = functional.conv2d if x.ndim == 4 else functional.conv3d
    for axis in range(2, x.ndim):
        size = min(WINDOW, x.shape[axis] - (1 - x.shape[axis] % 2))
        places = torch.arange(size, dtype=torch.float32, device=x.device) - size // 2
        weights = torch.exp(-0.5 * (places / SIGMA) ** 2)
        x = run(x, (weights / weights.sum()).reshape([1, 1, *(-1 if i == axis else 1 for i in range(2, x.ndim))]))
    return x
