"""What an array of a result is, and how OME-Zarr 0.4 and 0.5 describe it."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays.stack import check_axes
from ..errors import UsageError
from ..units import factor

VERSIONS = {"0.4": 2, "0.5": 3}  # of OME-Zarr, with the version of zarr that each lies in
# Types of axes, by OME-Zarr 0.4, section "axes".
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")  # what all file systems take, and shells need not quote much
# Devices of Windows, and names with a meaning in OME-Zarr.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|zarr\.json|labels", re.IGNORECASE)
# Of channels in a viewer, added up: red, green and blue, then their mixtures.
COLOURS = ("FF0000", "00FF00", "0000FF", "FFFF00", "FF00FF", "00FFFF")


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """An image or labels to be written.

    Parameters
    ----------
    path : str
        Where in the result: ``labels/NAME`` for labels; for an image ``NAME``, or nothing for the root.
    kind : {"labels", "image"}
    axes : str
        A subset of ``tczyx``.
    dtype : numpy dtype
        Integer for labels; integer or float for images.
    scale : tuple of float
        Physical size of a step along each axis; 1 if not given.
    translation : tuple of float
        Position of the centre of the first element, in `units`.
    shards : tuple of int, optional
        A multiple of the chunks; each shard is one file. OME-Zarr 0.5 only.
    attributes : mapping
        Of labels: ``colors`` and ``properties`` as OME-Zarr has them, one entry a ``label-value``.
        Of an image: ``window``, (low, high) that is shown; measured if not given.

    Raises
    ------
    UsageError
        Where a name is not allowed or the fields do not fit each other.
    """

    path: str
    kind: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: tuple[float, ...] = ()
    units: tuple[str | None, ...] = ()
    translation: tuple[float, ...] = ()
    chunks: tuple[int, ...] = ()
    shards: tuple[int, ...] | None = None
    channel_names: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        check_path(self.path, self.kind)
        check_axes(self.axes, self.shape, self.path or "image")
        defaults: dict[str, tuple[Any, ...]] = {"scale": (1.0,), "units": (None,), "translation": (0.0,)}
        for field, fill in defaults.items():
            value = tuple(getattr(self, field)) or fill * len(self.axes)
            object.__setattr__(self, field, self._one_an_axis(field, value))
        chunks = self._one_an_axis("chunks", tuple(self.chunks) or self.shape)
        object.__setattr__(self, "chunks", tuple(int(c) for c in chunks))
        if self.dtype.kind not in ("iu" if self.kind == "labels" else "iuf") or not self.dtype.isnative:
            raise UsageError(
                f"{self.name}: {self.dtype} cannot be stored as {self.kind}; use a native integer or float type"
            )
        self._check_sizes()

    def _one_an_axis(self, field: str, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(value) != len(self.axes):
            raise UsageError(f"{self.name}: {field} {value} does not fit the axes {self.axes!r}; give one per axis")
        return value

    def _check_sizes(self) -> None:
        if min(self.chunks) < 1 or min(self.scale) <= 0 or not all(map(math.isfinite, self.scale + self.translation)):
            raise UsageError(f"{self.name}: chunks {self.chunks} and scale {self.scale} must be positive and finite")
        if self.shards is not None:
            shards = self._one_an_axis("shards", tuple(int(s) for s in self.shards))
            object.__setattr__(self, "shards", shards)
            if any(s < 1 or s % c for s, c in zip(shards, self.chunks, strict=True)):
                raise UsageError(f"{self.name}: shards {shards} must be multiples of the chunks {self.chunks}")
        channels = self.shape[self.axes.index("c")] if "c" in self.axes else 1
        if self.channel_names and len(self.channel_names) != channels:
            raise UsageError(
                f"{self.name}: {len(self.channel_names)} channel names for {channels} channels; give one per channel"
            )

    @property
    def name(self) -> str:
        """Last part of the path; "image" at the root."""
        return self.path.rpartition("/")[2] or "image"

    @property
    def unit(self) -> tuple[int, ...]:
        """Shape of what is written at once, one file: a shard, or a chunk."""
        return self.shards or self.chunks

    @property
    def nbytes(self) -> int:
        """Size of level 0 before compression."""
        return math.prod(self.shape) * self.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """Return every field as a JSON value."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "dtype": self.dtype.str}

    def in_metres(self) -> tuple[float, ...]:
        """Scale per axis in metres where the unit is known, as it stands elsewhere."""
        return tuple(s * (factor(u, "meter") or 1.0) for s, u in zip(self.scale, self.units, strict=True))


def is_name(name: str, kind: str = "labels") -> bool:
    """Say whether labels, or an image beside them, may be called so; digits alone are levels of the image."""
    found = NAME.fullmatch(name) is not None and RESERVED.fullmatch(name) is None and name[-1] not in ". "
    return found and not (kind == "image" and name.isdigit())


def check_path(path: str, kind: str) -> None:
    """Refuse a path that could leave the result, or mean something else on another system.

    Raises
    ------
    UsageError
        Naming the path and what is allowed.
    """
    if kind not in ("labels", "image"):
        raise UsageError(f"kind is {kind!r}; choose labels or image")
    if kind == "image" and not path:
        return
    name = path.rpartition("/")[2]
    if not is_name(name, kind):
        raise UsageError(
            f"the name {name!r} is not allowed; use letters, digits, '.', '_', '-' and spaces, at most 100, "
            "begin with a letter or digit, and none that some system reserves, nor, for an image, digits alone"
        )
    if path != (f"labels/{name}" if kind == "labels" else name):
        raise UsageError(f"{path!r} cannot hold {kind}; labels lie in labels/NAME, images in NAME")


def group_attributes(
    output: Output, levels: Sequence[Any], version: str, window: Sequence[Any], inside: bool
) -> dict[str, Any]:
    """Describe a finished image or labels.

    Parameters
    ----------
    levels : sequence of Level
        Finest first.
    version : {"0.4", "0.5"}
    window : (low, high) a channel
        What is shown of an image's intensities.
    inside : bool
        Whether labels have their image above them.

    Returns
    -------
    Attributes of the group.
    """
    multiscales: dict[str, Any] = {
        "name": output.name,
        "axes": [_axis(a, unit) for a, unit in zip(output.axes, output.units, strict=True)],
        "datasets": [
            {
                "path": str(i),
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(map(float, level.scale))},
                    {"type": "translation", "translation": list(map(float, level.translation))},
                ],
            }
            for i, level in enumerate(levels)
        ],
        "type": "nearest" if output.kind == "labels" else "mean",
    }
    found: dict[str, Any] = {"multiscales": [multiscales]}
    if output.kind == "labels":
        found["image-label"] = {k: v for k, v in output.attributes.items() if k in ("colors", "properties")}
        if inside:
            found["image-label"]["source"] = {"image": "../../"}
    else:
        found["omero"] = {"channels": _channels(output, window)}
    return versioned(found, version)


def versioned(attributes: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Put OME attributes where the version has them, and the version in them."""
    if version == "0.5":
        return {"ome": {"version": version, **attributes}}
    found = dict(attributes)
    if "multiscales" in found:
        found["multiscales"] = [{"version": version, **found["multiscales"][0]}]
    if "image-label" in found:
        found["image-label"] = {"version": version, **found["image-label"]}
    if "omero" in found:
        found["omero"] = {"version": version, **found["omero"]}
    return found


def _axis(axis: str, unit: str | None) -> dict[str, Any]:
    found = {"name": axis, "type": KINDS[axis]}
    return {**found, "unit": unit} if unit not in (None, "", "pixel") and axis != "c" else found


def _channels(output: Output, window: Sequence[Any]) -> list[dict[str, Any]]:
    names = output.channel_names or tuple(f"channel {i}" for i in range(len(window)))
    full = (0.0, 1.0) if output.dtype.kind == "f" else (np.iinfo(output.dtype).min, np.iinfo(output.dtype).max)
    return [
        {
            "label": name,
            "color": "FFFFFF" if len(window) == 1 else COLOURS[i % len(COLOURS)],
            "active": True,
            "window": {"start": low, "end": high, "min": min(low, full[0]), "max": max(high, full[1])},
        }
        for i, (name, (low, high)) in enumerate(zip(names, window, strict=True))
    ]
