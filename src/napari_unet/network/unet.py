"""The U-Net itself, and how it is folded for inference."""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import ModelError
from .config import GROUPS, UNetConfig


def _conv(ndim: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    return nn.Conv2d if ndim == 2 else nn.Conv3d


def _norm(config: UNetConfig, features: int) -> nn.Module:
    if config.norm == "batch":
        return nn.BatchNorm2d(features) if config.ndim == 2 else nn.BatchNorm3d(features)
    if config.norm == "instance":
        kind = nn.InstanceNorm2d if config.ndim == 2 else nn.InstanceNorm3d
        return kind(features, affine=True)
    if config.norm == "group":
        return nn.GroupNorm(GROUPS, features)
    return nn.Identity()


WAVES = 16  # frequencies that a time is told by: 1 to 1000 radians from first to last, as in Ho et al. 2020
MOMENT = 64  # features of a time, from which each convolution takes its scale and shift: a few weights beside kernels


class ConvUnit(nn.Module):
    """Convolution, norm, ReLU; a time, where the network is told one, scales and shifts what the ReLU takes."""

    def __init__(self, config: UNetConfig, channels: tuple[int, int], kernel: tuple[int, ...]) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel) if config.padding == "same" else 0
        bias = config.norm == "none"
        self.conv = _conv(config.ndim)(*channels, cast("Any", kernel), padding=cast("Any", padding), bias=bias)
        self.norm = _norm(config, channels[1])
        self.time = nn.Linear(MOMENT, 2 * channels[1]) if config.timed else None
        if self.time is not None:  # it begins as a network that is not told
            nn.init.zeros_(self.time.weight)
            nn.init.zeros_(self.time.bias)

    def forward(self, x: Tensor, moment: Tensor | None = None) -> Tensor:
        """(B, C, *S) -> (B, C', *S'); with the features of each sample's time, (B, MOMENT), where it is told one."""
        if moment is None or self.time is None:
            return self.convolved(x, self.conv.padding)
        run: Any = functional.conv2d if x.ndim == 4 else functional.conv3d
        x = self.norm(run(x, self.conv.weight, self.conv.bias, padding=self.conv.padding))
        scale, shift = self.time(moment).reshape(len(x), -1, *(1,) * (x.ndim - 2)).chunk(2, 1)
        return functional.relu_(x * (1 + scale) + shift)

    def convolved(self, x: Tensor, padding: Any) -> Tensor:
        """Forward, with another padding."""
        run: Any = functional.conv2d if x.ndim == 4 else functional.conv3d
        return functional.relu_(self.norm(run(x, self.conv.weight, self.conv.bias, padding=padding)))


class Up(nn.Module):
    """From one level to the finer one: up-convolution, or a convolution of kernel 1 and nearest neighbours."""

    def __init__(self, config: UNetConfig, channels: tuple[int, int], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        if config.upsample == "transpose":
            kind = nn.ConvTranspose2d if config.ndim == 2 else nn.ConvTranspose3d
            self.conv: nn.Module = kind(*channels, cast("Any", stride), stride=cast("Any", stride))
            self.repeat = False
        else:
            self.conv = _conv(config.ndim)(*channels, 1)
            self.repeat = True

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C', *(S * stride))."""
        x = self.conv(x)
        if not self.repeat:
            return x
        return functional.interpolate(x, scale_factor=cast("Any", tuple(map(float, self.stride))), mode="nearest")


class UNet(nn.Module):
    """Encoder, bottleneck, decoder, and skip connections that bring position back to meaning.

    References
    ----------
    Ronneberger, Fischer, Brox: U-Net, MICCAI 2015; He et al. 2015 for the initial weights; Ho et al. 2020 for the
    waves by which a time is told, and Saharia et al. 2021 for its way into each level.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        features, kernels = config.features, config.kernel_list
        inputs = (config.in_channels, *features)

        def block(channels: int, level: int) -> nn.Sequential:
            first = ConvUnit(config, (channels, features[level]), kernels[level])
            return nn.Sequential(first, ConvUnit(config, (features[level], features[level]), kernels[level]))

        self.encoder = nn.ModuleList(block(inputs[i], i) for i in range(config.depth))
        self.bottleneck = block(inputs[config.depth], config.depth)
        self.up = nn.ModuleList(
            Up(config, (features[i + 1], features[i]), config.stride_list[i]) for i in range(config.depth)
        )
        self.decoder = nn.ModuleList(block(features[i] * (1 + config.skips), i) for i in range(config.depth))
        self.finer: nn.Sequential | None = None
        if config.upscale:
            up = Up(config, (features[0], features[0]), config.upscale)
            self.finer = nn.Sequential(up, ConvUnit(config, (features[0], features[0]), kernels[0]))
        self.head = _conv(config.ndim)(features[0], config.out_channels, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.moment = nn.Sequential(nn.Linear(2 * WAVES, MOMENT), nn.SiLU()) if config.timed else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d) and module is not self.head and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight)  # of meta tensors it would import a compiler
        if config.residual:  # it begins as the input itself
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(cast("Tensor", self.head.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits.

        Parameters
        ----------
        x : (B, C, *S) tensor
            S a multiple of the stride for same convolutions, an allowed input size for valid ones. Where the network is
            told a time, it lies in one channel more, the last.

        Returns
        -------
        (B, K, *S) tensor; for valid convolutions S is smaller by twice the margin, for a finer output larger by the
        factor. float32 where the network is residual.
        """
        given, skips, moment = x, [], None
        if self.config.timed:
            x, moment = x[:, :-1], self.features_of(x[:, -1].flatten(1)[:, 0])
        x = x.to(self.head.weight.dtype)
        for level, encode in enumerate(self.encoder):
            x = _through(encode, x, moment)
            if level == self.config.depth - 1:
                x = self.dropout(x)
            skips.append(x)
            x = pool(x, self.config.stride_list[level])
        x = self.dropout(_through(self.bottleneck, x, moment))
        for level in reversed(range(self.config.depth)):
            x = self.up[level](x)
            if self.config.skips:
                x = torch.cat([crop_centre(skips[level], x.shape[2:]), x], dim=1)
            x = _through(self.decoder[level], x, moment)
        x = x if self.finer is None else self.finer(x)
        x = self.head(x)
        return self.completed(x, repeated(given, self.config.factors)) if self.config.residual else x

    def features_of(self, time: Tensor) -> Tensor:
        """(B,) times from 0 to 1 -> (B, MOMENT) features, of a network that is told a time."""
        steps = torch.arange(WAVES, device=time.device, dtype=torch.float32) / (WAVES - 1)
        angles = time.float()[:, None] * 1000**steps
        return cast("nn.Module", self.moment)(torch.cat([angles.sin(), angles.cos()], 1))

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> what the bottleneck gives, (B, F, *(S / stride))."""
        for level, encode in enumerate(self.encoder):
            x = pool(encode(x), self.config.stride_list[level])
        return cast("Tensor", self.bottleneck(x))

    def decode(self, x: Tensor) -> Tensor:
        """Turn what `encode` gives into output, of a network without skips.

        Raises
        ------
        ModelError
            Where the network has skips: the bottleneck is not all it decodes.
        """
        if self.config.skips or self.config.residual:
            raise ModelError(
                "the network has skips: what it gives follows from more than its bottleneck; "
                "train one with --task autoencode"
            )
        for level in reversed(range(self.config.depth)):
            x = self.decoder[level](self.up[level](x))
        return cast("Tensor", self.head(x if self.finer is None else self.finer(x)))

    def completed(self, x: Tensor, given: Tensor) -> Tensor:
        """Add the input, on the grid of the output or around it, to what the head gave; float32."""
        channels, base = self.config.in_channels, crop_centre(given, x.shape[2:]).float()
        return torch.cat([x[:, :channels].float() + base, x[:, channels:].float()], 1)


def _through(block: nn.Module, x: Tensor, moment: Tensor | None) -> Tensor:
    for unit in cast("nn.Sequential", block):
        x = unit(x, moment)
    return x


def repeated(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Repeat each element of (B, C, *S) along each axis: (B, C, *(S * factors))."""
    for axis, factor in enumerate(factors, 2):
        x = x.repeat_interleave(factor, axis) if factor > 1 else x
    return x


def pool(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Take the maximum over windows of `stride`, which must divide the shape.

    Raises
    ------
    ModelError
        Where it does not, naming the sizes.
    """
    if any(n % s for n, s in zip(x.shape[2:], stride, strict=True)):
        raise ModelError(
            f"a level of size {tuple(x.shape[2:])} cannot be pooled by {stride}; the input must fit the total stride"
        )
    if max(stride) == 1:
        return x
    return functional.max_pool2d(x, stride) if x.ndim == 4 else functional.max_pool3d(x, stride)


def crop_centre(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Cut the centre of `shape` out of (B, C, *S): the paper's crop before the concatenation."""
    if tuple(x.shape[2:]) == tuple(shape):
        return x
    starts = [(n - m) // 2 for n, m in zip(x.shape[2:], shape, strict=True)]
    for axis, (start, size) in enumerate(zip(starts, shape, strict=True), 2):
        x = x.narrow(axis, start, size)
    return x


def deployable(net: UNet) -> UNet:
    """Return a copy for inference, batch norms folded into the convolutions: the same function, faster.

    Parameters
    ----------
    net : UNet
        Left as it is.
    """
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, ConvUnit) and isinstance(module.norm, nn.BatchNorm2d | nn.BatchNorm3d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return net.requires_grad_(False)
