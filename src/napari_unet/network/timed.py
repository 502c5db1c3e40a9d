"""A network that is told a time, at a fixed time: an ordinary U-Net, which streams and is folded as any other."""

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor, nn

from .unet import ConvUnit, UNet, deployable


@torch.no_grad()
def euler_step(net: UNet, time: float, length: float) -> UNet:
    """Return the network of one step along the velocity that `net` gives, of an image x given an image y.

    As the time is fixed, its scale and shift are those of the convolutions themselves; and as the head is scaled by the
    step's length, adding the input makes the step. It takes and gives the channels of x and y, y unchanged::

        (x, y)  ->  (x + length * net(x, y, time), y)

    Parameters
    ----------
    net : UNet
        Told a time; its first output channels are the velocity of its first input channels. Left as it is.
    time, length : float
        Where the step begins, and how far it goes.

    Returns
    -------
    UNet in eval mode, its norms folded
    """
    found = deployable(net)
    moment = net.features_of(torch.tensor([time], device=net.head.weight.device))
    for module in found.modules():
        if isinstance(module, ConvUnit):
            scale, shift = cast("nn.Linear", module.time)(moment)[0].double().chunk(2)
            _set(module.conv, *_scaled(module.conv, 1 + scale, shift))
            module.time, module.norm = None, nn.Identity()
    found.moment = None
    config = net.config
    found.config = dataclasses.replace(
        config, timed=False, norm="none", residual=True, dropout=0.0, out_channels=config.in_channels
    )
    head = found.head
    weight, bias = _scaled(head, torch.full((config.out_channels,), length).to(head.weight).double())
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
