"""What a U-Net is built from: channels, levels, strides and kernels, checked at birth."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Self, cast

from ..cards import TILE_EXACT_NORMS
from ..errors import ModelError
from ..settings import from_keys, takes_former_names, to_keys

Padding = Literal["same", "valid"]
Norm = Literal["batch", "none", "instance", "group"]
Upsample = Literal["transpose", "interpolate"]
GROUPS = 8  # it divides all usual numbers of channels
MOST_FINER = 8  # of an element per axis: with more, nearly all of the result is made up
CHOICES = {
    "ndim": (2, 3),
    "padding": ("same", "valid"),
    "norm": ("batch", "none", "instance", "group"),
    "upsample": ("transpose", "interpolate"),
}


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """What a U-Net is built from.

    Parameters
    ----------
    ndim : 2 or 3
    depth : int
        Number of poolings; the network has ``depth + 1`` levels, the last is the bottleneck.
    base_features, max_features : int
        Channels of level 0, doubled per level up to the maximum.
    kernels : tuple of tuple of int, optional
        Odd kernel size per axis, for each level; 3 where not given.
    strides : tuple of tuple of int, optional
        Pooling per axis from each level to the next; 2 where not given.
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
    upscale : tuple of int
        Elements of the output for one of the input, per axis; empty where they are on one grid. Behind the decoder an
        up-convolution and a convolution more.
    residual : bool
        Whether the input is added to the first channels of the output, its elements repeated where the output is finer.
    timed : bool
        Whether the network is told a time from 0 to 1, which scales and shifts the output of each convolution.

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
    upscale: tuple[int, ...] = ()
    residual: bool = False
    timed: bool = False

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
        self._check_output()

    def _check_output(self) -> None:
        upscale = tuple(map(int, self.upscale))
        object.__setattr__(self, "upscale", () if set(upscale) == {1} else upscale)
        if upscale and (len(upscale) != self.ndim or min(upscale) < 1 or max(upscale) > MOST_FINER):
            raise ModelError(f"upscale is {upscale}; give {self.ndim} whole numbers from 1 to {MOST_FINER}")
        if self.upscale and self.padding == "valid":
            raise ModelError("a finer output needs same convolutions; valid ones would consume parts of an element")
        if self.residual and self.out_channels < self.in_channels:
            raise ModelError(
                f"residual adds {self.in_channels} input channels to {self.out_channels} output channels; "
                "it needs at least as many of these"
            )
        if self.timed and (self.upscale or self.residual or self.padding == "valid" or not self.tile_exact):
            raise ModelError(
                "a network that is told a time has same convolutions on one grid, norms batch or none; choose these"
            )

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
    def factors(self) -> tuple[int, ...]:
        """Elements of the output for one of the input, per axis."""
        return self.upscale or (1,) * self.ndim

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of each level, the bottleneck last."""
        return tuple(min(self.base_features * 2**i, self.max_features) for i in range(self.depth + 1))

    @property
    def stride(self) -> tuple[int, ...]:
        """Total stride per axis: the grid on which tile origins lie."""
        return tuple(math.prod(level[axis] for level in self.stride_list) for axis in range(self.ndim))

    @property
    def tile_exact(self) -> bool:
        """Whether the result can be independent of the tiling."""
        return self.norm in TILE_EXACT_NORMS

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return to_keys(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave.

        Raises
        ------
        ModelError
            Naming the entries that are not known.
        """
        values = from_keys(cls, values)
        refuse_unknown(cls, values)
        return cls(**{**values, "upscale": tuple(values.get("upscale", ()))})


def refuse_unknown(kind: type[Any], values: Mapping[str, Any]) -> None:
    """Refuse settings of a network that its kind does not have.

    Raises
    ------
    ModelError
        Naming them.
    """
    unknown = set(values) - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise ModelError(f"unknown network settings: {', '.join(sorted(map(str, unknown)))}; known to a newer version?")


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
