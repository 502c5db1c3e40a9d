"""Models one into the other, block by block: what one gives is computed where the next one reads it."""

from collections.abc import Sequence

from ..errors import UsageError
from ..model import Model, Models, as_models
from ..normalise import Statistics
from ..stack import Stack
from .config import PredictConfig
from .engine import Engine, check_fit
from .intensities import measured
from .job import fitted
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
        engine = Engine(stack, model, statistics, config.device, config.precision, config.fill, config.mirror)
        stack = lazily(engine, config, block=None)
    return stack
