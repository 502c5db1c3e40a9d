"""Units of length and time: every spelling in use, the one that OME-Zarr has, and how many of one make another."""

import unicodedata
from collections.abc import Sequence
from typing import Any

# OME-Zarr's list of units is that of UDUNITS-2; prefixes are those of the SI.
PREFIXES = {
    "yotta": ("Y", 1e24),
    "zetta": ("Z", 1e21),
    "exa": ("E", 1e18),
    "peta": ("P", 1e15),
    "tera": ("T", 1e12),
    "giga": ("G", 1e9),
    "mega": ("M", 1e6),
    "kilo": ("k", 1e3),
    "hecto": ("h", 1e2),
    "deca": ("da", 1e1),
    "": ("", 1.0),
    "deci": ("d", 1e-1),
    "centi": ("c", 1e-2),
    "milli": ("m", 1e-3),
    "micro": ("u", 1e-6),
    "nano": ("n", 1e-9),
    "pico": ("p", 1e-12),
    "femto": ("f", 1e-15),
    "atto": ("a", 1e-18),
    "zepto": ("z", 1e-21),
    "yocto": ("y", 1e-24),
}
METRES = {f"{prefix}meter": size for prefix, (_, size) in PREFIXES.items()} | {
    "angstrom": 1e-10,
    "inch": 0.0254,
    "thou": 0.0254 / 1000,
    "line": 0.0254 / 12,
    "point": 0.0254 / 72,
    "foot": 0.3048,
    "yard": 0.9144,
    "mile": 1609.344,
    "parsec": 3.0856775814913673e16,
}
SECONDS = {f"{prefix}second": size for prefix, (_, size) in PREFIXES.items()} | {
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}
# Further spellings, in lower case but where the case makes a difference.
SPELLINGS = {
    "micrometer": ("micron", "microns", "micro", "mic"),
    "angstrom": ("å", "A", "ang", "angstroms", "ångström", "ångströms", "ångstrom", "ångstroms", "angström"),
    "inch": ("in", "in.", '"', "inches"),
    "thou": ("mil", "mils"),
    "line": ("li",),
    "point": ("pt",),
    "foot": ("ft", "feet"),
    "yard": ("yd", "yards"),
    "mile": ("mi", "miles"),
    "parsec": ("pc", "parsecs"),
    "second": ("sec", "secs"),
    "millisecond": ("msec", "msecs"),
    "microsecond": ("usec", "μsec"),
    "minute": ("min", "mins", "minutes"),
    "hour": ("h", "hr", "hrs", "hours"),
    "day": ("d", "days"),
}
# Words that say that there is no unit.
NO_UNIT = {"", "none", "null", "pixel", "pixels", "px", "voxel", "voxels", "dimensionless", "referenceframe"}
# How the micro sign looks where a program escaped it, or read UTF-8 as Latin-1.
ESCAPED = {"\\u00b5": "u", "\\u03bc": "u", "&micro;": "u", "&#181;": "u", "âμ": "u", "μ": "u"}


def _table() -> dict[str, str]:
    found = {unit: unit for unit in (*METRES, *SECONDS)}
    for prefix, (letter, _) in PREFIXES.items():
        for symbol, words in (("m", ("meter", "metre")), ("s", ("second",))):
            unit = f"{prefix}{words[0]}"
            found[f"{letter}{symbol}"] = unit
            found |= {f"{prefix}{word}{plural}": unit for word in words for plural in ("", "s")}
    return found | {word: unit for unit, words in SPELLINGS.items() for word in words}


KNOWN = _table()


def canonical(unit: Any) -> str | None:
    """Return a unit as OME-Zarr spells it; None where it says that there is none; an unknown one unchanged.

    >>> canonical("µm"), canonical("pixel"), canonical("cubit")
    ('micrometer', None, 'cubit')
    """
    word = unicodedata.normalize("NFKC", str(unit)).strip().strip("\0").strip()
    if word.lower().replace(" ", "") in NO_UNIT:
        return None
    for before in (word, word.lower()):
        after = before
        for escape, plain in ESCAPED.items():
            after = after.replace(escape, plain)
        if after in KNOWN:
            return KNOWN[after]
    return word


def is_known(unit: Any) -> bool:
    """Say whether `unit` is a length or a time that is understood."""
    return canonical(unit) in METRES or canonical(unit) in SECONDS


def is_length(unit: Any) -> bool:
    """Say whether `unit` is a length that is understood."""
    return canonical(unit) in METRES


def factor(unit: Any, other: Any) -> float | None:
    """Return how many of `other` one `unit` is; None where that is not known. Of the same unit it is exactly 1."""
    one, two = canonical(unit), canonical(other)
    if one == two:
        return 1.0
    for table in (METRES, SECONDS):
        if one in table and two in table:
            return table[one] / table[two]
    return None


def is_meant(size: float, unit: Any) -> bool:
    """Say whether a pixel size was given: 1 without a unit is the default of files that have none."""
    return size != 1 or canonical(unit) is not None


def in_one(sizes: Sequence[float], units: Sequence[Any]) -> tuple[tuple[float, ...], str | None]:
    """Return sizes in one unit of length, that of the last size which has one, and the unit.

    Sizes without a known unit stay as they are, and so do all where there is one unit only.

    >>> in_one((1, 100, 100), ("micrometer", "nm", "nm"))
    ((1000.0, 100.0, 100.0), 'nanometer')
    """
    target = next((canonical(u) for u in reversed(units) if is_length(u)), None)
    factors = [(factor(u, target) if is_length(u) else None) or 1.0 for u in units]
    return tuple(s if f == 1 else _rounded(s * f) for s, f in zip(sizes, factors, strict=True)), target


def _rounded(size: float) -> float:
    """Return a size without the last bits that a change of unit leaves: 0.30000000000000004 is 0.3."""
    return float(f"{size:.12g}")


def short(unit: Any) -> str:
    """Return the symbol of a unit, as it stands in a line of text; ``pixel`` where there is none."""
    name = canonical(unit)
    for prefix, (letter, _) in PREFIXES.items():
        if name in (f"{prefix}meter", f"{prefix}second"):
            return f"{letter}{'m' if name.endswith('meter') else 's'}"
    return name or "pixel"
