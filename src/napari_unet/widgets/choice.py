"""Choosing a model, one that ships, of the folder of own models, or of any other; and what is read of image files."""

from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, LineEdit, Widget
from qtpy.QtWidgets import QFileDialog

from ..cards import SHIPPED, Entry, models
from .panel import Panel, button, field
from .preferences import Preferences


class ModelChoice:
    """The models that can be chosen, and the control to choose with.

    Parameters
    ----------
    panel : Panel
        Tells what is wrong with a folder.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._others: list[Path] = []
        self.entries: dict[Path, Entry] = {}
        self.box = ComboBox(choices=self.choices)

    @property
    def field(self) -> Container[Widget]:
        """The control behind its name, and a button for any other folder."""
        return field("model", self.box, button("…", self._browse, "Choose the folder of a model"))

    def choices(self, _: Any = None) -> list[tuple[str, Path]]:
        """Return name and folder of each."""
        found = models(SHIPPED) | models(Preferences.read().models)
        found |= {str(path): Entry.read(path) for path in self._others}
        self.entries = {entry.path: entry for entry in found.values()}
        return [(name, entry.path) for name, entry in found.items()]

    def entry_of(self, folder: Path | None) -> Entry | None:
        """Return the card of a model that can be chosen."""
        return self.entries.get(folder) if folder else None

    def use(self, folder: Path) -> None:
        """Choose a model by its folder, wherever it lies."""
        try:
            Entry.read(folder)
        except (OSError, ValueError, KeyError, TypeError):
            self._panel.fail(f"{folder} is no model; a model is a folder with model.json")
            return
        if folder not in self.entries:
            self._others.append(folder)
        self.box.reset_choices()
        self.box.value = folder

    def _browse(self) -> None:
        at = str(Preferences.read().models)
        folder = QFileDialog.getExistingDirectory(self._panel.native, "Folder of a model", at)
        if folder:
            self.use(Path(folder))


class ReadingForm:
    """Which image of each file is read, and whether files that lack planes are; `field` holds the controls."""

    def __init__(self) -> None:
        self.series = LineEdit(tooltip="Image of files with several: its number, from 0, or its name; else the largest")
        self.allow_incomplete = CheckBox(
            text="Allow incomplete", tooltip="Read what is there of files that lack planes"
        )
        self.field = field("series", self.series, self.allow_incomplete)

    def chosen(self) -> dict[str, Any]:
        """Return it as `open_stack` takes it."""
        return {"series": self.series.value.strip() or None, "allow_incomplete": self.allow_incomplete.value}
