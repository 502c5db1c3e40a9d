"""The U-Net of napari-unet-stacks (BSD-3-Clause), in one file that needs PyTorch alone, beside its weights."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Unit(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, channels: tuple[int, int], kernel: list[int], padding: str, norm: str, groups: int) -> None:
        super().__init__()
        flat, around = len(kernel) == 2, tuple(k // 2 for k in kernel) if padding == "same" else 0
        conv = nn.Conv2d if flat else nn.Conv3d
        self.conv = conv(*channels, cast("Any", tuple(kernel)), padding=cast("Any", around), bias=norm == "none")
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = nn.BatchNorm2d(channels[1]) if flat else nn.BatchNorm3d(channels[1])
        elif norm == "instance":
            self.norm = (nn.InstanceNorm2d if flat else nn.InstanceNorm3d)(channels[1], affine=True)
        elif norm == "group":
            self.norm = nn.GroupNorm(groups, channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C', *S')."""
        return functional.relu(self.norm(self.conv(x)))


class Up(nn.Module):
    """From one level to the finer one."""

    def __init__(self, channels: tuple[int, int], stride: list[int], learnt: bool) -> None:
        super().__init__()
        flat, step = len(stride) == 2, cast("Any", tuple(stride))
        self.learnt = learnt
        self.stride = [float(s) for s in stride]
        if learnt:
            up = nn.ConvTranspose2d if flat else nn.ConvTranspose3d
            self.conv: nn.Module = up(*channels, step, stride=step)
        else:
            self.conv = (nn.Conv2d if flat else nn.Conv3d)(*channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C', *(S * stride))."""
        x = self.conv(x)
        return x if self.learnt else functional.interpolate(x, scale_factor=self.stride, mode="nearest")


class UNet(nn.Module):
    """Encoder, bottleneck and decoder with skip connections (Ronneberger, Fischer, Brox, MICCAI 2015).

    Parameters
    ----------
    settings
        As ``model.json`` has them under "config".
    kept : int, optional
        Channels of the output that are given, the first; all if 0.
    groups : int
        Of group norm.
    """

    def __init__(self, *, kept: int = 0, groups: int = 8, **settings: Any) -> None:
        super().__init__()
        depth, ndim, width = settings["depth"], settings["ndim"], settings["base_features"]
        features = [min(width * 2**i, settings["max_features"]) for i in range(depth + 1)]
        kernels, strides = settings["kernels"], settings["strides"]
        padding, norm, learnt = settings["padding"], settings["norm"], settings["upsample"] == "transpose"
        inputs = [settings["in_channels"], *features]
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d

        def block(channels: int, level: int) -> nn.Sequential:
            first = Unit((channels, features[level]), kernels[level], padding, norm, groups)
            return nn.Sequential(first, Unit((features[level], features[level]), kernels[level], padding, norm, groups))

        self.skips, self.residual, self.kept = bool(settings["skips"]), bool(settings["residual"]), kept
        self.channels, self.valid = int(settings["in_channels"]), padding == "valid"
        self.strides = [[int(n) for n in level] for level in strides]
        self.upscale = [int(n) for n in settings["upscale"]] or [1] * ndim
        self.encoder = nn.ModuleList(block(inputs[i], i) for i in range(depth))
        self.bottleneck = block(inputs[depth], depth)
        self.up = nn.ModuleList(Up((features[i + 1], features[i]), strides[i], learnt) for i in range(depth))
        self.decoder = nn.ModuleList(block(features[i] * (1 + self.skips), i) for i in range(depth))
        self.finer: nn.Module = nn.Identity()
        if settings["upscale"]:
            up = Up((features[0], features[0]), settings["upscale"], learnt)
            self.finer = nn.Sequential(up, Unit((features[0], features[0]), kernels[0], padding, norm, groups))
        self.head = conv(features[0], settings["out_channels"], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, K, *S); for valid convolutions smaller, for a finer output larger."""
        given, held = x, []
        for level, encode in enumerate(self.encoder):
            x = encode(x)
            held.append(x)
            x = pooled(x, self.strides[level])
        x = self.bottleneck(x)
        for level in reversed(range(len(self.strides))):
            x = self.up[level](x)
            if self.skips:
                x = torch.cat([self.centre(held[level], x), x], 1)
            x = self.decoder[level](x)
        x = self.head(self.finer(x))
        if self.residual:
            for axis, factor in enumerate(self.upscale):
                given = given.repeat_interleave(factor, axis + 2) if factor > 1 else given
            x = torch.cat([x[:, : self.channels] + self.centre(given, x), x[:, self.channels :]], 1)
        return x[:, : self.kept] if self.kept else x

    def centre(self, x: Tensor, like: Tensor) -> Tensor:
        """Cut the centre of the shape of `like`: what valid convolutions leave."""
        for axis in range(2, x.dim()) if self.valid else ():
            start = (x.shape[axis] - like.shape[axis]) // 2
            x = x[(*(slice(None),) * axis, slice(start, start + like.shape[axis]))]
        return x


def pooled(x: Tensor, stride: list[int]) -> Tensor:
    """Take the maximum over windows of `stride`."""
    return functional.max_pool2d(x, stride) if x.dim() == 4 else functional.max_pool3d(x, stride)
