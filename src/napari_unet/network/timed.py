"""A network that is told a time, at a fixed time: an ordinary U-Net, which streams and is folded as any other."""

import dataclasses
import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from .unet import ConvUnit, UNet, deployable


def drift(time: float | Tensor) -> Any:
    """Return the velocity at a time as a multiple of where one is, as far as that alone tells it.

    On the way from normal noise to something as spread, t x + (1 - t) z, the mean of x - z where one is at y is a
    multiple of y. The network learns what is left (as Karras et al. 2022 let a network learn a part of its input away).
    """
    return (2 * time - 1) / (time**2 + (1 - time) ** 2)


def ahead(steps: int) -> list[float]:
    """Return what each of so many equal steps, and all after it, multiply by `drift`; in the end by 1."""
    growth = [1 + drift(number / steps) / steps for number in range(steps)]
    return [math.prod(growth[number:]) for number in range(steps + 1)]


def starting_scale(steps: int) -> float:
    """Return what noise is multiplied by before the first of so many steps, see `euler_steps`."""
    return ahead(steps)[0]


def euler_steps(net: UNet, steps: int) -> list[UNet]:
    """Return the networks of so many equal steps from noise to image.

    Each step multiplies where it begins, by `drift`, and adds to it. Networks add to just what they are given, so all
    multiples are taken at once, of the noise, and a network undoes those that are still to come before it looks.

    Parameters
    ----------
    net : UNet
        Told a time; its output is the velocity of its first input channels, but for `drift`. Left as it is.
    steps : int
        At least 2: a single one would forget the noise.

    Returns
    -------
    list of UNet, as `euler_step` gives them
    """
    left = ahead(steps)
    return [euler_step(net, n / steps, 1 / left[n], left[n + 1] / steps) for n in range(steps)]


@torch.no_grad()
def euler_step(net: UNet, time: float, scale: float, length: float) -> UNet:
    """Return the network of one step along what `net` gives, of an image x given an image y.

    As the time is fixed, its scale and shift are those of the convolutions themselves; and as the head is scaled by the
    step's length, adding the input makes the step. It takes and gives the channels of x and y, y unchanged::

        (x, y)  ->  (x + length * net(scale * x, y, time), y)

    Parameters
    ----------
    net : UNet
        Told a time; it gives as many channels as x has. Left as it is.
    time : float
        Where the step begins.

    Returns
    -------
    UNet in eval mode, its norms folded
    """
    found = deployable(net)
    moment = net.features_of(torch.tensor([time], device=net.head.weight.device))
    for module in found.modules():
        if isinstance(module, ConvUnit):
            factor, shift = cast("nn.Linear", module.time)(moment)[0].double().chunk(2)
            _set(module.conv, *_scaled(module.conv, 1 + factor, shift))
            module.time, module.norm = None, nn.Identity()
    first = cast("Any", next(module for module in found.modules() if isinstance(module, ConvUnit)))
    first.conv.weight[:, : net.config.out_channels] *= scale
    found.moment = None
    config = net.config
    found.config = dataclasses.replace(
        config, timed=False, norm="none", residual=True, dropout=0.0, out_channels=config.in_channels
    )
    head = found.head
    weight, bias = _scaled(
        head, torch.full((config.out_channels,), length, dtype=torch.float64, device=head.weight.device)
    )
    given = config.in_channels - config.out_channels
    _set(
        head, torch.cat([weight, weight.new_zeros(given, *weight.shape[1:])]), torch.cat([bias, bias.new_zeros(given)])
    )
    return found.requires_grad_(False)


def _scaled(conv: Any, scale: Tensor, shift: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the weights of a convolution whose output is scaled and shifted, channel by channel."""
    weight = conv.weight.double() * scale.reshape(-1, *(1,) * (conv.weight.ndim - 1))
    return weight, conv.bias.double() * scale + shift


def _set(conv: Any, weight: Tensor, bias: Tensor) -> None:
    """Give a convolution other weights, in the precision that it has."""
    kind = conv.weight.dtype
    conv.weight, conv.bias = nn.Parameter(weight.to(kind)), nn.Parameter(bias.to(kind))
    conv.out_channels = len(bias)
