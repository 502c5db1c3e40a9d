"""Where a result lies that has several elements for one of its image, along some axes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Zeros
from .tiles import Factor


def blank(stack: Stack, factors: Sequence[Factor], dtype: np.dtype[Any], channels: tuple[str, ...] = ()) -> Stack:
    """Return a stack of zeros that lies where a result with `factors` along the last axes does.

    It has the axis c where there are names of several channels.
    """
    axes = stack.axes.replace("c", "")
    whole = (1,) * (len(axes) - len(factors)) + tuple(factors)
    axes, fields = result_geometry(stack, axes, whole, len(channels))
    geometry: dict[str, Any] = dict(fields)
    data = Zeros(geometry.pop("shape"), dtype)
    names = channels if len(channels) > 1 else ()
    return Stack(data=data, axes=axes, name=stack.name, source=stack.source, channel_names=names, **geometry)


def result_geometry(
    stack: Stack, axes: str, factors: Sequence[Factor], channels: int = 1
) -> tuple[str, dict[str, tuple[Any, ...]]]:
    """Return the axes of a result, and its shape, scale, units and translation along them.

    With a factor f the first centre lies (1 - 1/f) / 2 of an element before that of the image.
    """
    scale = stack.scale_along(axes)
    starts = zip(stack.values_along(axes, "translation"), scale, factors, strict=True)
    fields: dict[str, list[Any]] = {
        "shape": [math.ceil(n * f) for n, f in zip(stack.values_along(axes, "shape"), factors, strict=True)],
        "scale": [float(s / f) for s, f in zip(scale, factors, strict=True)],
        "units": list(stack.values_along(axes, "units")),
        "translation": [float(t - (1 - 1 / f) / 2 * s) for t, s, f in starts],
    }
    if channels > 1:
        axes, at = with_channels(axes)
        for (name, values), value in zip(fields.items(), (channels, 1.0, None, 0.0), strict=True):
            fields[name] = [*values[:at], value, *values[at:]]
    return axes, {name: tuple(values) for name, values in fields.items()}


def with_channels(axes: str) -> tuple[str, int]:
    """Put c behind t: (axes, position of c)."""
    at = axes.startswith("t")
    return f"{axes[:at]}c{axes[at:]}", int(at)
