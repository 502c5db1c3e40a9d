"""Models one into the other, block by block: what one gives is computed where the next one reads it."""

from collections.abc import Sequence

from ..arrays.resample import resampled
from ..arrays.stack import Stack
from ..errors import DataError, UsageError
from ..intensities.normalise import Statistics
from ..model import Model, Models, as_models
from ..units import factor, is_length
from .config import PredictConfig
from .engine import Engine, check_fit
from .intensities import measured
from .lazy import lazily


def cascade(models: Models) -> tuple[Model, ...]:
    """Return the models of a cascade, one where it is no cascade.

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


def passed(stack: Stack, models: Sequence[Model], config: PredictConfig, measure: bool = True) -> Stack:
    """Pass a stack through models, lazily; with `measure` False nothing is read, and values mean nothing.

    Parameters
    ----------
    stack : Stack
    models : sequence of Model
        Each gives images.
    config : PredictConfig
        Its memory, device, precision, nan, percentiles, each_time, padding, resample and mirror count.

    Raises
    ------
    ModelError, DataError
        Where one does not fit what comes before it.
    """
    for number, model in enumerate(models):
        stack = fitted(stack, model, config)
        check_fit(stack, model)
        nothing = Statistics((0.0,) * stack.size("c"), (1.0,) * stack.size("c"))
        statistics = measured(stack, model, config, number > 0) if measure else nothing
        engine = Engine(stack, model, statistics, config.device, config.precision, config.fill, config.tta)
        stack = lazily(engine, config, block=None)
    return stack


def fitted(stack: Stack, model: Model, config: PredictConfig) -> Stack:
    """Return the stack at the pixel size it is run at: the model's with ``config.resample``, else its own.

    Raises
    ------
    ModelError
        Where the stack lacks axes of the model.
    DataError
        Where the unit of a pixel size is not known.
    """
    if not config.resample:
        return stack
    check_fit(stack, model)
    units = stack.along(model.axes, "units")
    for axis, own, wanted in zip(model.axes, units, model.units, strict=True):
        if not is_length(own) or not is_length(wanted):
            raise DataError(
                f"{stack.name} cannot be brought to the model's pixel size: along {axis} its unit is "
                f"{own or 'unknown'}, the model's is {wanted or 'unknown'}; correct it in the file's metadata (one of "
                "nanometer, micrometer, millimeter, meter or another length), or run without --resample"
            )
    factors = [factor(wanted, own) or 1.0 for own, wanted in zip(units, model.units, strict=True)]
    return resampled(stack, {a: s * f for a, s, f in zip(model.axes, model.scale, factors, strict=True)})


def index_in(given: Stack, stack: Stack, near: Sequence[float]) -> tuple[float, ...]:
    """Turn indices in `given` into indices in `stack`, the same image at another pixel size; clipped to it.

    Raises
    ------
    UsageError
        Where there is not one index an axis without c.
    """
    axes = stack.axes.replace("c", "")
    if len(near) != len(axes):
        raise UsageError(f"near is {tuple(near)}, {stack.name} has the axes {axes} without c; give one index an axis")
    found = []
    for axis, index in zip(axes, near, strict=True):
        (old,), (new,) = given.along(axis), stack.along(axis)
        found.append(min(max((index + 0.5) * old / new - 0.5, 0.0), stack.size(axis) - 1.0))
    return tuple(found)
