"""How the work is cut up: the axis along which planes flow, the blocks, and what they cost in memory."""

import dataclasses
import math
from typing import Any, cast

import torch

from ..errors import UsageError
from ..limits import memory
from ..network import UNetConfig
from ..network.stream import context_planes
from ..network.windows import is_blended
from .engine import Engine

# Planes: with twice as many 2-D gains 7 % and 3-D nothing (measured), and both hold twice the memory.
SLAB = {2: 64, 3: 16}
DRAWN_PART = 4  # of a slab: through many steps at once it takes as many times the memory
FLOW_BLOCK = {2: 512, 3: 64}  # planes of a block: what a kill loses, and some chunks of the result in length
# Edge: with larger ones the first to come takes seconds, with smaller ones most of the work is halo.
TILE = {2: 512, 3: 64}
GRANULE = {2: 128, 3: 32}  # cores are multiples of it: they cut few chunks of an image in two
# 362 x 362: smaller planes go through the network together, and a smaller image as a whole, up to so much. In slabs an
# image of 256 x 256 takes 1.25 times as long; twice as much takes 33 MB more of one of 512 x 512, and no less time.
AT_ONCE = 2**17
TILE_STATES = 6  # of the first level, at once: skip, what comes from below, both joined (2), two convolutions
NETWORK_PART = 0.5  # of a machine's memory: slabs, blocks that are written and the libraries take the rest


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The blocks of a run, and the way planes flow through them.

    Parameters
    ----------
    core : tuple of int
        Block, per axis of ``engine.axes``.
    flow : int or None
        The axis along which planes flow; None where the network cannot be streamed.
    planes : int
        Planes per slab.
    """

    core: tuple[int, ...]
    flow: int | None
    planes: int


def choose_layout(engine: Engine, memory: float, block: tuple[int, ...] | None = None) -> Layout:
    """Choose blocks that keep the network within `memory` and waste the least on halos.

    Parameters
    ----------
    memory : float
        Bytes that the network may hold.
    block : tuple of int, optional
        The user's own, for the last axes; one index at a time along the others.

    Raises
    ------
    UsageError
        Where `block` has more sizes than the stack has axes.
    """
    config, first = engine.model.config, engine.batch_axes
    shape = tuple(engine.stack.size(a) for a in engine.axes)
    if block is not None:
        _check_block(block, engine)
    if not engine.streams:
        return Layout(block_of(block, shape) or choose_tile(engine, memory), None, 0)
    flow = max(range(first, len(shape)), key=lambda i: shape[i])
    stride = engine.footprint.stride[flow]
    planes = math.ceil(SLAB[config.ndim] / (DRAWN_PART if engine.draws else 1) / stride) * stride
    if block is not None:
        return Layout(block_of(block, shape) or shape, flow, planes)
    bytes_each = state_elements(engine.model.unet, flow - first, planes) * engine.precision.itemsize * engine.passes
    core = list(_fit(engine, shape, memory / bytes_each, frozenset({flow})))
    core[flow] = min(math.ceil(FLOW_BLOCK[config.ndim] / stride) * stride, math.ceil(shape[flow] / stride) * stride)
    _fill_batch(engine, core, shape)
    return _longer(engine, Layout(tuple(core), flow, planes), memory)


def _longer(engine: Engine, layout: Layout, memory: float) -> Layout:
    """Let a small image flow in longer slabs, at most all of it at once."""
    shape, flow = [engine.stack.size(a) for a in engine.axes], cast("int", layout.flow)
    stride, first = engine.footprint.stride[flow], engine.batch_axes
    across = math.prod(seen(engine, i, layout.core[i]) for i in range(first, len(shape)) if i != flow)
    across *= math.prod(min(c, n) for c, n in zip(layout.core[:first], shape[:first], strict=True))
    whole = math.ceil(seen(engine, flow, shape[flow]) / stride) * stride
    planes = min(AT_ONCE // across // stride * stride, whole)
    longer = dataclasses.replace(layout, planes=max(planes, layout.planes))
    return longer if block_bytes(engine, longer) <= memory else layout


def choose_tile(engine: Engine, memory: float) -> tuple[int, ...]:
    """Choose the core of tiles that are computed one at a time for a viewer: small enough to come soon."""
    shape = tuple(engine.stack.size(a) for a in engine.axes)
    fitting = _fit(engine, shape, memory / _tile_bytes(engine), frozenset())
    if is_blended(engine.model.config):  # all windows that touch a core are run for it: the larger, the fewer twice
        return fitting
    most = TILE[engine.model.config.ndim]
    return tuple(min(c, most) for c in fitting)


def _tile_bytes(engine: Engine) -> int:
    """Estimate the bytes that are held for each element that a tile sees."""
    config = engine.model.config
    if is_blended(config):  # what it takes, raw and normalised, and what it gives, added up and divided
        return 2 * (config.in_channels + config.out_channels + 1) * engine.precision.itemsize
    return TILE_STATES * config.base_features * engine.precision.itemsize


def block_of(block: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Complete the user's block: one index at a time along the leading axes it does not name."""
    return None if block is None else (1,) * (len(shape) - len(block)) + tuple(block)


def state_elements(config: UNetConfig, flow: int, planes: int) -> float:
    """Estimate the elements a stream holds for each element of its cross-section.

    Parameters
    ----------
    flow : int
        The spatial axis along which planes flow.
    planes : int
        Planes per slab.
    """
    lag = context_planes(config, flow)
    total, share, passing = 0.0, 1.0, float(planes)
    before = config.in_channels
    for level, features in enumerate(config.features):
        keep = config.kernel_list[level][flow] - 1
        waiting = 0.0
        if level < config.depth:
            waiting = config.stride_list[level][flow] * lag[level + 1] / 2 + 2 * passing
        total += share * (features * waiting + keep * (before + 4 * features))
        before = features
        if level < config.depth:
            strides = config.stride_list[level]
            share /= math.prod(strides) / strides[flow]
            passing /= strides[flow]
    return total + planes * (4 * config.base_features + 4 * config.in_channels)


def block_bytes(engine: Engine, layout: Layout) -> float:
    """Estimate the bytes that the network holds on the way through the blocks of a layout."""
    config, first = engine.model.config, engine.batch_axes
    shape = tuple(engine.stack.size(a) for a in engine.axes)
    across = [i for i in range(first, len(shape)) if i != layout.flow]
    elements = math.prod(layout.core[:first]) * math.prod(seen(engine, i, layout.core[i]) for i in across)
    if layout.flow is None:
        window = math.prod(config.window) * config.base_features if is_blended(config) else 0
        return float(elements * _tile_bytes(engine) + window * TILE_STATES * engine.precision.itemsize)
    each = state_elements(engine.model.unet, layout.flow - first, layout.planes) * engine.precision.itemsize
    return elements * each * engine.passes


def seen(engine: Engine, axis: int, size: int) -> int:
    """Return how much of an axis a tile with a core of `size` sees."""
    foot, length = engine.footprint, engine.stack.size(engine.axes[axis])
    whole = math.ceil(length / foot.stride[axis]) * foot.stride[axis]
    return min(size + 2 * foot.halo[axis], whole) + 2 * foot.margin[axis]


def _check_block(block: tuple[int, ...], engine: Engine) -> None:
    if len(block) > len(engine.axes):
        raise UsageError(
            f"block {block} has {len(block)} sizes, {engine.stack.name} is tiled along {engine.axes}; "
            f"give at most {len(engine.axes)}"
        )


def _fit(engine: Engine, shape: tuple[int, ...], most: float, free: frozenset[int]) -> tuple[int, ...]:
    """Cut the spatial axes that are not `free` until a tile has at most `most` elements, where it costs least halo."""
    foot, first = engine.footprint, engine.batch_axes
    core = [1 if i < first else math.ceil(n / foot.stride[i]) * foot.stride[i] for i, n in enumerate(shape)]
    cut = [i for i in range(first, len(shape)) if i not in free]
    granule = GRANULE[engine.model.config.ndim]

    while math.prod(seen(engine, i, core[i]) for i in cut) > most:
        options = []
        for axis in cut:
            step = math.lcm(granule, foot.stride[axis])
            size = _smaller(engine, axis, core[axis], step)
            if size is None:
                continue
            shrink = seen(engine, axis, core[axis]) / seen(engine, axis, size)
            work = seen(engine, axis, size) / size * core[axis] / seen(engine, axis, core[axis])
            options.append((math.log(work) / math.log(shrink), axis, size))
        if not options:
            break
        _, axis, size = min(options)
        core[axis] = size
    return tuple(core)


def _smaller(engine: Engine, axis: int, core: int, step: int) -> int | None:
    """Return the next smaller core of which a tile sees less: as large as equal parts of the axis allow."""
    length = engine.stack.size(engine.axes[axis])
    for parts in range(math.ceil(length / core) + 1, math.ceil(length / step) + 1):
        size = min(math.ceil(length / parts / step) * step, (core - 1) // step * step)
        if size >= step and seen(engine, axis, size) < seen(engine, axis, core):
            return size
    return None


def _fill_batch(engine: Engine, core: list[int], shape: tuple[int, ...]) -> None:
    """Let small planes go through the network together."""
    first = engine.batch_axes
    if first:
        plane = math.prod(min(c, n) for c, n in zip(core[first:], shape[first:], strict=True))
        core[first - 1] = max(1, min(AT_ONCE // plane, shape[first - 1]))


def device_memory(device: torch.device, limit: float) -> float:
    """Return the bytes that the network may hold: `limit` in GiB, never more than its part of what the device has."""
    wanted = limit * 2**30
    if device.type != "cuda":
        return min(wanted, NETWORK_PART * memory())
    properties: Any = torch.cuda.get_device_properties(device)
    return float(min(wanted, 0.7 * properties.total_memory))
