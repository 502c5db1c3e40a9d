"""Loss and scores of a training, drawn while it runs."""

import math
from collections.abc import Mapping
from typing import Any

from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

try:
    import pyqtgraph
except ImportError:  # napari's own installer of plugins takes no extras
    pyqtgraph = None

COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
HEIGHT = 140
REMEDY = "pyqtgraph draws curves here; it is not installed: pip install pyqtgraph"


class Curves(QWidget):
    """Two plots over epochs: losses above, validation scores below; without pyqtgraph, the newest values as text."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._plots: dict[str, Any] = {}
        self._lines: dict[str, Any] = {}
        self._text = QLabel(REMEDY)
        self._text.setWordWrap(True)
        self.points: dict[str, tuple[list[int], list[float]]] = {}
        if pyqtgraph is None:
            layout.addWidget(self._text)
        else:
            self._draw(layout)

    def _draw(self, layout: QVBoxLayout) -> None:
        for kind in ("loss", "score"):
            plot = pyqtgraph.PlotWidget(background=None)
            plot.setFixedHeight(HEIGHT)
            plot.setLabel("left", kind)
            plot.getAxis("left").enableAutoSIPrefix(False)
            plot.addLegend(offset=(-5, 5 if kind == "loss" else -5), labelTextSize="8pt")
            plot.setMouseEnabled(False, False)
            layout.addWidget(plot)
            self._plots[kind] = plot
        self._plots["score"].setLabel("bottom", "epoch")

    def clear(self) -> None:
        """Begin anew."""
        for plot in self._plots.values():
            plot.clear()
        self._lines, self.points = {}, {}
        self._text.setText(REMEDY)

    def add(self, epoch: int, losses: Mapping[str, float | None], scores: Mapping[str, float]) -> None:
        """Add the values of an epoch; what is none or not finite is left out."""
        for kind, values in (("loss", losses), ("score", scores)):
            for name, value in values.items():
                if value is None or not math.isfinite(value):
                    continue
                at, found = self.points.setdefault(name, ([], []))
                at.append(epoch)
                found.append(value)
                if self._plots:
                    self._line(kind, name).setData(at, found)
        newest = ", ".join(f"{name} {found[-1]:.4g}" for name, (_, found) in self.points.items())
        self._text.setText(f"epoch {epoch}: {newest}\n{REMEDY}")

    def _line(self, kind: str, name: str) -> Any:
        if name not in self._lines:
            used = sum(1 for line in self._plots[kind].listDataItems())
            pen = pyqtgraph.mkPen(COLOURS[used % len(COLOURS)], width=2)
            self._lines[name] = self._plots[kind].plot(name=name, pen=pen, symbol="o", symbolSize=4)
        return self._lines[name]
