"""What a device can do in the time that is given: how much a network sees at once, and what fits the memory."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from ..errors import ResourceError
from ..limits import memory
from ..network import LearntConfig, footprint
from ..network.memory import training_bytes
from .config import TrainConfig

SHORT_MINUTES = 10.0  # a small network learns more in so short a time, on two cores
SHORT_STEPS = 1000  # a run of no more is as short
SAMPLED_DEPTH = {2: 3, 3: 2}  # at most, of a network that is run step by step: each step looks as far again


def remainder(net: LearntConfig) -> tuple[int, ...]:
    """Return what output sizes are beside a multiple of the stride."""
    return footprint(net).remainder if net.padding == "valid" else (0,) * net.ndim


def upscale_of(config: TrainConfig, ndim: int) -> tuple[int, ...]:
    """Return the factor per axis of the network by which targets are finer; empty where none is chosen."""
    return (1,) * (ndim - len(config.upscale)) + tuple(config.upscale) if config.upscale else ()


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """What a patch is chosen from: shape and spacing per axis, typical size of large objects."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    diameter: float


class Room:
    """What the device can do in the time that is given.

    Attributes
    ----------
    finer : tuple of int
        Elements that the network works on for one of a patch, per axis; empty where these are the patch's own.
    """

    def __init__(self, config: TrainConfig, device: str, ndim: int) -> None:
        gpu = device == "cuda"
        minutes, steps = config.budget, config.steps
        short = (steps or 0) <= SHORT_STEPS if minutes is None else minutes <= SHORT_MINUTES
        self.depth = {2: 5 if gpu else 4, 3: 4 if gpu else 3}[ndim]
        self.features = {2: 64 if gpu else 16 if short else 32, 3: 32 if gpu else 16}[ndim]
        self.most_features = {2: 512, 3: 320}[ndim]
        self.voxels = {2: 512**2 if gpu else 192**2, 3: 128**3 if gpu else 48**3 if short else 64**3}[ndim]
        self.batch = {2: 12 if gpu else 4, 3: 2}[ndim]
        self.finer: tuple[int, ...] = ()
        if config.task == "diffuse":
            self.depth = min(self.depth, SAMPLED_DEPTH[ndim])
            self.finer = upscale_of(config, ndim)
            self.voxels //= math.prod(self.finer)
        self.memory = int(config.memory * 2**30) if config.memory is not None else _machine_memory(device)


def _machine_memory(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0] * 0.8)
    return min(memory() // 4, 8 * 2**30)


def aim(data: Data, voxels: int) -> tuple[int, ...]:
    """Return a patch of about `voxels`, as isotropic in space as the data's shape allows."""
    size = np.minimum(np.array(data.shape, float), math.inf)
    each = np.max(data.spacing) / np.array(data.spacing)
    free = np.ones(len(size), bool)
    while free.any():
        factor = (voxels / np.prod(np.where(free, each, size))) ** (1 / free.sum())
        over = free & (each * factor > size)
        if not over.any():
            return tuple(max(1, round(a * factor)) if f else int(n) for a, n, f in zip(each, size, free, strict=True))
        free &= ~over
    return tuple(int(n) for n in size)


def fit_memory(
    net: LearntConfig, data: Data, room: Room, config: TrainConfig, itemsize: int
) -> tuple[tuple[int, ...], int]:
    """Choose patch and batch within the memory: a smaller batch first, then a smaller patch."""
    paper = config.preset == "ronneberger2015"
    wanted = config.patch or ((388,) * net.ndim if paper else aim(data, room.voxels))
    patch = tuple(wanted) if config.patch else _grid(wanted, data.shape, net)
    batch = config.batch or (1 if paper else _batch(patch, room))
    while step_bytes(net, patch, batch, itemsize, room.finer) > room.memory:
        if batch > 1 and config.batch is None:
            batch = batch // 2
            continue
        axis = int(np.argmax(patch))
        smaller = tuple(n - net.stride[axis] * (i == axis) for i, n in enumerate(patch))
        if config.patch is not None or smaller[axis] < max(remainder(net)[axis], net.stride[axis]):
            need = step_bytes(net, patch, batch, itemsize, room.finer) / 2**30
            raise ResourceError(
                f"a step needs about {need:.2f} GiB, {room.memory / 2**30:.2f} GiB are allowed; "
                "take a smaller patch, batch or base_features, or allow more memory"
            )
        patch = smaller
    return patch, batch


def _batch(patch: tuple[int, ...], room: Room) -> int:
    """Return the number of samples: more where the patches are small."""
    return max(2, min(4 * room.batch, round(room.batch * room.voxels / math.prod(patch))))


def _grid(wanted: Sequence[int], shape: Sequence[int], net: LearntConfig) -> tuple[int, ...]:
    """Round a patch to what the network allows, down where the data end."""
    patch = []
    for n, most, stride, rest in zip(wanted, shape, net.stride, remainder(net), strict=True):
        steps = min(round((n - rest) / stride), math.floor((most - rest) / stride))
        patch.append(rest + stride * max(steps, 0 if rest else 1))
    return tuple(patch)


def step_bytes(net: LearntConfig, patch: Sequence[int], batch: int, itemsize: int, finer: Sequence[int]) -> int:
    """Estimate the bytes of a training step, whose network works on `finer` elements for one of the patch."""
    return training_bytes(net, [n * f for n, f in zip(patch, finer or (1,) * len(patch), strict=True)], batch, itemsize)
