"""Choosing a model, one that ships, of the folder of own models, or of any other; and what is read of image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from magicgui.widgets import CheckBox, ComboBox, Container, LineEdit, Widget
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QFileDialog

from ..cards import SHIPPED, Entry, models
from ..intensities.contrast import Contrast
from ..process.remote import Remote
from . import away
from .jobs import Ended, Worker
from .panel import Panel, button, field, plain_tip, text
from .pixels import OTHER_LOOKS, Fit
from .preferences import Preferences, models_changed
from .source import Source
from .training_request import free_name

PACKAGES = "Package, weights, or plans.json of nnU-Net (*.zip *.yaml *.yml *.pth *.pt *.ckpt *.safetensors plans.json)"
NONE = " No model here has learnt from such images: train one on some, or fine-tune this one."
PICTURE, SIDE = "picture.png", 32  # pixels: a nucleus can still be told from a membrane


class ModelBox(ComboBox):
    """A list of models, each with its picture and its card as a tip."""

    models: "ModelChoice | None" = None  # whose cards are the tips; not yet there while it is made

    def reset_choices(self, *_: Any) -> None:
        """Read the list again, in its order; what is chosen stays while it is there."""
        native, chosen = cast("Any", self.native), self.value
        with self.changed.blocked():
            before = native.blockSignals(True)
            native.clear()  # items that are there would keep their place
            native.blockSignals(before)
            super().reset_choices()
            if chosen in self.choices:
                self.value = chosen
        native.setIconSize(QSize(SIDE, SIDE))
        folders: list[Any] = list(self.choices)
        for at, folder in enumerate(folders):
            picture = folder / PICTURE
            native.setItemIcon(at, QIcon(str(picture)) if picture.is_file() else QIcon())
            entry = self.models.entry_of(folder) if self.models else None
            if entry is not None:
                native.setItemData(at, plain_tip(entry.summary()), Qt.ItemDataRole.ToolTipRole)


class ModelChoice:
    """The models that can be chosen, and the control to choose with.

    What suits the image best is chosen, anew for each image, until the user has chosen a model himself.

    Parameters
    ----------
    panel : Panel
        Tells what is wrong with a folder.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._others: list[Path] = []
        self._fits: dict[Path, Fit] = {}
        self.entries: dict[Path, Entry] = {}
        self.picked = False  # by the user
        self._looking: Worker | None = None
        self.box = ModelBox(choices=self._ranked, tooltip="Models that suit the image come first")
        self.box.models = self
        self.box.reset_choices()
        self.about = text("")
        self.box.changed.connect(self._choose)

    @property
    def field(self) -> Container[Widget]:
        """The control behind its name, and a button for any other folder."""
        return field("model", self.box, button("…", self._browse, "Choose the folder of a model"))

    @property
    def entry(self) -> Entry | None:
        """The chosen model's card."""
        return self.entry_of(self.box.value)

    def choices(self, _: Any = None) -> list[tuple[str, Path]]:
        """Return name and folder of each."""
        found = models(SHIPPED) | models(Preferences.read().models)
        found |= {str(path): Entry.read(path) for path in self._others}
        self.entries = {entry.path: entry for entry in found.values()}
        return [(name, entry.path) for name, entry in found.items()]

    def _ranked(self, _: Any = None) -> list[tuple[str, Path]]:
        """Return name and folder of each, those that suit the image first, the others with what does not fit."""
        best = Fit(0, 0.0)
        found = sorted(self.choices(), key=lambda each: self._fits.get(each[1], best))
        whys = [self._fits.get(path, best).why for _, path in found]
        return [(f"{name} ({why})" if why else name, path) for (name, path), why in zip(found, whys, strict=True)]

    def suit(self, source: Source) -> None:
        """Put the models in order for an image, and choose the first unless the user has chosen one.

        Again, once it is known what the image looks like.
        """
        self.forget()
        self._order(source)
        self._looking = Worker(source.looks, lambda _: None, lambda how: self._seen(source, how)).start()

    def forget(self) -> None:
        """Look at no image any more."""
        if self._looking is not None:
            self._looking.abandon()

    def _seen(self, source: Source, how: Ended) -> None:
        before = self.box.value
        if how.result and not self._panel.busy:
            self._order(source, how.result)
            if self.box.value != before:
                self.box.changed.emit(self.box.value)
                self.picked = False

    def _order(self, source: Source, looks: Sequence[Contrast] = ()) -> None:
        self._fits = {path: Fit.of(source.layer, source.axes, entry, looks) for path, entry in self.entries.items()}
        chosen = self.box.value
        with self.box.changed.blocked():
            self.box.reset_choices()
            if self._fits and not (self.picked and chosen in self._fits):
                self.box.value, self.picked = min(self._fits, key=lambda path: self._fits[path]), False
        self.say()

    def _choose(self, folder: Path | None) -> None:
        self.picked = self._panel.by_hand and folder is not None  # else the one that was chosen is gone
        self.say()

    def say(self) -> None:
        """Say what the chosen model is for."""
        entry = self.entry
        self.about.value = entry.sentence if entry else "There is no model yet: train one, or choose its folder."
        fit = self._fits.get(self.box.value) if entry else None
        if fit and OTHER_LOOKS in fit.why and not any(each.like for each in self._fits.values()):
            self.about.value += NONE
        self.about.tooltip = plain_tip(entry.summary()) if entry else ""

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
        self.picked = True

    def ask_import(self) -> None:
        """Ask for a package of the BioImage Model Zoo, weights or a result of nnU-Net, and make a model of it."""
        path, _ = QFileDialog.getOpenFileName(self._panel.native, "Package of a model", "", PACKAGES)
        if path:
            self.bring(Path(path))

    def bring(self, package: Path) -> None:
        """Make a model of a package, in the folder of own models, and choose it."""
        panel = self._panel
        if panel.busy:
            panel.fail("wait for the end of what is running, or cancel it")
            return
        out = free_name(Preferences.read().models, _name_of(package))

        def done(how: Ended) -> None:
            panel.ended(how)
            if how.result is not None:
                models_changed.emit()
                self.use(out)
                panel.status.value = f"imported: {out}"

        def heard(events: list[Any]) -> None:
            panel.advance(events[-1])

        panel.begin(Worker(lambda: Remote(away.bring, package, out).events(), heard, done))

    def _browse(self) -> None:
        at = str(Preferences.read().models)
        folder = QFileDialog.getExistingDirectory(self._panel.native, "Folder of a model", at)
        if folder:
            self.use(Path(folder))


def _name_of(package: Path) -> str:
    """Return a name for what is imported: that of its file, or of its folder where all files have the same name."""
    if package.name == "plans.json":
        return package.parent.parent.name
    return package.parent.name if package.suffix in (".yaml", ".yml") else package.stem


class ReadingForm:
    """Which image of each file is read, and whether files that lack planes are; `field` holds the controls."""

    def __init__(self) -> None:
        self.series = LineEdit(tooltip="Image of files with several: its number, from 0, or its name; else the largest")
        self.series.native.setPlaceholderText("the largest")
        self.allow_incomplete = CheckBox(
            text="Allow incomplete", tooltip="Read what is there of files that lack planes"
        )
        self.field = field("series", self.series, self.allow_incomplete)

    def chosen(self) -> dict[str, Any]:
        """Return it as `open_stack` takes it."""
        return {"series": self.series.value.strip() or None, "allow_incomplete": self.allow_incomplete.value}
