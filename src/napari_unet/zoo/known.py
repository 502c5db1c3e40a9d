"""Networks of other libraries whose weights are taken as they are; built here, so that no code of a package is run."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import ModelError

GRID = 16  # four poolings by two: sizes must be multiples of it
SLOPE = 0.01  # PyTorch's own, where a leaky unit says nothing
WIDTHS = (32, 32, 64, 128, 256, 32)  # features of a BasicUNet per level, and of its last block
ACT = ("leakyrelu", {"negative_slope": 0.1})  # a BasicUNet's, where its settings say nothing
NORM = ("instance", {"affine": True})
# Settings of a BasicUNet that are understood; others change what it computes in ways that are not known here.
SETTINGS = {"spatial_dims", "in_channels", "out_channels", "features", "act", "norm", "bias", "dropout", "upsample"}


def known(library: str, name: str, settings: Mapping[str, Any]) -> nn.Module | None:
    """Build a network by the name that a library gives it; None where it is not one that is known.

    Raises
    ------
    ModelError
        Where its settings are not understood.
    """
    if not library.startswith("monai.") or name.lower() not in ("basicunet", "basic_unet"):
        return None
    more = set(settings) - SETTINGS
    if more:
        raise ModelError(
            f"a {name} with {', '.join(sorted(more))} is not known here; get the package with ONNX weights"
        )
    try:
        return BasicUNet(settings).eval().requires_grad_(False)
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise ModelError(f"a {name} cannot be built from {dict(settings)}: {error}") from error


class BasicUNet(nn.Module):
    """MONAI's BasicUNet: four poolings, two convolutions per level, learnt up-sampling.

    References
    ----------
    MONAI (Apache-2.0), ``monai.networks.nets.BasicUNet``; Falk et al., Nature Methods 16, 2019.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        if settings.get("upsample", "deconv") != "deconv":
            raise ValueError(f"upsample is {settings['upsample']!r}; deconv is known")
        ndim, widths = int(settings.get("spatial_dims", 3)), tuple(map(int, settings.get("features", WIDTHS)))
        self.parts = ndim, settings.get("act", ACT), settings.get("norm", NORM), bool(settings.get("bias", True))
        self.conv_0 = self._block(int(settings.get("in_channels", 1)), widths[0])
        pool = nn.MaxPool2d if ndim == 2 else nn.MaxPool3d
        for level in range(1, 5):
            down = nn.Sequential()
            down.add_module("max_pooling", pool(2))
            down.add_module("convs", self._block(widths[level - 1], widths[level]))
            self.add_module(f"down_{level}", down)
        for level in range(4, 0, -1):
            below = widths[level]
            above = below // 2 if level > 1 else below
            up = nn.Module()
            kind = nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d
            up.add_module("upsample", _named(deconv=kind(below, above, 2, 2)))
            up.add_module(
                "convs", self._block(widths[level - 1] + above, widths[level - 1] if level > 1 else widths[5])
            )
            self.add_module(f"upcat_{level}", up)
        self.final_conv = (nn.Conv2d if ndim == 2 else nn.Conv3d)(widths[5], int(settings.get("out_channels", 2)), 1)

    def _block(self, before: int, after: int) -> nn.Sequential:
        """Return two convolutions, each with its norm and activation."""
        ndim, act, norm, bias = self.parts
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        found = nn.Sequential()
        for i, channels in enumerate((before, after)):
            unit = _named(conv=conv(channels, after, 3, padding=1, bias=bias))
            unit.add_module("adn", _named(N=_norm(ndim, norm, after), A=_act(act)))
            found.add_module(f"conv_{i}", unit)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, K, *S), S a multiple of 16."""
        held = [self.conv_0(x)]
        for level in range(1, 5):
            held.append(self.get_submodule(f"down_{level}")(held[-1]))
        x = held[4]
        for level in range(4, 0, -1):
            up = self.get_submodule(f"upcat_{level}")
            x = torch.cat([held[level - 1], up.get_submodule("upsample")(x)], 1)
            x = up.get_submodule("convs")(x)
        return cast("Tensor", self.final_conv(x))


def _named(**parts: nn.Module) -> nn.Sequential:
    found = nn.Sequential()
    for name, part in parts.items():
        found.add_module(name, part)
    return found


def _choice(given: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of a layer, as MONAI takes them: a name, or a name with arguments."""
    if isinstance(given, str):
        return given.lower(), {}
    if isinstance(given, Sequence) and len(given) == 2:
        return str(given[0]).lower(), dict(given[1])
    raise ValueError(f"{given!r} names no layer")


def _norm(ndim: int, given: Any, features: int) -> nn.Module:
    name, values = _choice(given)
    if name == "batch":
        return (nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d)(features, **values)
    if name == "instance":
        return (nn.InstanceNorm2d if ndim == 2 else nn.InstanceNorm3d)(features, **values)
    if name == "group":
        return nn.GroupNorm(num_channels=features, **values)
    raise ValueError(f"the norm {name!r} is not known")


def _act(given: Any) -> nn.Module:
    name, values = _choice(given)
    if name == "relu":
        return nn.ReLU()
    if name == "leakyrelu":
        return nn.LeakyReLU(float(values.get("negative_slope", SLOPE)))
    if name == "prelu":
        return nn.PReLU(**values)
    raise ValueError(f"the activation {name!r} is not known")
