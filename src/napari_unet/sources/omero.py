"""How channels and labels are to be shown, as writers of OME-Zarr say it in their several ways."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .transforms import number

# The words of CSS that are pure colours of a microscope, and those that writers put into "color".
WORDS = {
    "white": "FFFFFF",
    "gray": "FFFFFF",
    "grey": "FFFFFF",
    "grays": "FFFFFF",
    "red": "FF0000",
    "green": "00FF00",
    "blue": "0000FF",
    "cyan": "00FFFF",
    "magenta": "FF00FF",
    "yellow": "FFFF00",
    "orange": "FFA500",
}


def channel_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the channels, their number for one that has none; nothing where none are described."""
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    return tuple(str((_channel(c) or {}).get("label") or i) for i, c in enumerate(channels))


def look(attributes: Mapping[str, Any], channel: int) -> dict[str, Any]:
    """Return how a channel is to be displayed.

    Returns
    -------
    dict with ``limits``, (low, high); ``colour``, six hexadecimal digits; ``visible``, False
        Only what is there and can be.
    """
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    one = _channel(channels[channel]) if isinstance(channels, list) and channel < len(channels) else None
    if one is None:
        return {}
    found: dict[str, Any] = {}
    limits = window(one.get("window"))
    if limits is not None:
        found["limits"] = limits
    shade = colour(one.get("color"))
    if shade is not None and shade != "000000":
        found["colour"] = shade
    if str(one.get("active", True)).lower() == "false":
        found["visible"] = False
    return found


def _channel(entry: Any) -> Mapping[str, Any] | None:
    """Return the description of a channel; one that is a name alone is that."""
    return entry if isinstance(entry, dict) else {"label": entry} if isinstance(entry, str) else None


def window(value: Any) -> tuple[float, float] | None:
    """Return the intensities shown: ``start`` and ``end``, else ``min`` and ``max``, or a list of two."""
    pairs: list[Sequence[Any]] = []
    if isinstance(value, dict):
        pairs = [(value.get("start"), value.get("end")), (value.get("min"), value.get("max"))]
    elif isinstance(value, list) and len(value) == 2:
        pairs = [value]
    for pair in pairs:
        low, high = map(number, pair)
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    return None


def colour(value: Any) -> str | None:
    """Return six hexadecimal digits for a colour: ``FF0000``, ``#f00``, ``0xFF0000FF``, ``red``, a number, a list."""
    if isinstance(value, list):
        return _from_parts(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value & 0xFFFFFF:06X}"  # some write ARGB as a signed number of 32 bits
    text = str(value if isinstance(value, str) else "").strip().lower()
    numbers = re.fullmatch(r"rgba?\(([^()]*)\)", text)
    if numbers:
        return _from_parts(numbers[1].split(","))
    digits = WORDS.get(text, text.removeprefix("#").removeprefix("0x")).upper()
    if re.fullmatch("[0-9A-F]{3}", digits):
        digits = "".join(2 * d for d in digits)
    return digits[:6] if re.fullmatch("[0-9A-F]{6}([0-9A-F]{2})?", digits) else None


def _from_parts(parts: Sequence[Any]) -> str | None:
    values = [number(p) for p in parts[:3]]
    if len(values) != 3 or not all(v is not None and 0 <= v <= 255 for v in values):
        return None
    return "".join(f"{round(v):02X}" for v in values if v is not None)


def described(about: Mapping[str, Any], key: str) -> dict[int, dict[str, Any]]:
    """Return what ``colors`` or ``properties`` of labels say of each label value."""
    listed = about.get(key)
    entries = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
    values = [(number(e.get("label-value")), e) for e in entries]
    return {int(v): e for v, e in values if v is not None and math.isfinite(v) and v == int(v)}


def label_colour(entry: Mapping[str, Any]) -> list[float] | None:
    """Return red, green, blue and opacity from 0 to 1: of ``rgba``, three or four numbers, or a colour in words."""
    rgba = entry.get("rgba")
    if isinstance(rgba, str):
        shade = colour(rgba)
        rgba = list(bytes.fromhex(shade)) if shade else None
    parts = [number(v) for v in rgba] if isinstance(rgba, list) else []
    if len(parts) not in (3, 4) or not all(v is not None and 0 <= v <= 255 for v in parts):
        return None
    return ([v / 255 for v in parts if v is not None] + [1.0])[:4]
