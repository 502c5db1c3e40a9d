"""The pixel size of an image compared with that of the training images, and what is done where they differ."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from ..arrays.resample import resampled
from ..arrays.stack import Stack
from ..errors import DataError
from ..model import Model
from ..units import factor, in_one, is_length, is_meant, short
from .config import PredictConfig
from .engine import check_fit

STRANGE = 16.0  # times: the objectives of a microscope, 4x to 63x, are as far apart
DIFFERENT = 2.0  # times; augmentation shows a network sizes 1.2 times apart, objects twice as large are strange to it


def size_notes(stack: Stack, model: Model, config: PredictConfig) -> tuple[str, ...]:
    """Return a line where the pixels of a stack are much coarser or finer than the model's, along the worst axis.

    Sizes that are not given, or in unknown units, are not compared; nor are those of a stack that is resampled.
    """
    if config.resample or config.diameter is not None or model.shrink:
        return ()
    ratios = list(_ratios(stack, model))
    if not ratios:
        return ()
    ratio, axis, sizes = max(ratios, key=lambda each: abs(math.log(each[0])))
    if 1 / DIFFERENT <= ratio <= DIFFERENT:
        return ()
    way = f"{ratio:.2g} times coarser" if ratio > 1 else f"{1 / ratio:.2g} times finer"
    return (f"a pixel along {axis} is {sizes}: {way}, results may be poor; --resample brings it to the model's",)


def _ratios(stack: Stack, model: Model) -> Iterator[tuple[float, str, str]]:
    """Yield how many times coarser than the model's a pixel is, along which axis, and both sizes in words."""
    for axis, size, unit in zip(model.axes, model.scale, model.units, strict=True):
        if axis not in stack.axes:
            continue
        (own,), (own_unit,) = stack.scale_along(axis), stack.values_along(axis, "units")
        same = factor(own_unit, unit)
        if same and is_meant(own, own_unit) and is_meant(size, unit):
            words = f"{own:g} {short(own_unit)}, that of the training images {size:g} {short(unit)}"
            yield own * same / size, axis, words


def resample_to_model(stack: Stack, model: Model, config: PredictConfig, given: Stack | None = None) -> Stack:
    """Return the stack at the pixel size that it is run at, with a note where that is not its own.

    Its own, but for ``config.diameter``, ``config.resample``, and a model whose training images were resampled: then an
    image without a pixel size is resampled by the same factor.

    Parameters
    ----------
    given : Stack, optional
        The image that ``config.diameter`` is of, where other models made the stack of it.

    Raises
    ------
    ModelError
        Where the stack lacks axes of the model.
    DataError
        Where the unit of a pixel size is not known by which the image is to be resampled.
    """
    by_diameter = config.diameter is not None and model.diameter is not None
    if not (by_diameter or config.resample or model.shrink):
        return stack
    check_fit(stack, model)
    if by_diameter:
        return _to_diameter(stack, model, float(config.diameter or 1), given or stack)
    own = stack.scale_along(model.axes)
    if _comparable(stack, model):
        units = stack.values_along(model.axes, "units")
        factors = [factor(wanted, own) or 1.0 for own, wanted in zip(units, model.units, strict=True)]
        scale = [s * f for s, f in zip(model.scale, factors, strict=True)]
        if config.resample or not _strange(own, scale, model.shrink):
            return resampled(stack, dict(zip(model.axes, scale, strict=True)))
    elif not model.shrink:
        raise DataError(_not_comparable(stack, model))
    found = resampled(stack, {a: s * f for a, s, f in zip(model.axes, own, model.shrink, strict=True)})
    return _noted(found, stack, _as_learnt(stack, model))


def _comparable(stack: Stack, model: Model) -> bool:
    return all(map(is_length, (*stack.values_along(model.axes, "units"), *model.units)))


def _not_comparable(stack: Stack, model: Model) -> str:
    units = zip(model.axes, stack.values_along(model.axes, "units"), model.units, strict=True)
    axis, own, wanted = next((a, u, w) for a, u, w in units if not is_length(u) or not is_length(w))
    return (
        f"{stack.name} cannot be brought to the model's pixel size: along {axis} its unit is {own or 'unknown'}, the "
        f"model's is {wanted or 'unknown'}; correct it in the file's metadata (one of nanometer, micrometer, "
        "millimeter, meter or another length), or run without --resample"
    )


def _strange(own: Sequence[float], wanted: Sequence[float], shrink: Sequence[float]) -> bool:
    """Say whether a pixel size cannot be meant: nobody asked for what would make of an image a speck, or a desert."""
    times = [w / o / s for o, w, s in zip(own, wanted, shrink, strict=True)]
    return max(*times, 1 / min(times)) > STRANGE


def _as_learnt(stack: Stack, model: Model) -> str:
    way = " x ".join(f"{f:.3g}" for f in model.shrink)
    size = ""
    if model.diameter is not None:
        across = model.diameter * model.shrink[_finest(model)]
        size = f", where objects were about {across:.3g} across; where they are not here, give --diameter"
    lacking = f"{stack.name} has no pixel size"
    if all(map(is_length, stack.values_along(model.axes, "units"))):
        strange = f"the pixel size of {stack.name} is more than {STRANGE:g} times that of the training images, or less"
        lacking = strange if _comparable(stack, model) else "the model has no pixel size"
    return f"{lacking}: {way} pixels become one, as in the training images{size}"


def _finest(model: Model) -> int:
    """Return the axis of the model's finest pixels, of equal ones the last."""
    sizes, _ = in_one(model.scale, model.units)
    return max(i for i, size in enumerate(sizes) if size == min(sizes))


def _to_diameter(stack: Stack, model: Model, diameter: float, given: Stack) -> Stack:
    """Bring objects of a diameter, in pixels of the finest axis of `given`, to that of the training."""
    across, axes, units = model.diameter or 1.0, model.axes, stack.values_along(model.axes, "units")
    own, unit = in_one(given.scale_along(axes), given.values_along(axes, "units"))
    size = diameter / across * min(own)  # of a pixel along the finest axis
    if _comparable(stack, model):
        learnt, _ = in_one(model.scale, model.units)
        scale = [size * s / min(learnt) * (factor(unit, u) or 1.0) for s, u in zip(learnt, units, strict=True)]
    else:
        shapes, at = model.shrink or (1.0,) * len(own), _finest(model) if model.shrink else 0
        steps = zip(stack.scale_along(axes), shapes, strict=True)
        scale = [size / min(own) * s * f / shapes[at] for s, f in steps]
    found = resampled(stack, dict(zip(axes, scale, strict=True)))
    return _noted(found, stack, f"objects of {diameter:g} pixels are resampled to {across:.3g} pixels, as in training")


def _noted(found: Stack, stack: Stack, note: str) -> Stack:
    """Return a resampled stack with a note on why; itself where nothing was to be done."""
    return found if found is stack else dataclasses.replace(found, notes=(*stack.notes, note))
