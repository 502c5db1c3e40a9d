"""How the intensities of a stack are measured for a run, and what of them somebody should know."""

import dataclasses
from collections.abc import Iterator, Sequence

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..intensities.normalise import Statistics
from ..model import Model
from .config import PredictConfig

# Standard deviations of what was learnt from; 8-bit files of 16-bit images differ 256-fold, exposures hardly 10-fold.
FAR, FAR_FIXED = 10.0, 100.0
SERIES = 5  # time points from which on bleaching is looked for
BLEACHED = 0.6  # of the first range of intensities


def measured(stack: Stack, model: Model, config: PredictConfig, computed: bool = False) -> Statistics:
    """Measure the intensities of a stack as a run with these settings does: once, or at each time point.

    Parameters
    ----------
    stack : Stack
    model : Model
    config : PredictConfig
        Its percentiles, each_time, padding and nan count.
    computed : bool
        Whether a network computes the stack where it is read.

    Raises
    ------
    DataError
        NaN or infinite intensities where they are refused.
    """
    normalisation = config.normalisation(model)

    def one(part: Stack) -> Statistics:
        return normalisation.measure(part, fill=config.fill, quick=computed, padding=config.padding)

    if not (config.each_time and "t" in stack.axes and normalisation.measures):
        return one(stack)
    stack = cached(stack)
    return Statistics.of_times([one(stack.select(t=t)) for t in range(stack.size("t"))])


def remarks(
    stack: Stack, model: Model, config: PredictConfig, found: Statistics, computed: bool = False
) -> Iterator[str]:
    """Yield what somebody should know of intensities, one per line, with what helps.

    Parameters
    ----------
    stack : Stack
        What the model takes.
    model : Model
    config : PredictConfig
    found : Statistics
        As `measured` gives them.
    computed : bool
        As `measured` takes it.
    """
    yield from (f"{stack.name}: {note}" for note in found.notes)
    if not any(scale for each in found.times or (found,) for scale in each.scale):
        yield f"{stack.name} has one value, {found.offset[0]:g}, wherever it was read; nothing can be found in it"
    yield from _scale(stack, model, found)
    if not computed and not config.each_time:
        yield from _bleaching(stack, model, config)


def _scale(stack: Stack, model: Model, found: Statistics) -> Iterator[str]:
    """Hold fixed intensities against those that were learnt from: another bit depth is another image."""
    if model.normalisation.kind != "fixed":
        return
    limit = FAR if model.task.learns_from == "image" else FAR_FIXED
    for (mean, sd), offset, scale in zip(found.seen, found.offset, found.scale, strict=False):
        ratio = sd / scale if scale else 1.0
        if abs(mean - offset) <= limit * scale and (sd == 0 or 1 / limit <= ratio <= limit):
            continue
        yield (
            f"{stack.name} has intensities of {mean:.4g} ± {sd:.4g}, the model learnt from {offset:.4g} ± {scale:.4g}: "
            "they are on another scale, and the result will be wrong; bring them to the scale that was learnt from "
            "(another bit depth, or an image that was divided by its maximum?)"
        )


def _bleaching(stack: Stack, model: Model, config: PredictConfig) -> Iterator[str]:
    """Compare the first time point with the last."""
    if stack.size("t") < SERIES or not model.normalisation.measures:
        return
    first, last = (measured(stack.select(t=t), model, config) for t in (0, stack.size("t") - 1))
    for before, after in zip(first.scale, last.scale, strict=True):
        if 0 < after < BLEACHED * before:
            yield (
                f"{stack.name}: the range of intensities falls to {100 * after / before:.0f} % from the first to the "
                "last time point; if it bleaches, measure each time point for itself with --each-time"
            )
            return


def with_notes(stack: Stack, notes: Sequence[str]) -> Stack:
    """Return a stack with more notes, each once."""
    return dataclasses.replace(stack, notes=tuple(dict.fromkeys([*stack.notes, *notes])))
