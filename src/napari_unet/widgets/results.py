"""The layers of a result: while it is written, when it is there, and of the part that is viewed."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import label_colormap

from ..arrays.views import Box, View
from ..summary import BACKGROUND, OBJECTS
from .away import Counted, Finished, Looked
from .jobs import Ended, Worker
from .layers import Place, look, named, open_levels, seen, table
from .live import Live
from .panel import counted
from .runs import Look
from .source import OURS, Source, path_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

REFRESH = 0.5  # seconds between two looks at a result that is being written
OPACITY = 0.7  # napari's own for labels
SHOWN = 2**24  # elements of a level whose contrast is measured
MARK = 12  # pixels, of a place to annotate


class ResultLayer:
    """The labels layer of one run.

    Parameters
    ----------
    source : Source
        What the result is of.
    name : str
        Of the layer.
    model : Path
        The model that gives the result.
    """

    def __init__(self, viewer: "ViewerModel", source: Source, name: str, model: Path) -> None:
        self.viewer, self.source, self.name, self._model = viewer, source, name, model
        self.layers: list[Any] = []
        self._kind = "labels"
        self._place: Place | None = None
        self._shown: Any = None
        self._refreshed = 0.0

    @property
    def layer(self) -> Any:
        """The layer of the result, of several channels the first; None before there is one."""
        return self.layers[0] if self.layers else None

    @property
    def removed(self) -> bool:
        """Whether the user has taken the layer away."""
        return self.layer is not None and self.layer not in self.viewer.layers

    def open(self, live: Live) -> None:
        """Add the layer that fills in."""
        opened = live.opened
        self._place, self._kind = Place.of(self.source.layer, self.source.axes, opened.geometry), opened.kind
        self._shown = live.levels[0]
        self.layers = self._add(live.levels, live.axes, opened.attributes)
        for layer in self.layers:
            layer.editable = False  # what is painted now would be written over

    def remove(self) -> None:
        """Take the layers away that are still shown."""
        for layer in self.layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def refresh(self, always: bool = False) -> None:
        """Show what has been written since, a few times a second at most."""
        if self.layer is None or self.removed or (not always and time.monotonic() - self._refreshed < REFRESH):
            return
        for layer in self.layers:
            layer.refresh(extent=False, thumbnail=False)
        self._refreshed = time.monotonic()

    def finish(self, found: Finished) -> None:
        """Show the finished result in its place, with what was measured of classes or objects as features."""
        if self._place is None:
            return
        axes, before = found.result.axes, self._place.shown()
        self._place = Place.of(self.source.layer, self.source.axes, found.result)
        if found.labels is not None and self._is_plain:
            self._show_in_place(found.labels, axes, found.attributes, before)
        else:
            self._show_anew(open_levels(found.group) if found.labels is None else [found.labels], axes, found)
        step = float(np.prod(found.result.scale_along(found.result.spatial)))
        unit = found.result.values_along("x", "units")[0] or "pixel"
        sizes = table(named(found.attributes), found.counts, step, f"{unit}^{len(found.result.spatial)}")
        if features := found.features or (sizes if found.attributes else {}):
            self.layer.features = features
        image = self.source.layer
        about: dict[str, Any] = {"path": str(found.group), "axes": self._place.order, "model": str(self._model)}
        about |= {"image": path_of(image), "image name": image.name, "channel": self.source.channel}
        self.layer.metadata[OURS] = about
        self._add_more(found, axes)

    @property
    def _is_plain(self) -> bool:
        """Whether the layer holds an array in memory, of labels: then it need not be made anew, which takes long."""
        return isinstance(self._shown, np.ndarray) and not self.removed and not self.layer.multiscale

    def _show_in_place(self, labels: np.ndarray, axes: str, attributes: dict[str, Any], before: dict[str, Any]) -> None:
        """Show the finished labels in the layer that filled in: objects, where it was their classes."""
        self.layer.editable = True
        if labels is self._shown or self._place is None:
            self.refresh(always=True)
            return
        # Each assignment draws the layer anew: what is so already is left, and colours come before the labels.
        self.layer.colormap = look(attributes).get("colormap") or label_colormap()
        self.layer.data = self._place.arranged(labels, axes)
        for name, value in self._place.shown().items():
            if not np.array_equal(before[name], value):
                setattr(self.layer, name, value)

    def _show_anew(self, levels: list[Any], axes: str, found: Finished) -> None:
        """Put new layers in the place of those that filled in."""
        before, self.layers = self.layers, self._add(levels, axes, found.attributes)
        for layer, old in zip(self.layers, before, strict=False):
            if old in self.viewer.layers:
                self._replace(old, layer)

    def _replace(self, old: Any, layer: Any) -> None:
        """Put a layer where another is, and make it look the same."""
        for name in ("visible", "opacity", "blending") + ("colormap",) * (self._kind == "image"):
            setattr(layer, name, getattr(old, name))
        self.viewer.layers.move(self.viewer.layers.index(layer), self.viewer.layers.index(old))
        name = old.name
        self.viewer.layers.remove(old)
        layer.name = name

    def _add(self, levels: list[Any], axes: str, attributes: dict[str, Any]) -> list[Any]:
        """Add the layers of the result; only labels that lie in memory can be painted on, so that it stays."""
        if self._kind == "image":
            return self._add_images(levels, axes)
        arranged = [self._place.arranged(level, axes) for level in levels] if self._place else levels
        layer: Any = self.viewer.add_labels(
            arranged if len(arranged) > 1 else arranged[0],
            multiscale=len(arranged) > 1,
            name=self.name,
            opacity=OPACITY,
            **(self._place.shown() if self._place else {}),
            **look(attributes),
        )
        layer.editable = isinstance(levels[0], np.ndarray)
        return [layer]

    def _add_images(self, levels: list[Any], axes: str) -> list[Any]:
        """Add an image layer per channel, the first on top; return them from the first on."""
        at, count = axes.find("c"), levels[0].shape[axes.index("c")] if "c" in axes else 1
        layers = []
        for channel in reversed(range(count)):
            cut = [slice(None) if a != "c" else channel for a in axes]
            parts = [View.of(level).cut(cut) if at >= 0 else level for level in levels]
            place = self._place
            arranged = [place.arranged(part, axes.replace("c", "")) for part in parts] if place else parts
            layers.append(
                self.viewer.add_image(
                    arranged if len(arranged) > 1 else arranged[0],
                    multiscale=len(arranged) > 1,
                    name=self.name if count == 1 else f"{self.name}: channel {channel}",
                    contrast_limits=contrast(parts[-1]) or limits_of(self.source.layer),
                    **(place.shown() if place else {}),
                )
            )
        return layers[::-1]

    def _add_more(self, found: Finished, axes: str) -> None:
        """Add layers of what else was wanted."""
        for name, group, channel in found.probabilities:
            self._add_probability(name, open_levels(group), channel, axes)
        if found.places:
            self._add_places(found.places, axes)

    def _add_places(self, places: tuple[tuple[float, ...], ...], axes: str) -> None:
        """Add points to jump to, the most telling first."""
        dimensions = self._place.order if self._place else axes
        points = [[centre[axes.index(a)] if a in axes else 0.0 for a in dimensions] for centre in places]
        self.viewer.add_points(
            np.array(points),
            name=f"{self.layer.name}: annotate next",
            features={"rank": np.arange(1, len(points) + 1)},
            text={"string": "{rank}", "color": "yellow"},
            face_color="transparent",
            border_color="yellow",
            size=MARK,
            **(self._place.shown() if self._place else {}),
        )

    def _highest(self, level: Any) -> float:
        """Return the upper end of what is shown of floats: of probabilities 1."""
        found = contrast(level) if self._kind == "image" else None
        return found[1] if found else 1.0

    def _add_probability(self, name: str, levels: list[Any], channel: int | None, axes: str) -> None:
        at = 1 if axes.startswith("t") else 0
        cut: list[slice | int] = [slice(None)] * levels[0].ndim
        if channel is not None:
            cut[at] = channel
        arranged = [self._place.arranged(View.of(level).cut(cut), axes) for level in levels] if self._place else []
        self.viewer.add_image(
            arranged if len(arranged) > 1 else arranged[0],
            multiscale=len(arranged) > 1,
            name=f"{self.layer.name}: {name}",
            contrast_limits=(0, 255 if levels[0].dtype.kind == "u" else self._highest(arranged[-1])),
            colormap="magma",
            blending="additive",
            visible=False,
            **(self._place.shown() if self._place else {}),
        )


def found_in(found: Finished) -> str:
    """Say what was found, in a few words: the number of objects, or the share of each class."""
    if OBJECTS in found.counts:
        return counted(found.counts[OBJECTS], "object")
    whole = sum(found.counts.values())
    shares = [f"{name} {100 * n / whole:.3g} %" for name, n in found.counts.items() if name != BACKGROUND and whole]
    return ", ".join(shares) or "the image"


def contrast(data: Any) -> tuple[float, float] | None:
    """Return the 0.1 and 99.9 percentiles of a level; None where it is of one value, or too large to be measured."""
    if math.prod(data.shape) > SHOWN:
        return None
    low, high = np.percentile(np.asarray(data), (0.1, 99.9))
    return (float(low), float(high)) if high > low else None


def limits_of(layer: Any) -> Any:
    """Return how an image is shown, for a result of it of one value; None of labels, which have no brightness."""
    return getattr(layer, "contrast_limits", None)


def _known_of(objects: Counted) -> dict[str, list[Any]]:
    """Return the features of the labels of a preview: the class of each object, and which of them the edge cuts."""
    cut, kinds = set(objects.cut), objects.classes
    shown = [0, *sorted(cut | kinds.keys())]
    classes = {"class": [kinds.get(number, "") for number in shown]} if kinds else {}
    marks = ["cut by the edge of the preview" * (number in cut) for number in shown]
    return {"index": shown, **classes, "object": marks}


class PreviewLayer:
    """The layer that shows the result of the part that is viewed.

    Parameters
    ----------
    on_end : callable
        Told how each look ended.
    """

    def __init__(self, viewer: "ViewerModel", on_end: Callable[[Ended], None]) -> None:
        self.viewer, self._on_end = viewer, on_end
        self.layer: Any = None
        self._job: Worker | None = None
        self._whole: Box = ()
        self._canvas = np.empty(0)
        self._look: Look | None = None
        self._looked: Looked | None = None
        self._kind = "labels"

    @property
    def running(self) -> bool:
        """Whether something is being computed."""
        return self._job is not None and self._job.running

    def show(self, view: Look) -> None:
        """Compute what is seen now and was not before; what was begun elsewhere is left."""
        source = view.request.source
        box = seen(self.viewer, source.layer, source.axes, view.stack)
        if self._job is not None:
            self._job.cancel()
        self._job = Worker(lambda: view.at(box), lambda events: self._draw(view, events), self._on_end)
        self._job.start()

    def stop(self) -> None:
        """Leave what is being computed."""
        if self._job is not None:
            self._job.cancel()

    def abandon(self) -> None:
        """Leave what is being computed, and listen no more."""
        if self._job is not None:
            self._job.abandon()

    def _draw(self, view: Look, events: list[Any]) -> None:
        """Paste what came into the layer."""
        self._looked = next((event for event in events if isinstance(event, Looked)), self._looked)
        self._paste(view, events)
        for event in events:
            if isinstance(event, Counted) and self.layer in self.viewer.layers:
                self.layer.features = _known_of(event)
                self.viewer.status = f"{self.layer.name}: {event.story}"

    def _paste(self, view: Look, events: list[Any]) -> None:
        parts = [event for event in events if isinstance(event, tuple)]
        if self._looked is None or not parts:
            return
        stack, source, kind = self._looked.geometry, view.request.source, self._looked.kind
        whole, axes = parts[-1][0], stack.axes.replace("c", "")
        if self.layer in self.viewer.layers and self._kind != kind:
            self.viewer.layers.remove(self.layer)
        self._kind = kind
        if self._whole != whole or self._look is not view or self.layer not in self.viewer.layers:
            self._whole, self._look = whole, view
            self._canvas = np.zeros([b.stop - b.start for b in whole], parts[-1][2].dtype)
        for box, part, labels in parts:
            if box == whole:
                at = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True))
                self._canvas[at] = labels
        place = Place.of(source.layer, source.axes, stack)
        data = np.asarray(place.arranged(self._canvas, axes))
        about = place.shown() | {"translate": place.corner(whole, axes), "name": f"{source.layer.name} preview"}
        about |= look(self._looked.attributes) if kind == "labels" else {}
        if self.layer in self.viewer.layers:
            self._move(data, about)
        elif kind == "image":
            limits = contrast(data) or limits_of(source.layer)
            self.layer = self.viewer.add_image(data, contrast_limits=limits, **about)
        else:
            self.layer = self.viewer.add_labels(data, opacity=OPACITY, **about)
            self.layer.editable = False

    def _move(self, data: np.ndarray, about: dict[str, Any]) -> None:
        """Show something else in the layer: it lies on its image, and is named after it, whatever image that is now."""
        self.layer.data = data
        for name, value in about.items():
            if name != "name" or not self.layer.name.startswith(value):  # the viewer may have added a number
                setattr(self.layer, name, value)

    def remove(self) -> None:
        """Take the layer away, now that the result itself is there."""
        self.stop()
        if self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self.layer = None
