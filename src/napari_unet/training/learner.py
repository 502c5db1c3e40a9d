"""Learner: the network with its optimiser and its running average, one step at a time, on one device."""

import contextlib
import copy
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..device import choose_device, choose_precision
from ..model import Model
from ..model.weights import network_of
from ..task import Instances, Task
from .config import TrainConfig
from .plan import TrainingPlan

# About the last 1000 steps; without the average AP50 of nuclei falls from 0.722 to 0.698 (RESULTS).
LONGEST_AVERAGE = 0.999
# Norm; with momentum 0.99 an outlier goes on for 100 steps, so SGD keeps to smaller ones.
LARGEST_GRADIENT = {"adamw": 5.0, "sgd": 4.0}
WEIGHT_DECAY = 0.01  # the default of AdamW, Loshchilov and Hutter 2019
WARM_UP = 0.03  # share of the run: Adam's second moments settle in about 100 steps of 3000
HEAD = ("head.weight", "head.bias")  # of a network: a row for each channel of its output
LEAST_RATE = 0.02  # share of the highest at the first step: not 0, so that it learns too


def rate_at(progress: float, highest: float) -> float:
    """Return the learning rate at a part of the run: a short warm-up, then half a cosine down to 0.

    References
    ----------
    Loshchilov and Hutter 2017 (SGDR), eq. 5, without restarts.
    """
    warm = min(1.0, LEAST_RATE + progress / WARM_UP)
    return highest * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def weights_of(init: Model, task: Task) -> Mapping[str, np.ndarray]:
    """Return the weights of a model to start from.

    Of two tasks of objects what both tell apart keeps its channel, and classes of objects that are new begin at 0.
    """
    ours, theirs = task.names, init.task.names
    if not isinstance(task, Instances) or not isinstance(init.task, Instances) or ours == theirs:
        return init.weights
    found = dict(init.weights)
    for name in HEAD if set(HEAD) <= set(found) else ():  # a network of another library names its output otherwise
        found[name] = np.zeros((len(ours), *init.weights[name].shape[1:]), init.weights[name].dtype)
        for row, each in enumerate(ours):
            if each in theirs:
                found[name][row] = init.weights[name][theirs.index(each)]
    return found


class Learner:
    """A network that learns.

    Parameters
    ----------
    config : TrainConfig
        Its seed, device and precision count.
    weights : mapping of str to array, optional
        What the network starts from; those of another shape (the head of another task) are left out.
    """

    def __init__(
        self, plan: TrainingPlan, task: Task, config: TrainConfig, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self.plan, self.task, self.seed = plan, task, config.seed
        self.device = choose_device(config.device)
        self.dtype = choose_precision(config.precision, self.device)
        self.layout: Any = torch.channels_last if plan.network.ndim == 2 else torch.channels_last_3d
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net = network_of(plan.network)
        if weights is not None:
            own = net.state_dict()
            fitting = {
                k: torch.from_numpy(np.array(v)) for k, v in weights.items() if k in own and own[k].shape == v.shape
            }
            net.load_state_dict(own | fitting)
        self.net: nn.Module = cast("Any", net.to(self.device)).to(memory_format=self.layout)
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimiser = self._optimiser()
        self.updates = 0

    def _optimiser(self) -> torch.optim.Optimizer:
        rate = self.plan.learning_rate
        if self.plan.optimiser == "sgd":
            return torch.optim.SGD(self.net.parameters(), lr=rate, momentum=0.99)
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=WEIGHT_DECAY, fused=fused)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the network runs."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def step(self, number: int, images: Tensor, targets: Tensor, rate: float) -> float:
        """Do one step; return the loss, and leave the network as it was where the loss or its gradient is not finite.

        Parameters
        ----------
        number : int
            The step; decides the random state of dropout.
        images : (B, C, *S) float32 tensor
        targets : (B, *T) int64 tensor
        """
        if self.plan.network.dropout:
            torch.manual_seed(int(np.random.default_rng([self.seed, number, 2**31]).integers(2**62)))
        self.net.train()
        images = images.to(self.device, non_blocking=True).contiguous(memory_format=self.layout)
        with self.autocast():
            logits = self.net(images)
        loss = self.task.loss(logits.float(), targets.to(self.device, non_blocking=True))
        value = float(loss.detach())
        self.optimiser.zero_grad(set_to_none=True)
        if math.isfinite(value):
            loss.backward()  # type: ignore[no-untyped-call]
            largest = LARGEST_GRADIENT[self.plan.optimiser]
            norm = float(nn.utils.clip_grad_norm_(self.net.parameters(), largest))
            value = value if math.isfinite(norm) else norm
        if not math.isfinite(value):
            self._restore_buffers()
            return value
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self._update_average()
        return value

    def _restore_buffers(self) -> None:
        """Undo what a bad batch did to running statistics."""
        for own, kept in zip(self.net.buffers(), self.average.buffers(), strict=True):
            own.copy_(kept)

    @torch.no_grad()
    def _update_average(self) -> None:
        """Average the weights exponentially (Polyak and Juditsky 1992), over fewer steps while there are few."""
        self.updates += 1
        weight = 1 - min(LONGEST_AVERAGE, (1 + self.updates) / (10 + self.updates))
        for kept, own in zip(self.average.state_dict().values(), self.net.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(own, weight)
            else:
                kept.copy_(own)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, average and optimiser state by name."""
        found = {f"weights.{k}": v for k, v in self.net.state_dict().items()}
        found |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser.{index}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}
        return {k: v.clone() for k, v in found.items()}

    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take up what `tensors` gave."""
        self.net.load_state_dict(_part(tensors, "weights"))
        self.average.load_state_dict(_part(tensors, "average"))
        state: dict[int, dict[str, Tensor]] = {}
        weights = [w for group in self.optimiser.param_groups for w in group["params"]]
        for name, value in _part(tensors, "optimiser").items():
            index, _, key = name.partition(".")
            like = weights[int(index)]
            # Fused optimisers pair elements as they lie in memory: moments must lie as their weights do.
            moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(index), {})[key] = moment
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
        self.updates = updates

    def kept(self) -> dict[str, Tensor]:
        """Return the weights that are validated and kept: the running average."""
        return {k: v.clone() for k, v in self.average.state_dict().items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix + "."): v for k, v in tensors.items() if k.startswith(prefix + ".")}
