"""The image's pixel size beside the model's, and what can be done about a difference."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..cards import Entry
from ..intensities.contrast import Contrast
from ..intensities.looks import is_like, unlike
from ..units import factor, in_one, is_length, short
from .source import channels_of, levels_of

ALIKE = 1.25  # pixel sizes that differ by less are taken as the same
FAR = 4.0  # pixel sizes that differ by more are told in the list of models: objects look like other ones
UNKNOWN, AXIS = 1.4, 2.0  # e-folds that a pixel size without a unit, and an axis left out, count as
LOOKS = 3.0  # the same where it is not known to have learnt from such images: more than all else that can be borne
OTHER_LOOKS = "learnt from other images"


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
AS_TRAINED = Size("as in training")


def choices(layer: Any, axes: str, entry: Entry) -> list[Size]:
    """Return what can be done, the most sensible first."""
    found, unit = scales(layer, axes, entry)
    if not found:
        return [AS_IS]
    ratios = [_ratio(scale, unit, entry) for scale in found]
    if entry.shrink and len(found) == 1:
        return [AS_TRAINED]
    levels = [Size(f"level {i}: {_text(s, unit)}", i) for i, s in enumerate(found)] if len(found) > 1 else [AS_IS]
    known = [r for r in ratios if r is not None]
    if entry.shrink:
        return sorted(levels, key=lambda size: abs(np.log(ratios[size.level] or 1.0)))
    if len(known) < len(ratios):
        return levels
    nearest = int(np.argmin(np.abs(np.log(known))))
    resample = Size(f"resample to the model's {_text(*_model_size(entry))}", nearest, True)
    best = levels.pop(nearest)
    alike = 1 / ALIKE <= known[nearest] <= ALIKE
    return [best, *levels, resample] if alike else [resample, best, *levels]


@dataclasses.dataclass(frozen=True, order=True)
class Fit:
    """How well a model suits an image; the smallest suits best.

    Parameters
    ----------
    runs : int
        0 where it can be run on the image, else 1.
    misfit : float
        E-folds of pixel size, as good as so many for an axis that it leaves out.
    why : str
        In a few words what does not fit; empty where all does.
    like : bool
        Whether the image is known to look like those that the model learnt from.
    """

    runs: int
    misfit: float
    why: str = ""
    like: bool = False

    @classmethod
    def of(cls, layer: Any, axes: str, entry: Entry, looks: Sequence[Contrast] = ()) -> "Fit":
        """Hold a model against an image, and what each channel looks like where that is known."""
        fit = cls._of(layer, axes, entry)
        if fit.runs or not looks:
            return fit
        each = [[one] for one in looks] if entry.channels == 1 else [looks]  # any channel can be chosen
        like = any(is_like(one, entry.record) for one in each)
        other = OTHER_LOOKS * all(unlike(one, entry.record) for one in each)
        return cls(0, fit.misfit + LOOKS * (not like), ", ".join(filter(None, [fit.why, other])), like)

    @classmethod
    def _of(cls, layer: Any, axes: str, entry: Entry) -> "Fit":
        lacking = sorted(set(entry.axes) - set(axes))
        if lacking:
            return cls(1, np.inf, f"needs {' and '.join(lacking)}")
        if entry.given != "image":
            return cls(1, np.inf, "for labels" if entry.given == "labels" else "makes others like it")
        if entry.channels not in (1, len(channels_of(layer, axes))):
            return cls(1, np.inf, f"needs {entry.channels} channels")
        size = misfit(layer, axes, entry)
        if "z" in axes and "z" not in entry.axes:
            return cls(0, size, "plane by plane")
        found, unit = scales(layer, axes, entry)
        known = [ratio for ratio in (_ratio(scale, unit, entry) for scale in found) if ratio is not None]
        ratio = min(known, key=lambda r: abs(np.log(r)), default=1.0)
        if 1 / FAR <= ratio <= FAR:
            return cls(0, size)
        return cls(0, size, f"pixels {max(ratio, 1 / ratio):.0f} x {'coarser' if ratio > 1 else 'finer'}")


def misfit(layer: Any, axes: str, entry: Entry) -> float:
    """Return how badly a model suits an image: e-folds of pixel size, as good as so many for an axis it leaves out."""
    found, unit = scales(layer, axes, entry)
    if not found:
        return np.inf
    known = [abs(np.log(ratio)) for ratio in (_ratio(scale, unit, entry) for scale in found) if ratio is not None]
    comparable = is_length(unit) == is_length(_model_size(entry)[1])
    size = min(known, default=0.0 if comparable else UNKNOWN)
    return float(size + AXIS * len(set("zyx") & set(axes) - set(entry.axes)))


def understood(layer: Any, axes: str, entry: Entry, size: Size) -> str:
    """Return lines that compare an image with a model, and say what will be done."""
    if "z" not in axes or "z" in entry.axes:
        return _sizes(layer, axes, entry, size)
    what = ": an object has another number in each plane" if entry.task == "instances" else ""
    return f"Plane by plane, as the model is 2-D{what}.\n{_sizes(layer, axes, entry, size)}"


def _sizes(layer: Any, axes: str, entry: Entry, size: Size) -> str:
    """Return a line that compares the pixel sizes, and says what will be done."""
    found, unit = scales(layer, axes, entry)
    if not found:
        return f"The model needs the axes {entry.axes}; the image has {axes}."
    image, model = _text(found[size.level], unit), _text(*_model_size(entry))
    ratio = _ratio(found[size.level], unit, entry)
    if ratio is None and entry.shrink:
        across = f", objects {entry.learnt_diameter:g} pixels across" if entry.learnt_diameter else ""
        way = " x ".join(f"{f:.3g}" for f in entry.shrink)
        return f"No pixel size: {way} pixels become one, as in training{across}. Are they of another size here? Say so."
    if ratio is None:
        lacking = "image" if is_length(_model_size(entry)[1]) else "model"
        units = dict(zip(axes, map(str, layer.units), strict=False)) if lacking == "image" else {}
        without = [a for a in entry.axes if not is_length(units.get(a))]
        along = f" along {', '.join(without)}" if len(without) < len(entry.axes) else ""
        return f"Pixel: image {image}, model {model}. The {lacking} has no unit{along}, so they are not compared."
    if size.resample or entry.shrink:
        return f"Pixel: image {image}, model {model}: brought to the model's, lazily."
    if 1 / ALIKE <= ratio <= ALIKE:
        return f"Pixel: image {image}, model {model}: alike."
    way = f"{ratio:.2g} times coarser" if ratio > 1 else f"{1 / ratio:.2g} times finer"
    return f"Pixel: image {image}, model {model}: the image is {way}, results may be poor."


def scales(layer: Any, axes: str, entry: Entry) -> tuple[list[tuple[float, ...]], str | None]:
    """Return the pixel size of each level along the model's axes in one unit; none where an axis is lacking."""
    if not set(entry.axes) <= set(axes):
        return [], None
    shapes, at = levels_of(layer), [axes.index(a) for a in entry.axes]
    finest, unit = _in_one([float(layer.scale[i]) for i in at], [str(layer.units[i]) for i in at])
    return [tuple(s * shapes[0][i] / shape[i] for s, i in zip(finest, at, strict=True)) for shape in shapes], unit


def _model_size(entry: Entry) -> tuple[tuple[float, ...], str | None]:
    return _in_one(entry.scale, entry.units)


def _in_one(sizes: Sequence[float], units: Sequence[Any]) -> tuple[tuple[float, ...], str | None]:
    """Return sizes in one unit, none where an axis has none: then they say nothing of each other."""
    found, unit = in_one(sizes, units)
    return found, unit if all(map(is_length, units)) else None


def _ratio(scale: tuple[float, ...], unit: str | None, entry: Entry) -> float | None:
    """Return how much coarser than the model's a pixel is; None where a unit is not known."""
    size, wanted = _model_size(entry)
    units = factor(unit, wanted) if unit and wanted else None
    return None if units is None else float(np.exp(np.mean(np.log(np.array(scale) * units) - np.log(np.array(size)))))


def _text(scale: tuple[float, ...], unit: str | None) -> str:
    same = np.allclose(scale, scale[0])
    return f"{f'{scale[0]:.3g}' if same else ' x '.join(f'{s:.3g}' for s in scale)} {short(unit)}"
