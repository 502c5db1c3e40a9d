"""Loss and scores of a training, drawn while it runs."""

import math
from collections.abc import Mapping
from itertools import cycle

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QVBoxLayout, QWidget

# Okabe and Ito's colours, which colour-blind people tell apart, bright enough for a dark window.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00")
HEIGHT = 140  # pixels: two plots and the controls above them fit on a screen of 900
TICKS = 4  # per axis, about: more would touch each other at this height
SPACING = 8  # pixels from one epoch to the next below which their dots would hide the line
Points = dict[str, tuple[list[int], list[float]]]


class Curves(QWidget):
    """Two plots over epochs: losses above, validation scores below."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.plots = {kind: Plot(kind) for kind in ("loss", "score")}
        for plot in self.plots.values():
            layout.addWidget(plot)

    @property
    def points(self) -> Points:
        """Epochs and values of each curve, by its name."""
        return {name: found for plot in self.plots.values() for name, found in plot.points.items()}

    def clear(self) -> None:
        """Begin anew."""
        for plot in self.plots.values():
            plot.points.clear()
            plot.update()

    def add(self, epoch: int, losses: Mapping[str, float | None], scores: Mapping[str, float]) -> None:
        """Add the values of an epoch; what is none or not finite is left out."""
        for plot, values in zip(self.plots.values(), (losses, scores), strict=True):
            for name, value in values.items():
                if value is not None and math.isfinite(value):
                    epochs, found = plot.points.setdefault(name, ([], []))
                    epochs.append(epoch)
                    found.append(value)
            plot.update()


class Plot(QWidget):
    """Curves over epochs, each with its name and newest value above.

    Parameters
    ----------
    kind : str
        What the values are, written over their axis.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.points: Points = {}
        self.setFixedHeight(HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw axes and curves."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        metrics = painter.fontMetrics()
        line, left, right = metrics.height(), metrics.horizontalAdvance("0.00000"), metrics.horizontalAdvance("000")
        names = self._legend(metrics, left, self.width() - right)
        top = min(line + 4 + max((spot.y() for _, spot in names), default=0), HEIGHT / 2)
        inner = QRectF(left, top, self.width() - left - right, HEIGHT - top - line - 4)
        epochs = [epoch for at, _ in self.points.values() for epoch in at] or [0]
        values = [value for _, found in self.points.values() for value in found] or [0.0]
        across = Scale(min(epochs), max(epochs), inner.left(), inner.right(), whole=True)
        up = Scale(min(values), max(values), inner.bottom(), inner.top())
        self._draw_axes(painter, inner, across, up)
        for (said, place), (at, found), colour in zip(names, self.points.values(), cycle(COLOURS), strict=False):
            painter.setPen(QPen(QColor(colour), 2))
            painter.drawText(QRectF(place.x(), place.y(), self.width(), line), Qt.AlignmentFlag.AlignLeft, said)
            spots = [QPointF(across(x), up(y)) for x, y in zip(at, found, strict=True)]
            painter.drawPolyline(QPolygonF(spots))
            for spot in spots if len(spots) * SPACING < inner.width() else spots[-1:]:
                painter.drawEllipse(spot, 1.5, 1.5)
        painter.end()

    def _legend(self, metrics: QFontMetrics, left: int, end: int) -> list[tuple[str, QPointF]]:
        """Return what is written of each curve and where: in rows that end where the plot does."""
        found = []
        spot = QPointF(left, 0)
        for name, (_, values) in self.points.items():
            said = f"{name} {values[-1]:.3g}"
            width = metrics.horizontalAdvance(said)
            if spot.x() > left and spot.x() + width > end:
                spot = QPointF(left, spot.y() + metrics.height())
            found.append((said, spot))
            spot = QPointF(spot.x() + width + metrics.height(), spot.y())
        return found

    def _draw_axes(self, painter: QPainter, inner: QRectF, across: "Scale", up: "Scale") -> None:
        line = painter.fontMetrics().height()
        text = self.palette().color(self.foregroundRole())
        faint = QColor(text)
        faint.setAlphaF(0.25)
        right, middle = Qt.AlignmentFlag.AlignRight, Qt.AlignmentFlag.AlignHCenter
        for value in up.ticks() if self.points else []:
            y = up(value)
            painter.setPen(faint)
            painter.drawLine(QPointF(inner.left(), y), QPointF(inner.right(), y))
            painter.setPen(text)
            painter.drawText(QRectF(0, y - line / 2, inner.left() - 4, line), right, f"{value:.4g}")
        painter.setPen(text)
        painter.drawText(QRectF(0, 0, inner.left() - 4, line), right, self.kind)
        painter.drawLine(inner.bottomLeft(), inner.bottomRight())
        for value in across.ticks() if self.points else []:
            painter.drawText(QRectF(across(value) - 30, inner.bottom() + 2, 60, line), middle, f"{value:g}")
        if self.kind == "score":
            painter.drawText(QRectF(0, inner.bottom() + 2, inner.left() - 4, line), right, "epoch")


class Scale:
    """From values to pixels along one axis."""

    def __init__(self, low: float, high: float, start: float, end: float, whole: bool = False) -> None:
        step = max(high - low, abs(high) * 1e-6, 1e-12) / TICKS
        size = 10.0 ** math.floor(math.log10(step))
        self.step = next(size * times for times in (1, 2, 5, 10) if size * times >= step * (1 - 1e-9))
        self.step = max(self.step, 1.0) if whole else self.step
        self.low, self.high, self.start, self.end = low, max(high, low + self.step / 2), start, end

    def __call__(self, value: float) -> float:
        """Return where a value lies, in pixels."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values from the lowest to the highest: 1, 2 or 5 times a power of ten apart."""
        first = math.ceil(self.low / self.step - 1e-9)
        return [number * self.step for number in range(first, math.floor(self.high / self.step + 1e-9) + 1)]
