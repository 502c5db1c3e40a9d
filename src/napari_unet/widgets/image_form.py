"""What is segmented: an open layer, its axes, one of its channels, and what is done about its pixel size."""

from typing import Any

from magicgui.widgets import ComboBox, Container, LineEdit, Widget
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog

from ..cards import Entry
from ..errors import DataError, UnetError
from .files import add_layers
from .panel import Panel, as_said_here, button, field, text
from .pixels import AS_IS, choices, understood
from .source import Source, known_axes, levels_of, say_axes, usual_axes

OTHERS = {3: "tyx or cyx", 4: "czyx or tcyx", 5: "tzcyx"}  # what images of so many dimensions are as well
PLACE = ("scale", "units", "translate", "axis_labels", "metadata")  # of a layer, what counts whenever it is changed


class ImageForm(Container[Widget]):
    """The image, and how it is taken.

    Parameters
    ----------
    panel : Panel
        Whose viewer's layers are chosen from.

    Attributes
    ----------
    altered : signal
        Something is taken otherwise.
    renewed : signal
        Another image, or other axes of it, so that another model may suit it.
    """

    altered, renewed = Signal(), Signal()

    def __init__(self, panel: Panel) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 0, 0)
        self._panel = panel
        self._sizes, self._channels = [AS_IS], list[tuple[str, int]]()
        self._entry: Entry | None = None
        self._watched: Any = None
        self._wrong = ""  # what is wrong with the axes
        self.image = ComboBox(choices=self._images, tooltip="The open image that is segmented")
        self.axes = LineEdit(
            tooltip="What the image's dimensions are, in its order: letters such as czyx, or names: channel, z, y, x"
        )
        self.channel = ComboBox(choices=lambda _: self._channels, tooltip="The channel that the model sees")
        self.size = ComboBox(choices=lambda _: self._sizes, tooltip="What is done where image and model differ")
        self.note = text("")
        self._rows = field("channel", self.channel), field("pixel size", self.size)
        opening = button(
            "…", self._open, "Open an image with its axes and pixel size; of a large one what is seen is read"
        )
        self.extend([field("image", self.image, opening), field("axes", self.axes), *self._rows])
        self.image.changed.connect(self.take)
        self.axes.changed.connect(self._take_axes)
        for control in (self.channel, self.size):
            control.changed.connect(self._alter)
        self._fill()

    def _images(self, _: Any) -> list[Any]:
        from napari.layers import Image

        return [layer for layer in self._panel.viewer.layers if isinstance(layer, Image)]

    def _open(self) -> None:
        """Ask for a file, and open it with this plugin's reader, which napari's own would take for a plain array."""
        path, _ = QFileDialog.getOpenFileName(self.native, "Image")
        if path:
            self.open(path)

    def open(self, path: str) -> None:
        """Open an image, and choose it."""
        from napari.layers import Image

        try:
            added = add_layers(self._panel.viewer, path)
        except (UnetError, OSError) as error:
            self._panel.fail(str(error))
            return
        images = [layer for layer in added if isinstance(layer, Image) and layer.visible]
        self.image.value = images[0] if images else self.image.value

    @property
    def layer(self) -> Any:
        """The chosen layer; None where there is none."""
        return self.image.value

    @property
    def source(self) -> Source:
        """The layer as it is taken.

        Raises
        ------
        DataError
            Where its axes cannot be.
        """
        if self._wrong:
            raise DataError(self._wrong)
        return Source(self.layer, usual_axes(self.layer), self.size.value.level, self.channel.value)

    def forget(self) -> None:
        """Listen to no layer any more."""
        self._watch(None)

    def _watch(self, layer: Any) -> None:
        """Hear of what is changed of a layer in the viewer."""
        for name in PLACE:
            if self._watched is not None:
                getattr(self._watched.events, name).disconnect(self._renew)
            if layer is not None:
                getattr(layer.events, name).connect(self._renew)
        self._watched = layer

    def take(self, layer: Any) -> None:
        """Take a layer that was chosen, by the user or because it is the only one."""
        self._watch(layer)
        self._renew()

    def _renew(self, *_: Any) -> None:
        """Show the layer as it is now."""
        self._wrong = ""
        if self.layer is not None:
            axes = ""
            try:
                axes = usual_axes(self.layer)
            except UnetError as error:
                self._wrong = as_said_here(str(error))
            with self.axes.changed.blocked():
                self.axes.value = axes
        self._fill()
        self.renewed.emit()

    def _take_axes(self, written: str) -> None:
        """Keep with the layer what was typed, and offer what follows from it."""
        if self.layer is None:
            return
        self._wrong = ""
        try:
            with self.layer.events.metadata.blocker(self._renew):  # what is typed is not written anew meanwhile
                say_axes(self.layer, written)
        except UnetError as error:
            self._wrong = as_said_here(str(error))
        self._fill()
        self.renewed.emit()

    def suit(self, entry: Entry | None) -> None:
        """Offer what there is for a model; what was chosen stays where it can."""
        self._entry = entry
        self._fill()

    def _fill(self) -> None:
        layer, entry = self.layer, self._entry
        self._channels, sizes = [], [AS_IS]
        if layer is not None and not self._wrong:
            axes = usual_axes(layer)
            count = 3 if layer.rgb else levels_of(layer)[0][axes.index("c")] if "c" in axes else 1
            names = ("red", "green", "blue") if layer.rgb else map(str, range(count))
            if count > 1 and (entry is None or entry.channels == 1):
                self._channels = [(name, number) for number, name in enumerate(names)]
            sizes = choices(layer, axes, entry) if entry is not None else sizes
        anew, self._sizes = sizes != self._sizes, sizes
        with self.channel.changed.blocked(), self.size.changed.blocked():
            self.channel.reset_choices()
            self.size.reset_choices()
            if anew:
                self.size.value = sizes[0]
        self._rows[0].visible = bool(self._channels)
        self._rows[1].visible = len(sizes) > 1 or sizes != [AS_IS]
        self._say()

    def _say(self) -> None:
        """Say what is taken for what, and what is done about the pixel size."""
        layer, entry = self.layer, self._entry
        if layer is None or entry is None or self._wrong:
            self.note.value = self._wrong if layer is not None else "Open an image first."
            return
        axes = usual_axes(layer)
        lines = [understood(layer, axes, entry, self.size.value)]
        if known_axes(layer) is None and layer.ndim in OTHERS:
            lines.insert(0, f"Nothing names its axes: taken as {axes}; type others, such as {OTHERS[layer.ndim]}.")
        self.note.value = "\n".join(lines)

    def _alter(self) -> None:
        self._say()
        self.altered.emit()
