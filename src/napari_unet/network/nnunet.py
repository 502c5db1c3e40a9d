"""Networks of nnU-Net (Apache-2.0): PlainConvUNet and ResidualEncoderUNet, under the names of their weights there."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .layers import activation, convolution, named, norm, pooling, up_convolution

Stride = Sequence[int]


class Unit(nn.Module):
    """Convolution, norm and activation; of some the last two change places, and some have no activation."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        channels: tuple[int, int],
        kernel: Stride,
        stride: Stride,
        *,
        bias: bool,
        act: bool = True,
    ) -> None:
        super().__init__()
        ndim = len(kernel)
        self.conv = convolution(ndim, channels, kernel, stride, bias)
        self.norm = norm(ndim, settings["norm"], channels[1])
        self.nonlin = activation(settings["act"] if act else ["none", {}])
        self.act_first = bool(settings["act_first"]) and act

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C', *S')."""
        x = self.conv(x)
        return cast("Tensor", self.norm(self.nonlin(x)) if self.act_first else self.nonlin(self.norm(x)))


def stacked(
    settings: Mapping[str, Any], count: int, channels: tuple[int, int], level: int, stride: Stride
) -> nn.Module:
    """Return convolutions of one level, the first of `stride`."""
    kernel, (before, after) = settings["kernels"][level], channels
    each = [
        Unit(
            settings, (after if i else before, after), kernel, [1] * len(kernel) if i else stride, bias=settings["bias"]
        )
        for i in range(count)
    ]
    return named(convs=nn.Sequential(*each))


class Residual(nn.Module):
    """A residual block as in ResNet-D: two convolutions, or three with fewer channels between; pooling beside.

    References
    ----------
    He et al., Bag of tricks for image classification with convolutional neural networks, CVPR 2019.
    """

    def __init__(
        self, settings: Mapping[str, Any], channels: tuple[int, int], between: int, kernel: Stride, stride: Stride
    ) -> None:
        super().__init__()
        one, bias, (before, after) = [1] * len(kernel), settings["bias"], channels
        if between:
            self.conv1 = Unit(settings, (before, between), one, one, bias=bias)
            self.conv2 = Unit(settings, (between, between), kernel, stride, bias=bias)
            self.conv3 = Unit(settings, (between, after), one, one, bias=bias, act=False)
        else:
            self.conv1 = Unit(settings, channels, kernel, stride, bias=bias)
            self.conv2 = Unit(settings, (after, after), kernel, one, bias=bias, act=False)
        self.units = 3 if between else 2
        self.last = activation(settings["act"])
        beside = [pooling(len(kernel), "avg", stride)] if max(stride) > 1 else []
        beside += [Unit(settings, channels, one, one, bias=False, act=False)] if before != after else []
        self.skip = nn.Sequential(*beside)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C', *S')."""
        beside = self.skip(x)
        for i in range(self.units):
            x = self.get_submodule(f"conv{i + 1}")(x)
        return cast("Tensor", self.last(x + beside))


class NnUNet(nn.Module):
    """Strided convolutions down, plain or residual, touching up-convolutions up, one output at the finest level.

    References
    ----------
    ``dynamic_network_architectures``; Isensee et al., nnU-Net, Nature Methods 18, 2021, and nnU-Net Revisited, 2024.
    """

    def __init__(self, ndim: int, in_channels: int, out_channels: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        features, strides, counts = settings["features"], settings["strides"], settings["convs"]
        self.levels, residual = len(features), bool(settings["residual"])
        encoder, before = nn.Module(), in_channels
        if residual:
            stem = settings["stem"] or features[0]
            encoder.add_module("stem", stacked(settings, 1, (before, stem), 0, [1] * ndim))
            before = stem
        stages = nn.Sequential()
        for level, after in enumerate(features):
            if residual:
                stages.append(_residuals(settings, (before, after), level))
            else:
                stages.append(nn.Sequential(stacked(settings, counts[level], (before, after), level, strides[level])))
            before = after
        encoder.add_module("stages", stages)
        self.encoder, self.decoder = encoder, nn.Module()
        ups, blocks, last = nn.ModuleList(), nn.ModuleList(), self.levels - 2
        for place, level in enumerate(range(last, -1, -1)):
            ups.append(
                up_convolution(ndim, (features[level + 1], features[level]), strides[level + 1], settings["bias"])
            )
            both = 2 * features[level], features[level]
            blocks.append(stacked(settings, settings["decoder_convs"][place], both, level, [1] * ndim))
        head = convolution(ndim, (features[0], out_channels), [1] * ndim, [1] * ndim, True)
        self.decoder.add_module("stages", blocks)
        self.decoder.add_module("transpconvs", ups)
        self.decoder.add_module("seg_layers", nn.ModuleDict({str(last): head}))  # coarser ones served the training

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, K, *S), S a multiple of the stride."""
        stem: Any = getattr(self.encoder, "stem", None)
        x = x if stem is None else stem(x)
        held, decoder = [], cast("Any", self.decoder)
        for stage in cast("nn.Sequential", self.encoder.stages):
            x = stage(x)
            held.append(x)
        for place in range(self.levels - 1):
            x = torch.cat([decoder.transpconvs[place](x), held[-2 - place]], 1)
            x = decoder.stages[place](x)
        return cast("Tensor", decoder.seg_layers[str(self.levels - 2)](x))


def _residuals(settings: Mapping[str, Any], channels: tuple[int, int], level: int) -> nn.Module:
    kernel, between = settings["kernels"][level], (settings["between"] or [0] * (level + 1))[level]
    each = []
    for i in range(settings["convs"][level]):
        stride = [1] * len(kernel) if i else settings["strides"][level]
        each.append(Residual(settings, (channels[1] if i else channels[0], channels[1]), between, kernel, stride))
    return named(blocks=nn.Sequential(*each))
