"""The pixel size of an image compared with that of the training images."""

import math
from collections.abc import Iterator

from ..arrays.stack import Stack
from ..model import Model
from ..units import factor, is_meant, short

DIFFERENT = 2.0  # times; augmentation shows a network sizes 1.2 times apart, objects twice as large are strange to it


def size_notes(stack: Stack, model: Model) -> tuple[str, ...]:
    """Return a line where the pixels of a stack are much coarser or finer than the model's, along the worst axis.

    Sizes that are not given, or in unknown units, are not compared.
    """
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
