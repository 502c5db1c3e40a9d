"""The layers of a result: while it is written, when it is there, and of the part where somebody looks."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..stack import Box, View
from .jobs import Ended, Job
from .layers import Place, Source, look, named, open_levels, seen, table
from .runs import Finished, Look, Opened

if TYPE_CHECKING:
    from napari.components import ViewerModel

REFRESH = 0.5  # seconds between two looks at a result that is being written
OPACITY = 0.7
MARK = 12  # pixels, of a place to annotate


class ResultLayer:
    """The labels layer of one run.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    source : Source
        What the result is of.
    name : str
        Of the layer.
    """

    def __init__(self, viewer: "ViewerModel", source: Source, name: str) -> None:
        self.viewer, self.source, self.name = viewer, source, name
        self.layer: Any = None
        self._place: Place | None = None
        self._refreshed = 0.0

    @property
    def removed(self) -> bool:
        """Whether the user has taken the layer away."""
        return self.layer is not None and self.layer not in self.viewer.layers

    def open(self, opened: Opened) -> None:
        """Add the layer that fills in."""
        self._place = Place.of(self.source.layer, self.source.axes, opened.stack)
        self.layer = self._add(opened.live.levels, opened.live.axes, opened.attributes)

    def refresh(self, always: bool = False) -> None:
        """Show what has been written since, a few times a second at most."""
        if self.layer is None or self.removed or (not always and time.monotonic() - self._refreshed < REFRESH):
            return
        self.layer.refresh(extent=False, thumbnail=False)
        self._refreshed = time.monotonic()

    def finish(self, found: Finished) -> None:
        """Show the finished result in its place: all levels, and the sizes of classes as features."""
        if self._place is None:
            return
        old, axes = self.layer, found.result.axes
        self.layer = self._add(open_levels(found.group), axes, found.attributes)
        if old is not None and old in self.viewer.layers:
            for name in ("name", "visible", "opacity", "blending"):
                value = getattr(old, name)
                if name == "name":
                    old.name = f"{value} …"
                setattr(self.layer, name, value)
            self.viewer.layers.move(self.viewer.layers.index(self.layer), self.viewer.layers.index(old))
            self.viewer.layers.remove(old)
        if found.features:
            self.layer.features = found.features
        step = float(np.prod(found.result.along(found.result.spatial)))
        unit = found.result.along("x", "units")[0] or "pixel"
        sizes = table(named(found.attributes), found.counts, step, f"{unit}^{len(found.result.spatial)}")
        if sizes and found.attributes:
            self.layer.features = sizes
        self.layer.metadata["napari_unet"] = {"path": str(found.group)}
        self._add_more(found, axes)

    def _add(self, levels: list[Any], axes: str, attributes: dict[str, Any]) -> Any:
        """Add a labels layer that cannot be painted on: that would write into the result."""
        arranged = [self._place.arranged(level, axes) for level in levels] if self._place else levels
        layer: Any = self.viewer.add_labels(
            arranged if len(arranged) > 1 else arranged[0],
            multiscale=len(arranged) > 1,
            name=self.name,
            opacity=OPACITY,
            **(self._place.shown() if self._place else {}),
            **look(attributes),
        )
        layer.editable = False
        return layer

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
            contrast_limits=(0, 255 if levels[0].dtype.kind == "u" else 1),
            colormap="magma",
            blending="additive",
            visible=False,
            **(self._place.shown() if self._place else {}),
        )


class PreviewLayer:
    """The labels layer that shows the result where somebody looks.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    on_end : callable
        Told how each look ended.
    """

    def __init__(self, viewer: "ViewerModel", on_end: Callable[[Ended], None]) -> None:
        self.viewer, self._on_end = viewer, on_end
        self.layer: Any = None
        self._job: Job | None = None
        self._whole: Box = ()
        self._canvas = np.empty(0)
        self._look: Look | None = None

    @property
    def running(self) -> bool:
        """Whether something is being computed."""
        return self._job is not None and self._job.running

    def show(self, view: Look, channels: int) -> None:
        """Compute what is seen now and was not before; what was begun elsewhere is left."""
        source = view.request.source
        stack = view.stack or source.stack(channels)
        box = seen(self.viewer, source.layer, source.axes, stack)
        if self._job is not None:
            self._job.cancel()
        self._job = Job(lambda: view.at(box), lambda events: self._draw(view, events), self._on_end)
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
        stack, source = view.stack, view.request.source
        if stack is None:
            return
        whole, axes = events[-1][0], stack.axes.replace("c", "")
        if self._whole != whole or self._look is not view or self.layer not in self.viewer.layers:
            self._whole, self._look = whole, view
            self._canvas = np.zeros([b.stop - b.start for b in whole], events[-1][2].dtype)
        for box, part, labels in events:
            if box == whole:
                at = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True))
                self._canvas[at] = labels
        place = Place.of(source.layer, source.axes, stack)
        data, translate = np.asarray(place.arranged(self._canvas, axes)), place.corner(whole, axes)
        if self.layer in self.viewer.layers:
            self.layer.data, self.layer.translate = data, translate
            return
        shown = place.shown() | {"translate": translate}
        name = f"{source.layer.name} preview"
        self.layer = self.viewer.add_labels(data, name=name, opacity=OPACITY, **shown, **look(view.attributes))
        self.layer.editable = False
