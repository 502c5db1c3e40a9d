"""What is learnt from: pairs of layers, an image and its labels each; or folders of files of the same names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox, Container, Label, LineEdit, Widget
from psygnal import Signal

from ..errors import UnetError, UsageError
from .choice import ReadingForm
from .panel import Panel, as_said_here, button, column, field, folder, path_in, plain_tip, row, shrink, text
from .source import channels_of, say_axes, usual_axes
from .training_request import paired

LESS_WIDTH = 28  # pixels: one sign
ALL: tuple[str, int | None] = ("all of them", None)
TIPS = (
    "Image",
    "Its labels, or what it should become",
    "The class of each object, if they have classes: labels with one value inside each of them",
)
LAYERS, FOLDERS = "layers", "folders"


class PairsForm(Container[Widget]):
    """Rows of an image and its labels, or two folders.

    Parameters
    ----------
    panel : Panel
        Whose viewer's layers are chosen from.
    hidden : callable
        Returns a layer that is none to learn from.

    Attributes
    ----------
    altered : signal
        Something else is learnt from.
    """

    altered = Signal()

    def __init__(self, panel: Panel, hidden: Callable[[], Any]) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 0, 0)
        self._panel, self._hidden = panel, hidden
        self.of_images, self.learns_objects = False, False
        self.origin = ComboBox(choices=[LAYERS, FOLDERS], tooltip="Open layers, or folders of files")
        self._target, self._classed = Label(value="Labels"), Label(value="Classes of objects")
        self.heads = row(Label(value="Image"), self._target, self._classed)
        self.rows = column()
        self.more = button("Add another pair", self.add, "Learn from one more image and its labels")
        self.axes = LineEdit(tooltip="What the first image's dimensions are: letters such as czyx, or channel, z, y, x")
        self.wrong = text("")
        self.images, self.annotations = folder("Images"), folder("Their labels, of the same names")
        self.classes = folder("Class of each object, if they have classes: tables, or a folder of masks for each class")
        self._classes_row = field("object classes", self.classes)
        self.reading = ReadingForm()
        places = field("images", self.images), field("labels", self.annotations), self._classes_row
        self._folders = column(*places, self.reading.field)
        self._axes_row = field("axes", self.axes)
        self._channels: list[tuple[str, int | None]] = [ALL]
        self.channel = ComboBox(choices=lambda _: self._channels, tooltip="The channel that is learnt from")
        self._channel_row = field("channel", self.channel)
        self.extend(
            [
                field("learn from", self.origin),
                self.heads,
                self.rows,
                self._axes_row,
                self._channel_row,
                self.wrong,
                self.more,
                self._folders,
            ]
        )
        self.origin.changed.connect(self._turn)
        self.axes.changed.connect(self._take_axes)
        self.add()
        self._turn(LAYERS)

    def _layers(self, kind: str) -> list[Any]:
        from napari import layers

        wanted = {"image": layers.Image, "labels": layers.Labels}[kind]
        hidden = self._hidden()
        return [layer for layer in self._panel.viewer.layers if isinstance(layer, wanted) and layer is not hidden]

    def _turn(self, origin: str) -> None:
        self.heads.visible = self.rows.visible = self.more.visible = origin == LAYERS
        self._folders.visible = origin == FOLDERS
        self._show_axes()

    def aim(self, of_images: bool, learns_objects: bool = False) -> None:
        """Offer images in the place of labels for pairs of images, and classes beside the labels of objects."""
        self.of_images, self.learns_objects = of_images, learns_objects
        self._classes_row.visible = learns_objects
        self._target.value = "Target" if of_images else "Labels"
        for pair in self._pairs():
            pair[1].reset_choices()
        self._show_axes()

    def reset_choices(self, *_: Any) -> None:
        """Make all choices anew; classes are offered where there are labels that could hold them."""
        super().reset_choices()
        self._offer_classes()

    def _offer_classes(self) -> None:
        """Show where classes of objects are chosen: only beside other labels, as names need the room."""
        offered = self.learns_objects and len(self._layers("labels")) > 1
        self._classed.visible = offered
        for pair in self._pairs():
            pair[2].visible = offered

    def add(self) -> None:
        """Add a pair of an image and its labels."""
        image = ComboBox(choices=lambda _: self._layers("image"))
        labels = ComboBox(
            choices=lambda _: self._layers("image" if self.of_images else "labels"),
            nullable=True,
        )
        classes = ComboBox(
            choices=lambda _: self._layers("labels"),
            nullable=True,
        )
        pair = row(image, labels, classes)
        for control in (image, labels, classes):
            shrink(control)
            control.changed.connect(self._show_axes)
        less = button("-", lambda: self._take_away(pair), "Take the pair away")
        less.native.setFixedWidth(LESS_WIDTH)
        pair.append(less)
        self.rows.append(pair)
        self._show_axes()

    def _take_away(self, pair: Any) -> None:
        if len(self.rows) > 1:
            self.rows.remove(pair)
            self._show_axes()

    def learn_from(self, image: Any, labels: Any) -> None:
        """Choose two layers, in a row of their own where the others are taken."""
        self.origin.value = LAYERS
        free = [pair for pair in self._pairs() if pair[1].value is None or pair[0].value is image]
        if not free:
            self.add()
        pair = free[0] if free else self._pairs()[-1]
        pair[0].value, pair[1].value = image, labels

    def _pairs(self) -> list[Any]:
        return list(self.rows)

    @property
    def chosen(self) -> list[tuple[Any, Any]]:
        """The chosen layers, image and labels; labels may be None."""
        return [(pair[0].value, pair[1].value) for pair in self._pairs()] if self.origin.value == LAYERS else []

    @property
    def classes_of_objects(self) -> tuple[Any, ...] | Path | None:
        """Where the classes of objects are: a layer for each pair that is learnt from, or None; or a folder."""
        if not self.learns_objects:
            return None
        if self.origin.value == FOLDERS:
            return path_in(self.classes)
        return tuple(pair[2].value for pair in self._pairs() if pair[0].value is not None and pair[1].value is not None)

    def class_layers(self) -> list[Any]:
        """Return the labels layers of the classes of objects that are chosen."""
        found = self.classes_of_objects if self.origin.value == LAYERS else None
        return [layer for layer in found if layer is not None] if isinstance(found, tuple) else []

    def _show_axes(self, *_: Any) -> None:
        """Show the axes of the first image, and names that are cut off as tips."""
        self._offer_classes()
        for pair in self._pairs():
            for control, tip in zip(pair, TIPS, strict=False):
                control.tooltip = plain_tip(f"{tip}: {control.value.name}" if control.value is not None else tip)
        image = next((image for image, _ in self.chosen if image is not None), None)
        self._axes_row.visible = image is not None
        self.wrong.value = ""
        if image is not None:
            try:
                axes = usual_axes(image)
            except UnetError as error:
                axes, self.wrong.value = "", as_said_here(str(error))
            with self.axes.changed.blocked():
                self.axes.value = axes
        self.wrong.visible = bool(self.wrong.value)
        self._offer_channels(image)
        self.altered.emit()

    def _offer_channels(self, image: Any) -> None:
        """Let one be chosen of the channels of the first image; a model of one channel can learn from no more."""
        names = () if image is None or self.wrong.value else channels_of(image, usual_axes(image))
        self._channels = [ALL, *((name, number) for number, name in enumerate(names if len(names) > 1 else ()))]
        self.channel.reset_choices()
        self._channel_row.visible = len(self._channels) > 1

    def _take_axes(self, written: str) -> None:
        """Keep with all images of as many dimensions what was typed."""
        first = next((image for image, _ in self.chosen if image is not None), None)
        if first is None:
            return
        self.wrong.value = ""
        try:
            for image in {id(image): image for image, _ in self.chosen if image is not None}.values():
                if image.ndim == first.ndim:
                    say_axes(image, written)
        except UnetError as error:
            self.wrong.value = as_said_here(str(error))
        self.wrong.visible = bool(self.wrong.value)
        self._offer_channels(first)
        self.altered.emit()

    def pairs(self) -> tuple[Any, ...]:
        """Return the pairs of layers, or of paths.

        Raises
        ------
        UsageError
            Where there is none.
        """
        if self.wrong.value:
            raise UsageError(self.wrong.value)
        if self.origin.value == FOLDERS:
            images, labels = path_in(self.images), path_in(self.annotations)
            labels = labels or (images if self.of_images else None)
            if images is None or labels is None:
                raise UsageError("choose the folder of the images, and that of their labels")
            found: tuple[tuple[Path, Path], ...] = paired(images, labels)
            return found
        rows = [(image, image if labels is None and self.of_images else labels) for image, labels in self.chosen]
        both = tuple((image, labels) for image, labels in rows if image is not None and labels is not None)
        if not both:
            raise UsageError("choose an image and its labels; to make labels, press New labels and paint")
        return both
