"""Arrays in memory, dask and zarr arrays, and layers of a viewer, which are known by what they have."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import DataError
from ..units import canonical
from .arrange import SAMPLES, UNKNOWN, Found, letters_of


def is_layer(what: Any) -> bool:
    """Say whether something has the data and the scale of a viewer's layer."""
    return hasattr(what, "data") and hasattr(what, "scale") and not is_array(what)


def is_array(what: Any) -> bool:
    """Say whether something is an array: it has a shape, a dtype and can be indexed."""
    return all(hasattr(what, name) for name in ("shape", "dtype", "__getitem__"))


def find_array(array: Any) -> Found:
    """Open an array; its axes are unknown unless it names them (zarr's dimension names)."""
    metadata = getattr(array, "metadata", None)
    names = getattr(metadata, "dimension_names", None) or ()
    known, notes = letters_of(names, len(array.shape))
    return Found(array, known, "array", notes=notes)


def find_layer(layer: Any, level: int | None) -> Found:
    """Take a layer: a level of its data, its pixel size and position, RGB and axis labels where it has them.

    Parameters
    ----------
    layer
        Anything with `data` and `scale`; `multiscale`, `rgb`, `translate`, `units`, `axis_labels` and `name` are used.
    level : int, optional
        Level of a multiscale layer, 0 the finest.

    Raises
    ------
    DataError
        Where the data is not an array, or there is no such level.
    """
    name = str(getattr(layer, "name", None) or "layer")
    levels = layer.data if isinstance(layer.data, list | tuple) or getattr(layer, "multiscale", False) else [layer.data]
    at = level or 0
    if not 0 <= at < len(levels):
        raise DataError(f"{name} has levels 0 to {len(levels) - 1}, not {at}; choose one of these")
    data = levels[at]
    if not is_array(data) or not all(map(is_array, (levels[0], data))):
        raise DataError(f"{name} holds {type(data).__name__}, not an image; choose an image or a labels layer")
    ndim, rgb = len(data.shape), bool(getattr(layer, "rgb", False))
    spatial = ndim - rgb
    known, notes = letters_of(getattr(layer, "axis_labels", None) or (), spatial)
    factors = [a / b for a, b in zip(levels[0].shape, data.shape, strict=True)][:spatial]
    scale = _numbers(layer.scale, spatial, 1.0)
    translation = _numbers(getattr(layer, "translate", None), spatial, 0.0)
    translation = [t + s * (f - 1) / 2 for t, s, f in zip(translation, scale, factors, strict=True)]
    scale = [s * f for s, f in zip(scale, factors, strict=True)]
    units: list[str | None] = [canonical(u) for u in getattr(layer, "units", None) or ()]
    units = units if len(units) == spatial else [None] * spatial
    if rgb:
        known = "yx" + SAMPLES if known == UNKNOWN * 2 else known + SAMPLES
        scale, translation, units = [*scale, 1.0], [*translation, 0.0], [*units, None]
    return Found(
        data,
        known,
        name,
        scale=tuple(scale),
        units=tuple(units),
        translation=tuple(translation),
        notes=(*notes, *(["RGB taken as three channels"] if rgb else [])),
        frame=tuple(_frame(layer, spatial)),
    )


def _frame(layer: Any, ndim: int) -> Iterator[tuple[int, int | str, float]]:
    """Yield what a viewer does with a layer beyond its scale and translation, as `Stack.frame` has it."""
    to_world = getattr(layer, "data_to_world", None)
    if to_world is None:
        return
    start = np.array(to_world((0.0,) * ndim), float)
    moved = start - _numbers(getattr(layer, "translate", None), ndim, 0.0)
    for column, size in enumerate(_numbers(layer.scale, ndim, 1.0)):
        step = (np.array(to_world([float(i == column) for i in range(ndim)]), float) - start) / size
        yield from ((row, column, float(step[row])) for row in range(ndim))
    yield from ((row, "", float(moved[row])) for row in range(ndim))


def _numbers(values: Any, ndim: int, fill: float) -> list[float]:
    """Return the last `ndim` of `values`, `fill` before them."""
    given = [] if values is None else [float(v) for v in np.asarray(values).ravel()]
    return ([fill] * ndim + given)[-ndim:] if ndim else []
