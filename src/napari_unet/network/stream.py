"""Exact streaming: slabs of planes flow through the network along one axis, and each plane is computed once.

Every convolution keeps the last planes of its input, every pooling its remainder, every skip connection a queue.
Along this axis no halo is needed, and the memory does not depend on its length.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from . import ConvUnit, UNet, UNetConfig, Up, crop_centre, pool, repeated

FLOW = 2  # the first spatial dimension of (B, C, *S)


class Queue:
    """Planes that wait, first in first out."""

    def __init__(self) -> None:
        self._parts: deque[Tensor] = deque()
        self._drop = 0
        self.planes = 0

    def drop(self, planes: int) -> None:
        """Throw away this many of the next planes."""
        self._drop += planes

    def put(self, x: Tensor) -> None:
        """Append planes."""
        gone = min(self._drop, x.shape[FLOW])
        self._drop -= gone
        if gone < x.shape[FLOW]:
            self._parts.append(x.narrow(FLOW, gone, x.shape[FLOW] - gone))
            self.planes += x.shape[FLOW] - gone

    def take(self, planes: int) -> list[Tensor]:
        """Remove the first planes, as the parts in which they lie."""
        taken = []
        self.planes -= planes
        while planes:
            part = self._parts.popleft()
            if part.shape[FLOW] > planes:
                self._parts.appendleft(part.narrow(FLOW, planes, part.shape[FLOW] - planes))
                part = part.narrow(FLOW, 0, planes)
            planes -= part.shape[FLOW]
            taken.append(part)
        return taken


class StreamConv:
    """A convolution unit that keeps the last planes of its input for the next slab.

    Parameters
    ----------
    unit : ConvUnit
        Its norm folded, or one that is pointwise.
    same : bool
        Whether a border of zeros stands before the first and behind the last plane.
    """

    def __init__(self, unit: ConvUnit, same: bool) -> None:
        self._unit, self._channels = unit, unit.conv.weight.shape[1]
        kernel = unit.conv.weight.shape[FLOW:]
        self._keep = kernel[0] - 1
        self._pad = kernel[0] // 2 if same else 0
        self._padding: Any = [0, *(k // 2 if same else 0 for k in kernel[1:])]
        self._kept: Tensor | None = None
        self._started = False

    def push(self, slab: Sequence[Sequence[Tensor]], last: bool) -> Tensor | None:
        """Take the next planes; return the planes that are complete, or None.

        Parameters
        ----------
        slab : groups of channels, each as the parts along the flow in which it lies; all of one length
        last : bool
            Whether no more will come.
        """
        x = self._assemble(slab, last)
        if x is None or x.shape[FLOW] <= self._keep:
            self._kept = x
            return None
        if self._keep:
            self._kept = x.narrow(FLOW, x.shape[FLOW] - self._keep, self._keep).clone()
        return self._unit.convolved(x, self._padding)

    def _assemble(self, slab: Sequence[Sequence[Tensor]], last: bool) -> Tensor | None:
        """Put kept planes, new planes and the border's zeros into one tensor."""
        sample = next((part for group in slab for part in group), self._kept)
        if sample is None:
            return None
        new = sum(part.shape[FLOW] for part in slab[0]) if slab else 0
        before = self._pad if not self._started else 0
        kept = self._kept.shape[FLOW] if self._kept is not None else 0
        after = self._pad if last else 0
        if not before + kept + after and len(slab) == 1 and len(slab[0]) == 1:
            return slab[0][0]
        self._started = True
        shape = list(sample.shape)
        shape[1], shape[FLOW] = self._channels, before + kept + new + after
        layout: Any = torch.channels_last if sample.ndim == 4 else torch.channels_last_3d
        x = torch.empty(shape, dtype=sample.dtype, device=sample.device, memory_format=layout)
        if before:
            x.narrow(FLOW, 0, before).zero_()
        if self._kept is not None:
            x.narrow(FLOW, before, kept).copy_(self._kept)
        channel = 0
        for group in slab:
            at = before + kept
            for part in group:
                x.narrow(1, channel, part.shape[1]).narrow(FLOW, at, part.shape[FLOW]).copy_(part)
                at += part.shape[FLOW]
            channel += group[0].shape[1] if group else 0
        if after:
            x.narrow(FLOW, before + kept + new, after).zero_()
        return x


class StreamLevel:
    """One level of the network, and all below it.

    Parameters
    ----------
    loss : list of int
        Planes that each level and those below it consume, for valid convolutions.
    """

    def __init__(self, net: UNet, level: int, loss: Sequence[int]) -> None:
        config, same = net.config, net.config.padding == "same"

        def convs(block: nn.Module) -> list[StreamConv]:
            return [StreamConv(cast("ConvUnit", unit), same) for unit in cast("nn.Sequential", block)]

        self.below: StreamLevel | None = None
        self._skips = config.skips
        if level == config.depth:
            self._encode = convs(net.bottleneck)
            return
        self._encode, self._decode = convs(net.encoder[level]), convs(net.decoder[level])
        self._up, self._stride = cast("Up", net.up[level]), config.stride_list[level]
        self._to_pool, self._skip, self._ready = Queue(), Queue(), Queue()
        self._slab = 0
        self._skip.drop(self._stride[0] * loss[level + 1] // 2)
        self.below = StreamLevel(net, level + 1, loss)

    def push(self, x: Tensor | None, last: bool) -> Iterator[Tensor]:
        """Take the next planes of this level's input; yield the next planes of its output.

        At the end, when all planes come that the levels below still held, they come in parts of a slab.
        """
        slab = 0 if x is None else x.shape[FLOW]
        x = _through(self._encode, [] if x is None else [[x]], last)
        if self.below is None:
            yield from [] if x is None else [x]
            return
        self._slab = max(self._slab, slab)
        if x is not None:
            self._to_pool.put(x)
            if self._skips:
                self._skip.put(x)
        for part in self.below.push(self._pooled(), last):
            self._ready.put(self._up(part))
            while self._waiting() > self._slab:
                yield from self._decoded(self._slab, last=False)
        yield from self._decoded(self._waiting(), last)

    def _waiting(self) -> int:
        """Return how many planes have come up, and have what the skip holds beside them."""
        return min(self._ready.planes, self._skip.planes) if self._skips else self._ready.planes

    def _decoded(self, planes: int, last: bool) -> Iterator[Tensor]:
        x = _through(self._decode, self._joined(planes), last)
        yield from [] if x is None else [x]

    def _pooled(self) -> Tensor | None:
        planes = self._to_pool.planes // self._stride[0] * self._stride[0]
        if not planes:
            return None
        parts = self._to_pool.take(planes)
        return pool(parts[0] if len(parts) == 1 else torch.cat(parts, FLOW), self._stride)

    def _joined(self, planes: int) -> list[list[Tensor]]:
        """Pair planes that came up with what the skip holds."""
        if not planes:
            return []
        up = self._ready.take(planes)
        if not self._skips:
            return [up]
        plane = (up[0].shape[FLOW + 1 :],)
        skip = [crop_centre(part, (part.shape[FLOW], *plane[0])) for part in self._skip.take(planes)]
        return [skip, up]


def _through(convs: Sequence[StreamConv], slab: Sequence[Sequence[Tensor]], last: bool) -> Tensor | None:
    """Push through the convolutions of one block."""
    x: Tensor | None = None
    for conv in convs:
        x = conv.push(slab, last)
        if x is None and not last:
            return None
        slab = [] if x is None else [[x]]
    return x


class Stream:
    """A network through which an image flows, slab by slab, along its first spatial axis.

    The planes that come out, put together, are what the network gives on the whole: same convolutions take the border's
    zeros at the first and last plane, valid ones consume their margin there.

    Parameters
    ----------
    net : UNet
        As `deployable` gives it; norms that take statistics from the image cannot be streamed.
    """

    def __init__(self, net: UNet) -> None:
        self._net = net
        valid = net.config.padding == "valid"
        loss = context_planes(net.config) if valid else [0] * (net.config.depth + 1)
        self._top, self._given = StreamLevel(net, 0, loss), Queue()
        self._given.drop(loss[0] // 2)
        self._finer = None if net.finer is None else StreamConv(cast("ConvUnit", net.finer[1]), not valid)

    @torch.inference_mode()
    def push(self, slab: Tensor, last: bool = False) -> Tensor | None:
        """Take the next planes of the image; return the next planes of logits, or None if none is complete yet.

        Parameters
        ----------
        slab : (B, C, planes, *plane) tensor
        last : bool
            Whether the image ends with this slab.
        """
        net = self._net
        if net.config.residual:
            self._given.put(repeated(slab, net.config.factors))
        logits = [net.head(part) for part in self._top_of(slab.to(net.head.weight.dtype), last)]
        if not logits:
            return None
        x = cast("Tensor", logits[0] if len(logits) == 1 else torch.cat(logits, FLOW))
        return net.completed(x, torch.cat(self._given.take(x.shape[FLOW]), FLOW)) if net.config.residual else x

    def _top_of(self, slab: Tensor, last: bool) -> Iterator[Tensor]:
        """Yield the planes that the head takes."""
        finer, net = self._finer, self._net
        for part in self._top.push(slab, last):
            found = part if finer is None else finer.push([[net.finer[0](part)]], last=False)  # type: ignore[index]
            yield from [] if found is None else [found]
        found = finer.push([], last) if last and finer is not None else None
        yield from [] if found is None else [found]


def _slabs(x: Tensor, planes: int) -> Iterator[Tensor]:
    for start in range(0, x.shape[FLOW], planes):
        yield x.narrow(FLOW, start, min(planes, x.shape[FLOW] - start))


class Chain:
    """Networks one behind the other, each of which takes what the one before it gives.

    Slabs flow through all of them at once: what one gives is pushed into the next as it comes.

    Parameters
    ----------
    nets : sequence of UNet
        As `Stream` takes them.
    """

    def __init__(self, nets: Sequence[UNet]) -> None:
        self._streams = [Stream(net) for net in nets]

    def push(self, slab: Tensor, last: bool = False) -> Tensor | None:
        """Take the next planes of the image, and give those of the last network, as `Stream.push`.

        What a network still held comes at the end in one piece; it goes on in parts of a slab, so that it takes no more
        memory than others.
        """
        parts, planes = [slab], slab.shape[FLOW]
        for stream in self._streams:
            found = [stream.push(part, last and i == len(parts) - 1) for i, part in enumerate(parts)]
            parts = [part for each in found if each is not None for part in _slabs(each, planes)]
        if len(parts) < 2:
            return parts[0] if parts else None
        return torch.cat(parts, FLOW)


def context_planes(config: UNetConfig, flow: int = 0) -> list[int]:
    """Return how many planes each level, with all below it, consumes or waits for along the axis `flow`."""
    found = [config.kernel_list[-1][flow] // 2 * 4]
    for level in reversed(range(config.depth)):
        found.insert(0, config.kernel_list[level][flow] // 2 * 8 + config.stride_list[level][flow] * found[0])
    return found
