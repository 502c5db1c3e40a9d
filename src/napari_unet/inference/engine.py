"""The function of one block, that every way of running a model shares: read, normalise, network, crop."""

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..device import choose_device, choose_precision
from ..errors import ModelError
from ..model import Model
from ..network import TILE_EXACT_NORMS, deployable, footprint
from ..normalise import Statistics, finite
from ..stack import SPATIAL, Stack
from ..tiles import Footprint, Tile


@dataclasses.dataclass(slots=True)
class Engine:
    """A model made ready for one stack on one device.

    Parameters
    ----------
    stack : Stack
        The image; every axis but c is tiled.
    model : Model
    statistics : Statistics
        Of the whole stack, so that no tile has its own.
    device : str
        "auto", "cpu", "cuda", "mps".
    precision : str
        "auto", "fp32" or "bf16".
    fill : float, optional
        Value in place of NaN and infinity; without it they are refused.

    Raises
    ------
    ModelError
        Where channels or axes of stack and model do not fit.
    """

    stack: Stack
    model: Model
    statistics: Statistics
    device: Any = "auto"
    precision: Any = "auto"
    fill: float | None = None
    axes: str = dataclasses.field(init=False)
    footprint: Footprint = dataclasses.field(init=False)
    _net: torch.nn.Module = dataclasses.field(init=False)
    _constant: tuple[Any, Tensor] | None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        check_fit(self.stack, self.model)
        self.device = choose_device(self.device)
        self.precision = choose_precision(self.precision, self.device)
        self.axes = self.stack.axes.replace("c", "")
        self.footprint = footprint(self.model.config).planewise(self.batch_axes)
        net = deployable(self.model.network()).to(self.device, self.precision)
        layout: Any = torch.channels_last if self.model.config.ndim == 2 else torch.channels_last_3d
        self._net = net.to(memory_format=layout)

    @classmethod
    def of(cls, stack: Stack, model: Model, device: str, precision: str, fill: float | None) -> "Engine":
        """Measure the stack's intensities and make the model ready for it."""
        check_fit(stack, model)
        return cls(stack, model, model.normalisation.measure(stack, fill=fill), device, precision, fill)

    @property
    def batch_axes(self) -> int:
        """Number of leading tiled axes that the network does not look along: t, and z for a 2-D model."""
        return len(self.axes) - len(self.model.axes)

    def read(self, tile: Tile) -> np.ndarray:
        """Read the tile's region as it is stored: (C, *read)."""
        box = list(tile.read)
        if "c" not in self.stack.axes:
            data = self.stack.read(tuple(box))
            return finite(data, self.stack, tuple(box), self.fill)[None]
        at = self.stack.axes.index("c")
        box.insert(at, slice(0, self.stack.size("c")))
        data = finite(self.stack.read(tuple(box)), self.stack, tuple(box), self.fill)
        return np.moveaxis(data, at, 0)

    def prepare(self, tile: Tile, data: np.ndarray) -> np.ndarray:
        """Normalise and mirror what `read` gave: (C, *tile.shape) float32."""
        return tile.mirror(self.statistics.apply(data))

    @torch.inference_mode()
    def logits(self, tile: Tile, prepared: np.ndarray) -> Tensor:
        """Run the network: (C, *tile.shape) -> (K, *write) float32 logits of the tile's core."""
        values = prepared.reshape(len(prepared), -1)
        key = (prepared.shape, tuple(values[:, 0])) if bool((values == values[:, :1]).all()) else None
        if key is not None and self._constant is not None and self._constant[0] == key:
            out = self._constant[1]
        else:
            out = self._run(prepared)
            if key is not None:
                self._constant = key, out
        return out[(slice(None), *tile.crop)].float()

    def _run(self, prepared: np.ndarray) -> Tensor:
        """(C, *tile.shape) -> (K, *output): each plane or volume of the batch axes for itself."""
        batch = prepared.shape[1 : 1 + self.batch_axes]
        x = torch.from_numpy(np.ascontiguousarray(prepared))
        x = x.reshape(len(prepared), math.prod(batch), *prepared.shape[1 + self.batch_axes :]).transpose(0, 1)
        layout: Any = torch.channels_last if self.model.config.ndim == 2 else torch.channels_last_3d
        parts = []
        for item in x:
            one = item[None].to(self.device, self.precision).contiguous(memory_format=layout)
            parts.append(self._net(one)[0])
        out = torch.stack(parts, 1) if len(parts) > 1 else parts[0][:, None]
        return out.reshape(len(out), *batch, *out.shape[2:])


def check_fit(stack: Stack, model: Model) -> None:
    """Refuse a stack that the model cannot take.

    Raises
    ------
    ModelError
        Where the number of channels or the spatial axes do not fit.
    """
    channels = stack.size("c")
    if channels != model.config.in_channels:
        names = f" ({', '.join(model.channel_names)})" if model.channel_names else ""
        raise ModelError(
            f"{stack.name} has {channels} channel{'s' * (channels != 1)}, the model needs {model.config.in_channels}{names}; "
            "choose channels with --channel"
        )
    lacking = [a for a in model.axes if a not in stack.axes]
    if lacking:
        raise ModelError(
            f"{stack.name} has the axes {stack.axes}, the model is {model.config.ndim}-D and needs {model.axes}; "
            f"give a stack with {' and '.join(lacking)}, or say with --axes what its axes are"
        )


def element_bytes(model: Model, precision: torch.dtype) -> int:
    """Estimate what the network holds at its widest, in bytes for each element of a tile's plane or volume.

    Level 0 decides: the skip, both halves of the concatenation, and a convolution's input and output.
    """
    return 6 * model.config.base_features * precision.itemsize + 8 * model.config.in_channels


def choose_core(engine: Engine, memory: int) -> tuple[int, ...]:
    """Choose the block: as few and as large tiles as the memory allows, cut where it costs the least halo.

    Parameters
    ----------
    engine : Engine
    memory : int
        Bytes that the network may hold.

    Returns
    -------
    Core an axis of ``engine.axes``, in elements.
    """
    foot = engine.footprint
    shape = tuple(engine.stack.size(a) for a in engine.axes)
    wanted = [_granule(a, engine.model.config.ndim) for a in engine.axes]
    granule = [math.lcm(g, s) for g, s in zip(wanted, foot.stride, strict=True)]
    extra = [2 * (h + m) for h, m in zip(foot.halo, foot.margin, strict=True)]
    most = memory / element_bytes(engine.model, engine.precision)
    first = engine.batch_axes
    core = [min(4, n) if a == "z" and i < first else 1 for i, (a, n) in enumerate(zip(engine.axes, shape, strict=True))]
    core = core[:first] + [math.ceil(n / s) * s for n, s in zip(shape[first:], foot.stride[first:], strict=True)]

    def seen(axis: int, size: int) -> int:
        halo = extra[axis] if foot.margin[axis] or size < shape[axis] else 0
        return min(size + halo, math.ceil(shape[axis] / foot.stride[axis]) * foot.stride[axis] + 2 * foot.margin[axis])

    while math.prod(seen(i, core[i]) for i in range(first, len(core))) > most:
        options = []
        for axis in range(first, len(core)):
            parts = math.ceil(shape[axis] / core[axis]) + 1
            size = math.ceil(math.ceil(shape[axis] / parts) / granule[axis]) * granule[axis]
            if size >= core[axis]:
                size = core[axis] - granule[axis]
            if size < granule[axis]:
                continue
            work = seen(axis, size) / size / (seen(axis, core[axis]) / core[axis])
            shrink = seen(axis, core[axis]) / seen(axis, size)
            if shrink > 1:
                options.append((math.log(work) / math.log(shrink), axis, size))
        if not options:
            break
        _, axis, size = min(options)
        core[axis] = size
    return tuple(core)


def _granule(axis: str, ndim: int) -> int:
    if axis not in SPATIAL or axis == "z" and ndim == 2:
        return 1
    return 256 if ndim == 2 else 32


def is_exact(model: Model) -> bool:
    """Whether results of the model are independent of the tiling."""
    return model.config.norm in TILE_EXACT_NORMS
