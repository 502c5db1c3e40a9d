"""What the classes are called: a field for each label, in its colour; names stay with the labels they are of."""

from collections.abc import Sequence
from typing import Any

from magicgui.widgets import Container, LineEdit, Widget
from psygnal import Signal

from .paint import CALLED, name_of
from .panel import field
from .source import OURS

MOST = 12  # classes that have a field; more would fill the form
BESIDE = 2  # fields in a row
EDGE = 8  # pixels of a label's colour beside its field


class ClassNames(Container[Widget]):
    """Fields for the names of classes; `renamed` tells that one was kept."""

    renamed = Signal()

    def __init__(self) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 0, 0)
        self.fields = [
            LineEdit(tooltip="What this class is called, in the model and in its results") for _ in range(MOST)
        ]
        self._rows = [field("" if at else "names", *self.fields[at : at + BESIDE]) for at in range(0, MOST, BESIDE)]
        self.extend(self._rows)
        self._layers: list[Any] = []
        self._values: list[int] = []
        for at, control in enumerate(self.fields):
            control.changed.connect(lambda written, at=at: self._keep(at, written))
        self.show_of([], [])

    def show_of(self, layers: Sequence[Any], values: Sequence[int]) -> None:
        """Show a field for each of these labels, with what it is called."""
        self._layers, self._values = list(layers), list(values) if len(values) <= MOST else []
        for at, control in enumerate(self.fields):
            control.visible = at < len(self._values)
            if at >= len(self._values):
                continue
            value, native = self._values[at], control.native
            with control.changed.blocked():
                control.value = self.called(value)
            native.setPlaceholderText(f"label {value}")
            native.setAccessibleName(f"name of label {value}")
            red, green, blue = (round(255 * part) for part in self._layers[0].get_color(value)[:3])
            native.setStyleSheet(f"QLineEdit {{ border-left: {EDGE}px solid rgb({red}, {green}, {blue}); }}")
        for number, each in enumerate(self._rows):
            each.visible = number * BESIDE < len(self._values)
        self.visible = bool(self._values)

    def _keep(self, at: int, written: str) -> None:
        """Keep a name with all layers that have the label."""
        for layer in self._layers:
            about = layer.metadata.get(OURS, {})
            called = {**about.get(CALLED, {}), self._values[at]: written.strip()}
            layer.metadata = {**layer.metadata, OURS: {**about, CALLED: {v: n for v, n in called.items() if n}}}
        self.renamed.emit()

    def called(self, value: int) -> str:
        """Return what a label is called, by the first layer that says it; nothing where none does."""
        return next(filter(None, (name_of(layer, value) for layer in self._layers)), "")

    def given(self) -> dict[int, str]:
        """Return the names of those labels that have one."""
        return {value: name for value in self._values if (name := self.called(value))}
