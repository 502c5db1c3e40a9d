"""The U-Net and its numbers: channels, receptive field, stride, and how it is folded for inference."""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .errors import ModelError
from .tiles import Footprint

Padding = Literal["same", "valid"]
Norm = Literal["batch", "none", "instance", "group"]
Upsample = Literal["transpose", "interpolate"]
TILE_EXACT_NORMS = ("batch", "none")
GROUPS = 8
CHOICES = {
    "ndim": (2, 3),
    "padding": ("same", "valid"),
    "norm": ("batch", "none", "instance", "group"),
    "upsample": ("transpose", "interpolate"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """What a U-Net is built from.

    Parameters
    ----------
    ndim : 2 or 3
    in_channels, out_channels : int
    depth : int
        Number of poolings; the network has ``depth + 1`` levels, the last is the bottleneck.
    base_features, max_features : int
        Channels of level 0, doubled a level up to the maximum.
    kernels : tuple of tuple of int, optional
        Odd kernel size an axis, for each level; 3 where not given.
    strides : tuple of tuple of int, optional
        Pooling an axis from each level to the next; 2 where not given.
    padding : "same" or "valid"
        Same convolutions keep the shape, valid ones consume their context as in the paper.
    norm : "batch", "none", "instance" or "group"
        Instance and group norm take statistics from the tile: results then depend on the tiling.
    skips : bool
        False is the plain encoder-decoder.
    upsample : "transpose" or "interpolate"
        Learnt up-convolution, or nearest neighbour behind a convolution of kernel 1.
    dropout : float
        At the end of the contracting path: the last encoder level and the bottleneck.

    Raises
    ------
    ModelError
        Where a value is not allowed, or the lists do not fit the depth.

    References
    ----------
    Ronneberger, Fischer, Brox: U-Net, MICCAI 2015.
    """

    ndim: int = 2
    in_channels: int = 1
    out_channels: int = 2
    depth: int = 4
    base_features: int = 32
    max_features: int = 512
    kernels: tuple[tuple[int, ...], ...] | None = None
    strides: tuple[tuple[int, ...], ...] | None = None
    padding: Padding = "same"
    norm: Norm = "batch"
    skips: bool = True
    upsample: Upsample = "transpose"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ModelError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(map(str, allowed))}")
        limits = {"in_channels": 4096, "out_channels": 4096, "base_features": 4096, "max_features": 4096, "depth": 12}
        for name, most in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not (name != "depth") <= value <= most:
                raise ModelError(f"{name} is {value!r}; it must be a whole number up to {most}")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.norm == "group" and self.base_features % GROUPS:
            raise ModelError(f"base_features is {self.base_features}; group norm needs a multiple of {GROUPS}")
        self._fill("kernels", self.depth + 1, 3)
        self._fill("strides", self.depth, 2)
        if any(k % 2 == 0 for level in self.kernel_list for k in level):
            raise ModelError(f"kernels are {self.kernels}; sizes must be odd")

    def _fill(self, name: str, levels: int, default: int) -> None:
        """Complete `kernels` or `strides`, as tuples, and hold them against depth and ndim."""
        given = getattr(self, name)
        if given is None:
            given = ((default,) * self.ndim,) * levels
        value = tuple(tuple(int(n) for n in level) for level in given)
        if len(value) != levels or any(len(level) != self.ndim or min(level) < 1 for level in value):
            raise ModelError(f"{name} are {value}; depth {self.depth} needs {levels} entries of {self.ndim} sizes >= 1")
        object.__setattr__(self, name, value)

    @property
    def kernel_list(self) -> tuple[tuple[int, ...], ...]:
        """Kernel of each level, the bottleneck last."""
        return cast("tuple[tuple[int, ...], ...]", self.kernels)

    @property
    def stride_list(self) -> tuple[tuple[int, ...], ...]:
        """Pooling from each level to the next."""
        return cast("tuple[tuple[int, ...], ...]", self.strides)

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of each level, the bottleneck last."""
        return tuple(min(self.base_features * 2**i, self.max_features) for i in range(self.depth + 1))

    @property
    def stride(self) -> tuple[int, ...]:
        """Total stride an axis: the grid on which tile origins lie."""
        return tuple(math.prod(level[axis] for level in self.stride_list) for axis in range(self.ndim))

    @property
    def tile_exact(self) -> bool:
        """Whether the result can be independent of the tiling."""
        return self.norm in TILE_EXACT_NORMS

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave.

        Raises
        ------
        ModelError
            Naming the entries that are not known.
        """
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ModelError(
                f"unknown network settings: {', '.join(sorted(map(str, unknown)))}; known to a newer version?"
            )
        return cls(**values)


def ronneberger2015(in_channels: int = 1, out_channels: int = 2) -> UNetConfig:
    """Return the paper's network: valid convolutions, 572 to 388, 23 convolutional layers, 1024 channels below."""
    return UNetConfig(
        in_channels=in_channels,
        out_channels=out_channels,
        depth=4,
        base_features=64,
        max_features=1024,
        padding="valid",
        norm="none",
        dropout=0.5,
    )


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


class ConvUnit(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, config: UNetConfig, channels: tuple[int, int], kernel: tuple[int, ...]) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel) if config.padding == "same" else 0
        bias = config.norm == "none"
        self.conv = _conv(config.ndim)(*channels, cast("Any", kernel), padding=cast("Any", padding), bias=bias)
        self.norm = _norm(config, channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C', *S')."""
        return self.convolved(x, self.conv.padding)

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

    Parameters
    ----------
    config : UNetConfig

    References
    ----------
    Ronneberger, Fischer, Brox: U-Net, MICCAI 2015; He et al. 2015 for the initial weights.
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
        self.head = _conv(config.ndim)(features[0], config.out_channels, 1)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d) and module is not self.head:
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits.

        Parameters
        ----------
        x : (B, C, *S) tensor
            S a multiple of the stride for same convolutions, an allowed input size for valid ones.

        Returns
        -------
        (B, K, *S) tensor; for valid convolutions S is smaller by twice the margin.
        """
        skips = []
        for level, encode in enumerate(self.encoder):
            x = encode(x)
            if level == self.config.depth - 1:
                x = self.dropout(x)
            skips.append(x)
            x = pool(x, self.config.stride_list[level])
        x = self.dropout(self.bottleneck(x))
        for level in reversed(range(self.config.depth)):
            x = self.up[level](x)
            if self.config.skips:
                x = torch.cat([crop_centre(skips[level], x.shape[2:]), x], dim=1)
            x = self.decoder[level](x)
        return cast("Tensor", self.head(x))


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


def footprint(config: UNetConfig) -> Footprint:
    """Compute from the config alone how far the network looks, and on which grid it may be tiled."""
    parts = [_axis_same(config, i) if config.padding == "same" else _axis_valid(config, i) for i in range(config.ndim)]
    halo, margin, remainder = zip(*parts, strict=True)
    return Footprint(config.stride, halo, margin, remainder)


def receptive_radius(config: UNetConfig) -> tuple[int, ...]:
    """Return how many elements the output at any place sees at most to either side, an axis."""
    return tuple(_radius(config, axis) for axis in range(config.ndim))


def _reach(config: UNetConfig, axis: int, low: int, high: int) -> tuple[int, int]:
    """Return the input interval that outputs [low, high) depend on; convolutions centred."""
    radius = [level[axis] // 2 * 2 for level in config.kernel_list]
    stride = [level[axis] for level in config.stride_list]
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
