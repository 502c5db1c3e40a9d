"""The two halves of a network without skips: from an image to its description, and back."""

import dataclasses
import math
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..errors import ModelError
from ..events import Progress
from ..grid.tiles import Factor, Footprint
from ..intensities.normalise import Statistics
from ..model import Model, OneModel, as_model
from ..network import footprint
from ..sources import open_stack
from ..store.admission import check_apart
from ..task import Restore
from .cluster import connected
from .config import PredictConfig
from .engine import Engine
from .job import Job
from .predict import execute
from .prepare import prepare


class EncoderEngine(Engine):
    """The network up to its bottleneck; an element of the result describes a stride of the image."""

    __slots__ = ()
    part = "encoder"

    @property
    def streams(self) -> bool:
        """False: it runs tile by tile."""
        return False

    @property
    def factors(self) -> tuple[Factor, ...]:
        """One by the stride."""
        return (1,) * self.batch_axes + tuple(Fraction(1, s) for s in self.model.config.stride)

    def net(self, order: tuple[int, ...] | None = None) -> Any:
        """Return what gives (B, F, *S / stride) of (B, C, *S)."""
        return self.whole_net(order).encode


class DecoderEngine(Engine):
    """The network from its bottleneck on; it reads what an `EncoderEngine` gave."""

    __slots__ = ()
    part = "decoder"

    def check(self) -> None:
        """Refuse what is not a description that this model gave."""
        features, channels = self.model.unet.features[-1], self.stack.size("c")
        if channels != features:
            raise ModelError(
                f"{self.stack.name} has {channels} channels, the model's descriptions have {features}; give what "
                "encode made with this model"
            )

    def field(self) -> Footprint:
        """Return its grid: that of the descriptions."""
        whole, none = footprint(self.model.config), (0,) * self.model.config.ndim
        halo = tuple(math.ceil(h / s) for h, s in zip(whole.halo, whole.stride, strict=True))
        return Footprint((1,) * len(none), halo, none, none)

    @property
    def streams(self) -> bool:
        """False: it runs tile by tile."""
        return False

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The stride."""
        return (1,) * self.batch_axes + self.model.config.stride

    def net(self, order: tuple[int, ...] | None = None) -> Any:
        """Return what gives (B, K, *(S * stride)) of (B, F, *S)."""
        return self.whole_net(order).decode


def encode(
    stack: Stack, model: OneModel, out: Path, config: PredictConfig | None = None
) -> Generator[Progress, None, Stack]:
    """Write what the bottleneck gives, a description of each place of `stack`; cancelled and resumed as `predict`.

    Parameters
    ----------
    model : Model, path or name
        Learnt with the task autoencode.
    out : Path
        OME-Zarr store to make, or to go on with.

    Yields
    ------
    Progress
        As `predict`.

    Returns
    -------
    Stack
        float32, one channel a feature, an element for each stride of the image.

    Raises
    ------
    ModelError
        A model with skips, or one that does not fit the stack.
    DataError, OutputError, IncompleteError
        As `predict`.
    """
    config, model = config or PredictConfig(), as_model(model)
    _check_plain(model)
    ready = prepare(cached(open_stack(stack)), model, config).measured()
    about = ready.engine.statistics, config.device, config.precision, config.fill
    engine = EncoderEngine(ready.stack, _describing(model), *about)
    for line in ready.notes():
        yield Progress(0, 0, "note", line)
    return (yield from _run(engine, out, config))


def decode(
    codes: Stack, model: OneModel, out: Path, config: PredictConfig | None = None
) -> Generator[Progress, None, Stack]:
    """Write the image that descriptions stand for; cancelled and resumed as `predict`.

    Parameters
    ----------
    codes : Stack, or its path
        What `encode` returned with this model.

    Yields
    ------
    Progress
        As `predict`.

    Returns
    -------
    Stack
        As large as the descriptions times the stride: where the image was not a multiple of it, a little larger.

    Raises
    ------
    ModelError
        A model with skips, or another one than that of the descriptions.
    DataError, OutputError, IncompleteError
        As `predict`.
    """
    config, model, codes = config or PredictConfig(), as_model(model), open_stack(codes)
    _check_plain(model)
    as_they_are = Statistics((0.0,) * codes.size("c"), (1.0,) * codes.size("c"))
    engine = DecoderEngine(cached(codes), model, as_they_are, config.device, config.precision, config.fill)
    return (yield from _run(engine, out, config))


def _run(engine: Engine, out: Path, config: PredictConfig) -> Generator[Progress, None, Stack]:
    root = Path(out)
    check_apart(root, engine.stack, "choose another place")
    job = Job.plan(engine, config)
    yield from job.removal(root, config)
    with connected(config.scheduler, job) as client, job.create(root, config) as store:
        yield from store.notices()
        yield from execute(job, store, client, job.summary(0, config.memory))
    return open_stack(root)


def _check_plain(model: Model) -> None:
    config = model.unet
    if config.skips or config.residual or config.padding == "valid" or config.upscale or config.timed:
        name = model.record.get("name") or model.task.name
        raise ModelError(f"{name} is not a plain encoder-decoder; train one with --task autoencode")


def _describing(model: Model) -> Model:
    """Return the model with what its bottleneck gives as the result; the hash stays that of the model."""
    features = model.unet.features[-1]
    names = tuple(f"feature {i}" for i in range(features))
    found = object.__new__(Model)
    for field in dataclasses.fields(Model):
        object.__setattr__(found, field.name, getattr(model, field.name))
    object.__setattr__(found, "task", Restore(names, (0.0,) * features, (1.0,) * features))
    return found
