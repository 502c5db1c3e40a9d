"""Batch: a model on every image of a folder, with a table of what happened to each."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import LineEdit
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from ..errors import UnetError, UsageError
from ..events import Progress
from ..inference import PredictConfig
from ..process.remote import Remote
from . import away
from .chain import Chain
from .choice import ModelChoice, ReadingForm
from .form import Form
from .jobs import Ended, Worker, duration
from .panel import Panel, button, field, folded, folder, path_in, plain_tip, row
from .preferences import Preferences, models_changed

if TYPE_CHECKING:
    import napari

    from ..summary import Row

COLUMNS = ("file", "state", "time", "counts", "message")
COLOURS = {"done": "#009E73", "skipped": "#56B4E9", "failed": "#D55E00"}
WIDTHS = (90, 60, 45, 110)  # pixels of the columns; the last one takes the rest
HEIGHT = 320  # pixels: about ten rows


class BatchWidget(Panel):
    """Run a model on every image of a folder."""

    closing = "A batch is running; what is done is kept, and it can be resumed."

    def __init__(self, napari_viewer: "napari.Viewer") -> None:
        super().__init__(napari_viewer)
        preferences = Preferences.read()
        self.folder = folder("Folder with images")
        self.pattern = LineEdit(tooltip="Take only what this matches, such as *.tif")
        self.axes = LineEdit(tooltip="Letters of tczyx, where the files do not say what their axes are")
        self.channel = LineEdit(tooltip="Take one channel: its number, from 0, or its name")
        self.reading = ReadingForm()
        self.models = ModelChoice(self)
        self.model = self.models.box
        self.cascade = Chain(self.models)
        self.model.changed.connect(self.cascade.follow)
        self.out = folder("Folder for the results")
        shared = {name: getattr(preferences, name) for name in ("device", "precision", "memory")}
        self.settings = Form(PredictConfig, **shared)
        self.run = button("Run", self.start, "What is done already with the same settings is skipped")
        self.cancel = button("Cancel", self.stop, "Stop; what is done is kept, and Run continues")
        self.show_button = button("Show", self.show_chosen, "Open the chosen file and its result")
        self.table = _table()
        self.table.itemDoubleClicked.connect(lambda _: self.show_chosen())
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
                *folded("Options", self.settings),
                row(self.run, self.cancel, self.show_button),
                self.progress,
                self.status,
            ]
        )
        self.add_below(self.table)
        self._rows: dict[str, Row] = {}
        self._results = Path()
        self.listen(models_changed, self.reset_choices)
        self.reset_choices()
        self.enable()

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
        self._rows = {}
        self.begin(Worker(work.events, self._heard, self._ran))

    def _batch(self) -> Remote:
        """Return the batch that the form asks for."""
        images, out = path_in(self.folder), path_in(self.out)
        if images is None or out is None:
            raise UsageError("choose the folder of the images, and one for the results")
        self._results = out
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
            for found in getattr(event, "rows", ()):
                self._put(found)
        said = [event for event in events if isinstance(event, Progress)]
        if said:
            self.advance(said[-1])

    def _put(self, found: "Row") -> None:
        """Write the row of a file."""
        known = list(self._rows)
        at = known.index(found.file) if found.file in self._rows else self.table.rowCount()
        self._rows[found.file] = found
        if at == self.table.rowCount():
            self.table.insertRow(at)
        counts = ", ".join(f"{name} {count:,}" for name, count in found.counts.items() if name != "background")
        time = "" if found.state == "waiting" else duration(found.seconds)
        for column, value in enumerate((found.file, found.state, time, counts, found.message)):
            item = QTableWidgetItem(value)
            item.setToolTip(plain_tip(found.message if found.state == "failed" else value))
            if column == 1 and found.state in COLOURS:
                item.setForeground(QColor(COLOURS[found.state]))
            self.table.setItem(at, column, item)
        self.table.scrollToItem(self.table.item(at, 0))

    def _ran(self, how: Ended) -> None:
        self.ended(how)
        if how.cancelled:
            self.status.value = "stopped; what is done is kept, Run goes on"
        elif how.result is not None:
            states = [found.state for found in how.result]
            parts = [f"{states.count(state)} {state}" for state in COLOURS if state in states]
            self.status.value = f"{', '.join(parts)}; the table is in {self._results / 'summary.csv'}"

    def show_chosen(self) -> None:
        """Open the chosen file and its result."""
        chosen = self.table.currentRow()
        if chosen < 0:
            return
        found = list(self._rows.values())[chosen]
        if not found.result:
            self.status.value = f"{found.file} has no result: {found.message or found.state}"
            return
        result = self._results / found.result
        try:
            self.viewer.open(str(result), plugin="napari-unet-stacks")
        except UnetError as error:
            self.fail(str(error))


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
