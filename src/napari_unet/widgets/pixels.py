"""The image's pixel size beside the model's, and what can be done about a difference."""

import dataclasses
from typing import Any

import numpy as np

from ..library import Entry
from .layers import levels_of

ALIKE = 1.25  # pixel sizes that differ by less are taken as the same
UNKNOWN, AXIS = 1.4, 2.0  # e-folds that a pixel size without a unit, and an axis left out, count as
LENGTHS = {"nm": 1e-3, "um": 1.0, "mm": 1e3, "m": 1e6}
SHORT = {
    "nanometer": "nm",
    "micrometer": "um",
    "micron": "um",
    "µm": "um",
    "μm": "um",
    "millimeter": "mm",
    "meter": "m",
}


@dataclasses.dataclass(frozen=True)
class Size:
    """What is done about the pixel size.

    Parameters
    ----------
    text : str
        As the user reads it.
    level : int
        Of a multiscale layer.
    resample : bool
        Whether the image is brought to the model's pixel size.
    """

    text: str
    level: int = 0
    resample: bool = False

    def __str__(self) -> str:
        return self.text


AS_IS = Size("as it is")


def choices(layer: Any, axes: str, entry: Entry) -> list[Size]:
    """Return what can be done, the most sensible first."""
    unit, found = _unit(layer, axes), scales(layer, axes, entry)
    if not found:
        return [AS_IS]
    ratios = [_ratio(scale, unit, entry) for scale in found]
    levels = [Size(f"level {i}: {_text(s, unit)}", i) for i, s in enumerate(found)] if len(found) > 1 else [AS_IS]
    known = [r for r in ratios if r is not None]
    if len(known) < len(ratios):
        return levels
    nearest = int(np.argmin(np.abs(np.log(known))))
    resample = Size(f"resample to the model's {_text(entry.scale, entry.units[-1])}", nearest, True)
    best = levels.pop(nearest)
    alike = 1 / ALIKE <= known[nearest] <= ALIKE
    return [best, *levels, resample] if alike else [resample, best, *levels]


def misfit(layer: Any, axes: str, entry: Entry) -> float:
    """Return how badly a model suits an image: e-folds of pixel size, as good as so many for an axis it leaves out."""
    found, unit = scales(layer, axes, entry), _unit(layer, axes)
    if not found:
        return np.inf
    known = [abs(np.log(ratio)) for ratio in (_ratio(scale, unit, entry) for scale in found) if ratio is not None]
    comparable = (_micrometres(unit) is None) == (_micrometres(entry.units[-1]) is None)
    size = min(known, default=0.0 if comparable else UNKNOWN)
    return float(size + AXIS * len(set("zyx") & set(axes) - set(entry.axes)))


def understood(layer: Any, axes: str, entry: Entry, size: Size) -> str:
    """Return a line that compares the pixel sizes, and says what will be done."""
    found = scales(layer, axes, entry)
    if not found:
        return f"The model needs the axes {entry.axes}; the image has {axes}."
    unit = _unit(layer, axes)
    image, model = _text(found[size.level], unit), _text(entry.scale, entry.units[-1])
    ratio = _ratio(found[size.level], unit, entry)
    if ratio is None:
        lacking = "model" if _micrometres(entry.units[-1]) is None else "image"
        return f"Pixel: image {image}, model {model}. The {lacking} has no unit, so they are not compared."
    if size.resample:
        return f"Pixel: image {image}, model {model}: brought to the model's, lazily."
    if 1 / ALIKE <= ratio <= ALIKE:
        return f"Pixel: image {image}, model {model}: alike."
    way = f"{ratio:.2g} times coarser" if ratio > 1 else f"{1 / ratio:.2g} times finer"
    return f"Pixel: image {image}, model {model}: the image is {way}, results may be poor."


def scales(layer: Any, axes: str, entry: Entry) -> list[tuple[float, ...]]:
    """Return the pixel size of each level, along the model's axes; nothing where the layer lacks one of those."""
    if not set(entry.axes) <= set(axes):
        return []
    shapes, at = levels_of(layer), [axes.index(a) for a in entry.axes]
    return [tuple(float(layer.scale[i]) * shapes[0][i] / shape[i] for i in at) for shape in shapes]


def _unit(layer: Any, axes: str) -> str | None:
    unit = str(layer.units[axes.index("x")])
    return None if unit in ("pixel", "dimensionless", "None", "") else unit


def _micrometres(unit: str | None) -> float | None:
    return LENGTHS.get(SHORT.get(str(unit), str(unit)))


def _ratio(scale: tuple[float, ...], unit: str | None, entry: Entry) -> float | None:
    """Return how much coarser than the model's a pixel is; None where a unit is not known."""
    image, model = _micrometres(unit), _micrometres(entry.units[-1])
    if image is None or model is None:
        return None
    return float(np.exp(np.mean(np.log(np.array(scale) * image) - np.log(np.array(entry.scale) * model))))


def _text(scale: tuple[float, ...], unit: str | None) -> str:
    same = np.allclose(scale, scale[0])
    word = SHORT.get(str(unit), unit or "pixel")
    return f"{f'{scale[0]:.3g}' if same else ' x '.join(f'{s:.3g}' for s in scale)} {word}"
