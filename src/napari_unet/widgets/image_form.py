"""What is segmented: an open layer, its axes, one of its channels, and what is done about its pixel size."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, Container, LineEdit, Widget
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu

from ..cards import Entry
from ..errors import DataError, UnetError, UsageError
from .files import reading
from .jobs import Ended, Worker
from .panel import Panel, as_said_here, button, field, text
from .pixels import AS_IS, choices, understood
from .source import Source, channels_of, known_axes, say_axes, usual_axes

if TYPE_CHECKING:
    from .. import Stack

ADDRESS = "https://, s3:// or gs://, of an image or a plate's field:"
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
        self._reading: Worker | None = None
        self._wrong = ""  # what is wrong with the axes
        self.image = ComboBox(
            choices=self._images,
            tooltip="The open image that is run; for a model that makes images for labels, these",
        )
        self.axes = LineEdit(
            tooltip="What the image's dimensions are, in its order: letters such as czyx, or names: channel, z, y, x"
        )
        self.channel = ComboBox(choices=lambda _: self._channels, tooltip="The channel that the model sees")
        self.size = ComboBox(choices=lambda _: self._sizes, tooltip="What is done where image and model differ")
        self.note = text("")
        self._rows = field("channel", self.channel), field("pixel size", self.size)
        self.opening = button(
            "…", self._ask, "Open an image with its axes and pixel size; of a large one what is seen is read"
        )
        self.extend([field("image", self.image, self.opening), field("axes", self.axes), *self._rows])
        self.image.changed.connect(self.take)
        self.axes.changed.connect(self._take_axes)
        for control in (self.channel, self.size):
            control.changed.connect(self._alter)
        self._fill()

    def _images(self, _: Any) -> list[Any]:
        """Return the layers that the model can be run on: images, or the labels that it makes an image for."""
        from napari.layers import Image, Labels

        wanted = Labels if self._for_labels else Image
        return [layer for layer in self._panel.viewer.layers if isinstance(layer, wanted)]

    @property
    def _for_labels(self) -> bool:
        return self._entry is not None and self._entry.given == "labels"

    def _ask(self) -> None:
        """Ask where an image is, and open it with this plugin's reader, which napari's own would take for an array."""
        at: Any = self.opening.native
        menu = QMenu(at)
        asks: dict[str, Callable[[], str]] = {
            "A file…": lambda: QFileDialog.getOpenFileName(at, "Image")[0],
            "An OME-Zarr folder…": lambda: QFileDialog.getExistingDirectory(at, "OME-Zarr"),
            "An address…": lambda: QInputDialog.getText(at, "OME-Zarr at an address", ADDRESS)[0],
        }
        for name, ask in asks.items():
            menu.addAction(name).triggered.connect(lambda _, ask=ask: self.open(ask()))
        menu.popup(at.mapToGlobal(at.rect().bottomLeft()))

    def open(self, path: str) -> None:
        """Open an image, and choose it; nothing where nothing is given."""
        path = path.strip()
        if not path:
            return
        self._panel.status.value = f"opening {path} …"
        self._reading = Worker(lambda: reading(path), lambda _: None, self._opened).start()

    def _opened(self, how: Ended) -> None:
        """Show what was opened."""
        from napari.layers import Image, Layer

        if how.result is None:
            self._panel.fail(how.error)
            return
        self._panel.status.value = ""
        added = [self._panel.viewer.add_layer(Layer.create(*layer)) for layer in how.result]
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

    def opened(self) -> "tuple[Source, Stack]":
        """Return the layer as it is taken, and what is opened of it for the model.

        Raises
        ------
        UsageError, DataError
            Where there is none, or its axes cannot be.
        """
        if self.layer is None:
            raise UsageError("open an image first")
        source = self.source
        return source, source.stack(1 if self._entry is None else self._entry.channels)

    def forget(self) -> None:
        """Listen to no layer any more."""
        self._watch(None)
        if self._reading is not None:
            self._reading.abandon()

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
        before = self._for_labels
        self._entry = entry
        if self._for_labels != before:
            self.image.reset_choices()
        self._fill()

    def _fill(self) -> None:
        layer, entry = self.layer, self._entry
        self._channels, sizes = [], [AS_IS]
        if layer is not None and not self._wrong:
            axes = usual_axes(layer)
            names = channels_of(layer, axes)
            if len(names) > 1 and (entry is None or entry.channels == 1):
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
            nothing = "Open labels of objects first, or paint some." if self._for_labels else "Open an image first."
            self.note.value = self._wrong if layer is not None else nothing
            return
        axes = usual_axes(layer)
        lines = [understood(layer, axes, entry, self.size.value)]
        if known_axes(layer) is None and layer.ndim in OTHERS:
            lines.insert(0, f"Nothing names its axes: taken as {axes}; type others, such as {OTHERS[layer.ndim]}.")
        self.note.value = "\n".join(lines)

    def _alter(self) -> None:
        self._say()
        self.altered.emit()
