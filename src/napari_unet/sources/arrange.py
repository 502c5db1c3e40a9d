"""From what a reader found to a `Stack`: which axis is which, in the order of ``tczyx``, and what is selected."""

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays.stack import AXES, SPATIAL, Stack
from ..arrays.views import LazyArray, View, cast
from ..errors import AxesError, DataError, UsageError
from ..text import without_secrets
from ..units import canonical, is_known, is_length

UNKNOWN = "?"  # an axis that nothing names
DEFAULT_NAME = re.compile(r"(phony_)?dim_?\d+|axis_?\d+|none")  # that libraries give to dimensions without a name
SAMPLES = "s"  # the letter of tifffile for the colours of a pixel
NAMES = {  # what axes are called besides their letter
    "t": "time times timepoint timepoints frame frames",
    "c": "channel channels ch colour colours color colors wavelength wavelengths",
    "z": "depth plane planes slice slices section sections",
    "y": "height row rows",
    "x": "width column columns col cols",
}
LETTERS = {name: letter for letter, names in NAMES.items() for name in names.split()}


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a reader found, in the file's own order of axes.

    Parameters
    ----------
    known : str
        One letter per dimension: of ``tczyx``, ``s`` for the samples of a pixel (RGB), ``?`` where nothing says.
    scale, units, translation : one per dimension, or empty
    channel_names, notes : as in `Stack`
    frame : as in `Stack`, the axes as letters or as numbers of dimensions
    """

    data: LazyArray
    known: str
    name: str
    source: str | None = None
    scale: tuple[float, ...] = ()
    units: tuple[str | None, ...] = ()
    translation: tuple[float, ...] = ()
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    frame: tuple[tuple[Any, Any, float], ...] = ()


def check_dtype(dtype: Any, name: str) -> np.dtype[Any]:
    """Refuse everything but booleans, integers and real numbers of at most 64 bits.

    Raises
    ------
    DataError
        Naming the dtype.
    """
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise DataError(f"{name}: dtype {dtype} is not a number; only bool, integers and floats are read") from None
    if kind.kind not in "biuf" or kind.itemsize > np.dtype("f8").itemsize:
        raise DataError(f"{name}: dtype {kind} cannot be read; convert it to bool, an integer or a real float type")
    return kind


def arrange(found: Found, axes: str | None = None) -> Stack:
    """Put what was found in the order ``tczyx``, lazily.

    Parameters
    ----------
    axes : str, optional
        One letter per dimension, in the order of the file; overrides what the file says. Dimensions of size 1 may be
        left out.

    Raises
    ------
    UsageError
        Where `axes` cannot be.
    DataError
        Where axes are ambiguous, naming the choices.
    """
    dtype = check_dtype(found.data.dtype, found.name)
    shape = tuple(int(n) for n in found.data.shape)
    letters = name_axes(shape, found.known, axes, found.name)
    order = [letters.index(a) for a in AXES if a in letters]
    data = found.data if dtype.isnative else cast(found.data, dtype.newbyteorder("="))
    if order != list(range(len(shape))):
        data = View.of(data).cut([slice(None) if a else 0 for a in letters])
        left = [i for i, a in enumerate(letters) if a]
        data = data.transpose([left.index(i) for i in order])
    ordered = "".join(letters[i] for i in order)
    scale = tuple(_step(found.scale[i], letters[i], found.name) for i in order) if found.scale else ()
    channels = shape[letters.index("c")] if "c" in letters else 1
    return Stack(
        data,
        ordered,
        scale=scale,
        units=tuple(found.units[i] for i in order) if found.units else (),
        translation=tuple(found.translation[i] for i in order) if found.translation else (),
        name=found.name,
        source=found.source and without_secrets(found.source),
        channel_names=found.channel_names if len(found.channel_names) == channels else (),
        notes=(*found.notes, *_strange_units(letters, found.units), *_half_sized(letters, found)),
        frame=tuple((_letter(a, letters), _letter(b, letters), value) for a, b, value in found.frame),
    )


def _letter(axis: Any, letters: Sequence[str]) -> str:
    return letters[axis] if isinstance(axis, int) else str(axis)


def _strange_units(letters: Sequence[str], units: Sequence[str | None]) -> list[str]:
    """Say which units are not understood, or are of time along space: sizes in them are compared with nothing."""
    unknown: dict[str, str] = {}
    other: dict[str, str] = {}
    for letter, unit in zip(letters, units, strict=False):
        word = canonical(unit)
        if not letter or letter == "c" or word is None:
            continue
        if not is_known(word):
            unknown[word] = unknown.get(word, "") + letter
        elif is_length(word) == (letter == "t"):
            other[word] = other.get(word, "") + letter
    notes = [f"the unit {w!r} along {axes} is not known; sizes in it are not compared" for w, axes in unknown.items()]
    return notes + [
        f"the unit {w!r} along {axes} is one of {'length' if is_length(w) else 'time'}; correct it in the metadata"
        for w, axes in other.items()
    ]


def _half_sized(letters: Sequence[str], found: Found) -> list[str]:
    """Say where a pixel has a size along one side and none along the other: no ratio of the two can be known."""
    said = {a: unit for a, unit in zip(letters, found.units, strict=False) if a and a in "yx"}
    known = [a for a, unit in said.items() if is_length(unit)]
    none = [a for a, unit in said.items() if canonical(unit) is None]
    if len(known) == len(none) == 1:
        return [f"{known[0]} has a pixel size and {none[0]} has none, which is taken as 1; give both (--pixel-size)"]
    return []


def _step(value: float, axis: str, name: str) -> float:
    if math.isfinite(value) and value > 0:
        return float(value)
    if axis in SPATIAL:
        raise DataError(f"{name}: the scale of axis {axis} is {value}; correct it in the file's metadata")
    return 1.0


def letters_of(names: Sequence[Any], ndim: int) -> tuple[str, tuple[str, ...]]:
    """Return one letter per dimension from the names that a file gives, and a note on names that say nothing.

    A letter that is there twice stays so: it is refused where nobody gives the axes.
    """
    letters, words = axis_letters(names), [str(name).lower() for name in names]
    if len(letters) == ndim and UNKNOWN not in letters:
        return letters, ()
    odd = [w for w in words if w.isidentifier() and not DEFAULT_NAME.fullmatch(w)]
    note = f"its axes are named {', '.join(map(repr, words))}; y, x was taken"
    return UNKNOWN * ndim, (note,) if ndim == len(words) == len(odd) == len("yx") else ()


def name_axes(shape: Sequence[int], known: str, axes: str | None, name: str) -> list[str]:
    """Name each dimension: a letter of ``tczyx``, or "" for one of size 1 that is dropped."""
    if axes is not None:
        return _given(shape, known, check_letters(axes), name)
    known = "".join(UNKNOWN if n == 1 and known.count(a) > 1 else a for a, n in zip(known, shape, strict=True))
    twice = [a for a in (*AXES, SAMPLES) if known.count(a) > 1]
    if twice:
        raise AxesError(
            f"{name}: its metadata names the axes {', '.join(known)}, with {' and '.join(twice)} more than once; "
            f"give axes, one letter of {AXES!r} for each dimension of {tuple(shape)}"
        )
    letters = ["c" if a == SAMPLES and "c" not in known else a for a in known]
    if SAMPLES in letters and shape[known.index("c")] == 1:
        letters = ["" if a == "c" else "c" if a == SAMPLES else a for a in letters]
    if letters == [UNKNOWN] * 2:
        return ["y", "x"]
    letters = ["" if n == 1 and a in (UNKNOWN, SAMPLES) else a for a, n in zip(letters, shape, strict=True)]
    if UNKNOWN in letters or SAMPLES in letters or not {"y", "x"} <= set(letters):
        letters = _only_plane(letters) or _ask(shape, letters, name)
    return letters


def axis_letters(names: Sequence[str]) -> str:
    """Return the letter of each axis by its name: "t" for "T", "time" and "Frames", `UNKNOWN` for any other name."""
    words = [str(name).strip().lower() for name in names]
    return "".join(w if len(w) == 1 and w in AXES else LETTERS.get(w, UNKNOWN) for w in words)


def check_letters(axes: str) -> str:
    """Return `axes` as letters of ``tczyx``: written as such in either case, or as names between commas or blanks.

    Raises
    ------
    UsageError
        Where one is unknown or repeated, or y or x is lacking.
    """
    words = re.findall(r"[^\s,;/()\[\]'\"]+", axes)
    letters = axis_letters(words)
    if UNKNOWN in letters and len(words) == 1:
        letters = axis_letters(words[0])
    if UNKNOWN in letters or len(set(letters)) != len(letters) or not {"y", "x"} <= set(letters):
        raise UsageError(
            f"axes {axes!r} must be letters of {AXES!r}, each once, with y and x, for example zyx; names such as "
            "channel, z, y, x are understood too"
        )
    return letters


def _given(shape: Sequence[int], known: str, axes: str, name: str) -> list[str]:
    if SAMPLES in known and "c" not in axes and len(axes) == len(shape) - 1:
        at = known.index(SAMPLES)
        return [*axes[:at], "c", *axes[at:]]
    drop = len(shape) - len(axes)
    single = [i for i, n in enumerate(shape) if n == 1]
    first = sorted(single, key=lambda i: (known[i] in axes, i))[: max(drop, 0)]
    if drop < 0 or len(first) < drop:
        raise DataError(f"{name}: axes {axes!r} do not fit the shape {tuple(shape)}; give one letter per dimension")
    letters = iter(axes)
    return ["" if i in first else next(letters) for i in range(len(shape))]


def _only_plane(letters: list[str]) -> list[str] | None:
    """Name y and x where two dimensions are left and nothing is known of them."""
    left = [a for a in letters if a]
    if left != [UNKNOWN] * 2:
        return None
    names = iter("yx")
    return [next(names) if a else "" for a in letters]


def _ask(shape: Sequence[int], letters: list[str], name: str) -> list[str]:
    """Raise the error that names the choices."""
    left = [a for a in letters if a]
    if len(left) > len(AXES):
        raise DataError(
            f"{name} has {len(left)} dimensions, its shape is {tuple(shape)}; up to {len(AXES)} are read: "
            "save a part of it"
        )
    rest = [a for a in "ztcyx" if a not in left]
    unknown = sum(a in (UNKNOWN, SAMPLES) for a in left)
    choices = []
    for picked in itertools.permutations(rest, unknown):
        letter = iter(picked)
        word = "".join(next(letter) if a in (UNKNOWN, SAMPLES) else a for a in left)
        if "yx" in word and (word.endswith("yx") or word.endswith("yxc")):
            choices.append(word)
    shown = sorted(choices, key=lambda word: (not word.endswith("yx"), choices.index(word)))[:6]
    raise AxesError(
        f"{name}: what are the axes of shape {tuple(shape)}? Nothing in it says so; give axes: "
        f"{' or '.join(shown) or 'one letter of tczyx a dimension'}"
    )


def choose(stack: Stack, channel: int | str | None, time: int | None) -> Stack:
    """Select a channel (its axis stays, with size 1) and a time point (its axis goes).

    Raises
    ------
    DataError
        Where there is no such channel or time point; it names those there are.
    """
    if channel is not None:
        at = _channel(stack, channel)
        stack = stack.select(c=slice(at, at + 1)) if "c" in stack.axes else stack
    if time is not None:
        if not isinstance(time, int | np.integer):
            raise UsageError(f"time is {time!r}; give the number of a time point, from 0")
        if not 0 <= time < stack.size("t"):
            raise DataError(f"{stack.name} has time points 0 to {stack.size('t') - 1}, not {time}; choose one of these")
        stack = stack.select(t=time) if "t" in stack.axes else stack
    return stack


def _channel(stack: Stack, channel: int | str) -> int:
    if not isinstance(channel, str | int | np.integer):
        raise UsageError(f"channel is {channel!r}; give a number from 0, or a name")
    same = [str(i) for i, name in enumerate(stack.channel_names) if name == channel]
    if len(same) > 1:
        raise DataError(f"{stack.name} has {len(same)} channels {channel!r}; give the number of one: {', '.join(same)}")
    if str(channel) in stack.channel_names and (isinstance(channel, str) or channel >= stack.size("c")):
        return stack.channel_names.index(str(channel))
    if isinstance(channel, str) and not channel.isdecimal():
        known = ", ".join(stack.channel_names) or f"no names, numbers 0 to {stack.size('c') - 1}"
        raise DataError(f"{stack.name} has no channel {channel!r}; it has {known}")
    if not 0 <= int(channel) < stack.size("c"):
        raise DataError(f"{stack.name} has channels 0 to {stack.size('c') - 1}, not {channel}; choose one of these")
    return int(channel)


def sized(stack: Stack, pixel_size: str | Sequence[float | str] | None) -> Stack:
    """Return a stack with another pixel size.

    Parameters
    ----------
    pixel_size : str, or sequence of float and str, optional
        One size, or one per spatial axis, and last their unit where there is one: ``"2 0.5 0.5 um"``.

    Raises
    ------
    UsageError
        Where that is no pixel size.
    """
    if pixel_size is None:
        return stack
    words = [str(w) for w in (pixel_size.replace(",", " ").split() if isinstance(pixel_size, str) else pixel_size)]
    axes = stack.spatial
    try:
        unit = words.pop() if words and not _is_number(words[-1]) else None
        sizes = [float(word) for word in words] * (len(axes) if len(words) == 1 else 1)
    except ValueError:
        sizes = []
    if len(sizes) != len(axes) or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise UsageError(
            f"pixel size {pixel_size!r} must be one number above 0, or one for each of {', '.join(axes)}, and its "
            'unit, such as "2 0.5 0.5 um"'
        )
    given = dict(zip(axes, sizes, strict=True))
    scale = tuple(given.get(a, s) for a, s in zip(stack.axes, stack.scale, strict=True))
    units = tuple(unit if a in given else u for a, u in zip(stack.axes, stack.units, strict=True))
    return dataclasses.replace(stack, scale=scale, units=units)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
