"""Choosing the models that run on what another one gives: a cascade, as it grows."""

from pathlib import Path

from magicgui.widgets import ComboBox, Container, Widget

from ..cards import Entry
from .choice import ModelChoice
from .panel import field

NAMES = ("Second model", "Third model", "Fourth model")


class Chain(Container[Widget]):
    """The models after the first: one more can be chosen as long as the one before gives an image."""

    def __init__(self, models: ModelChoice) -> None:
        self._entry_of = models.entry_of
        self._boxes = [
            ComboBox(choices=models.choices, nullable=True, tooltip="Runs on the result of the model above, by blocks")
            for _ in NAMES
        ]
        self._fields = [field(name, box) for name, box in zip(NAMES, self._boxes, strict=True)]
        super().__init__(widgets=self._fields, labels=False)
        self.margins = (0, 0, 0, 0)
        self._first: Path | None = None
        for box in self._boxes:
            box.changed.connect(self._arrange)
        self._arrange()

    def follow(self, first: Path | None) -> None:
        """Offer what can run on what this model gives."""
        self._first = first
        for box in self._boxes:
            box.reset_choices()  # the first may be new
        self._arrange()

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the chosen models, in their order."""
        return tuple(box.value for box in self._boxes if box.value is not None)

    @property
    def last(self) -> Entry | None:
        """The card of the model whose result is written."""
        return self._entry_of((self._first, *self.folders)[-1])

    def _arrange(self) -> None:
        before = self._first
        for box, shown in zip(self._boxes, self._fields, strict=True):
            entry = self._entry_of(before)
            offered = entry is not None and entry.gives == "image"
            shown.visible = offered
            box.value = box.value if offered else None
            before = box.value
