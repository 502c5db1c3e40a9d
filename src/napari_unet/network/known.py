"""A network of another library that is known here: what it is built from, how far it looks, and where it may be cut."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ModelError
from .layers import takes_statistics
from .monai import BasicUNet, UNet
from .nnunet import NnUNet
from .steps import Step, WithSteps, applied

Build = Callable[[int, int, int, Mapping[str, Any]], nn.Module]
NETWORKS: dict[str, Build] = {
    "nnU-Net": NnUNet,
    "MONAI BasicUNet": BasicUNet,
    "MONAI UNet": UNet,
}
LONGEST_LIST = 32  # levels or convolutions of a network: each level halves an image, and no image is 2**32 wide
LARGEST = 2**16  # of a number in the settings: more than a network's features, which are up to some thousands
FARTHEST = 2**15  # elements along an axis on which it is looked how far a network looks
LEAST_WINDOW = 4  # strides: a quarter is margin on either side, and that lies on the stride
FAULTS = (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnownConfig(WithSteps):
    """What a network of another library is built from.

    Parameters
    ----------
    network : str
        One of `NETWORKS`.
    ndim, in_channels, out_channels : int
        The last as a task sees them, behind all steps.
    settings : dict
        Plain values: ``features``, ``kernels`` and ``strides`` per level, and what the network has of its own.
    head : int
        Channels that the network itself gives, where steps behind it make others.
    halo : tuple of int
        How far it looks, a multiple of its stride.
    window : tuple of int
        Where its norm takes statistics of what it is given: the size of the windows in which it is run, which begin at
        fixed places of the whole image. Empty where it does not.
    blended : bool
        Whether these windows overlap and are weighed, as nnU-Net's own, and not lie side by side.
    before, after : tuple of Step
        What is done with normalised intensities before the network, and with its output: point by point.

    Raises
    ------
    ModelError
        Where the numbers do not fit each other.
    """

    kind: ClassVar[str] = "known"
    residual: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    skips: ClassVar[bool] = True
    padding: ClassVar[str] = "same"
    dropout: ClassVar[float] = 0.0
    upscale: ClassVar[tuple[int, ...]] = ()

    network: str
    ndim: int
    in_channels: int
    out_channels: int
    settings: dict[str, Any]
    head: int = 0
    halo: tuple[int, ...] = ()
    window: tuple[int, ...] = ()
    blended: bool = False
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if self.network not in NETWORKS or self.ndim not in (2, 3):
            raise ModelError(f"a {self.ndim}-D network {self.network!r} is not known; known are {', '.join(NETWORKS)}")
        try:
            _check(self.settings)
            ends = self.in_channels, self.out_channels, self.head or 1
            if not 0 < min(ends) <= max(ends) <= LARGEST:
                raise ValueError(f"{self.in_channels} channels in and {self.out_channels} out")
            if any(len(each) != self.ndim for each in (*self.settings["kernels"], *self.settings["strides"])):
                raise ValueError(f"kernels and strides are not of {self.ndim} axes")
            stride = self.stride
        except FAULTS as error:
            raise ModelError(
                f"a {self.network} cannot be built from its settings: {str(error)[:200]}; get the model again"
            ) from error
        if self.halo and (len(self.halo) != self.ndim or any(h % s for h, s in zip(self.halo, stride, strict=True))):
            raise ModelError(f"a halo of {self.halo} does not lie on the grid of {stride}; get the model again")
        if self.window and (
            len(self.window) != self.ndim or any(w % s for w, s in zip(self.window, stride, strict=True))
        ):
            raise ModelError(f"windows of {self.window} do not lie on the grid of {stride}; give multiples of it")
        if self.window and min(self.core) < 1:
            raise ModelError(f"windows of {self.window} are too small for the grid of {stride}; give larger ones")

    @property
    def stride(self) -> tuple[int, ...]:
        """Total stride per axis."""
        return tuple(math.prod(int(level[axis]) for level in self.settings["strides"]) for axis in range(self.ndim))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file; of windows that do not overlap those that it had before any did."""
        values: dict[str, Any] = WithSteps.to_json(self)
        return {name: value for name, value in values.items() if name != "blended" or value}

    @property
    def step(self) -> tuple[int, ...]:
        """Step from one size that it takes to the next, per axis."""
        return self.stride

    @property
    def factors(self) -> tuple[int, ...]:
        """Elements of the output for one of the input, per axis."""
        return (1,) * self.ndim

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.settings["features"])[: self.depth + 1]

    @property
    def base_features(self) -> int:
        """Channels of the finest level."""
        return int(self.settings["features"][0])

    @property
    def max_features(self) -> int:
        """Channels of the level that has most."""
        return int(max(self.settings["features"]))

    @property
    def depth(self) -> int:
        """Levels below the finest."""
        return len(self.stride_list)

    @property
    def stride_list(self) -> tuple[tuple[int, ...], ...]:
        """Stride from each level to the next."""
        levels = self.settings["strides"]
        return tuple(map(tuple, levels[1:] if self.network == "nnU-Net" else levels))

    @property
    def kernel_list(self) -> tuple[tuple[int, ...], ...]:
        """Kernel of each level; one where all have the same."""
        return tuple(map(tuple, self.settings["kernels"]))

    @property
    def norm_measures(self) -> bool:
        """Whether its norm takes statistics of all that it is given at once."""
        return takes_statistics(self.settings["norm"])

    @property
    def tile_exact(self) -> bool:
        """Whether the result can be independent of the tiling: where its norm measures, by windows at fixed places."""
        return not self.norm_measures or bool(self.window)


def _check(value: Any) -> None:
    """Refuse numbers and lists of which no network is built in any time."""
    if isinstance(value, dict):
        for each in value.values():
            _check(each)
    elif isinstance(value, list):
        if len(value) > LONGEST_LIST:
            raise ValueError(f"a list of {len(value)} entries")
        for each in value:
            _check(each)
    elif not isinstance(value, str) and not (value is None or 0 <= value <= LARGEST):
        raise ValueError(f"the number {value}")


def windowed(config: KnownConfig, wanted: Sequence[int], blended: bool = False) -> KnownConfig:
    """Return it with windows of about the sizes that it has learnt from, where its norm takes statistics of them."""
    if not config.norm_measures:
        return config
    pairs = list(zip(wanted, config.stride, strict=True))
    if blended:
        sizes = tuple(math.ceil(w / s) * s for w, s in pairs)
    else:
        sizes = tuple(s if s == w == 1 else max(round(w / s), LEAST_WINDOW) * s for w, s in pairs)
    return dataclasses.replace(config, window=sizes, blended=blended)


def build(config: KnownConfig) -> nn.Module:
    """Return the network, with new weights.

    Raises
    ------
    ModelError
        Where its settings do not fit each other.
    """
    try:
        ends = config.in_channels, config.head or config.out_channels
        net = NETWORKS[config.network](config.ndim, *ends, config.settings)
    except FAULTS as error:
        raise ModelError(
            f"a {config.network} cannot be built from its settings: {str(error)[:200]}; get the model again"
        ) from error
    if config.before:
        net.register_forward_pre_hook(_Before(config))
    return net


class _Before:
    """What is done with intensities before a network: of its input, so that no gradient goes through it."""

    def __init__(self, config: KnownConfig) -> None:
        self.config = config

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        x = given[0]
        found = applied(self.config.before, x.detach().float().cpu().numpy(), "bc" + "zyx"[-self.config.ndim :])
        return (torch.from_numpy(np.ascontiguousarray(found)).to(x.device, x.dtype),)


class Known:
    """A network of another library with its weights, called as ours are: (B, C, *S) -> (B, K, *S)."""

    def __init__(self, config: KnownConfig, weights: Mapping[str, np.ndarray], device: Any = "cpu") -> None:
        self.config = config
        with torch.device("meta"):
            net = build(config)
        tensors = {key: torch.tensor(value, device=device) for key, value in weights.items()}
        net.load_state_dict(tensors, strict=True, assign=True)
        self.net = net.eval().requires_grad_(False)

    def __call__(self, x: Tensor) -> Tensor:
        """Run it on sizes that are multiples of its stride."""
        found: Tensor = self.net(x)
        if not self.config.after:
            return found
        values = applied(self.config.after, found.float().cpu().numpy(), "bc" + "zyx"[-self.config.ndim :])
        return torch.from_numpy(np.ascontiguousarray(values)).to(x.device)


def halo_of(config: KnownConfig) -> tuple[int, ...]:
    """Return how far a network looks per axis, as a halo around blocks of its stride, a multiple of that.

    It is read off a twin of one feature whose weights are all positive, without norms and activations, with mean in
    place of maximum: there nothing cancels, so that each element an output can depend on is seen in its gradient.

    Raises
    ------
    ModelError
        Where it looks further than any image is wide.
    """
    return tuple(_axis_reach(config, axis) for axis in range(config.ndim))


def _axis_reach(config: KnownConfig, axis: int) -> int:
    stride = config.stride[axis]
    settings = {"pool": "max"} | config.settings
    thin = {name: _along(settings[name], axis) for name in ("kernels", "up_kernels", "strides") if name in settings}
    one = {name: [int(n > 0) for n in settings[name]] for name in ("features", "between") if settings.get(name)}
    plain = {"norm": ["none", {}], "act": ["none", {}], "pool": "avg", "stem": 1}
    twin = dataclasses.replace(
        config,
        in_channels=1,
        out_channels=1,
        head=0,
        settings=settings | thin | one | plain,
        halo=(),
        window=(),
        blended=False,
        before=(),
    )
    net = build(twin).double()
    with torch.inference_mode(False), torch.enable_grad():
        for name, part in net.named_parameters():
            nn.init.constant_(part, 0.0 if name.endswith("bias") else 1.0)
        length = 16 * stride
        while length <= max(FARTHEST, 16 * stride):
            low, high = _seen(net, config.ndim, axis, (length, stride))
            if low > 0 and high < length:
                start = length // 2 // stride * stride
                return math.ceil(max(start - low, high - start - stride, 0) / stride) * stride
            length *= 2
    raise ModelError(f"the network looks further than {FARTHEST} elements; one of fewer levels can be run")


def _along(levels: Sequence[Sequence[int]], axis: int) -> list[list[int]]:
    """Return kernels or strides along one axis alone."""
    return [[n if i == axis else 1 for i, n in enumerate(level)] for level in levels]


def _seen(net: nn.Module, ndim: int, axis: int, sizes: tuple[int, int]) -> tuple[int, int]:
    """Return the part of an axis of `sizes[0]` that a block of `sizes[1]` in its middle depends on."""
    length, stride = sizes
    x = torch.ones((1, 1, *(length if i == axis else 1 for i in range(ndim))), dtype=torch.float64, requires_grad=True)
    out = cast("Tensor", net(x))
    out.narrow(axis + 2, length // 2 // stride * stride, stride).sum().backward()  # type: ignore[no-untyped-call]
    found = cast("Tensor", x.grad).flatten().nonzero().flatten()
    return int(found.min()), int(found.max()) + 1
