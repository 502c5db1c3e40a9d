"""Layers of networks of other libraries, built by their names and arguments."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import nn

Named = Sequence[Any]  # a layer's name, and its arguments by name

# What is understood of a layer's arguments; others change what it computes in ways that are not known here.
NORMS = {
    "none": (),
    "batch": ("eps", "momentum", "affine", "track_running_stats"),
    "instance": ("eps", "momentum", "affine", "track_running_stats"),
    "group": ("eps", "affine", "num_groups"),
}
ACTS: dict[str, Callable[..., nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "silu": nn.SiLU,
}


def convolution(ndim: int, channels: tuple[int, int], kernel: Sequence[int], stride: Sequence[int], bias: bool) -> Any:
    """Return a convolution with odd kernels whose output has the size of its input, divided by the stride.

    Raises
    ------
    ValueError
        Where a kernel is even.
    """
    if any(k % 2 == 0 for k in kernel):
        raise ValueError(f"a kernel of {list(kernel)} has no centre; odd ones are known")
    kind: Any = nn.Conv2d if ndim == 2 else nn.Conv3d
    return kind(*channels, tuple(kernel), tuple(stride), tuple(k // 2 for k in kernel), bias=bias)


def up_convolution(ndim: int, channels: tuple[int, int], stride: Sequence[int], bias: bool) -> Any:
    """Return an up-convolution whose kernels touch but do not overlap."""
    kind: Any = nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d
    return kind(*channels, tuple(stride), tuple(stride), bias=bias)


def pooling(ndim: int, kind: str, stride: Sequence[int]) -> nn.Module:
    """Return a pooling, "max" or "avg", of `stride`."""
    found: Any = {"max": (nn.MaxPool2d, nn.MaxPool3d), "avg": (nn.AvgPool2d, nn.AvgPool3d)}[kind][ndim - 2]
    return cast("nn.Module", found(tuple(stride), tuple(stride)))


def norm(ndim: int, given: Named, features: int) -> nn.Module:
    """Return a norm by its name in `NORMS`.

    Raises
    ------
    ValueError
        Where it is not known.
    """
    name, values = given
    if name not in NORMS or set(values) - set(NORMS[name]):
        raise ValueError(f"the norm {name} with {values} is not known")
    if name == "none":
        return nn.Identity()
    if name == "group":
        return nn.GroupNorm(num_channels=features, **values)
    kinds: Any = {"batch": (nn.BatchNorm2d, nn.BatchNorm3d), "instance": (nn.InstanceNorm2d, nn.InstanceNorm3d)}
    return cast("nn.Module", kinds[name][ndim - 2](features, **values))


def takes_statistics(given: Named) -> bool:
    """Whether a norm, once trained, measures what it is given, so that results depend on how an image is cut."""
    name, values = given
    if name == "group":
        return True
    return (name == "instance" and not values.get("track_running_stats")) or (
        name == "batch" and not values.get("track_running_stats", True)
    )


def activation(given: Named) -> nn.Module:
    """Return an activation by its name in `ACTS`.

    Raises
    ------
    ValueError
        Where it is not known.
    """
    name, values = given
    if name not in ACTS:
        raise ValueError(f"the activation {name} is not known")
    return ACTS[name](**values)


def named(**parts: nn.Module) -> nn.Sequential:
    """Return parts that run one behind the other, by their names."""
    found = nn.Sequential()
    for name, part in parts.items():
        found.add_module(name, part)
    return found
