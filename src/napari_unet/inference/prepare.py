"""An image and models matched to each other once, for a run, a preview or a preflight check."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Zeros
from ..errors import UsageError
from ..intensities.normalise import Statistics
from ..model import Model, Models, as_models
from ..objects.condition import conditioned
from ..sources import open_stack
from ..store.admission import own_root
from .config import PredictConfig
from .diffusion import engine_for
from .engine import Engine, check_fit
from .intensities import measured, remarks
from .job import Job, run_settings
from .lazy import lazy_result
from .outputs import result_of, result_path
from .own import brought
from .pixelsize import resample_to_model
from .region import Region, region_of
from .samples import several
from .stages import alone, staged


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """An image and models that fit each other, as `prepare` gives them.

    Parameters
    ----------
    given : Stack
        The image as it was opened.
    models : tuple of Model
        Of a cascade all, the one that gives the result last.
    engine : Engine
        The last model on what it takes: the image, through the models before it, at the pixel size it is run at.
    own : Stack
        What it would take at the image's own pixels, where the result lies; that of `engine`, if these are the same.
    is_measured : bool
        Whether its intensities are those of the image; where they are not, values mean nothing and nothing was read.
    region : Region, optional
        The part of the image that is run: `own` is what is wanted of it, `engine` takes what is seen around that too.
    """

    given: Stack
    models: tuple[Model, ...]
    config: PredictConfig
    engine: Engine
    own: Stack
    is_measured: bool = False
    region: Region | None = None

    @property
    def samples(self) -> int:
        """Samples of which the result is the mean; 1 where it is one, or none is drawn."""
        return self.config.samples or 1

    @property
    def model(self) -> Model:
        """The one that gives the result."""
        return self.models[-1]

    @property
    def stack(self) -> Stack:
        """What the last model takes."""
        return self.engine.stack

    @property
    def path(self) -> str:
        """Where in its store the result lies."""
        return result_path(self.model, self.config.name)

    def measured(self, earlier: Statistics | None = None) -> "Prepared":
        """Return it with the intensities of the image, for which parts of that are read.

        Parameters
        ----------
        earlier : Statistics, optional
            Those of an unfinished run on the same place: kept where the source was repaired since, as what is done was
            normalised with them.

        Raises
        ------
        DataError
            NaN or infinite intensities where they are refused; an image that cannot be read.
        """
        stack = apply_cascade(self.given, self.models[:-1], self.config)
        stack = resample_to_model(stack, self.model, self.config, self.given)
        found = _kept(measured(stack, self.model, self.config, len(self.models) > 1), earlier)
        own = stack
        if self.is_resampled:
            own = self.given if len(self.models) == 1 else brought(stack, _own(self.given, self.models))
        if self.region is not None:
            own, stack = own.select(**self.region.wanted), stack.select(**self.region.taken)
        engine = _last(stack, self.model, found, self.config, self.region)
        return dataclasses.replace(self, engine=engine, own=own, is_measured=True)

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Make the network ready in a thread beside the work that is done meanwhile; its faults show where it runs."""
        if self.engine.is_built:
            yield
            return
        with ThreadPoolExecutor(1, "network") as pool:
            pool.submit(lambda: self.job().route().build())
            yield

    @property
    def is_resampled(self) -> bool:
        """Whether the network runs at other pixels than the image's own."""
        if self.region is not None and self.region.own != self.region.run:
            return True
        names = ("scale",) if self.region is not None else ("shape", "scale")
        space = self.own.spatial
        return any(self.own.values_along(space, name) != self.stack.values_along(space, name) for name in names)

    @property
    def resampling(self) -> list[str]:
        """Say how pixels are resampled, if they are."""
        return [note for note in self.stack.notes if note not in self.given.notes]

    def notes(self) -> list[str]:
        """Say how pixels are resampled, and warn of intensities, one per line; reads the ends of a time series."""
        return [
            *self.resampling,
            *remarks(self.stack, self.model, self.config, self.engine.statistics, len(self.models) > 1),
        ]

    def job(self) -> Job:
        """Choose blocks and lay out the arrays of the result."""
        before = self.models[:-1]
        if self.own is self.stack:
            return staged(Job.plan(self.engine, self.config, before), self.config)
        config = dataclasses.replace(self.config, uncertainty=self.config.uncertainty or self.samples > 1)
        engine = engine_for(self.own, self.model, self.engine.statistics, config)
        own = Job.plan(alone(engine), config, before)
        deviates = self.config.uncertainty and self.samples == 1
        bare = dataclasses.replace(self.config, overview=False, error=False, each_sample=False, uncertainty=deviates)
        job = dataclasses.replace(Job.plan(self.engine, bare, before), objects=None, own=own, region=self.region)
        return staged(job if self.samples == 1 else job.of_samples(), self.config)

    def settings(self) -> dict[str, Any]:
        """Return what the result follows from, as far as it is known before anything is read or chosen."""
        return run_settings(self.stack, self.model, self.config, self.models[:-1])

    def root(self, out: Path) -> Path:
        """Return the store of a result that is wanted in `out`: the image's own with ``config.in_source``."""
        return own_root(self.given) if self.config.in_source else Path(out)


def prepare(stack: Stack, models: Models, config: PredictConfig | None = None) -> Prepared:
    """Make an image and models ready for each other; reads no image data.

    Parameters
    ----------
    models : Model, path or name, or a sequence of them
        Several run one into the other; all but the last give images.

    Raises
    ------
    ModelError
        Where image and models do not fit.
    UsageError
        Where there is no model, one before the last gives labels, or intensities are chosen that none measures.
    DataError
        Where the unit of a pixel size is not known by which the image is to be resampled.
    """
    config, found = config or PredictConfig(), load_cascade(models)
    config.check_input(found)
    taken = stack = conditioned(open_stack(stack), found[0].task.given, len(found[0].axes))
    for model in found[:-1]:
        taken = resample_to_model(taken, model, config, stack)
        check_fit(taken, model)
        taken = result_of(taken, model)
    taken, own = resample_to_model(taken, found[-1], config, stack), _own(stack, found)
    own = taken if (own.shape, own.scale) == (taken.shape, taken.scale) else own
    if config.region is None:
        return Prepared(stack, found, config, _last(taken, found[-1], _nothing(taken), config), own)
    region = _region(stack, taken, own, found[-1], config)
    own, taken = own.select(**region.wanted), taken.select(**region.taken)
    engine = _last(taken, found[-1], _nothing(taken), config, region)
    return Prepared(stack, found, config, engine, own, region=region)


def to_generate(model: Model, labels: Stack | None, shape: tuple[int, ...] = ()) -> Stack:
    """Return what `predict` takes to make an image from labels, or from none, of a shape and the model's pixel size.

    Raises
    ------
    UsageError
        Where the model was not trained for that.
    """
    wanted, given = "none" if labels is None else "labels", model.task.given
    name = model.record.get("name") or model.task.name
    if given != wanted:
        how = "give it one with predict" if given == "image" else "train one with the task diffuse and that condition"
        raise UsageError(f"the model {name} makes images for the condition {given}, not {wanted}; {how}")
    if labels is not None:
        return labels
    if len(shape) != len(model.axes):
        raise UsageError(f"shape is {shape}; the model {name} needs {len(model.axes)} sizes, {' '.join(model.axes)}")
    return Stack(Zeros(shape, np.uint8), model.axes, model.scale, model.units, name="generated")


def _own(stack: Stack, models: Sequence[Model]) -> Stack:
    """Return where what the last of several models takes lies, if all ran at the image's own pixels."""
    for model in models[:-1]:
        stack = result_of(stack, model)
    return stack


def _region(given: Stack, taken: Stack, own: Stack, model: Model, config: PredictConfig) -> Region:
    """Find the part of an image that is run alone.

    Raises
    ------
    UsageError
        Where the result would not be that of the whole image there, or has no place of its own.
    """
    if config.in_source:
        raise UsageError("the labels of a region are smaller than the image; give a place for them with --out")
    if not model.config.tile_exact:
        raise UsageError(f"a region differs from the same part of the whole, as {model.seams}; run all")
    engine = engine_for(taken, model, _nothing(taken), config)
    return region_of(config.region or "", given, own, engine)


def load_cascade(models: Models) -> tuple[Model, ...]:
    """Return the models of a cascade, one where it is not a cascade.

    Raises
    ------
    UsageError
        Where there is none, what is given is none, or one before the last gives labels.
    ModelError, UnsafeError
        As `load_model`, where paths are given.
    """
    found = as_models(models)
    if not found:
        raise UsageError("no model is given; give at least one")
    for model in found[:-1]:
        if model.task.result == "labels":
            name = model.record.get("name") or model.task.name
            raise UsageError(f"the model {name} gives labels, which no model can take; put it last")
    return found


def apply_cascade(given: Stack, models: Sequence[Model], config: PredictConfig) -> Stack:
    """Pass a stack through models that give images and fit: what one gives is computed where the next one reads it.

    Raises
    ------
    DataError
        As `measured`.
    """
    stack = given
    for number, model in enumerate(models):
        stack = resample_to_model(stack, model, config, given)
        statistics = measured(stack, model, config, number > 0)
        stack = lazy_result(engine_for(stack, model, statistics, config), config, block=None)
    return stack


def _last(
    stack: Stack, model: Model, statistics: Statistics, config: PredictConfig, region: Region | None = None
) -> Engine:
    """Return the engine of the last model; where that draws several samples, of each of these."""
    samples = config.samples or 1
    axes = stack.axes.replace("c", "")
    origin = () if region is None else tuple(region.taken[axis].start for axis in axes)
    whole = () if region is None else tuple(region.run[axis].stop for axis in axes)
    if samples > 1:
        stack = several(stack, samples)
        origin = origin if "t" in axes or not origin else (0, *origin)
        whole = whole if "t" in axes or not whole else (samples, *whole)
    return engine_for(stack, model, statistics, config, (origin, whole), samples)


def _nothing(stack: Stack) -> Statistics:
    """Return intensities in place of those that were not measured."""
    return Statistics((0.0,) * stack.size("c"), (1.0,) * stack.size("c"))


def _kept(now: Statistics, earlier: Statistics | None) -> Statistics:
    """Return what was measured, or what an earlier run did of an image that less could be read of then."""
    if earlier is None:
        return now
    otherwise = now.cells > earlier.cells and not now.times  # by a version that measured other parts
    if otherwise or now.is_taken_as_empty or earlier.unreadable > now.unreadable:
        return dataclasses.replace(earlier, seen=now.seen, notes=now.notes)
    return now


def index_in(given: Stack, stack: Stack, near: Sequence[float]) -> tuple[float, ...]:
    """Turn indices in `given` into indices in `stack`, the same image at another pixel size; clipped to it.

    Raises
    ------
    UsageError
        Where there is not one index per axis without c.
    """
    axes = given.axes.replace("c", "")
    if len(near) != len(axes):
        raise UsageError(f"near is {tuple(near)}, {given.name} has the axes {axes} without c; give one index per axis")
    found = [0.0] * len(stack.axes.replace("c", "").removesuffix(axes))  # the first of several samples
    for axis, index in zip(axes, near, strict=True):
        (old,), (new,) = given.scale_along(axis), stack.scale_along(axis)
        found.append(min(max((index + 0.5) * old / new - 0.5, 0.0), stack.size(axis) - 1.0))
    return tuple(found)
