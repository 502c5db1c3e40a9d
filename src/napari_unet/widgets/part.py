"""A part of the image that is run alone: what is visible, a rectangle that is drawn, or typed."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox, Container, LineEdit, Widget

from ..errors import UnetError, UsageError
from .image_form import ImageForm
from .layers import seen
from .panel import Panel, field
from .source import Source

if TYPE_CHECKING:
    from napari.layers import Shapes

    from .. import Stack

WHOLE, VISIBLE, DRAWN = "the whole image", "what is visible now", "a rectangle that is drawn"
LAYER = "part"  # of rectangles
EDGE = 2.0  # pixels on the screen, of the rectangle's outline
HALF = 0.5  # of a pixel: it reaches so far to both sides of its index


class PartForm(Container[Widget]):
    """What of the image is run: all of it, or a part along the axes of space, in all time points.

    Parameters
    ----------
    panel : Panel
        Whose viewer shows the image.
    form : ImageForm
        Which image is run.
    """

    def __init__(self, panel: Panel, form: ImageForm) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 0, 0)
        self._panel, self._form = panel, form
        self._drawn: Shapes | None = None
        self._level = 0  # of the image, whose pixels the part is in
        self.kind = ComboBox(choices=[WHOLE, VISIBLE, DRAWN], tooltip="Run all of the image, or a part of it alone")
        self.line = LineEdit(
            tooltip="From and to along z, y, x, in pixels from 0: 0:20,100:300,50:250; an end left out is the image's"
        )
        self._row = field("", self.line)
        self.extend([field("part", self.kind), self._row])
        self._row.visible = False
        self.kind.changed.connect(self._take)
        box: Any = self.kind.native
        box.activated.connect(self._take)  # chosen again: what is visible may be another part now
        self.line.changed.connect(self._note)
        for changed in (form.image, form.size):  # of another image, or in other pixels, it would be another part
            changed.changed.connect(lambda _: self.forget())

    def chosen(self) -> str | None:
        """Return the part as `PredictConfig.region` takes it; None where all of the image is run.

        Raises
        ------
        UsageError
            Where no rectangle is drawn yet, or the part is of another level of the image.
        """
        if self.kind.value == WHOLE:
            return None
        if self._form.size.value.level != self._level:
            raise UsageError("the part was chosen in pixels of another level of the image; choose it again at Part")
        if not self.line.value.strip():
            raise UsageError(f"no part is chosen: draw a rectangle on the image, or choose {WHOLE} at Part")
        return str(self.line.value).strip()

    def forget(self) -> None:
        """Run all of another image."""
        self.kind.value = WHOLE

    def _take(self, *_: Any) -> None:
        """Write down the part that was chosen."""
        kind = self.kind.value
        self._row.visible = kind != WHOLE
        part: Mapping[str, slice] = {}
        try:
            if kind == VISIBLE:
                part = part_seen(self._panel.viewer, *self._form.opened())
            elif kind == DRAWN:
                part = self._rectangle()
        except UnetError as error:
            self._panel.fail(str(error))
        written = ",".join(f"{each.start}:{each.stop}" for each in part.values())
        self.line.value = written
        self._note()

    def _note(self, *_: Any) -> None:
        """Note which level the part is in pixels of."""
        self._level = self._form.size.value.level

    def _rectangle(self) -> Mapping[str, slice]:
        """Return the part below the rectangle that is selected, else the last one; without one let it be drawn."""
        from napari.layers import Shapes

        layers = self._panel.viewer.layers
        every = [layer for layer in layers if isinstance(layer, Shapes) and (len(layer.data) or layer is self._drawn)]
        active = layers.selection.active
        layer = active if active in every else every[-1] if every else None
        if layer is not None and len(layer.data):
            source, stack = self._form.opened()
            return part_below(self._panel.viewer, layer, source, stack)
        if layer is None:
            ndim = self._panel.viewer.dims.ndim
            layer = self._panel.viewer.add_shapes(
                ndim=ndim, name=LAYER, edge_width=EDGE, edge_color="yellow", face_color="transparent"
            )
            layer.events.data.connect(self._redrawn)
            self._drawn = layer
        layers.selection = {layer}
        layer.mode = "add_rectangle"
        self._panel.status.value = "draw a rectangle on the image with the mouse"
        return {}

    def _redrawn(self, *_: Any) -> None:
        """Follow the rectangle while its part is what is run."""
        if self.kind.value == DRAWN and self._drawn is not None and len(self._drawn.data):
            self._panel.status.value = ""
            self._take()


def part_seen(viewer: Any, source: Source, stack: "Stack") -> Mapping[str, slice]:
    """Return what is seen of an image, per axis of space: along an axis that has a slider, all of it."""
    ahead = viewer.dims.ndim - source.layer.ndim
    shown = {source.axes[i - ahead] for i in viewer.dims.displayed[-2:] if i >= ahead}
    box = dict(zip(stack.axes.replace("c", ""), seen(viewer, source.layer, source.axes, stack), strict=True))
    return {a: box[a] if a in shown else slice(0, stack.size(a)) for a in stack.spatial}


def part_below(viewer: Any, shapes: "Shapes", source: Source, stack: "Stack") -> Mapping[str, slice]:
    """Return the part of an image around the selected shapes, else the last one, per axis of space.

    Along an axis that the shapes are flat along, such as z of a rectangle in a plane, all of it; of rectangles in
    several planes, those from the first to the last.

    Raises
    ------
    UsageError
        Where they lie beside the image.
    """
    layer = source.layer
    chosen = sorted(shapes.selected_data) or [len(shapes.data) - 1]
    corners = np.concatenate([shapes.data[i] for i in chosen])
    world = np.tile(np.asarray(viewer.dims.point, float), (len(corners), 1))
    world[:, viewer.dims.ndim - shapes.ndim :] = [shapes.data_to_world(corner) for corner in corners]
    inside = np.array([layer.world_to_data(point[viewer.dims.ndim - layer.ndim :]) for point in world])
    part = {}
    for axis in stack.spatial:
        dim, at, n = source.axes.index(axis), stack.axes.index(axis), stack.size(axis)
        places = (layer.translate[dim] + inside[:, dim] * layer.scale[dim] - stack.translation[at]) / stack.scale[at]
        low, high = places.min(), places.max()
        if math.isclose(low, high, abs_tol=HALF):
            part[axis] = slice(0, n)
            continue
        part[axis] = slice(max(0, math.floor(low + HALF)), min(n, math.floor(high + HALF) + 1))
        if part[axis].start >= part[axis].stop:
            raise UsageError(f"the rectangle lies beside {layer.name}, along {axis}; draw it on the image")
    return part
