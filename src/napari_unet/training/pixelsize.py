"""Whether images and labels of a training lie on each other: axes and pixel size; and the size that the model keeps."""

import math
from collections.abc import Sequence

import numpy as np

from ..arrays.stack import Stack
from ..errors import DataError
from ..units import factor, in_one, is_length, is_meant, short

DIFFERENT = 2.0  # pixel sizes this many times apart: an object looks like another kind of object
SAME = 1e-3  # relative difference of two roundings of one pixel size
Sizes = tuple[tuple[float, ...], tuple[str | None, ...]]


def same_axes(one: Stack, other: Stack) -> tuple[Stack, Stack]:
    """Drop axes of size 1 that an image has and its labels lack, or the reverse."""
    return _without(one, other.axes), _without(other, one.axes)


def _without(stack: Stack, axes: str) -> Stack:
    return stack.select(**{a: 0 for a in stack.axes if a not in f"{axes}c" and stack.size(a) == 1})


def typical_size(images: Sequence[Sizes], axes: str) -> tuple[Sizes, list[str]]:
    """Return the median pixel size of the images that have one, in one unit, and what the user should know of it.

    Parameters
    ----------
    images : sequence of (scale, units)
        One each image, along `axes`.
    """
    each = [(units, *in_one(scale, units)) for scale, units in images]
    given = [e for e in each if e[2]] or [e for e in each if any(s != 1 for s in e[1])] or each
    first, _, unit = given[0]
    sizes = np.array([np.array(size) * (factor(own, unit) or 1.0) for _, size, own in given])
    low, high = sizes.min(0), sizes.max(0)
    notes = []
    if (high > DIFFERENT * low).any():
        at = int(np.argmax(high / low))
        notes.append(
            f"pixel sizes of the images differ along {axes[at]}: {low[at]:.3g} to {high[at]:.3g} {short(unit)}; an "
            "object has very different sizes for the network: resample the images, or train a model for each"
        )
    if len(given) < len(each):
        notes.append(f"{len(each) - len(given)} of {len(each)} images have no pixel size; that of the others is taken")
    spacing = tuple(float(f"{s:.12g}") for s in np.median(sizes, axis=0))  # 0.25 um are 250 nm, not 249.99999999999997
    return (spacing, tuple(unit if is_length(u) else u for u in first)), notes


def check_same_size(image: Stack, labels: Stack) -> None:
    """Refuse labels whose pixel size is another than their image's, where both have one.

    Raises
    ------
    DataError
        Naming both.
    """
    axes = labels.axes
    sides = [(stack.scale_along(axes), stack.values_along(axes, "units")) for stack in (image, labels)]
    if not any(map(_differ, *sides[1], *sides[0])):
        return
    sizes = [" x ".join(f"{s:g} {short(u)}" for s, u in zip(*side, strict=True)) for side in sides]
    raise DataError(
        f"{image.name} and its labels {labels.name} have different pixel sizes along {axes}: {sizes[0]} and "
        f"{sizes[1]}; correct one, or resample the labels"
    )


def _differ(size: float, unit: str | None, other: float, other_unit: str | None) -> bool:
    if not is_meant(size, unit) or not is_meant(other, other_unit):
        return False
    return not math.isclose(size * (factor(unit, other_unit) or 1.0), other, rel_tol=SAME)
