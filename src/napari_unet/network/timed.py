"""A network that is told a time, at a fixed time: an ordinary U-Net, which streams and is folded as any other."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .unet import ConvUnit, UNet, deployable

NODES = 16  # of a quadrature by Gauss and Legendre: of one step over all times it is right to 1e-9
ALIKE = 0.95  # correlation that an image is taken to have with its degraded one: of 0.9 or 1 it tells as much


def drift(time: Any, power: Any = None) -> tuple[Any, Any]:
    """Return the velocity at a time as a multiple of where one is, and of the image given, as far as these tell it.

    On the way t x + (1 - t) z from normal noise z to x, of variance 1, the best linear guess of x - z follows from
    variances and covariances of the place, the image and x - z. The network learns what is left (as in Karras et al.
    2022 a network learns what its input, weighted, does not tell).

    Parameters
    ----------
    time : float or array
    power : float or array, optional
        Mean square of the image that is given, where it is a degraded x; without it the place alone is used.
    """
    place = time**2 + (1 - time) ** 2
    along = 2 * time - 1
    if power is None:
        return along / place, 0.0
    both = place * power - (time * ALIKE) ** 2
    return (along * power - time * ALIKE**2) / both, (place - along * time) * ALIKE / both


def carried(start: float, stop: float, power: float | None = None) -> tuple[float, float, float]:
    """Return what a step makes of where one is, of the image given, and of what the network gives at its start.

    The velocity is `drift` and what the network adds; that is taken as it is at the start, and `drift` is followed
    exactly, where Euler's steps lose a part of the noise: of 8 a quarter of its standard deviation. With the variance
    of the place that the image leaves, D(t) = power ((1 - t)^2 + t^2) - (t ALIKE)^2, the place changes by D' / 2 D, so
    it is carried by the root of D(stop) / D(start).

    Parameters
    ----------
    start, stop : float
        Times.
    power : float, optional
        As `drift` takes it.

    References
    ----------
    Hochbruck and Ostermann 2010, of exponential integrators; Lu et al. 2022 for samples in few steps.
    """
    whole, alike = (1.0, 0.0) if power is None else (power, ALIKE)

    def left(time: Any) -> Any:
        return whole * ((1 - time) ** 2 + time**2) - (time * alike) ** 2

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    times = (start + stop) / 2 + (stop - start) / 2 * nodes
    ways = np.sqrt(left(stop) / left(times)) * weights * (stop - start) / 2
    image = ways * (1 - times) * alike / left(times)
    return float(np.sqrt(left(stop) / left(start))), float(image.sum()), float(ways.sum())


class Way:
    """Equal steps from noise to image, written so that networks only add to what they are given.

    A step multiplies where it begins, and adds multiples of the image and of what the network gives. All multiples are
    taken at once, of the noise, and a network undoes those that are still to come before it looks: what it is given is
    y, where one is is ``scale * (y + lean * image)``, and in the end that is y.

    Parameters
    ----------
    steps : int
        At least 2: a single one would forget the noise.
    power : sequence of (float or None)
        As `drift` takes it, for each channel that is drawn.

    Attributes
    ----------
    scale, lean, length : lists of arrays, one number a channel
        Before each step, and in the end; the last is what a network's output is multiplied by.
    """

    def __init__(self, steps: int, power: Sequence[float | None]) -> None:
        each = np.array([[carried(n / steps, (n + 1) / steps, one) for one in power] for n in range(steps)])
        left = [np.ones(len(power))]
        lean = [np.zeros(len(power))]
        for place, image in zip(each[::-1, :, 0], each[::-1, :, 1], strict=True):
            lean.insert(0, lean[0] - image * left[0])
            left.insert(0, left[0] * place)
        self.scale, self.lean = [1 / one for one in left], lean
        self.length = [after * one for after, one in zip(left[1:], each[:, :, 2], strict=True)]

    def start(self, noise: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Return what the first network is given: (channels, ...) of noise and of the image."""
        shape = (-1, *(1,) * (noise.ndim - 1))
        scale, lean = (np.reshape(each[0], shape).astype(np.float32) for each in (self.scale, self.lean))
        return noise / scale - (lean * image if bool(self.lean[0].any()) else 0)


def steps_of(net: UNet, way: Way) -> list[UNet]:
    """Return the networks of the steps of a way, as `step_of` gives them.

    Parameters
    ----------
    net : UNet
        Told a time; its output is the velocity of its first input channels, but for `drift`. Left as it is.
    """
    steps = len(way.length)
    return [step_of(net, n / steps, (way.scale[n], way.lean[n]), way.length[n]) for n in range(steps)]


@torch.no_grad()
def step_of(net: UNet, time: float, place: tuple[np.ndarray, np.ndarray], length: np.ndarray) -> UNet:
    """Return the network of one step along what `net` gives, of an image y given an image c.

    As the time is fixed, its scale and shift are those of the convolutions themselves; and as the head is scaled by the
    step's length, adding the input makes the step. It takes and gives the channels of y and c, c unchanged::

        (y, c)  ->  (y + length * net(scale * (y + lean * c), c, time), c)

    Parameters
    ----------
    net : UNet
        Told a time; it gives as many channels as y has. Left as it is.
    time : float
        Where the step begins.
    place : (scale, lean)
        One number each a channel of y; a lean of 0 where c has no such channel.
    length : array
        One number a channel.

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
    weight, moving = first.conv.weight, net.config.out_channels
    for channel, (scale, lean) in enumerate(zip(*place, strict=True)):
        weight[:, channel] *= float(scale)
        if lean:
            weight[:, moving + channel] += float(lean) * weight[:, channel]
    found.moment = None
    config = net.config
    found.config = dataclasses.replace(
        config, timed=False, norm="none", residual=True, dropout=0.0, out_channels=config.in_channels
    )
    head = found.head
    weight, bias = _scaled(head, torch.as_tensor(length, device=head.weight.device))
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
