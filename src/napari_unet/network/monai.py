"""Networks of MONAI (Apache-2.0): BasicUNet and UNet, under the names that MONAI gives their weights."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .layers import activation, convolution, named, norm, pooling, up_convolution


def _adn(ndim: int, settings: Mapping[str, Any], features: int) -> nn.Sequential:
    """Return norm and activation in the order that the settings say."""
    parts = {"N": norm(ndim, settings["norm"], features), "A": activation(settings["act"])}
    return named(**{letter: parts[letter] for letter in settings["order"]})


class BasicUNet(nn.Module):
    """Four poolings, two convolutions per level, learnt up-sampling.

    References
    ----------
    ``monai.networks.nets.BasicUNet``; Falk et al., Nature Methods 16, 2019.
    """

    def __init__(self, ndim: int, in_channels: int, out_channels: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.ndim, self.settings = ndim, settings
        widths, self.strides = settings["features"], settings["strides"]
        self.conv_0 = self._block(in_channels, widths[0])
        for level in range(1, 5):
            pool = pooling(ndim, settings["pool"], self.strides[level - 1])
            down = named(max_pooling=pool, convs=self._block(widths[level - 1], widths[level]))
            self.add_module(f"down_{level}", down)
        for level in range(4, 0, -1):
            below, above = widths[level], widths[level] // 2 if level > 1 and widths[level] > 1 else widths[level]
            up = nn.Module()
            up.add_module("upsample", named(deconv=up_convolution(ndim, (below, above), self.strides[level - 1], True)))
            after = widths[level - 1] if level > 1 else widths[5]
            up.add_module("convs", self._block(widths[level - 1] + above, after))
            self.add_module(f"upcat_{level}", up)
        self.final_conv = convolution(ndim, (widths[5], out_channels), [1] * ndim, [1] * ndim, True)

    def _block(self, before: int, after: int) -> nn.Sequential:
        """Return two convolutions, each with its norm and activation."""
        found = nn.Sequential()
        for i, channels in enumerate((before, after)):
            kernel, bias = self.settings["kernels"][0], self.settings["bias"]
            conv = convolution(self.ndim, (channels, after), kernel, [1] * self.ndim, bias)
            found.add_module(f"conv_{i}", named(conv=conv, adn=_adn(self.ndim, self.settings, after)))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, K, *S), S a multiple of the stride."""
        held = [self.conv_0(x)]
        for level in range(1, 5):
            held.append(self.get_submodule(f"down_{level}")(held[-1]))
        x = held[4]
        for level in range(4, 0, -1):
            up = self.get_submodule(f"upcat_{level}")
            x = torch.cat([held[level - 1], up.get_submodule("upsample")(x)], 1)
            x = up.get_submodule("convs")(x)
        return cast("Tensor", self.final_conv(x))


class UNet(nn.Module):
    """Strided convolutions or residual units down, strided up-convolutions up.

    References
    ----------
    ``monai.networks.nets.UNet``; Kerfoot et al., Left-Ventricle Quantification Using Residual U-Net, 2019.
    """

    def __init__(self, ndim: int, in_channels: int, out_channels: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.ndim, self.settings = ndim, settings
        self.model = self._level((in_channels, out_channels), settings["features"], settings["strides"], True)

    def _level(
        self, ends: tuple[int, int], features: Sequence[int], strides: Sequence[Sequence[int]], top: bool
    ) -> nn.Sequential:
        """Return a level with all that are below it."""
        first, second = features[0], features[1]
        if len(features) > 2:
            below: nn.Module = self._level((first, first), features[1:], strides[1:], False)
            joined = 2 * first
        else:
            below, joined = self._down((first, second), [1] * self.ndim), first + second
        down = self._down((ends[0], first), strides[0])
        return nn.Sequential(down, Beside(below), self._up((joined, ends[1]), strides[0], top))

    def _down(self, channels: tuple[int, int], stride: Sequence[int]) -> nn.Module:
        units = self.settings["units"]
        return self._residual(channels, stride, units) if units else self._unit(channels, stride)

    def _unit(self, channels: tuple[int, int], stride: Sequence[int], bare: bool = False) -> nn.Sequential:
        """Return a convolution with its norm and activation, or without."""
        conv = convolution(self.ndim, channels, self.settings["kernels"][0], stride, self.settings["bias"])
        return named(conv=conv) if bare else named(conv=conv, adn=_adn(self.ndim, self.settings, channels[1]))

    def _residual(
        self, channels: tuple[int, int], stride: Sequence[int], units: int, bare: bool = False
    ) -> "ResidualUnit":
        before, after = channels
        one, strided = [1] * self.ndim, max(stride) > 1
        each = [
            self._unit((before if i == 0 else after, after), stride if i == 0 else one, bare and i == units - 1)
            for i in range(units)
        ]
        beside: nn.Module = nn.Identity()
        if strided or before != after:
            kernel = self.settings["kernels"][0] if strided else one
            beside = convolution(self.ndim, channels, kernel, stride, self.settings["bias"])
        return ResidualUnit(each, beside)

    def _up(self, channels: tuple[int, int], stride: Sequence[int], top: bool) -> nn.Module:
        kernel, units = self.settings["up_kernels"][0], self.settings["units"]
        if any(k % 2 == 0 for k in kernel):
            raise ValueError(f"a kernel of {list(kernel)} has no centre; odd ones are known")
        kind: Any = nn.ConvTranspose2d if self.ndim == 2 else nn.ConvTranspose3d
        around, rest = tuple(k // 2 for k in kernel), tuple(s - 1 for s in stride)
        conv = kind(*channels, tuple(kernel), tuple(stride), around, rest, bias=self.settings["bias"])
        if top and not units:
            return named(conv=conv)
        found = named(conv=conv, adn=_adn(self.ndim, self.settings, channels[1]))
        if not units:
            return found
        return nn.Sequential(found, self._residual((channels[1], channels[1]), [1] * self.ndim, 1, top))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, K, *S), S a multiple of the stride."""
        return cast("Tensor", self.model(x))


class ResidualUnit(nn.Module):
    """Convolutions, and what they were given added to what they give."""

    def __init__(self, units: Sequence[nn.Module], beside: nn.Module) -> None:
        super().__init__()
        self.conv = named(**{f"unit{i}": unit for i, unit in enumerate(units)})
        self.residual = beside

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C', *S')."""
        beside = self.residual(x)
        return cast("Tensor", self.conv(x) + beside)


class Beside(nn.Module):
    """What a part is given, and behind it what it gives, as channels."""

    def __init__(self, below: nn.Module) -> None:
        super().__init__()
        self.submodule = below

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C + C', *S)."""
        return torch.cat([x, self.submodule(x)], 1)
