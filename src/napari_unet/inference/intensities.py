"""How the intensities of a stack are measured for a run, and what to warn of."""

import dataclasses
from collections.abc import Iterator, Sequence

from ..arrays.cached import cached
from ..arrays.stack import Stack
from ..cards import SHIPPED, models
from ..intensities.contrast import SPAN
from ..intensities.looks import BEYOND, is_like, learnt_range, unlike
from ..intensities.normalise import Statistics
from ..model import Model
from .config import PredictConfig

# Standard deviations of the training images; 8-bit files of 16-bit images differ 256-fold, exposures hardly 10-fold.
FAR, FAR_FIXED = 10.0, 100.0
SERIES = 5  # time points from which on bleaching is looked for
BLEACHED = 0.6  # of the first range of intensities
CLEAR = 1.5  # times what is noise, or the contrast of an image: so far were all training images
FLATTER = 0.65  # of the flattest training image: 0.47 for nuclei, where smoothed noise reaches 0.44
LITTLE = 12.0  # standard deviations of noise: 7 are left for what is to be found


def measured(stack: Stack, model: Model, config: PredictConfig, computed: bool = False) -> Statistics:
    """Measure the intensities of a stack as a run with these settings does: once, or at each time point.

    An image of nothing but noise is taken as one value, where all training images had far more contrast:
    stretched to the full range it would look like one large object. Percentiles that were chosen hold as they are.

    Parameters
    ----------
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
        found = normalisation.measure(part, fill=config.fill, quick=computed, padding=config.padding)
        return found if config.percentiles else _without_noise(found, model)

    if not (config.each_time and "t" in stack.axes and normalisation.measures):
        return one(stack)
    stack = cached(stack)
    return Statistics.of_times([one(stack.select(t=t)) for t in range(stack.size("t"))])


def remarks(
    stack: Stack, model: Model, config: PredictConfig, found: Statistics, computed: bool = False
) -> Iterator[str]:
    """Yield warnings on intensities, one per line, each with a remedy.

    Parameters
    ----------
    stack : Stack
        What the model takes.
    found : Statistics
        As `measured` gives them.
    computed : bool
        As `measured` takes it.
    """
    yield from (f"{stack.name}: {note}" for note in found.notes)
    each_time = found.times or (found,)
    if not any(scale for each in each_time for scale in each.scale) and not any(
        each.is_taken_as_empty for each in each_time
    ):
        yield f"{stack.name} has one value, {found.offset[0]:g}, wherever it was read; nothing can be found in it"
    yield from _scale(stack, model, found)
    yield from _contrast(stack, model, found)
    if not config.percentiles:
        yield from _appearance(stack, model, found)
    if not computed and not config.each_time:
        yield from _bleaching(stack, model, config)


def learnt_contrast(model: Model) -> float:
    """Return the least contrast of the training images of a model, 0 where its record has none."""
    least = model.record.get("contrast")
    percentiles = model.normalisation.kind == "percentile" and model.task.learns_from == "labels"
    return float(least) if percentiles and isinstance(least, int | float) else 0.0


def _without_noise(found: Statistics, model: Model) -> Statistics:
    """Return intensities of which nothing is left where they are noise alone."""
    least = learnt_contrast(model)
    why = _plain(found, model) if least else ""
    if not why and (not found.only_noise or least < CLEAR * SPAN):
        return found
    low, high = model.normalisation.low, model.normalisation.high
    if not why:
        span = max(each.span for each in found.contrast)
        why = f"the range of intensities is {span:.1f} times the noise, in all training images it was {least:.0f} times"
        why += " or more"
    note = (
        f"there is nothing but noise: {why}. It is taken as an image of one value; --percentiles {low:g} {high:g} "
        "stretches the noise to the full range all the same"
    )
    return dataclasses.replace(found, scale=(0.0,) * len(found.scale), notes=(note,))


def _plain(found: Statistics, model: Model) -> str:
    """Say how intensities of which nothing stands out are like noise and unlike all training images; else nothing.

    Noise that is smoothed is as coarse as objects, but its values lie evenly about their middle, and it has no edges.
    """
    coarse, levels = (learnt_range(model.record, name) for name in ("coarse", "level"))
    if not found.is_plain or not coarse or not levels:
        return ""
    channels = list(zip(found.contrast, coarse, levels, strict=False))
    if all(each.coarse < FLATTER * least for each, (least, _), _ in channels):
        return "nothing stands out, and it is flatter than all training images"
    if all(each.normal and each.level > most + BEYOND for each, _, (_, most) in channels):
        level, most = max((each.level, most) for each, _, (_, most) in channels)
        told = f"half of its values lie above {100 * level:.0f} % of its range, as those of noise do"
        return f"nothing stands out, and {told}; in all training images it was at most {100 * most:.0f} %"
    return ""


def _appearance(stack: Stack, model: Model, found: Statistics) -> Iterator[str]:
    """Say that an image looks unlike all that was learnt from (bright field, inverted, noisier), and what to take."""
    if model.normalisation.kind != "percentile":
        return
    for one in found.times or (found,):
        told = [] if one.is_taken_as_empty else unlike(one.contrast, model.record)
        if told:
            yield (
                f"{stack.name} looks unlike all that the model learnt from: {'; '.join(told)}. The result is likely "
                f"wrong: {_instead(stack, one)}"
            )
            return


def _instead(stack: Stack, found: Statistics) -> str:
    """Name the models that ship and learnt from images like one; what else to do where there is none."""
    names = [
        entry.name
        for entry in models(SHIPPED).values()
        if set(entry.axes) <= set(stack.axes) and is_like(found.contrast, entry.record)
    ]
    if not names:
        return "no model that ships learnt from such images; take one that did, or fine-tune this one on some"
    return f"take {' or '.join(names)}, which learnt from images like it, or fine-tune this one on some"


def _contrast(stack: Stack, model: Model, found: Statistics) -> Iterator[str]:
    """Say that there is little beside noise where all training images had more."""
    limit = min(learnt_contrast(model) / CLEAR, LITTLE)
    spans = [max(each.span for each in one.contrast) for one in found.times or (found,) if one.contrast]
    if not spans or found.only_noise or min(spans) >= limit:
        return
    share = 100 - model.normalisation.high
    yield (
        f"{stack.name}: there is little but noise: the range of intensities is {min(spans):.1f} times the noise, in "
        f"all training images it was {learnt_contrast(model):.0f} times or more; what is found may be noise. "
        f"Where what is to be found covers less than {share:.2g} % of the image, a higher percentile helps, such as "
        f"--percentiles {model.normalisation.low:g} {100 - share / 10:g}"
    )


def _scale(stack: Stack, model: Model, found: Statistics) -> Iterator[str]:
    """Compare fixed intensities with those of the training images: another bit depth is another image."""
    if model.normalisation.kind != "fixed":
        return
    limit = FAR if model.task.learns_from == "image" else FAR_FIXED
    for (mean, sd), offset, scale in zip(found.seen, found.offset, found.scale, strict=False):
        ratio = sd / scale if scale else 1.0
        if abs(mean - offset) <= limit * scale and (sd == 0 or 1 / limit <= ratio <= limit):
            continue
        yield (
            f"{stack.name} has intensities of {mean:.4g} ± {sd:.4g}, the training images {offset:.4g} ± {scale:.4g}: "
            "they are on another scale, and the result will be wrong; bring them to the scale of the training images "
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
