"""Samples: noise of each voxel's place, made an image in steps, which a stream goes through all at once.

Each step is an ordinary U-Net (see `network.timed`), and what one gives the next one takes. So a run is that of one
deep network: its halo is the sum of theirs, and along the flow each plane is computed once per step::

    noise, image -> step 1 -> step 2 -> ... -> step n -> sample
                    slab k    slab k-1         slab k-n+1
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
from torch import Tensor

from ..arrays.noise import normal
from ..arrays.stack import Stack
from ..arrays.views import Box, LazyArray, LazyBase
from ..errors import ResourceError
from ..grid.tiles import Footprint, Tile, mirrored, scaled
from ..intensities.normalise import Statistics
from ..limits import memory
from ..model import Model
from ..network import UNet, Way, deployable, footprint, steps_of
from ..network.fused import fused
from ..network.stream import Chain
from ..task import Diffuse
from .config import STEPS, PredictConfig
from .engine import Engine, transposed
from .layout import NETWORK_PART, TILE_STATES

PLACES = "tzyx"  # what noise is drawn by: a voxel's place along each


Place = tuple[tuple[int, ...], tuple[int, ...]]
NOWHERE: Place = ((), ())


@dataclasses.dataclass(slots=True)
class SamplingEngine(Engine):
    """A model that draws samples.

    Parameters
    ----------
    steps : int
        From noise to sample, all of one length: see `network.timed.carried`.
    seed : int
        Of the noise.
    samples : int
        How many of each time point: they lie behind each other along t, see `several`.
    span : (int, int)
        The first of its steps, and the one behind its last; all if empty.
    state : array, optional
        What the steps before gave, (channels, *tiled axes) as fine as the result; noise is drawn where there were none.
    extent : tuple of int
        Size along the tiled axes of the image that the stack completes by mirroring, see `completed`; its own if empty.

    References
    ----------
    Lipman et al. 2023; Liu et al. 2023 for the few steps that nearly straight ways take; Salmon et al. 2011 for noise
    by place.
    """

    draws: ClassVar[bool] = True

    steps: int = 8
    seed: int = 0
    samples: int = 1
    span: tuple[int, ...] = ()
    state: LazyArray | None = None
    extent: tuple[int, ...] = ()
    _chains: dict[tuple[int, ...], "Steps"] = dataclasses.field(init=False, default_factory=dict)

    def field(self) -> Footprint:
        """Return how far all steps together look, on the image's grid."""
        one, factors = footprint(self.model.config), self.model.factors
        stride = tuple(s // math.gcd(s, f) for s, f in zip(one.stride, factors, strict=True))
        sizes = zip(one.halo, factors, stride, strict=True)
        halo = tuple(math.ceil(len(self.numbers) * h / f / s) * s for h, f, s in sizes)
        return Footprint(stride, halo, one.margin, one.remainder)

    def changed(self, **fields: Any) -> "SamplingEngine":
        """Return the same engine with other fields, on its device and in its precision."""
        return dataclasses.replace(self, **({"device": str(self.device), "precision": self.precision_name} | fields))

    @property
    def numbers(self) -> range:
        """The steps that are made, of all that there are."""
        return range(*(self.span or (0, self.steps)))

    @property
    def way(self) -> Way:
        """All steps from noise to sample."""
        return Way(self.steps, cast("Diffuse", self.model.task).powers)

    @property
    def passes(self) -> int:
        """One state per step, of each element of the finer grid."""
        return len(self.numbers) * math.prod(self.model.factors)

    @property
    def _finer(self) -> tuple[int, ...]:
        """Whole numbers of elements of the result for one of the image, per tiled axis."""
        return (1,) * self.batch_axes + self.model.factors

    def drawn(self, data: np.ndarray, box: Box) -> np.ndarray:
        """Normalise what was read; before it the noise of its voxels, where these are finer a channel of each."""
        image = self.statistics.apply(data, box[0] if self.axes.startswith("t") else None)
        if self.state is not None:
            found = self.state[(slice(None), *scaled(box, self._finer))]
            return np.concatenate([_coarse(np.asarray(found), self._finer), image])
        sizes = self.extent or tuple(b.stop for b in box)
        index = [mirrored(b.start, b.stop, n) for b, n in zip(box, sizes, strict=True)]
        origin = self.origin or (0,) * len(box)
        at = [slice(int(i.min()) + o, int(i.max()) + 1 + o) for i, o in zip(index, origin, strict=True)]
        each = [self._noise(scaled(at, self._finer), channel) for channel in range(self.model.task.drawn)]
        noise = _coarse(np.stack(each), self._finer)
        for axis, i in enumerate(index, 1):
            noise = _taken(noise, i, axis)
        parts = noise.reshape(len(each), -1, *noise.shape[1:])  # of each channel, those that are one of the image
        begun = self.way.start(parts, image[:, None])
        return np.concatenate([begun.reshape(noise.shape), image])

    def normalised(self, data: np.ndarray, at: slice | None) -> np.ndarray:
        """Return what `drawn` gave as it is."""
        return data

    def _noise(self, box: Box, channel: int) -> np.ndarray:
        """Return the noise of a channel in a box of the tiled axes, as fine as the result.

        Two samples share their noise, the second with its sign changed: each is as likely as any, and in their mean
        goes what is odd in the noise (antithetic variates, Hammersley and Morton 1956).
        """
        place = dict(zip(self.axes, box, strict=True))
        whole = tuple(place.get(axis, slice(0, 1)) for axis in PLACES)
        shape = [b.stop - b.start for b in box]
        if self.samples == 1:
            return normal(whole, self.seed, 0, channel).reshape(shape)
        each = [divmod(t, self.samples) for t in range(whole[0].start, whole[0].stop)]
        found = [
            (1 - 2 * (sample % 2)) * normal((slice(t, t + 1), *whole[1:]), self.seed, sample // 2, channel)
            for t, sample in each
        ]
        return np.concatenate(found).reshape(shape)

    def tensor(self, data: np.ndarray, box: Box, order: tuple[int, ...] | None = None) -> Tensor:
        """Bring noise and image to the network: both on the finer grid, elements of the image repeated."""
        factors = self._finer
        count = self.model.task.drawn * math.prod(factors)
        noise, image = _fine(data[:count], factors), data[count:]
        for axis, factor in enumerate(factors, 1):
            image = np.repeat(image, factor, axis) if factor > 1 else image
        return Engine.tensor(self, np.concatenate([noise, image]), box, order)

    def logits(self, tile: Tile, data: np.ndarray) -> Tensor:
        """Run all steps on what was read of a tile, as `Engine.logits`.

        Raises
        ------
        ResourceError
            Where the tile, with all that the steps see, does not fit the memory of the machine.
        """
        elements = math.prod(tile.shape) * math.prod(self._finer)
        need = elements * TILE_STATES * self.model.config.base_features * self.precision.itemsize
        if self.device.type == "cpu" and need > NETWORK_PART * memory():
            raise ResourceError(
                f"a view of a sample needs about {need / 2**30:.2g} GiB, as {self.steps} steps together look "
                f"{max(self.footprint.halo)} pixels far; take fewer steps, or run it whole instead"
            )
        return Engine.logits(self, tile, data)

    def net(self, order: tuple[int, ...] | None = None) -> "Steps":
        """Return all steps as one network, its axes in another order if one is given."""
        order = order or tuple(range(self.model.config.ndim))
        if order not in self._chains:
            nets = steps_of(self.model.network(), self.way)
            self._chains[order] = Steps([self._ready(nets[number], order) for number in self.numbers])
        return self._chains[order]

    def _ready(self, net: UNet, order: tuple[int, ...]) -> UNet:
        placed: Any = deployable(transposed(net, order)).to(self.device, self.precision)
        return fused(placed.to(memory_format=self.layout))

    def stream(self, order: tuple[int, ...]) -> Chain:
        """Return a new stream through all steps."""
        return Chain(self.net(order).nets)


@dataclasses.dataclass(frozen=True, slots=True)
class Steps:
    """Networks that are run one after the other, as one."""

    nets: Sequence[UNet]

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S): the sample, in its first channels."""
        for net in self.nets:
            x = net(x)
        return x


def _taken(data: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    """Return the elements at indices along an axis, of data that begin at the least of them."""
    return data if index[-1] - index[0] == len(index) - 1 else np.take(data, index - index.min(), axis)


def _coarse(noise: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """(C, *finer) -> (C * elements that are one of the image, *image)."""
    if max(factors) == 1:
        return noise
    split = [part for n, f in zip(noise.shape[1:], factors, strict=True) for part in (n // f, f)]
    count = len(factors)
    inner = [2 + 2 * i for i in range(count)]
    data = noise.reshape(len(noise), *split).transpose(0, *inner, *(i - 1 for i in inner))
    return data.reshape(-1, *data.shape[1 + count :])


def _fine(noise: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Undo `_coarse`."""
    if max(factors) == 1:
        return noise
    count = len(factors)
    data = noise.reshape(-1, *factors, *noise.shape[1:])
    data = data.transpose(0, *(axis for i in range(count) for axis in (1 + count + i, 1 + i)))
    sizes = zip(noise.shape[1:], factors, strict=True)
    return data.reshape(len(data), *(n * f for n, f in sizes))


def engine_for(
    stack: Stack,
    model: Model,
    statistics: Statistics,
    config: PredictConfig,
    place: Place = NOWHERE,
    samples: int = 1,
) -> Engine:
    """Return the engine that a model is run by; one that draws samples as `config` says.

    Parameters
    ----------
    stack : Stack
        What the model takes; with several samples as `several` gives it.
    place : (origin, whole)
        Where it begins in the whole image, and the size of that, per tiled axis; empty where it is all of it.
    """
    about = config.device, config.precision, config.fill, config.tta
    if not model.task.drawn:
        return Engine(stack, model, statistics, *about, *place)
    drawing = config.steps or STEPS, config.seed or 0, samples
    return SamplingEngine(stack, model, statistics, *about, *place, *drawing)


def completed(stack: Stack, axes: str, sizes: Sequence[int]) -> Stack:
    """Return a stack of these sizes along `axes`, completed by mirroring behind its end."""
    full = dict(zip(stack.axes, stack.shape, strict=True)) | dict(zip(axes, sizes, strict=True))
    shape = tuple(full[axis] for axis in stack.axes)
    return dataclasses.replace(stack, data=Completed(stack.data, shape))


@dataclasses.dataclass(frozen=True, slots=True)
class Completed(LazyBase):
    """A lazy array completed by mirroring behind its end."""

    base: LazyArray
    shape: tuple[int, ...] = dataclasses.field()  # else the property of the same name would be its default

    def read(self, box: Box) -> np.ndarray:
        """Read what a box shows, and put it in place."""
        index = [mirrored(b.start, b.stop, int(n)) for b, n in zip(box, self.base.shape, strict=True)]
        data = np.asarray(self.base[tuple(slice(int(i.min()), int(i.max()) + 1) for i in index)])
        for axis, i in enumerate(index):
            data = _taken(data, i, axis)
        return data
