"""What the images that a model learnt from looked like, as its record has it, and whether another looks like them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .contrast import Contrast

BEYOND = 0.15  # of the range: few or many nuclei differ by so much; DIC lies 0.2 above fluorescence, bright field 0.6
NOISIER, SMOOTHER = 2.0, 3.0  # times what was learnt: what bears it is left to augmentation
NEAR = 0.1  # of range and coarseness: quarters of EM sections reach 0.07, DIC is 0.14 less coarse than these
FIGURES = ("level", "rough", "coarse")


def least_contrast(images: Iterable[Iterable[Contrast]]) -> float | None:
    """Return the least of images, each by its best channel; None where none is known."""
    spans = [max((each.span for each in channels), default=math.inf) for channels in images]
    known = [span for span in spans if math.isfinite(span)]
    return round(min(known), 2) if known else None


def appearance(images: Iterable[Sequence[Contrast]]) -> dict[str, list[list[float]]]:
    """Return the least and the greatest level, rough and coarse of images, per channel; empty where none is known."""
    channels = list(zip(*images, strict=False))
    found = {}
    for name in FIGURES:
        each = [[value for one in channel if math.isfinite(value := getattr(one, name))] for channel in channels]
        if each and all(each):
            found[name] = [[round(min(values), 3), round(max(values), 3)] for values in each]
    return found


def learnt_range(record: Mapping[str, Any], name: str) -> list[tuple[float, float]]:
    """Return the range of a figure of the training images, per channel, by a model's record; empty if not known."""
    looks = record.get("appearance")
    try:
        return [(float(low), float(high)) for low, high in looks.get(name, ())] if isinstance(looks, dict) else []
    except (TypeError, ValueError):
        return []


def unlike(image: Sequence[Contrast], record: Mapping[str, Any]) -> list[str]:
    """Say what an image has that no training image had; nothing where it may be one, or the record does not know."""
    levels, roughs = (learnt_range(record, name) for name in ("level", "rough"))
    told = [
        *(_level(each.level, *learnt) for each, learnt in zip(image, levels, strict=False)),
        *(_texture(each.rough, *learnt) for each, learnt in zip(image, roughs, strict=False)),
    ]
    return list(filter(None, told))


def is_like(image: Sequence[Contrast], record: Mapping[str, Any]) -> bool:
    """Whether an image looks like those that a model learnt from; False where image or record does not know.

    How coarse it is counts where that is known: of a large image it is not.
    """
    levels, roughs, coarse = (learnt_range(record, name) for name in FIGURES)
    if not image or any(len(each) != len(image) for each in (levels, roughs, coarse)) or unlike(image, record):
        return False
    return all(
        _near(each.level, *level) and (math.isnan(each.coarse) or _near(each.coarse, *ends))
        for each, level, ends in zip(image, levels, coarse, strict=True)
    )


def _near(value: float, low: float, high: float) -> bool:
    return low - NEAR <= value <= high + NEAR


def _level(level: float, low: float, high: float) -> str:
    if low - BEYOND <= level <= high + BEYOND or math.isnan(level):
        return ""
    side = "dark on bright, as in bright field" if level > high else "bright on dark"
    learnt = f"{100 * low:.0f} to {100 * high:.0f} %"
    return (
        f"half of its values lie above {100 * level:.0f} % of its range, there it was {learnt} ({side}, or inverted?)"
    )


def _texture(rough: float, low: float, high: float) -> str:
    if low / SMOOTHER <= rough <= NOISIER * high or math.isnan(rough):
        return ""
    kind = "noisier" if rough > high else "smoother"
    return f"it is {kind}, noise is {rough:.2g} of its standard deviation, there it was {low:.2g} to {high:.2g}"
