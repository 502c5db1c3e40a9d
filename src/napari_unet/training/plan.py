"""The plan of a training: network, patch and batch, from what the data are and an analytic estimate of memory."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..device import choose_device, choose_precision
from ..errors import DataError, ModelError, UsageError
from ..intensities.normalise import Normalisation
from ..network import KnownConfig, LearntConfig, UNetConfig, footprint, read_network, ronneberger2015
from ..network.memory import parameters
from ..settings import to_keys
from ..units import in_one
from .config import TrainConfig
from .fingerprint import Fingerprint, StackFacts
from .pixelsize import typical_size
from .room import Data, Room, aim, fit_memory, remainder, step_bytes, upscale_of

COARSE = 2.0  # nnU-Net, supplementary note 2: an axis coarser than twice the finest is not pooled yet
THIN = 4  # of a volume without pixel sizes: planes fewer than an eighth of its width are likely far apart
THINNEST_VOLUME = 8  # planes: with fewer a 3-D network sees little but mirror images
ANISOTROPIC = 6.0  # planes so many pixels apart show different objects
SMALLEST_LEVEL = 4  # elements per axis at the bottleneck: nnU-Net, supplementary note 2
HIGHEST_RATE = 2e-3  # of AdamW; with half of it scores differ by no more than their noise (RESULTS)
CODE = 32  # channels of a bottleneck that is to describe the image


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What is trained, on what, and how.

    Parameters
    ----------
    axes : str
        Spatial axes of the network: ``yx`` or ``zyx``.
    patch : tuple of int
        Shape of what the network puts out for one sample; valid convolutions read `patch` and twice their margin.
    batch : int
        Samples per step.
    spacing : tuple of float
        Pixel size per axis, median over the stacks.
    preset, optimiser : str
        "adamw" or "sgd".
    memory : int
        Estimated bytes of a training step.
    reasons : tuple of str
        Why it is so, for the reader.
    diameter : float, optional
        Of objects, in pixels of the finest axis.
    shrink : tuple of float
        Pixels of the images that make one of these, per axis; empty where images are learnt as they are.
    finer : tuple of int
        Elements of the targets for one of the images, per axis, where not the network makes them finer.
    """

    network: LearntConfig
    axes: str
    patch: tuple[int, ...]
    batch: int
    normalisation: Normalisation
    spacing: tuple[float, ...]
    units: tuple[str | None, ...]
    preset: str
    optimiser: str
    learning_rate: float
    memory: int
    reasons: tuple[str, ...] = ()
    diameter: float | None = None
    shrink: tuple[float, ...] = ()
    finer: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        stride, out = self.network.stride, footprint(self.network)
        wrong = [
            (n - r) % s or n < max(r, 1) for n, s, r in zip(self.patch, stride, remainder(self.network), strict=True)
        ]
        if any(wrong):
            raise UsageError(
                f"patch {self.patch} does not fit the network; along each axis it must be {out.remainder} plus "
                f"a multiple of the stride {stride}"
            )

    @property
    def factors(self) -> tuple[int, ...]:
        """Elements of the targets for one of the images, per axis."""
        return self.finer or self.network.factors

    @property
    def margin(self) -> tuple[int, ...]:
        """What valid convolutions consume on each side; 0 for same convolutions."""
        return footprint(self.network).margin

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return to_keys(self) | ({} if isinstance(self.network, UNetConfig) else {"network": self.network.to_json()})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave."""
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        rest["network"] = read_network(values["network"])
        rest["normalisation"] = Normalisation.from_json(values["normalisation"])
        return cls(**rest)

    def summary(self) -> list[str]:
        """Return lines that tell a user what will happen."""
        net = self.network
        spacing = " x ".join(f"{s:g}" for s in self.spacing)
        norm = self.normalisation
        kind = net.network if isinstance(net, KnownConfig) else f"U-Net ({self.preset})"
        intensities = f"percentiles {norm.low:g} to {norm.high:g}" if norm.kind == "percentile" else norm.kind
        return [
            f"{net.ndim}-D {kind}, depth {net.depth}, {parameters(net):,} weights, "
            f"channels {', '.join(map(str, net.features))}",
            f"patch {' x '.join(map(str, self.patch))} ({self.axes}), batch {self.batch}, {net.padding} convolutions",
            f"pixel size {spacing} {self.units[-1] or 'pixel'}; strides {net.stride_list}, kernels {net.kernel_list}",
            f"intensities: {intensities}; {self.optimiser}, learning rate {self.learning_rate:g}",
            f"memory of a step: about {self.memory / 2**20:.0f} MiB",
            *self.reasons,
        ]


def make_plan(
    facts: Fingerprint,
    config: TrainConfig,
    out_channels: int,
    init: LearntConfig | None = None,
    normalisation: Any = None,
) -> TrainingPlan:
    """Derive a plan from the data and from what the user chose.

    Parameters
    ----------
    config : TrainConfig
        Values that are given there are used unchanged, or refused.
    out_channels : int
        Channels that the task needs.
    init : network config, optional
        Network of the model to start from: taken over, with the head the task needs.
    normalisation : Normalisation, optional
        Of the model to start from.

    Raises
    ------
    UsageError, DataError, ModelError, ResourceError
        Where wishes, data, the model to start from, and memory do not fit together.
    """
    reasons: list[str] = []
    ndim = init.ndim if init is not None else _ndim(facts, config, reasons)
    if config.ndim not in (None, ndim):
        raise UsageError(f"ndim is {config.ndim}, but the model to start from is {ndim}-D; leave one of them out")
    if ndim == 3 and facts.spatial != "zyx":
        raise DataError("a 3-D network needs stacks with z; give their axes with --axes, or choose --ndim 2")
    if config.patch is not None and len(config.patch) != ndim:
        raise UsageError(f"patch is {config.patch} for a {ndim}-D network; give {ndim} sizes")
    axes = "zyx"[-ndim:]
    device = choose_device(config.device)
    sizes = [(f.values_along(axes, "scale"), f.values_along(axes, "units")) for f in facts.stacks]
    (spacing, units), notes = typical_size(sizes, axes)
    reasons += notes
    data = Data(
        shape=tuple(int(n) for n in np.median([f.values_along(axes, "shape") for f in facts.stacks], axis=0)),
        spacing=spacing,
        diameter=facts.diameters[2] if facts.diameters else math.inf,
    )
    room = Room(config, device.type, ndim)
    channels = facts.channels + out_channels * (config.task == "diffuse"), out_channels
    if init is not None:
        network: LearntConfig = _from_init(init, channels[0], out_channels, config)
    elif config.preset == "ronneberger2015":
        network = _paper(facts.channels, out_channels, config, ndim)
    else:
        worked = zip(data.spacing, room.finer or (1,) * ndim, strict=True)
        finer = dataclasses.replace(data, spacing=tuple(s / f for s, f in worked))
        network = _topology(finer, room, config, channels)
    itemsize = choose_precision(config.precision, device).itemsize
    patch, batch = fit_memory(network, data, room, config, itemsize)
    return TrainingPlan(
        network=network,
        axes=axes,
        patch=patch,
        batch=batch,
        normalisation=normalisation or Normalisation(),
        spacing=data.spacing,
        units=units,
        preset=config.preset,
        optimiser="sgd" if config.preset == "ronneberger2015" else "adamw",
        learning_rate=config.learning_rate if config.learning_rate is not None else HIGHEST_RATE,
        memory=step_bytes(network, patch, batch, itemsize, room.finer),
        reasons=tuple(reasons),
        finer=room.finer,
    )


def _ndim(facts: Fingerprint, config: TrainConfig, reasons: list[str]) -> int:
    """Choose 2-D or 3-D, and say why."""
    if config.ndim is not None:
        return config.ndim
    if config.preset == "ronneberger2015" or (config.patch is not None and len(config.patch) == 2):
        return 2
    if facts.spatial == "yx":
        return 2
    if config.patch is not None or (config.upscale is not None and len(config.upscale) == 3):
        return 3
    thin = [why for f in facts.stacks if (why := _thin(f))]
    if thin:
        reasons.append(f"2-D, plane by plane: {thin[0]}")
        return 2
    return 3


def _thin(facts: StackFacts) -> str:
    """Return why a stack is better taken plane by plane, or nothing."""
    units = facts.values_along("zyx", "units")
    (z, y, x), ((sz, sy, sx), _) = facts.values_along("zyx", "shape"), in_one(facts.values_along("zyx", "scale"), units)
    if z < THINNEST_VOLUME:
        return f"{facts.name} has {z} planes"
    if sz > ANISOTROPIC * min(sy, sx):
        return f"planes of {facts.name} are {sz / min(sy, sx):.1f} pixels apart"
    unknown = sz == sy == sx and not any(units)
    if unknown and z * THIN * 2 < min(y, x):
        return f"{facts.name} has few planes ({z}) for its width ({min(y, x)}), and no pixel size"
    return ""


def _from_init(init: LearntConfig, channels: int, out_channels: int, config: TrainConfig) -> LearntConfig:
    if init.timed != (config.task == "diffuse"):
        raise ModelError(
            f"the model to start from {'draws samples' if init.timed else 'draws no samples'}, the task {config.task} "
            f"{'does not' if init.timed else 'does'}; choose one of that task, or train anew"
        )
    if init.in_channels != channels:
        raise ModelError(
            f"the images have {channels} channels, the model to start from has {init.in_channels}; choose one that fits"
        )
    for name in ("depth", "base_features", "max_features"):
        if getattr(config, name) not in (None, getattr(init, name)):
            raise ModelError(
                f"{name} is {getattr(config, name)}, the model to start from has {getattr(init, name)}; leave one out"
            )
    if init.skips and not config.skips:
        raise ModelError("the model to start from has skip connections; train a new network to learn without them")
    if config.preset == "ronneberger2015" and init.padding != "valid":
        raise ModelError(
            "the model to start from is not the network of ronneberger2015; leave the preset out, or train anew"
        )
    found = dataclasses.replace(init, out_channels=out_channels)
    # What is learnt is what the network gives itself, on patches; windows are of those when it is done.
    return dataclasses.replace(found, window=(), head=0, after=()) if isinstance(found, KnownConfig) else found


def _paper(channels: int, out_channels: int, config: TrainConfig, ndim: int) -> UNetConfig:
    if ndim != 2:
        raise UsageError("the preset ronneberger2015 is a 2-D network; choose --ndim 2, or the default preset")
    net = ronneberger2015(channels, out_channels)
    depth = net.depth if config.depth is None else config.depth
    first, most = config.base_features or net.base_features, config.max_features or net.max_features
    wishes: dict[str, Any] = {"depth": depth, "base_features": first, "max_features": most, "skips": config.skips}
    return dataclasses.replace(net, kernels=None, strides=None, **wishes)


def _topology(data: Data, room: Room, config: TrainConfig, channels: tuple[int, int]) -> UNetConfig:
    """Choose strides and kernels: halve an axis only where it is not coarser than twice the finest, and long enough.

    References
    ----------
    Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 2.
    """
    patch = config.patch or aim(data, room.voxels)
    size, spacing = list(patch), list(data.spacing)
    most = room.depth if config.depth is None else config.depth
    strides: list[tuple[int, ...]] = []
    kernels = [_kernel(spacing)]
    while len(strides) < most:
        long = [n // 2 >= SMALLEST_LEVEL or (config.depth is not None and n >= 2) for n in size]
        finest = min((s for s, ok in zip(spacing, long, strict=True) if ok), default=0)
        stride = tuple(2 if ok and s <= COARSE * finest else 1 for s, ok in zip(spacing, long, strict=True))
        reach = max(math.prod(level[i] for level in strides) for i in range(len(size)))
        if max(stride) == 1 or (config.depth is None and reach >= max(SMALLEST_LEVEL, data.diameter)):
            break
        strides.append(stride)
        size = [n // s for n, s in zip(size, stride, strict=True)]
        spacing = [a * s for a, s in zip(spacing, stride, strict=True)]
        kernels.append(tuple(max(a, b) for a, b in zip(_kernel(spacing), kernels[-1], strict=True)))
    if config.depth is not None and len(strides) < config.depth:
        raise UsageError(
            f"a patch of {tuple(patch)} cannot be pooled {config.depth} times; take a lower depth, or a larger patch"
        )
    most = config.max_features or max(room.most_features, config.base_features or 0)
    most = min(most, CODE) if config.task == "autoencode" else most
    return UNetConfig(
        **_of_images(config, len(patch), channels),
        skips=config.skips and config.task != "autoencode",
        ndim=len(patch),
        in_channels=channels[0],
        out_channels=channels[1],
        depth=len(strides),
        base_features=min(config.base_features or room.features, most),
        max_features=most,
        kernels=tuple(kernels),
        strides=tuple(strides),
    )


def _of_images(config: TrainConfig, ndim: int, channels: tuple[int, int]) -> dict[str, Any]:
    """Return what networks whose output is an image have of their own."""
    if not config.learns_images:
        return {}
    if config.task == "diffuse":
        return {"timed": True}
    same = channels[1] == channels[0] * (1 + config.predict_std)
    return {
        "residual": same and config.skips and not config.blind and config.task != "autoencode",
        "upscale": upscale_of(config, ndim),
    }


def _kernel(spacing: Sequence[float]) -> tuple[int, ...]:
    return tuple(1 if s > COARSE * min(spacing) else 3 for s in spacing)
