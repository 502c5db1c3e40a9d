"""Batch: a model on every image of a folder, with a table of what happened to each."""

import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import LineEdit
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from ..errors import UnetError, UsageError
from ..events import Progress
from ..inference import PredictConfig
from ..process.remote import Remote
from ..sources.pairs import is_image
from ..sources.zarrmeta import below
from ..summary import BACKGROUND, OBJECTS, Files
from . import away
from .chain import Chain
from .choice import ModelChoice, ReadingForm
from .files import add_layers
from .groups import RunSettings
from .jobs import Ended, Worker, duration
from .meaning import CHANGES
from .montage import Montage, pictures
from .panel import Panel, as_said_here, button, counted, field, folder, path_in, place_in, plain_tip, row, text
from .plate import PlateMap
from .preferences import Preferences, models_changed

if TYPE_CHECKING:
    import napari

    from ..summary import Row

COLUMNS = ("file", "state", "result")
COLOURS = {"done": "#009E73", "skipped": "#56B4E9", "failed": "#D55E00"}
WIDTHS = (110, 60)  # pixels of the columns; the last one takes the rest, which is most of a dock
STEPS = 100  # of a file, in the bar of all files
ANY_AXES = "tczyx"  # of images that are not looked at yet
HEIGHT = 200  # pixels: about six rows; with what is above it, the form fits into a window 720 high


class BatchWidget(Panel):
    """Run a model on every image of a folder."""

    closing = "A batch is running; what is done is kept, and it can be resumed."
    working = "Segmenting a folder"

    def __init__(self, napari_viewer: "napari.Viewer") -> None:
        super().__init__(napari_viewer)
        preferences = Preferences.read()
        self.folder = folder("Folder of images; or an OME-Zarr image or plate, also at an https:// or s3:// address")
        self.pattern = LineEdit(tooltip="Take only what this matches, such as *.tif")
        self.axes = LineEdit(tooltip="Letters of tczyx, where the files do not say what their axes are")
        self.channel = LineEdit(tooltip="Take one channel: its number, from 0, or its name")
        self.reading = ReadingForm()
        for control, usual in ((self.pattern, "all"), (self.axes, "as the files say"), (self.channel, "all")):
            control.native.setPlaceholderText(usual)
        self.models = ModelChoice(self)
        self.model = self.models.box
        self.cascade = Chain(self.models)
        self.model.changed.connect(self.cascade.follow)
        self.out = folder("Folder for the results")
        shared = {name: getattr(preferences, name) for name in ("device", "precision", "memory")}
        self.settings = RunSettings({"Pixel size": ("resample", "diameter")}, **shared)
        for changed in (self.axes, self.cascade, self.settings):
            changed.changed.connect(self._suit)
        self.model.changed.connect(self._suit)
        self.run = button("Run", self.start, "What is done already with the same settings is skipped")
        self.cancel = button("Cancel", self.stop, "Stop; what is done is kept, and Run continues")
        self.show_button = button(
            "Show", self.show_chosen, "Show the chosen image with its result, as a double click does"
        )
        self.table, self.montage, self.plate, self.message = _table(), Montage(), PlateMap(), text("")
        self.looks = {
            name: button(name, partial(self.turn, name), tip)
            for name, tip in (
                ("Montage", "Small pictures of all results, to see the odd one"),
                ("Plate", "The wells of a plate, coloured by what was found in them"),
            )
        }
        self.looks["Plate"].enabled = False  # until images are known to lie in one
        self.montage.setVisible(False)
        self.plate.setVisible(False)
        self.table.itemDoubleClicked.connect(lambda _: self.show_chosen())
        self.table.itemSelectionChanged.connect(self._tell)
        self.montage.itemClicked.connect(lambda item: self._choose(self.montage.file_of(item)))
        self.montage.itemDoubleClicked.connect(lambda _: self.show_chosen())
        self.plate.chosen.connect(self._show_field)
        self.extend(
            [
                field("images", self.folder),
                field("pattern", self.pattern),
                self.models.field,
                self.cascade,
                field("results", self.out),
                field("axes", self.axes),
                field("channel", self.channel),
                self.reading.field,
                *self.settings.widgets,
                row(self.show_button, *self.looks.values()),
            ]
        )
        self.pinned.extend([row(self.run, self.cancel), self.progress, self.status])
        self.add_below(self.table, self.montage, self.plate, self.message.native)
        self._rows: dict[str, Row] = {}
        self._results = Path()
        self._images: Path | str = Path()  # what the names of files begin at; of what lies at an address, one too
        self._files = (0, 0)  # that are done, of so many
        self._part = 0.0  # of the file at work
        self._drawn: set[str] = set()  # files whose picture is in the montage
        self._drawing: Worker | None = None
        self._shown: list[Any] = []  # layers of the row that was shown last
        self._painted: set[Any] = set()  # those of which were changed by hand
        self.listen(models_changed, self.reset_choices)
        self.reset_choices()
        self._suit()
        self.enable()

    def _suit(self, *_: Any) -> None:
        """Show the settings that mean something for the model, and for what is known of the images."""
        self.settings.suit(self.cascade.last, self.axes.value or ANY_AXES)

    def enable(self) -> None:
        """Enable the buttons that can be used now."""
        self.run.enabled = not self.busy and self.model.value is not None
        self.cancel.enabled = self.busy

    def start(self) -> None:
        """Run the model on all files, or go on."""
        try:
            work = self._batch()
        except UnetError as error:
            self.fail(str(error))
            return
        self.table.setRowCount(0)
        self.montage.clear()
        self.plate.clear()
        self._rows, self._drawn, self._files, self._part = {}, set(), (0, 0), 0.0
        self.begin(Worker(work.events, self._heard, self._ran))

    def _batch(self) -> Remote:
        """Return the batch that the form asks for."""
        images, out = place_in(self.folder), path_in(self.out)
        if images is None or out is None:
            raise UsageError("choose the folder of the images, and one for the results")
        self._results, self._images = out, _base_of(images)
        config = PredictConfig(**self.settings.chosen())
        named = {"pattern": self.pattern, "axes": self.axes, "channel": self.channel}
        opening = {name: control.value.strip() or None for name, control in named.items()} | self.reading.chosen()
        return Remote(away.batch, images, (self.model.value, *self.cascade.folders), out, config, opening)

    def stop(self) -> None:
        """Cancel; what is done is kept."""
        if self.work is not None:
            self.work.cancel()
            self.status.value = "stopping …"

    def _heard(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Files):
                self._files, self._part = (event.done, event.total), 0.0
                for found in event.rows:
                    self._put(found)
        said = [event for event in events if isinstance(event, Progress)]
        if said:
            self._advance(said[-1])

    def _advance(self, event: Progress) -> None:
        """Show how far the whole folder is, and which file is at work."""
        done, total = self._files
        if event.stage == "note" or not total:  # the files are looked at first: the bar is of those that are done
            self.advance(dataclasses.replace(event, done=0, total=0))
            return
        if event.stage == "predict" and event.total:  # what comes after it, a check for one, does not take the bar back
            self._part = max(self._part, event.done / event.total)
        file = next((row.file for row in list(self._rows.values())[done : done + 1]), "")
        doing = f"{file}: {event.stage}" if file and not isinstance(event, Files) else event.message
        whole = Progress(round(STEPS * (done + self._part)), STEPS * total, "batch", as_said_here(doing))
        self.advance(whole, f"{done} of {total} files")

    def _put(self, found: "Row") -> None:
        """Write the row of a file."""
        known = list(self._rows)
        at = known.index(found.file) if found.file in self._rows else self.table.rowCount()
        plain = as_said_here(found.message.replace(f"{self._images}{os.sep}", ""))
        self._rows[found.file] = found = dataclasses.replace(found, message=plain)
        if at == self.table.rowCount():
            self.table.insertRow(at)
        for column, value in enumerate((found.file, found.state, _said(found))):
            item = QTableWidgetItem(value)
            item.setToolTip(plain_tip("\n".join(filter(None, (value, found.message)))))
            if column == 1 and found.state in COLOURS:
                item.setForeground(QColor(COLOURS[found.state]))
            self.table.setItem(at, column, item)
        self.plate.put(found)
        self.looks["Plate"].enabled = self.looks["Plate"].enabled or bool(found.well)
        if found.state != "waiting":
            self.table.scrollToItem(self.table.item(at, 0))
            self._draw()

    def _tell(self) -> None:
        """Show the whole message of the chosen file."""
        found = self._chosen
        self.message.value = f"{found.file}: {_said(found)}" if found is not None and found.message else ""

    @property
    def _chosen(self) -> "Row | None":
        at = self.table.currentRow()
        return list(self._rows.values())[at] if 0 <= at < len(self._rows) else None

    def _place_of(self, file: str) -> Path | str:
        """Return where an image lies, by its name in the table."""
        return self._images / file if isinstance(self._images, Path) else below(self._images, file)

    def _choose(self, file: str) -> None:
        self.table.selectRow(list(self._rows).index(file))

    def turn(self, name: str) -> None:
        """Show the montage, or the wells of a plate, in the place of the table; or the table again."""
        name = "Table" if self.looks[name].text == "Table" else name
        self.table.setVisible(name == "Table")
        self.montage.setVisible(name == "Montage")
        self.plate.setVisible(name == "Plate")
        for each, look in self.looks.items():
            look.text = "Table" if each == name else each
        self._draw()

    def _show_field(self, file: str) -> None:
        """Show a field of a well that was clicked."""
        self._choose(file)
        self.show_chosen()

    def _draw(self) -> None:
        """Make the pictures that are still missing, where they are looked at."""
        done = [row for row in self._rows.values() if row.state in ("done", "skipped") and row.result]
        self._name()
        missing = [(row.file, self._results / row.result) for row in done if row.file not in self._drawn]
        if not missing or not self.montage.isVisibleTo(self.native) or (self._drawing and self._drawing.running):
            return
        self._drawn |= {file for file, _ in missing}
        self._drawing = Worker(lambda: pictures(missing), self._paste, lambda _: self._draw())
        self._drawing.start()

    def _paste(self, events: list[Any]) -> None:
        for event in events:
            self.montage.put(event.file, event.data)

    def _name(self) -> None:
        """Write below the pictures how many objects there are, or voxels of what is found."""
        self.montage.name({file: row.found for file, row in self._rows.items() if row.counts})

    def _ran(self, how: Ended) -> None:
        self.ended(how)
        if how.cancelled:
            self.status.value = "stopped; what is done is kept, Run goes on"
        elif how.result is not None:
            states = [found.state for found in how.result]
            parts = [f"{states.count(state)} {state}" for state in COLOURS if state in states]
            self.status.value = f"{', '.join(parts)}; the table is in {self._results / 'summary.csv'}"

    def show_chosen(self) -> None:
        """Show the chosen image with its result in the place of what was shown before, but for what was painted on."""
        found = self._chosen
        if found is None:
            self.status.value = "choose a file in the table first"
            return
        for layer in self._shown:
            if layer in self.viewer.layers and layer not in self._painted:
                self.viewer.layers.remove(layer)
        self._shown = []
        image = self._place_of(found.file)
        self._show(image)
        if found.result and self._results / found.result != image:
            self._show(self._results / found.result, labels_only=True)
        if not found.result:
            self.status.value = f"{found.file} has no result: {_said(found)}"

    def _show(self, path: Path | str, labels_only: bool = False) -> None:
        """Add what lies at a path, and hear whether somebody paints on it."""
        from napari.layers import Labels

        try:
            added = add_layers(self.viewer, path, labels_only=labels_only)
        except (UnetError, OSError) as error:
            self.fail(str(error))
            return
        self._shown += added
        for layer in added:
            for name in CHANGES if isinstance(layer, Labels) else ():
                getattr(layer.events, name).connect(partial(self._keep, layer))

    def _keep(self, layer: Any, _: Any = None) -> None:
        """Keep a layer that was painted on: the next row that is shown does not take it away."""
        self._painted.add(layer)

    def gone(self) -> None:
        """Leave what is running, and listen no more."""
        super().gone()
        if self._drawing is not None:
            self._drawing.abandon()


def _base_of(images: Path | str) -> Path | str:
    """Return what the names of images begin at: their folder, or what holds the one image or plate."""
    if isinstance(images, str):
        return images.rstrip("/").rpartition("/")[0]
    return images.parent if images.is_file() or is_image(images) else images


def _said(found: "Row") -> str:
    """Return what came out of a file, in a line: counts and time, else what is wrong with it."""
    if found.state == "waiting":
        return ""
    counts = ", ".join(
        counted(count, "object") if name == OBJECTS else f"{name} {count:,}"
        for name, count in found.counts.items()
        if name != BACKGROUND
    )
    parts = [counts, duration(found.seconds) if found.state == "done" else "", found.message]
    return "; ".join(filter(None, parts))


def _table() -> QTableWidget:
    table = QTableWidget(0, len(COLUMNS))
    table.setHorizontalHeaderLabels(list(COLUMNS))
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setMinimumHeight(HEIGHT)
    head, side = table.horizontalHeader(), table.verticalHeader()
    if head is not None and side is not None:
        head.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        head.setStretchLastSection(True)
        for column, width in enumerate(WIDTHS):
            table.setColumnWidth(column, width)
        side.hide()
    return table
