"""Choosing a model: one that ships, one in the folder of own models, or any other folder."""

from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox, Container, Widget
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
