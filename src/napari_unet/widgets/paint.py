"""Help with painting labels: a layer on the image's grid, a coloured button per class, and where to paint next."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import Container, PushButton, Widget

from ..errors import UnetError
from .layers import Place
from .panel import Panel, button, row
from .preferences import Preferences
from .source import OURS, Source, levels_of, path_of, usual_axes

if TYPE_CHECKING:
    from napari.layers import Labels

BACKGROUND = 1  # what a brush paints first, before anybody chooses a class
NAMES = ("Background", "Class A", "Class B", "Class C")
KEYS = ("Q", "A", "S", "D")  # under the left hand; napari's own for labels are elsewhere
COLOURS = ("#808080", "#E69F00", "#56B4E9", "#009E73")  # grey; Okabe and Ito 2008, told apart by all
IN_MEMORY = 2**30  # bytes of labels; a larger layer is a file, of which only what is painted takes room
CALLED = "class names"  # of a labels layer, by value, among what we keep with it
NEXT_KEY = "N"
BRUSH = 10.0  # pixels on the screen
LATELY = "annotate next"  # ending of the layer of places


class PaintForm(Container[Widget]):
    """Buttons to paint with.

    Parameters
    ----------
    panel : Panel
        That it belongs to.
    image : callable
        Returns the image that is painted on.
    made : callable
        Told of an image and a labels layer that was made for it.
    pairs : callable
        Returns the images and labels that are learnt from.
    objects : callable
        Whether objects are learnt, each with a number, and no classes.
    whole : callable
        Whether all that is not painted is background, which then has no label of its own.
    """

    def __init__(
        self,
        panel: Panel,
        image: Callable[[], Any],
        made: Callable[[Any, Any], None],
        pairs: Callable[[], list[tuple[Any, Any]]],
        objects: Callable[[], bool],
        whole: Callable[[], bool],
    ) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 0, 0)
        self._panel, self._image, self._made, self._pairs, self._objects = panel, image, made, pairs, objects
        self._whole = whole
        self._at = -1
        self.new_button = button("New labels", self.new, "Make a labels layer on the image, and take the brush")
        place = button("Next place", self.next_place, f"Go to the next place where labels help most (key {NEXT_KEY})")
        onto = button("Lay on image", self.lay, "Give the labels the place and pixel size of their image")
        self.classes = [self._class(*each) for each in enumerate(zip(NAMES, KEYS, COLOURS, strict=True))]
        self.object = button("Object +1", self.next_object, "Paint the next object, with a number of its own (key A)")
        self._rows = row(*self.classes[:2], self.object), row(*self.classes[2:])
        self.extend([row(self.new_button, place, onto), *self._rows])
        self.refresh()

    def _class(self, number: int, what: tuple[str, str, str]) -> PushButton:
        name, key, colour = what
        found = button(name, lambda: self.paint(BACKGROUND + number), f"Paint {name} (key {key})")
        native: Any = found.native
        native.setStyleSheet(f"QPushButton {{ border-left: 10px solid {colour}; }}")
        return found

    def refresh(self) -> None:
        """Show the buttons of classes, or that of objects, where there is something to paint on."""
        layer = self.layer
        objects = self._objects()
        for at, control in enumerate(self.classes):
            control.text = name_of(layer, BACKGROUND + at) or NAMES[at]
            control.visible = not self._whole() if not at else not objects
            control.enabled = layer is not None
        self.object.visible, self.object.enabled = objects, layer is not None
        self._rows[1].visible = not objects

    @property
    def layer(self) -> "Labels | None":
        """The labels layer that is painted on: the selected one of those that are learnt from or were made here.

        Else the first that is learnt from, else the last that was made here: a result that has just come, and is
        selected, is none of them. Where there is none at all, any that is selected.
        """
        from napari.layers import Labels

        layers = self._panel.viewer.layers
        active, labels = layers.selection.active, [i for i in layers if isinstance(i, Labels) and i.editable]
        learnt = [layer for _, layer in self._pairs() if layer in labels]
        known = [*learnt, *(layer for layer in reversed(labels) if "painted" in layer.metadata.get(OURS, {}))]
        if active in labels and (active in known or not known):
            return active
        return known[0] if known else None

    def new(self) -> None:
        """Make a labels layer on the image's grid, select it, and take the brush."""
        image = self._image()
        if image is None:
            self._panel.fail("open an image first; labels are painted on it")
            return
        try:
            layer = new_labels(self._panel.viewer, image, self._objects())
        except UnetError as error:
            self._panel.fail(str(error))
            return
        for number, key in enumerate(KEYS):
            layer.bind_key(key, lambda _, value=BACKGROUND + number: self._key(value))
        layer.bind_key(NEXT_KEY, lambda _: self.next_place())
        self._made(image, layer)
        self.paint(BACKGROUND + 1)
        self.refresh()

    def _key(self, value: int) -> None:
        if self._objects() and value > BACKGROUND:
            self.next_object()
        elif value > BACKGROUND or not self._whole():
            self.paint(value)

    def paint(self, value: int) -> None:
        """Take the brush, with a label."""
        layer = self.layer
        if layer is None:
            self._panel.fail("press New labels first")
            return
        self._panel.viewer.layers.selection = {layer}
        layer.mode, layer.selected_label = "paint", value

    def next_object(self) -> None:
        """Take the brush, with a number that no object has."""
        layer = self.layer
        if layer is not None:
            highest = int(np.max(layer.data if not layer.multiscale else layer.data[0]))
            self.paint(max(highest, BACKGROUND) + 1)

    def lay(self) -> None:
        """Give all labels that are learnt from the place of their image in the viewer."""
        for image, labels in self._pairs():
            if image is None or labels is None or labels is image:
                continue
            axes, place = _grid(image)
            if len(axes) == labels.ndim:
                labels.rotate, labels.shear = np.eye(labels.ndim), np.eye(labels.ndim)
                for field, value in place.items():
                    setattr(labels, field, value)
                self._panel.status.value = f"{labels.name} lies on {image.name} now"

    def next_place(self) -> None:
        """Go to the next place where labels help most."""
        from napari.layers import Points

        viewer = self._panel.viewer
        found = [layer for layer in viewer.layers if isinstance(layer, Points) and layer.name.endswith(LATELY)]
        if not found or not len(found[-1].data):
            self._panel.inform(
                "no places are known yet: tick Uncertainty below Output in Segment, and run; then they are shown"
            )
            return
        places = found[-1]
        self._at = (self._at + 1) % len(places.data)
        go_to(viewer, np.asarray(places.data_to_world(places.data[self._at])))
        self._panel.status.value = f"place {self._at + 1} of {len(places.data)} to annotate"


def name_of(layer: Any, value: int) -> str:
    """Return what a class of a layer is called: by somebody, else by the button that paints it; nothing for others."""
    about, at = getattr(layer, "metadata", {}).get(OURS, {}), value - BACKGROUND
    made_here = about.get("painted") is not None and not about["painted"]["objects"] and 0 <= at < len(NAMES)
    return str(about.get(CALLED, {}).get(value) or (NAMES[at] if made_here else ""))


def go_to(viewer: Any, point: np.ndarray) -> None:
    """Show a position of the world in the middle of the view, whatever is shown of it."""
    dims = viewer.dims
    ahead = dims.ndim - len(point)
    for axis, value in enumerate(point):
        if axis + ahead not in dims.displayed:
            dims.set_point(axis + ahead, float(value))
    camera = getattr(viewer, "scene", viewer).camera  # the viewer itself has it before napari 0.9
    shown = [float(point[axis - ahead]) if axis >= ahead else 0.0 for axis in dims.displayed]
    camera.center = (0.0,) * (3 - len(shown)) + tuple(shown)


def new_labels(viewer: Any, image: Any, objects: bool) -> "Labels":
    """Return a new, empty labels layer on the grid of an image, which can be painted on."""
    from napari.utils import DirectLabelColormap

    order, shown = _grid(image)
    sizes = dict(zip(usual_axes(image), levels_of(image)[0], strict=True))
    shape = tuple(sizes[a] for a in order)
    kind = np.dtype(np.uint16 if objects else np.uint8)
    data = np.zeros(shape, kind) if math.prod(shape) * kind.itemsize <= IN_MEMORY else _on_disk(image, shape, kind)
    more: dict[str, Any] = {}
    if not objects:
        colours: dict[int | None, Any] = {BACKGROUND + i: colour for i, colour in enumerate(COLOURS)}
        more["colormap"] = DirectLabelColormap(color_dict=colours | {None: "magenta", 0: "transparent"})
    layer = viewer.add_labels(data, name=f"{image.name} labels", **shown, **more)
    layer.metadata = {**layer.metadata, OURS: {"painted": {"background": BACKGROUND, "objects": objects}}}
    layer.brush_size = BRUSH
    found: Labels = layer
    return found


def painted_colours(labels: Any) -> dict[str, Any]:
    """Return the colours of classes that were painted here, background clear; nothing for other labels."""
    from napari.utils import DirectLabelColormap

    painted = getattr(labels, "metadata", {}).get(OURS, {}).get("painted")
    if painted is None or painted["objects"]:
        return {}
    colours = {**labels.colormap.color_dict, painted["background"]: "transparent"}
    return {"colormap": DirectLabelColormap(color_dict=colours)}


def _grid(image: Any) -> tuple[str, dict[str, Any]]:
    """Return the axes of labels on an image, and what makes their layer lie on it."""
    axes = usual_axes(image)
    place = Place.of(image, axes, Source(image, axes).stack())
    keep = [i for i, a in enumerate(place.order) if a != "c"]
    shown = place.shown()
    square = np.ix_([*keep, len(place.order)], [*keep, len(place.order)])
    found = {name: tuple(value[i] for i in keep) for name, value in shown.items() if name != "affine"}
    return place.order.replace("c", ""), found | {"affine": shown["affine"][square]}


def _on_disk(image: Any, shape: tuple[int, ...], kind: np.dtype[Any]) -> Any:
    """Return an array in a file beside the results of an image, of which only what is painted takes room."""
    import zarr

    folder = Preferences.read().results_beside(path_of(image))
    folder.mkdir(parents=True, exist_ok=True)
    base, number = f"{image.name}-labels".replace("/", "_"), 1
    while (path := folder / f"{base}{f'-{number}' if number > 1 else ''}.zarr").exists():
        number += 1
    chunks = tuple(min(n, 1 if at < len(shape) - 2 else 512) for at, n in enumerate(shape))
    return zarr.create_array(path, shape=shape, chunks=chunks, dtype=kind)
