"""The function of one block, that every way of running a model shares: read, normalise, network, crop."""

import dataclasses
import itertools
import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from ..arrays.stack import Stack
from ..arrays.views import Box
from ..device import choose_device, choose_precision
from ..errors import DataError, ModelError
from ..grid.blocks import blocks
from ..grid.tiles import Factor, Footprint, Tile, scaled
from ..intensities.normalise import Statistics, finite, readable
from ..model import Model
from ..network import Graph, Known, UNet, UNetConfig, deployable, footprint
from ..network.fused import fused
from ..network.stream import Chain, Stream
from ..network.windows import goes_whole
from .windows import blended, side_by_side, way_of

# Elements that torch works on in the thread that asks, as they are fewer than the 2**15 of its grain, and that stay in
# a core's cache: several operations one after the other on so many cost a fifth of each on a whole slab.
PIECE = 2**15 - 1


def pieces(shape: Sequence[int], channels: int) -> Iterator[Box]:
    """Cut (channels, *shape) into boxes of `shape` of whole rows, where they fit, and at most `PIECE` elements."""
    return blocks(shape, (*(1,) * (len(shape) - 1), shape[-1]), max(1, PIECE // channels))


# Networks ready to run, as long as their model is there: the images of a batch, a run and its preview share one.
_NETS: weakref.WeakKeyDictionary[Model, dict[tuple[Any, ...], UNet]] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(slots=True)
class Engine:
    """A model made ready for one stack on one device.

    Parameters
    ----------
    stack : Stack
        The image; every axis but c is tiled.
    statistics : Statistics
        Of the whole stack, so that no tile has its own.
    device : str
        "auto", "cpu", "cuda", "mps".
    precision : str
        "auto", "fp32" or "bf16".
    fill : float, optional
        Value in place of NaN and infinity; without it they are refused.
    tta : bool
        Whether logits are the mean over the image and its mirror images, 4 in 2-D and 8 in 3-D.
    origin : tuple of int
        Where the stack lies in the whole image, per tiled axis; at its start if empty.
    whole : tuple of int
        Size of the whole image, per tiled axis; that of the stack if empty.

    Raises
    ------
    ModelError
        Where channels or axes of stack and model do not fit.
    """

    part: ClassVar[str] = ""  # of the network that runs, as a run's settings name it; all of it if empty
    draws: ClassVar[bool] = False  # whether what it gives follows from the place too, and not from intensities alone

    stack: Stack
    model: Model
    statistics: Statistics
    device: Any = "auto"
    precision: Any = "auto"
    fill: float | None = None
    tta: bool = False
    origin: tuple[int, ...] = ()
    whole: tuple[int, ...] = ()
    axes: str = dataclasses.field(init=False)
    footprint: Footprint = dataclasses.field(init=False)
    _imported: Graph | Known | None = dataclasses.field(init=False, default=None)
    _constant: tuple[Any, Tensor] | None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        self.check()
        self.device = choose_device(self.device)
        own = isinstance(self.model.config, UNetConfig)
        self.precision = choose_precision(self.precision if own else "fp32", self.device)
        self.axes = self.stack.axes.replace("c", "")
        self.footprint = self.field().planewise(self.batch_axes)

    def check(self) -> None:
        """Refuse a stack that the network cannot take."""
        check_fit(self.stack, self.model)

    def field(self) -> Footprint:
        """Return how far the network looks, and its grid."""
        return footprint(self.model.config, self._sizes)

    @property
    def _sizes(self) -> tuple[int, ...]:
        """Of the whole image, along the axes that the network looks along."""
        whole = self.whole or tuple(self.stack.size(a) for a in self.axes)
        return whole[self.batch_axes :]

    @property
    def windows(self) -> str:
        """How a network runs that takes statistics of what it is given; of others nothing."""
        return way_of(self.model.config, self._sizes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without its networks; where it arrives, the device is chosen anew."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        return type(self), tuple((given | {"device": "auto", "precision": self.precision_name}).values())

    def on(self, device: str) -> "Engine":
        """Return the same engine on another device."""
        return dataclasses.replace(self, device=device, precision=self.precision_name)

    def at(self, precision: str) -> "Engine":
        """Return the same engine in another precision."""
        return dataclasses.replace(self, device=str(self.device), precision=precision)

    @property
    def precision_name(self) -> str:
        """The precision as the user writes it."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16"}[self.precision]

    @property
    def batch_axes(self) -> int:
        """Number of leading tiled axes that the network does not look along: t, and z for a 2-D model."""
        return len(self.axes) - len(self.model.axes)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Elements of the result for one of the image, per axis of ``axes``."""
        return (1,) * self.batch_axes + self.model.factors

    @property
    def passes(self) -> int:
        """States of the network that a place of the image is in at once: more where it goes through several times."""
        return 1

    @property
    def streams(self) -> bool:
        """Whether planes can flow through the network."""
        return isinstance(self.model.config, UNetConfig) and self.model.config.tile_exact and not self.tta

    @property
    def layout(self) -> Any:
        """Memory layout of the network's tensors: channels last."""
        return torch.channels_last if self.model.config.ndim == 2 else torch.channels_last_3d

    def whole_net(self, order: tuple[int, ...] | None = None) -> UNet:
        """Return the network ready for inference, its spatial axes put in another order if one is given."""
        own = tuple(range(self.model.config.ndim))
        order = order or own
        nets, key = _NETS.setdefault(self.model, {}), (order, str(self.device), self.precision)
        if key not in nets:
            net: Any = self.model.network()
            net = deployable(net if order == own else transposed(net, order)).to(self.device, self.precision)
            nets[key] = fused(net.to(memory_format=self.layout))
        return nets[key]

    @property
    def is_built(self) -> bool:
        """Whether a network of this model is ready for inference already, as in a batch from its second image on."""
        return bool(_NETS.get(self.model))

    def stream(self, order: tuple[int, ...]) -> Stream | Chain:
        """Return a new stream through the network, its axes in another order."""
        return Stream(self.whole_net(order))

    def net(self, order: tuple[int, ...] | None = None) -> Any:
        """Return what runs: the network, its axes in another order if one is given."""
        if isinstance(self.model.config, UNetConfig):
            return self.whole_net(order)
        if self._imported is None:
            self._imported = self.model.imported(self.device)
        return self._imported

    def read(self, box: Box) -> np.ndarray:
        """Read a box of the tiled axes as it is stored: (C, *box), NaN and infinity refused or filled."""
        full = self._with_channels(box)
        return self._channels_first(finite(self.stack.read(full), self.stack, full, self.fill))

    def salvage(self, box: Box) -> tuple[np.ndarray, list[tuple[Box, DataError]]]:
        """Read of a damaged box what can be read, zeros elsewhere: (C, *box), and the boxes that could not."""
        full = self._with_channels(box)
        data, lost = np.zeros([b.stop - b.start for b in full], self.stack.dtype), []
        for part, values in readable(self.stack, full):
            place = tuple(slice(p.start - f.start, p.stop - f.start) for p, f in zip(part, full, strict=True))
            try:
                if isinstance(values, DataError):
                    raise values
                data[place] = finite(values, self.stack, part, self.fill)
            except DataError as error:
                lost.append((tuple(p for p, a in zip(part, self.stack.axes, strict=True) if a != "c"), error))
        return self._channels_first(data), lost

    def _with_channels(self, box: Box) -> Box:
        """Complete a box of the tiled axes to one of the stack."""
        at = self.stack.axes.find("c")
        return box if at < 0 else (*box[:at], slice(0, self.stack.size("c")), *box[at:])

    def _channels_first(self, data: np.ndarray) -> np.ndarray:
        """(*stack axes) -> (C, *tiled axes)."""
        at = self.stack.axes.find("c")
        return data[None] if at < 0 else np.moveaxis(data, at, 0)

    def drawn(self, data: np.ndarray, box: Box) -> np.ndarray:
        """Put before what was read of a box what is drawn for its place: nothing, by most models."""
        return data

    def normalised(self, data: np.ndarray, at: slice | None) -> np.ndarray:
        """Normalise (C, *tiled axes) intensities; of a series the time points `at`."""
        return self.statistics.apply(data, at)

    def tensor(self, data: np.ndarray, box: Box, order: tuple[int, ...] | None = None) -> Tensor:
        """Normalise what was read of a box, and bring it to the network's memory layout, precision and device.

        In pieces, so that torch starts no threads of its own where this is done beside the network.

        Parameters
        ----------
        data : (C, *tiled axes) array, as `read` gives it, with what is drawn, mirrored

        Returns
        -------
        (B, C, *S) tensor, S in `order`
        """
        first, shape = self.batch_axes, data.shape[1:]
        order = order or tuple(range(len(shape) - first))
        lie = (*range(first), *(first + i for i in order))  # the tiled axes as they follow each other in memory
        precision = torch.float32 if self.model.config.residual or self.draws else self.precision
        laid = torch.empty([*(shape[i] for i in lie), len(data)], dtype=precision)
        place = laid.permute(len(shape), *(lie.index(i) for i in range(len(shape))))
        for part in pieces(shape, len(data)):
            at = slice(box[0].start + part[0].start, box[0].start + part[0].stop) if self.axes.startswith("t") else None
            values = self.normalised(data[(slice(None), *part)], at)
            place[(slice(None), *part)].copy_(torch.from_numpy(np.ascontiguousarray(values)))
        x = laid.reshape(math.prod(shape[:first]), *laid.shape[first:])
        x = x.squeeze(-1).unsqueeze(1) if len(data) == 1 else x.movedim(-1, 1)
        return x.to(self.device).contiguous(memory_format=self.layout)

    @torch.inference_mode()
    def logits(self, tile: Tile, data: np.ndarray) -> Tensor:
        """Run the network on what was read of a tile.

        Parameters
        ----------
        data : (C, *read) array, as `read` gives it

        Returns
        -------
        (K, *write) float32 tensor, the logits of the tile's core; finer by the network's factor
        """
        mirrored = tile.mirror(self.drawn(data, tile.read))
        x = self.tensor(mirrored, tile.read)
        sample = x[(slice(0, 1), slice(None), *(slice(0, 1) for _ in x.shape[2:]))]
        same = (mirrored.shape, str(tile.crop), tuple(sample.flatten().tolist()))
        key = same if self._is_alike_everywhere and bool((x == sample).all()) else None
        if key is not None and self._constant is not None and self._constant[0] == key:
            out = self._constant[1]
        else:
            out = self._core(x, tile).transpose(0, 1)
            out = out.reshape(len(out), *mirrored.shape[1 : 1 + self.batch_axes], *out.shape[2:])
            if key is not None:
                self._constant = key, out
        return out.float()

    @property
    def _is_alike_everywhere(self) -> bool:
        """Whether a tile of one value gives the same wherever it lies in the image."""
        config = self.model.config
        return isinstance(config, UNetConfig) or not config.blended

    def _core(self, x: Tensor, tile: Tile) -> Tensor:
        """Run the network on (B, C, *S) of a tile, and return what it gives of the tile's core."""
        config, first = self.model.config, self.batch_axes
        inner = tile.crop[first:]
        if isinstance(config, UNetConfig) or not config.window or goes_whole(config, self._sizes):
            out = self._seen(x)
        elif config.blended:
            begin = zip(tile.read, tile.pad, self.origin or (0,) * len(tile.read), strict=True)
            place = [read.start - low + start for read, (low, _), start in begin]
            return blended(self._seen, x, inner, place[first:], self._sizes, config)
        else:
            out = side_by_side(self._seen, x, inner, config)
        core: Any = (..., *scaled(inner, self.factors[first:]))
        return out[core]

    def _seen(self, x: Tensor) -> Tensor:
        """Run the network, on the mirror images too where that is wanted."""
        net, axes = self.net(), range(2, x.ndim)
        if not self.tta:
            return net(x)
        ways = [flips for count in range(len(axes) + 1) for flips in itertools.combinations(axes, count)]
        total = sum(net(x.flip(flips).contiguous(memory_format=self.layout)).float().flip(flips) for flips in ways)
        return cast("Tensor", total) / len(ways)


def transposed(net: UNet, order: tuple[int, ...]) -> UNet:
    """Return the network whose input and output have their spatial axes in another order.

    Parameters
    ----------
    net : UNet
        In eval mode; left as it is.
    order : tuple of int
        ``transposed(net, order)(x.permute(0, 1, *(2 + i for i in order)))`` is ``net(x)``, permuted alike.
    """
    config = net.config
    turned = dataclasses.replace(
        config,
        kernels=tuple(tuple(level[i] for i in order) for level in config.kernel_list),
        strides=tuple(tuple(level[i] for i in order) for level in config.stride_list),
        upscale=tuple(config.factors[i] for i in order),
    )
    result = UNet(turned).eval()
    places = (0, 1, *(2 + i for i in order))
    result.load_state_dict({k: v.permute(places) if v.ndim > 2 else v for k, v in net.state_dict().items()})
    return result


def check_fit(stack: Stack, model: Model) -> None:
    """Refuse a stack that the model cannot take.

    Raises
    ------
    ModelError
        Where the number of channels or the spatial axes do not fit.
    """
    channels = stack.size("c")
    if channels != model.in_channels:
        names = f" ({', '.join(model.channel_names)})" if model.channel_names else ""
        raise ModelError(
            f"{stack.name} has {channels} channel{'s' * (channels != 1)}, the model needs "
            f"{model.in_channels}{names}; choose channels with --channel"
        )
    lacking = [a for a in model.axes if a not in stack.axes]
    if lacking:
        raise ModelError(
            f"{stack.name} has the axes {stack.axes}, the model is {model.config.ndim}-D and needs {model.axes}; "
            f"give a stack with {' and '.join(lacking)}, or say with --axes what its axes are"
        )
