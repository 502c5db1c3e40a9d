"""Layers of the viewer, saved as OME-Zarr."""

import importlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..arrays.stack import AXES, Stack
from ..errors import DataError, OutputError
from ..events import wait
from ..files import plain
from ..units import factor

MOST_ROWS = 10_000  # of a table kept in the metadata: a megabyte, which readers take at once
LayerTuple = tuple[Any, dict[str, Any], str]


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save an image layer as OME-Zarr.

    Parameters
    ----------
    path : str
        The group to make.
    data : array, or a list of them, the finest first
    meta : dict
        Of the layer; `axis_labels`, `scale`, `units`, `translate`, `rgb` and `contrast_limits` are used.

    Returns
    -------
    list of the one path that was written

    Raises
    ------
    OutputError
        Where something is at `path`.
    DataError
        Where the layer has more than three dimensions and nothing names them, or is turned or sheared.
    """
    return write_layers(path, [(data, meta, "image")])


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a labels layer as OME-Zarr, ``labels/NAME`` in a new group, or in the OME-Zarr image that is there.

    Parameters, what is returned and what is raised are those of `write_image`.
    """
    from ..store.save import is_image, save_stack

    stack = _stack_of(data, meta, "labels")
    root = Path(path)
    inside = next(_free_names([stack.name]))
    if (root / "labels" / inside).exists() or (root.exists() and not is_image(root)):
        raise OutputError(f"{root} exists; choose another name")
    wait(save_stack(stack, root, kind="labels", name=inside, attributes=known(meta)))
    return [path]


def write_layers(path: str, layer_data: Sequence[LayerTuple]) -> list[str]:
    """Save layers as one OME-Zarr image: images of one size become its channels, labels lie inside it.

    Parameters
    ----------
    path : str
        The group to make.
    layer_data : list of (data, arguments, type)

    Returns
    -------
    list of the one path that was written

    Raises
    ------
    OutputError
        Where something is at `path`.
    DataError
        As `write_image` does; where images differ in size or position; for several labels without an image.
    """
    from ..store.save import save_stack

    root = Path(path)
    if root.exists() or root.is_symlink():
        raise OutputError(f"{root} exists; choose another name")
    images = [(_stack_of(data, meta, kind), meta) for data, meta, kind in layer_data if kind == "image"]
    labels = [(_stack_of(data, meta, kind), known(meta)) for data, meta, kind in layer_data if kind == "labels"]
    if not images and len(labels) > 1:
        raise DataError("labels are saved inside an image; select their image as well, or save each by itself")
    if images:
        limits = images[0][1].get("contrast_limits")
        look = {"window": tuple(map(float, limits))} if limits is not None and len(images) == 1 else {}
        wait(save_stack(_as_channels([stack for stack, _ in images]), root, attributes=look))
    for (stack, attributes), name in zip(labels, _free_names([s.name for s, _ in labels]), strict=True):
        wait(save_stack(stack, root, kind="labels", name=name, attributes=attributes))
    return [path]


def _free_names(names: Sequence[str]) -> Iterator[str]:
    """Yield a name for each labels layer that can be stored and is not used twice."""
    from ..store.save import storable_name

    used: set[str] = set()
    for name in map(storable_name, names):
        tries = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
        chosen = next(n for n in tries if n.lower() not in used)
        used.add(chosen.lower())
        yield chosen


def known(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the colours of labels, where each was given its own, and their table, as OME-Zarr has them."""
    found: dict[str, Any] = {}
    colormap = meta.get("colormap")
    colours = getattr(colormap, "color_dict", colormap)
    if isinstance(colours, Mapping):
        rgba = {k: np.rint(np.asarray(v, float) * 255).astype(int).tolist() for k, v in colours.items() if k}
        found["colors"] = [{"label-value": int(k), "rgba": v} for k, v in sorted(rgba.items())]
    features = meta.get("features")
    columns = {str(k): list(features[k]) for k in features} if features is not None else {}
    rows = columns.pop("index", [])
    if np.asarray(rows).dtype.kind not in "iu":
        rows = list(range(max(map(len, columns.values()), default=0)))
    if columns and len(rows) <= MOST_ROWS:
        entries = [
            (int(row), {k: plain(v[i], odd=lambda _: None) for k, v in columns.items()}) for i, row in enumerate(rows)
        ]
        kept = [(row, {k: v for k, v in e.items() if v not in ("", None)}) for row, e in entries if row > 0]
        found["properties"] = [{"label-value": row, **e} for row, e in kept if e]
    return found


def _stack_of(data: Any, meta: Mapping[str, Any], kind: str) -> Stack:
    """Take a layer as a stack; its axes are never guessed where there is a choice."""
    from ..sources import open_stack
    from ..sources.arrange import axis_letters

    finest = data[0] if meta.get("multiscale") or isinstance(data, list | tuple) else data
    rgb = bool(meta.get("rgb", False))
    ndim, name = len(finest.shape) - rgb, str(meta.get("name") or kind)
    _check_straight(meta, ndim, name)
    words = [str(label).lower() for label in meta.get("axis_labels") or ()]
    letters = axis_letters(words)
    if len(set(letters)) < ndim or not {"y", "x"} <= set(letters) <= set(AXES):
        if ndim not in (2, 3):
            choice = " or ".join(axes for axes in ("tzyx", "tcyx", "czyx", "tczyx") if len(axes) == ndim) or AXES
            raise DataError(
                f"{name}: what are its {ndim} dimensions? The axis labels {tuple(words)} do not say so; "
                f"set the layer's axis labels, one letter per dimension: {choice}"
            )
        letters = "zyx"[-ndim:]
    taken = {
        "scale": [1.0] * ndim,
        **meta,
        "data": finest,
        "multiscale": False,
        "name": name,
        "axis_labels": tuple(letters),
    }
    return open_stack(SimpleNamespace(**taken))


def _check_straight(meta: Mapping[str, Any], ndim: int, name: str) -> None:
    """Refuse a layer that is turned or sheared."""
    for field in ("rotate", "shear", "affine"):
        value = meta.get(field)
        plain = np.asarray(getattr(value, "affine_matrix", value), float) if value is not None else np.zeros(0)
        if plain.size and plain.ndim and not np.allclose(plain, np.eye(len(plain)) if plain.ndim == 2 else 0.0):
            raise DataError(
                f"{name} is turned, sheared or moved by {field}, which OME-Zarr does not store; set {field} back first"
            )


def _as_placed(one: Stack, other: Stack) -> bool:
    """Say whether two layers of the same axes have one pixel size and position, whatever units they are given in."""
    for axis, unit in enumerate(one.units):
        ratio = 1.0 if None in (unit, other.units[axis]) else factor(other.units[axis], unit)
        pairs = [(getattr(stack, f)[axis] for stack in (one, other)) for f in ("scale", "translation")]
        if ratio is None or not all(math.isclose(a, b * ratio, abs_tol=1e-9 * one.scale[axis]) for a, b in pairs):
            return False
    return True


def _as_channels(stacks: Sequence[Stack]) -> Stack:
    """Put images of one size together as the channels of one, lazily."""
    first = stacks[0]
    if len(stacks) == 1:
        return first
    for other in stacks[1:]:
        if any(getattr(first, f) != getattr(other, f) for f in ("axes", "shape", "dtype")) or not _as_placed(
            first, other
        ):
            raise DataError(
                f"{first.name} and {other.name} differ in axes, size, type, scale or position, so they cannot be "
                "channels of one image; save each by itself"
            )
    if "c" in first.axes:
        raise DataError(f"{first.name} has channels already; save each of the {len(stacks)} images by itself")
    at = int(first.axes.startswith("t"))
    shared = "".join(first.name.partition(": ")[:2])
    shared = shared if all(s.name.startswith(shared) for s in stacks) and shared.endswith(": ") else ""
    da: Any = importlib.import_module("dask.array")
    parts = [da.from_array(s.data, chunks=s.chunks, asarray=True) for s in stacks]

    def put(values: Sequence[Any], value: Any) -> tuple[Any, ...]:
        return (*values[:at], value, *values[at:])

    return Stack(
        da.stack(parts, axis=at),
        f"{first.axes[:at]}c{first.axes[at:]}",
        scale=put(first.scale, 1.0),
        units=put([next(filter(None, units), None) for units in zip(*(s.units for s in stacks), strict=True)], None),
        translation=put(first.translation, 0.0),
        name=first.name,
        channel_names=tuple(s.name.removeprefix(shared) for s in stacks),
    )
