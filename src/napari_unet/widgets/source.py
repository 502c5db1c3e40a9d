"""What an image layer is: its axes, where its file lies, and the stack that is opened from it."""

import dataclasses
from collections.abc import Generator
from typing import Any

import numpy as np

from ..arrays.stack import AXES, Stack
from ..errors import DataError, UsageError
from ..intensities.contrast import Contrast
from ..intensities.normalise import Normalisation
from ..sources.arrange import axis_letters, check_letters
from ..units import in_one

USUAL = {2: "yx", 3: "zyx", 4: "tzyx", 5: "tczyx"}  # axes of layers that name none, by their number
SAME_SIZE = 1e-6  # of two pixel sizes: the viewer brings units of a layer into one, which rounds
OURS = "napari_unet"
SEEN = 512  # pixels of a side, enough for the figures of looks, which take 20 ms then


@dataclasses.dataclass(frozen=True)
class Source:
    """An image layer as the user described it.

    Parameters
    ----------
    axes : str
        A letter of ``tczyx`` a dimension, in the layer's order; colours of an RGB image have none.
    level : int
        Of a multiscale layer.
    channel : int or None
        The one that is taken; all if None.
    """

    layer: Any
    axes: str
    level: int = 0
    channel: int | None = None

    @property
    def path(self) -> str | None:
        """Where the layer was opened from."""
        return path_of(self.layer)

    def stack(self, channels: int = 1) -> Stack:
        """Open it lazily, by its own handle of the data, so that the layer may go.

        Parameters
        ----------
        channels : int
            That are needed; where the layer is one of several that our reader made of an image, all are taken.

        Raises
        ------
        DataError
            Where axes and layer do not fit.
        """
        from ..sources import open_stack

        stack = open_stack(self.layer, self.axes, level=self.level or None, channel=self.channel)
        if channels > 1 and self._split:
            whole = open_stack(self.path, level=self.level or None, **file_options(self.layer))
            size: dict[str, Any] = {f: _taken(stack, whole, f) for f in ("scale", "units", "translation")}
            return dataclasses.replace(whole, **size)
        return dataclasses.replace(stack, source=self.path)

    def looks(self) -> Generator[None, None, tuple[Contrast, ...]]:
        """Find out what the middle of the middle plane looks like, of each channel."""
        yield
        stack = self.stack()
        seen = {}
        for axis in stack.axes.replace("c", ""):
            size = stack.size(axis)
            side = min(SEEN if axis in "yx" else 1, size)
            seen[axis] = slice((size - side) // 2, (size + side) // 2)
        return Normalisation().measure(stack.select(**seen)).contrast

    @property
    def _split(self) -> bool:
        """Whether our reader made the layer of one channel of an image."""
        return self.layer.metadata.get(OURS, {}).get("channel") is not None

    def whole(self) -> tuple[str, dict[str, Any]]:
        """Return where the image lies, and how it is opened from there as just this stack.

        Raises
        ------
        DataError
            Where it does not lie on disk.
        """
        path = path_of(self.layer)
        if path is None:
            raise DataError(f"{self.layer.name} is only in the viewer; save it first, as OME-Zarr or TIFF")
        from ..sources import open_stack

        about = self.layer.metadata.get(OURS, {})
        said = about.get("axes") if about.get("channel") is None else None
        found: dict[str, Any] = {"axes": said if "path" in about else self.axes, "level": self.level or None}
        opening: dict[str, Any] = {k: v for k, v in found.items() if v} | file_options(self.layer)
        opening |= {"channel": about.get("channel", self.channel)}
        return path, opening | pixel_size(self.stack(), open_stack(path, **opening))


def path_of(layer: Any) -> str | None:
    """Return where a layer was opened from, if it was."""
    path = layer.metadata.get(OURS, {}).get("path") or getattr(layer.source, "path", None)
    return str(path) if path else None


def file_options(layer: Any) -> dict[str, Any]:
    """Return which image of its file a layer is, and whether the file lacks planes, as `open_stack` takes it."""
    about = layer.metadata.get(OURS, {})
    return {name: about[name] for name in ("series", "allow_incomplete") if name in about}


def pixel_size(shown: Stack, stored: Stack) -> dict[str, str]:
    """Return the pixel size of a layer as `open_stack` takes it; nothing where it is that of its file."""
    fields = ("scale", "units")
    here, there = ({f: s.values_along(s.spatial, f) for f in fields} for s in (shown, stored))
    same = here["units"] == there["units"] and np.allclose(here["scale"], there["scale"], rtol=SAME_SIZE)
    if shown.spatial != stored.spatial or same:
        return {}
    sizes, unit = in_one(here["scale"], here["units"])
    return {"pixel_size": " ".join([*(f"{size:.9g}" for size in sizes), *filter(None, [unit])])}


def _taken(shown: Stack, stored: Stack, field: str) -> tuple[Any, ...]:
    """Return a field of a file's stack with what its layer says along the axes that both have."""
    both = zip(stored.axes, getattr(stored, field), strict=True)
    return tuple(shown.values_along(a, field)[0] if a in shown.axes else own for a, own in both)


def usual_axes(layer: Any) -> str:
    """Return the axes that the user said a layer has, else those that it says, else the usual ones for its dimensions.

    Raises
    ------
    DataError
        Where it has more dimensions than there are axes.
    """
    known = known_axes(layer)
    if known is None and layer.ndim not in USUAL:
        raise DataError(f"{layer.name} has {layer.ndim} dimensions; images of 2 to 5 can be taken: {', '.join(AXES)}")
    return known or USUAL[layer.ndim]


def known_axes(layer: Any) -> str | None:
    """Return the axes that somebody gave a layer: the user in one of our forms, else who made it; None where nobody."""
    said = layer.metadata.get(OURS, {}).get("axes")
    if said is not None and len(said) == layer.ndim:
        return str(said)
    letters = axis_letters([str(label) for label in layer.axis_labels])
    fits = len(set(letters)) == layer.ndim and {"y", "x"} <= set(letters) <= set(AXES)
    return letters if fits else None


def say_axes(layer: Any, written: str) -> str:
    """Keep with a layer what its axes are, for all forms; return them as letters.

    Raises
    ------
    UsageError
        Where they are no axes, or not as many as the layer has.
    """
    letters = check_letters(written)
    if len(letters) != layer.ndim:
        raise UsageError(f"{layer.name} has {layer.ndim} dimensions, the axes {letters} are {len(letters)}; name each")
    layer.metadata = {**layer.metadata, OURS: {**layer.metadata.get(OURS, {}), "axes": letters}}
    return letters


def is_rgb(layer: Any) -> bool:
    """Whether a layer is an image of colours."""
    return bool(getattr(layer, "rgb", False))


def channels_of(layer: Any, axes: str) -> tuple[str, ...]:
    """Return what the channels of a layer with these axes are called; of one without any, one."""
    if is_rgb(layer):
        return ("red", "green", "blue")
    return tuple(map(str, range(levels_of(layer)[0][axes.index("c")]))) if "c" in axes else ("0",)


def levels_of(layer: Any) -> list[tuple[int, ...]]:
    """Return the shape of each level of a layer, the finest first."""
    return [tuple(level.shape[: layer.ndim]) for level in (layer.data if layer.multiscale else [layer.data])]
