"""What can be done with a result: its table, measuring, correcting, learning from it, exporting it, its folder."""

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox, Container, Widget
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QLabel

from ..errors import UnetError, UsageError
from ..events import Progress
from ..process.remote import Remote
from ..sources.omezarr import CLASSES as CLASSES_OF
from ..sources.zarrays import open_own
from ..store.table import CLASS_COLUMNS
from . import corrections
from .jobs import Ended, Worker
from .panel import Panel, button, counted, field, plain_tip, row
from .source import OURS, Source, path_of, usual_axes
from .writing import known

if TYPE_CHECKING:
    from napari.layers import Labels

    from .. import Stack

NAME = "napari-unet-stacks"
LAYERS = "layers"  # what Train learns from
CLASSES, OBJECTS = "Classes (semantic)", "Objects (instances)"  # as Train names them
TABLE = ("napari", "Features table widget")  # napari's own
MOST_CLASSES = 12  # in the legend; more would fill the form
FILES = {
    "OME-Zarr (*.ome.zarr)": ".ome.zarr",
    "TIFF (*.tif)": ".tif",
    "Table (*.csv)": ".csv",
    "Outlines for ImageJ (*.zip)": ".zip",
    "Outlines for QuPath (*.geojson)": ".geojson",
}


class Outcome(Container[Widget]):
    """The result that is chosen, a legend of its classes, and what can be done with it.

    Parameters
    ----------
    panel : Panel
        That it belongs to: there its work is shown.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel, self._viewer = panel, panel.viewer
        self.box = ComboBox(choices=self._results, tooltip="The result that the buttons below are for")
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        self.table = button("Table", self.show_table, "The measurements of each object, or the sizes of classes")
        self.measure = button(
            "Measure", self.measure_objects, "Measure the objects as they are now, corrections included"
        )
        self.folder = button("Folder", self.open_folder, "Open the folder of the result")
        self.edit = button("Edit a copy", self.edit_copy, "Paint on a copy; the result itself stays as it is")
        self.learn = button(
            "Use as labels for training", self.use, "Choose image and labels in Train, to learn from corrections"
        )
        self.export = button(
            "Export…", self.ask_export, "Save as OME-Zarr, TIFF, a table, or outlines for ImageJ and QuPath"
        )
        self._buttons = (self.table, self.measure, self.folder, self.edit, self.learn, self.export)
        super().__init__(
            widgets=[
                field("finished", self.box),
                row(self.table, self.measure, self.folder),
                row(self.edit, self.export),
                row(self.learn),
            ],
            labels=False,
        )
        self.margins = (0, 0, 0, 0)
        self._native_layout.insertWidget(1, self.legend)
        self.box.changed.connect(self.refresh)
        self.refresh()

    @property
    def _native_layout(self) -> Any:
        native: Any = self.native
        return native.layout()

    def _results(self, _: Any) -> list[Any]:
        from napari.layers import Labels

        layers = [layer for layer in self._viewer.layers[::-1] if isinstance(layer, Labels)]
        return [i for i in layers if _about(i).get("path") and not str(_about(i)["path"]).endswith(CLASSES_OF)]

    @property
    def layer(self) -> "Labels | None":
        """The layer of the chosen result."""
        return self.box.value

    def choose(self, layer: Any) -> None:
        """Choose a result that has just come."""
        self.box.reset_choices()
        if layer in self.box.choices:
            self.box.value = layer
        self.refresh()

    def refresh(self) -> None:
        """Show what is known of the chosen result, and enable what can be done."""
        layer = self.layer
        self.visible = layer is not None
        for control in self._buttons:
            control.enabled = layer is not None and not (self._panel.busy and control in (self.measure, self.export))
        lines = list(legend(layer)) if layer is not None else []
        self.legend.setText("<br>".join(lines))
        self.legend.setVisible(bool(lines))
        if layer is not None:
            self.folder.tooltip = plain_tip(f"Open the folder of {_about(layer)['path']}")

    def show_table(self) -> None:
        """Show the table of the chosen result; measure first where nothing is measured yet."""
        layer = self.layer
        if layer is None:
            return
        if layer.features.empty:
            self.measure_objects(then=self.show_table)
            return
        self._viewer.layers.selection = {layer}
        try:
            dock, _ = self._viewer.window.add_plugin_dock_widget(*TABLE, tabify=True)
        except (KeyError, ValueError) as error:
            self._panel.fail(f"this napari has no table of features: {error}")
            return
        dock.show()
        dock.raise_()

    def measure_objects(self, then: Callable[[], None] | None = None) -> None:
        """Measure the objects as they are in the layer now."""
        layer = self.layer
        if layer is None:
            return

        classes, before = of_classes(layer), layer.features

        def done(how: Ended) -> None:
            self._panel.ended(how)
            if how.result is None:
                return
            if not how.result:
                self._panel.status.value = "there are no objects to be measured"
                return
            layer.features = _sizes(layer, how.result) if classes else _with_classes(how.result, before)
            self._panel.status.value = f"measured: {how_many(layer)}; see Table"
            self.refresh()
            if then is not None:
                then()

        def work() -> Remote:
            labels = labels_of(layer)
            if classes:
                return Remote(corrections.count, labels)
            return Remote(corrections.measure, labels, self._image_stack(layer))

        self._begin(work, done)

    def open_folder(self) -> None:
        """Show the folder of the result."""
        if self.layer is not None:
            place = _root(self.layer).parent
            self._panel.status.value = str(_root(self.layer))
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(place)))

    def edit_copy(self) -> None:
        """Add a copy that can be painted on: in memory where the result is, else on the disk beside it."""
        layer = self.layer
        if layer is None:
            return
        if isinstance(layer.data, np.ndarray):
            self._add_copy(layer, np.array(layer.data), _about(layer))
            return

        def done(how: Ended) -> None:
            self._panel.ended(how)
            if how.result is not None:
                path = Path(how.result)
                self._add_copy(layer, open_own(path, "r+"), _about(layer) | {"path": str(path.parent)})
                self._panel.status.value = f"what is painted goes into {path.parents[2]} at once"

        labels, root = labels_of(layer), _root(layer)
        self._begin(lambda: Remote(corrections.copy, labels, root, known({"colormap": layer.colormap})), done)

    def _add_copy(self, layer: "Labels", data: Any, about: dict[str, Any]) -> None:
        shown = {name: getattr(layer, name) for name in ("scale", "translate", "rotate", "shear", "affine", "units")}
        more: dict[str, Any] = {"features": layer.features} if not layer.features.empty else {}
        made = self._viewer.add_labels(
            data,
            name=f"{layer.name} edited",
            opacity=layer.opacity,
            colormap=layer.colormap,
            metadata={OURS: about},
            **shown,
            **more,
        )
        layer.visible = False
        self._viewer.layers.selection = {made}
        made.mode = "paint"
        self.choose(made)

    def use(self) -> None:
        """Choose image and labels in Train, which is opened where it is not."""
        layer = self.layer
        if layer is None:
            return
        image = image_of(self._viewer, layer)
        if image is None:
            self._panel.fail("open the image of this result first; labels are learnt together with their image")
            return
        dock, train = self._viewer.window.add_plugin_dock_widget(NAME, "Train", tabify=True)
        dock.show()
        dock.raise_()
        train.origin.value = LAYERS
        free = [pair for pair in train.pairs if pair[1].value is None or pair[0].value is image]
        if not free:
            train.add_pair()
        pair = free[0] if free else train.pairs[-1]
        pair[0].value, pair[1].value = image, layer
        channel = _about(layer).get("channel")
        one = channel is not None or "c" not in usual_axes(image)  # a model of one channel cannot go on from several
        model = Path(_about(layer).get("model", "")) if one else None
        kind = CLASSES if of_classes(layer) else OBJECTS
        for box, wanted in ((train.form.channel, channel), (train.start_from, model), (train.kind, kind)):
            if wanted in box.choices:
                box.value = wanted

    def ask_export(self) -> None:
        """Ask for a name, and save as the kind of file that its ending says."""
        layer = self.layer
        if layer is None:
            return
        start = _root(layer).with_name(f"{_root(layer).name.split('.')[0]}-labels.tif")
        path, kind = QFileDialog.getSaveFileName(self.native, "Export", str(start), ";;".join(FILES), "TIFF (*.tif)")
        if path:
            named = any(path.lower().endswith(ending) for ending in FILES.values())
            self.export_to(Path(path if named else path + FILES[kind]))

    def export_to(self, path: Path) -> None:
        """Save the chosen result, as it is in the layer now."""
        layer = self.layer

        def done(how: Ended) -> None:
            self._panel.ended(how)
            if how.result is not None:
                self._panel.status.value = f"exported: {how.result}"

        if layer is not None:
            attributes = known({"colormap": layer.colormap, "features": layer.features})
            self._begin(
                lambda: Remote(corrections.save, labels_of(layer), path, self._image_stack(layer), attributes), done
            )

    def _begin(self, remote: Callable[[], Remote], done: Callable[[Ended], None]) -> None:
        """Start a piece of work of the panel."""
        if self._panel.busy:
            self._panel.fail("wait for the end of what is running, or cancel it")
            return
        try:
            work = remote()
        except UnetError as error:
            self._panel.fail(str(error))
            return
        self._panel.begin(Worker(work.events, self._heard, done))

    def _heard(self, events: list[Any]) -> None:
        said = [event for event in events if isinstance(event, Progress)]
        if said:
            self._panel.advance(said[-1])

    def _image_stack(self, layer: "Labels") -> "Stack | None":
        image = image_of(self._viewer, layer)
        return None if image is None else Source(image, usual_axes(image)).stack()


def _about(layer: Any) -> dict[str, Any]:
    about = layer.metadata.get(OURS)
    return about if isinstance(about, dict) else {}


def _root(layer: Any) -> Path:
    """Return the OME-Zarr that the labels of a layer lie in."""
    path = Path(_about(layer)["path"])
    return path.parents[1] if path.parent.name == "labels" else path


def labels_of(layer: "Labels") -> "Stack":
    """Return labels as they are in a layer now.

    Raises
    ------
    UsageError
        Where nothing says what its dimensions are.
    """
    from ..sources import open_labels

    if layer.multiscale:
        return open_labels(_about(layer)["path"])
    axes = _about(layer).get("axes") or usual_axes(layer)
    if len(axes) != layer.ndim:
        raise UsageError(
            f"{layer.name} has {layer.ndim} dimensions and was made with {len(axes)}, {axes}; "
            "use the layer that the run made"
        )
    if "c" not in axes:
        return open_labels(layer, axes)
    from ..sources import open_stack

    return open_stack(layer, axes).select(c=0)  # the same in all channels


def image_of(viewer: Any, labels: "Labels") -> Any:
    """Return the layer of the image that labels were made of, else one of their size; None where there is none."""
    from napari.layers import Image

    images = [layer for layer in viewer.layers if isinstance(layer, Image)]
    about = _about(labels)
    made = [i for i in images if i.name == about.get("image name")]
    made += [i for i in images if about.get("image") and path_of(i) == about["image"]]
    alike = [i for i in images if _size(i)[-labels.ndim :] == _size(labels)[-i.ndim :]]
    return next(iter([*made, *alike]), None)


def _size(layer: Any) -> tuple[int, ...]:
    return tuple((layer.data[0] if layer.multiscale else layer.data).shape[: layer.ndim])


def _sizes(layer: "Labels", counts: dict[int, int]) -> Any:
    """Return the table of classes with their sizes as they are now."""
    found, stack = layer.features.copy(), labels_of(layer)
    values = found["index"] if "index" in found else range(len(found))
    unit = stack.values_along("x", "units")[0] or "pixel"
    found["voxels"] = [counts.get(int(value), 0) for value in values]
    found[f"size ({unit}^{len(stack.spatial)})"] = found["voxels"] * float(np.prod(stack.scale_along(stack.spatial)))
    return found


def of_classes(layer: "Labels") -> bool:
    """Whether the values of a layer are classes, and not objects, of which each may have one."""
    return "class" in layer.features and CLASS_COLUMNS[1] not in layer.features


def _with_classes(measured: dict[str, Any], before: Any) -> dict[str, Any]:
    """Return what was measured of objects with the classes that they had before, by their ids."""
    kept = [name for name in CLASS_COLUMNS if name in before]
    known = before.drop_duplicates("index").set_index("index") if kept else before
    none = {CLASS_COLUMNS[0]: "", CLASS_COLUMNS[1]: np.nan}  # of an object that was drawn since
    return measured | {name: known[name].reindex(measured["index"], fill_value=none[name]).tolist() for name in kept}


def how_many(layer: "Labels") -> str:
    """Say in a few words what the table of a layer holds."""
    if of_classes(layer):
        return f"{sum(map(bool, layer.features['class']))} classes"
    return counted(layer.features["index"].nunique(), "object")


def legend(layer: "Labels") -> Iterator[str]:
    """Yield a line for each class of labels, with its colour, as Qt's HTML; of objects how many each class has."""
    classes = layer.features.get("class")
    if classes is None:
        return
    if not of_classes(layer):
        counts = classes[classes.astype(bool)].value_counts()
        for name, count in list(counts.items())[:MOST_CLASSES]:
            yield f"{html.escape(str(name))}: {count:,} object{'s' * (count != 1)}"
        return
    values = layer.features.get("index", range(len(classes)))
    sizes = layer.features.get("voxels")
    whole = float(sizes.sum()) if sizes is not None else 0.0
    shown = [(value, name, at) for at, (value, name) in enumerate(zip(values, classes, strict=True)) if value and name]
    for value, name, at in shown[:MOST_CLASSES]:
        red, green, blue = (round(255 * part) for part in layer.get_color(int(value))[:3])
        share = f" {100 * float(sizes.iloc[at]) / whole:.3g} %" if sizes is not None and whole else ""
        yield f'<span style="color:#{red:02x}{green:02x}{blue:02x}">■</span> {html.escape(str(name))}{share}'
    if len(shown) > MOST_CLASSES:
        yield f"and {len(shown) - MOST_CLASSES} more"
