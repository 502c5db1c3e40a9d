"""A plate as a heat map: its wells by row and column, coloured by what was counted in their fields."""

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import QModelIndex, QRect, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QImage, QKeyEvent, QPainter, QPalette, QPen, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ..summary import FOREGROUND, OBJECTS, Row
from .panel import plain_tip

COLOURS = "viridis"  # rises evenly in brightness, for colour-blind people and in print too
FAILED = "#D55E00"  # Okabe and Ito's vermilion, as in the table
ALL, SIZE = "all fields", "voxels per object"
TALL, LETTERS = 26, 8  # pixels of a row, and points of its text: "1.2k" fits in one of 12 columns of a dock
LEAST = 8  # pixels of a column: 24 of them, 384 wells, fit in a dock
BAR = (80, 10)  # pixels of the bar beside the ends of the scale
DARK = 0.5  # of full brightness; text on what is darker is white
SOON = 150  # milliseconds: many rows that come at once are drawn once
LETTER, NUMBER = re.compile(r"[A-Z]{1,2}"), re.compile(r"[0-9]{1,3}")
SHADE, STATE = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1  # of a cell: 0 to 1, and whether a field failed


class PlateMap(QWidget):
    """The wells of a plate, each in the colour of what was counted in its fields.

    `chosen` tells the file of a field: the first of a well that is clicked, or opened with Enter; again, the next one.
    """

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.plates, self.values, self.fields = (_choice(name) for name in ("Plate", "Coloured by", "Field"))
        self.wells = _Wells()
        self._ends, self._bar = (QLabel(), QLabel()), QLabel()
        self._rows: dict[str, Row] = {}
        self._timer = QTimer(self, singleShot=True, interval=SOON)
        self._timer.timeout.connect(self.draw)
        self._bar.setPixmap(_scale())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(_beside(self.plates, self.values, self.fields))
        layout.addWidget(self.wells)
        layout.addLayout(_beside(self._ends[0], self._bar, self._ends[1], None))
        for box in (self.plates, self.values, self.fields):
            box.activated.connect(self.draw)
        self.wells.opened.connect(self._open)

    def put(self, row: Row) -> None:
        """Take the newest of a field; images of no plate are left out."""
        if row.well:
            self._rows[row.file] = row
            self._timer.start()

    def clear(self) -> None:
        """Take all away."""
        self._rows = {}
        self.draw()

    def draw(self) -> None:
        """Show what is known."""
        _fill(self.plates, dict.fromkeys(_place(file)[0] for file in self._rows))
        plate = {
            _place(file)[1:]: row for file, row in self._rows.items() if _place(file)[0] == self.plates.currentText()
        }
        _fill(self.values, _measures(plate.values()))
        _fill(self.fields, [ALL, *dict.fromkeys(field for _, _, field in plate)])
        self.plates.setVisible(self.plates.count() > 1)
        rows, columns = _whole({row for row, _, _ in plate}, LETTER), _whole({column for _, column, _ in plate}, NUMBER)
        wells: dict[tuple[str, str], list[Row]] = {}
        for (row, column, _), found in plate.items():
            if self.fields.currentText() in (ALL, found.field):
                wells.setdefault((row, column), []).append(found)
        self._show(rows, columns, wells)

    def _show(self, rows: list[str], columns: list[str], wells: dict[tuple[str, str], list[Row]]) -> None:
        """Draw the wells, and the ends of the scale."""
        measure = self.values.currentText()
        means = {place: _mean(found, measure) for place, found in wells.items()}
        known = [mean for mean in means.values() if mean is not None]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        for label, end in zip(self._ends, (low, high), strict=True):
            label.setText(_short(end) if known else "")
        self._bar.setVisible(bool(known))
        self.wells.lay(rows, columns)
        for (row, column), found in wells.items():
            item, mean = QTableWidgetItem(), means[row, column]
            failed = sum(each.state == "failed" for each in found)
            if mean is not None:
                item.setText(_short(mean, 2) + ("!" if failed else ""))
                item.setData(SHADE, (mean - low) / (high - low) if high > low else 0.5)
            elif failed:
                item.setText("!")
            item.setData(STATE, "failed" if failed else "")
            said = _told(row, column, found, measure, mean)
            item.setToolTip(plain_tip(f"{said}. A click shows image and result; another one, those of the next field."))
            item.setData(Qt.ItemDataRole.AccessibleTextRole, said)
            item.setData(Qt.ItemDataRole.AccessibleDescriptionRole, "\n".join(each.file for each in found))
            self.wells.setItem(rows.index(row), columns.index(column), item)

    def _open(self, row: int, column: int) -> None:
        """Tell which field of a well is to be shown."""
        item = self.wells.item(row, column)
        files = item.data(Qt.ItemDataRole.AccessibleDescriptionRole).split("\n") if item is not None else []
        if files:
            self.chosen.emit(files[self.wells.times % len(files)])


class _Wells(QTableWidget):
    """The cells; `opened` tells row and column, `times` how often before without another in between."""

    opened = Signal(int, int)

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.times, self._last = 0, (-1, -1)
        self.setAccessibleName("Plate: wells by row and column")
        self.setItemDelegate(_Cells(self))
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTabKeyNavigation(False)  # the next control is reached from here
        font = self.font()
        font.setPointSize(LETTERS)
        for part in (self, self.horizontalHeader(), self.verticalHeader()):
            if part is not None:
                part.setFont(font)
        for head in (self.horizontalHeader(), self.verticalHeader()):
            if head is not None:
                head.setMinimumSectionSize(LEAST)
                head.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
                head.setDefaultAlignment(Qt.AlignmentFlag.AlignCenter)
        self.cellClicked.connect(self._clicked)

    def lay(self, rows: list[str], columns: list[str]) -> None:
        """Begin with empty wells."""
        at = self.currentRow(), self.currentColumn()
        self.clear()
        self.setRowCount(len(rows))
        self.setColumnCount(len(columns))
        self.setVerticalHeaderLabels(rows)
        self.setHorizontalHeaderLabels(columns)
        self.setCurrentCell(*at)
        self.setMinimumHeight(TALL * (len(rows) + 1))

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 - Qt's name
        """Open the current well with Enter or the space bar."""
        if event is not None and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._clicked(self.currentRow(), self.currentColumn())
            return
        super().keyPressEvent(event)

    def _clicked(self, row: int, column: int) -> None:
        self.times = self.times + 1 if (row, column) == self._last else 0
        self._last = row, column
        self.opened.emit(row, column)


class _Cells(QStyledItemDelegate):
    """Paints a cell in its own colour, whatever the theme of the window does to what is selected."""

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Paint a well."""
        if painter is None:
            return
        area: QRect = option.rect.adjusted(1, 1, -1, -1)
        shade, text, plain = index.data(SHADE), index.data(Qt.ItemDataRole.DisplayRole) or "", option.palette
        colour, ink = QColor(0, 0, 0, 0), plain.color(QPalette.ColorRole.Text)
        if shade is not None:
            colour = QColor.fromRgbF(*map(float, ensure_colormap(COLOURS).map([shade])[0]))
            ink = QColor("white" if colour.lightnessF() < DARK and colour.greenF() < DARK else "black")
        painter.save()
        painter.fillRect(area, colour)
        if index.data(STATE) is not None:
            edge = QColor(FAILED) if index.data(STATE) == "failed" else plain.color(QPalette.ColorRole.Mid)
            painter.setPen(QPen(edge, 1))
            painter.drawRect(area)
        painter.setPen(ink)
        if option.fontMetrics.horizontalAdvance(text) <= area.width():
            painter.drawText(area, Qt.AlignmentFlag.AlignCenter, text)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.setPen(QPen(plain.color(QPalette.ColorRole.Text), 2))
            painter.drawRect(area)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:  # noqa: N802 - Qt's name
        """Ask for no room of its own."""
        return QSize(LEAST, TALL)


def _place(file: str) -> tuple[str, str, str, str]:
    """Return plate, row, column and field of a file in a plate: ``screen.zarr/A/1/0``."""
    plate, row, column, field = file.rsplit("/", 3)
    return plate, row, column, field


def _measures(rows: Iterable[Row]) -> list[str]:
    """Return what wells can be coloured by, as it was counted."""
    found = [name for name in dict.fromkeys(name for row in rows for name in row.counts) if name != "background"]
    return [*found, SIZE] if {OBJECTS, FOREGROUND} <= set(found) else found


def _value(row: Row, measure: str) -> float | None:
    """Return what was counted in a field; None where it was not."""
    if row.state not in ("done", "skipped"):
        return None
    if measure == SIZE:
        objects = row.counts.get(OBJECTS, 0)
        return row.counts.get(FOREGROUND, 0) / objects if objects else None
    return row.counts.get(measure)


def _mean(fields: list[Row], measure: str) -> float | None:
    """Return the mean over the fields of a well in which it was counted: one that failed is no empty one."""
    known = [value for value in (_value(row, measure) for row in fields) if value is not None]
    return sum(known) / len(known) if known else None


def _told(row: str, column: str, fields: list[Row], measure: str, mean: float | None) -> str:
    """Say in words what a well holds."""
    states = [each.state for each in fields]
    parts = [f"{states.count(state)} {state}" for state in ("failed", "waiting") if state in states]
    done = len(fields) - sum(states.count(state) for state in ("failed", "waiting"))
    if mean is not None:
        parts.insert(0, f"{_short(mean)} {measure}" + (f", mean of {done} fields" if done > 1 else ""))
    return f"{row}{column}: {'; '.join(parts) or 'nothing was counted'}"


def _whole(names: set[str], kind: re.Pattern[str]) -> list[str]:
    """Return the names of rows or columns in their order, those that no image has among them: A to H of A and H."""
    if kind is NUMBER and all(kind.fullmatch(name) for name in names):
        given = {int(name): name for name in names}
        return [given.get(i, str(i)) for i in range(1 if 0 not in given else 0, max(given, default=0) + 1)]
    if kind is LETTER and all(kind.fullmatch(name) for name in names):
        letters = [chr(65 + i) for i in range(26)]
        every = letters + [one + other for one in letters for other in letters]
        return every[: max((every.index(name) + 1 for name in names), default=0)]
    return sorted(names)


def _short(value: float, digits: int = 3) -> str:
    """Return a number with three digits, or two and the whole ones before them: 132, 1.25, 45k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{_short(value / unit, digits)}{letter}"
    whole = abs(value) >= 10 ** (digits - 1) or math.isclose(value, round(value))
    return str(round(value)) if whole else f"{value:.{digits}g}"


def _scale() -> QPixmap:
    """Return the colours from the least to the most."""
    width, height = BAR
    colours = (255 * ensure_colormap(COLOURS).map(np.linspace(0, 1, width))[None, :, :3]).astype(np.uint8)
    data = np.ascontiguousarray(np.repeat(colours, height, 0))
    return QPixmap.fromImage(QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy())


def _choice(name: str) -> QComboBox:
    box = QComboBox()
    box.setAccessibleName(name)
    box.setToolTip(name)
    return box


def _fill(box: QComboBox, names: Iterable[str]) -> None:
    """Give a box its choices; what is chosen stays while it is there."""
    wanted, chosen = list(names), box.currentText()
    if wanted != [box.itemText(i) for i in range(box.count())]:
        box.clear()
        box.addItems(wanted)
        box.setCurrentText(chosen if chosen in wanted else next(iter(wanted), ""))


def _beside(*widgets: Any) -> QHBoxLayout:
    """Lay widgets side by side; None is room."""
    layout = QHBoxLayout()
    for widget in widgets:
        layout.addStretch(1) if widget is None else layout.addWidget(widget)
    return layout
