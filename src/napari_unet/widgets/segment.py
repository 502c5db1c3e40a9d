"""Segment: run a model on an open layer, and see the labels fill in."""

import contextlib
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, LineEdit
from qtpy.QtWidgets import QApplication, QFileDialog

from ..cards import Entry
from ..errors import UnetError, UsageError
from ..events import Progress
from ..files import following
from ..inference import PredictConfig
from ..process.remote import Remote
from . import runs, snippets, speed
from .away import Writing
from .chain import Chain
from .choice import ModelChoice
from .diameter import DiameterForm
from .groups import RunSettings
from .image_form import ImageForm
from .jobs import Ended, Worker, duration, quiet
from .layers import where_seen
from .live import Live
from .outcome import Outcome
from .panel import Panel, as_said_here, button, field, row, text
from .part import PartForm
from .preferences import Preferences, models_changed
from .results import PreviewLayer, ResultLayer, found_in
from .runs import Look, Request
from .source import path_of

if TYPE_CHECKING:
    import napari

SHARED = ("device", "precision", "memory")  # their defaults are the plugin's preferences
SETTLE = 300  # milliseconds without a change before something is made of it
WAKING, ESTIMATING = "PyTorch is being loaded in the background …", "Finding out what a run will take …"

INSIDE = "The image holds labels of this name already; give another Name below Output, or tick Overwrite."


class SegmentWidget(Panel):
    """Run a model on an open layer."""

    def __init__(self, napari_viewer: "napari.Viewer") -> None:
        super().__init__(napari_viewer)
        self._look: Look | None = None
        self._checking: Worker | None = None
        self._result: ResultLayer | None = None
        self._preview = PreviewLayer(napari_viewer, self._looked)
        self._settle, self._moved = (quiet(self.native, SETTLE, then) for then in (self._check, self._follow))
        self._root = Path()
        self._awake = False  # whether PyTorch has been loaded
        self._left: tuple[Path, ResultLayer] | None = None  # a run that was stopped: its group, and what it showed
        self._build()
        self.form.renewed.connect(self._suggest)
        self.form.altered.connect(self._settle_soon)
        self.model.changed.connect(self._fill)
        for changed in (self.cascade, self.out, self.settings, self.diameter, self.part):
            changed.changed.connect(self._settle_soon)
        camera = getattr(napari_viewer, "scene", napari_viewer).camera  # the viewer itself has it before napari 0.9
        for signal in (camera.events, napari_viewer.dims.events.point, napari_viewer.dims.events.order):
            self.listen(signal, self._look_soon)
        self.live.changed.connect(lambda on: self.show_preview() if on else self._preview.stop())
        self.listen(models_changed, self.reset_choices)
        self.reset_choices()
        self.form.take(self.image.value)

    def _settle_soon(self, *_: Any) -> None:
        self._look = None
        self.settings.suit(self.cascade.last, self.axes.value)
        self.another.visible = self.cascade.last is not None and self.cascade.last.task == "diffuse"
        self._settle.start()

    def _look_soon(self) -> None:
        if self.live.value:
            self._moved.start()

    def gone(self) -> None:
        """Leave what is running, and listen no more."""
        super().gone()
        self.form.forget()
        self.models.forget()
        self._preview.abandon()
        if self._checking is not None:
            self._checking.abandon()

    def _build(self) -> None:
        """Make the controls."""
        preferences = Preferences.read()
        self.form = ImageForm(self)
        self.image, self.axes, self.channel = self.form.image, self.form.axes, self.form.channel
        self.size, self.note = self.form.size, self.form.note
        self.models = ModelChoice(self)
        self.model, self.about = self.models.box, self.models.about
        self.cascade = Chain(self.models)
        self.preflight = text("")
        self.diameter = DiameterForm(lambda: getattr(self._preview.layer, "data", None), self.fail)
        self.part = PartForm(self, self.form)
        self.out = LineEdit(tooltip="OME-Zarr to write, or to resume")
        self.settings = RunSettings(own=("region",), **{name: getattr(preferences, name) for name in SHARED})
        self.probabilities = self.settings["probabilities"]
        self.preview = button("Preview", self.show_preview, "The result in the current view, as Run writes it")
        self.another = button(
            "Another sample", self.show_another, "Preview another image that this may be: the next seed"
        )
        self.live = CheckBox(text="Live", value=False, tooltip="Update the preview when you pan, zoom or move a slider")
        self.seams = button("Seam check", self.check_seams, "Predict a sample on two grids, and compare")
        self.bring = button(
            "Import a model…", self.models.ask_import, "Make a model of a zoo package, nnU-Net's plans.json, or weights"
        )
        self.run = button("Run", self.start, "Write the result of the whole image, from where you look outward")
        self.cancel = button("Cancel", self.stop, "Stop; what is done is kept, and Resume continues from it")
        self.outcome = Outcome(self)
        self.extend(
            [
                self.form,
                self.models.field,
                self.about,
                self.cascade,
                self.note,
                self.diameter,
                self.part,
                field("result", self.out, button("…", self._choose_out, "Choose where the result goes")),
                self.outcome,
                *self.settings.widgets,
                row(self.seams, self.bring),
                row(button("Copy as Python", self.copy_python), button("Copy as command", self.copy_command)),
            ]
        )
        self.pinned.extend(
            [
                self.preflight,
                row(self.preview, self.another, self.live),
                row(self.run, self.cancel),
                self.progress,
                self.status,
            ]
        )
        self.add_below()

    # What is chosen

    @property
    def entry(self) -> Entry | None:
        """The chosen model's card."""
        return self.models.entry

    def _choose_out(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self.native, "Result", self.out.value, "OME-Zarr (*.ome.zarr)")
        if path:
            self.out.value = path

    def _suggest(self) -> None:
        """Offer the models in order for the image, and the one that suits it best unless the user chose one."""
        layer = self.image.value
        if layer is not None:
            with contextlib.suppress(UnetError):
                self.models.suit(self.form.source)
        self._fill()

    def _fill(self, *_: Any) -> None:
        """Fill the form for another image or model."""
        layer, entry = self.image.value, self.entry
        self.models.say()
        self.cascade.follow(self.model.value)
        self.form.suit(entry)
        self.diameter.suit(entry)
        self._look = None
        self.preflight.value = ""
        self.enable()
        if layer is not None and entry is not None:
            name = re.sub(r"[^\w.-]+", "_", f"{layer.name}-{entry.name}").strip("._") or "result"
            self.out.value = str(Preferences.read().results_beside(path_of(layer)) / f"{name}.ome.zarr")
        self._settle_soon()

    def request(self, *, near: bool = False) -> Request:
        """Return what the form asks for.

        Parameters
        ----------
        near : bool
            Whether it is to begin at the viewed position.

        Raises
        ------
        UsageError, DataError
            Where something of it cannot be.
        """
        layer, entry = self.image.value, self.entry
        if layer is None or entry is None:
            raise UsageError("choose an image and a model first")
        source = self.form.source
        taken: dict[str, Any] = {"resample": self.size.value.resample, "diameter": self.diameter.chosen()}
        taken["region"] = self.part.chosen()
        out = Path(self.out.value).expanduser()
        models = (entry.path, *self.cascade.folders)
        found = Request(source, entry.channels, models, out, PredictConfig(**self.settings.chosen(), **taken))
        if not near:
            return found
        return dataclasses.replace(
            found, near=where_seen(self.viewer, layer, source.axes, source.stack(entry.channels))
        )

    # Before the run

    def _check(self) -> None:
        """Say what the run will take; the process that is asked has all loaded then, before the first preview."""
        if self.busy:
            return
        if self._checking is not None:
            self._checking.cancel()
        if self.image.value is None or self.entry is None:
            self._checking = Worker(lambda: Remote(speed.warm, brief=True).events(), lambda _: None, self._woken)
        else:
            try:
                request = self.request()
            except (UnetError, ValueError) as error:
                self.preflight.value = as_said_here(str(error))
                return
            self._checking = Worker(lambda: runs.check(request), lambda _: None, self._checked)
        self.preflight.value = self.preflight.value or (ESTIMATING if self._awake else WAKING)
        self._checking.start()

    def _woken(self, _: Ended | None = None) -> None:
        """Take the sign away: PyTorch is there, or what needs it comes first."""
        self._awake = True
        if self.preflight.value in (WAKING, ESTIMATING):
            self.preflight.value = ""

    def _checked(self, how: Ended) -> None:
        found = how.result
        if how.cancelled or self.busy:
            return
        if found is None:
            self.preflight.value = as_said_here(how.error)
            return
        self._awake = True
        takes, needed = found
        if takes.taken and not self.settings["overwrite"].value:  # an earlier result stays as it is
            self.run.text = "Run"
            if self.settings["in_source"].value:
                self.preflight.value = INSIDE
            else:
                self.out.value = str(following(Path(self.out.value)))
            return
        time = "" if needed is None else f"Takes about {duration(needed)}. "
        self.preflight.value = as_said_here(f"{time}{takes}")
        self.run.text = "Resume" if takes.state == "unfinished" else "Run"

    def enable(self) -> None:
        """Enable the buttons that can be used now."""
        ready = self.image.value is not None and self.entry is not None
        for control in (self.run, self.seams):
            control.enabled = ready and not self.busy
        self.bring.enabled = not self.busy
        self.preview.enabled = self.another.enabled = ready
        self.cancel.enabled = self.busy
        self.outcome.refresh()

    def check_seams(self) -> None:
        """Predict a sample on two grids, and say how much differs."""
        self._begin(runs.seams, self._advanced, self._compared)

    def _compared(self, how: Ended) -> None:
        self.ended(how)
        if how.result is not None:
            self.status.value = str(how.result)

    def _begin(
        self, work: Callable[[Request], Any], on_events: Callable[[list[Any]], None], on_end: Callable[[Ended], None]
    ) -> Request | None:
        """Start a piece of work on what the form asks for."""
        try:
            request = self.request(near=True)
        except UnetError as error:
            self.fail(str(error))
            return None
        self.begin(Worker(lambda: work(request), on_events, on_end))
        return request

    def _advanced(self, events: list[Any]) -> None:
        said = [event for event in events if isinstance(event, Progress)]
        if said:
            self.advance(said[-1])

    # The run

    def start(self) -> None:
        """Run the model, or go on with a run that was stopped."""
        self._preview.stop()
        if self._checking is not None:
            self._checking.cancel()
        self._woken()
        request = self._begin(runs.segment, self._heard, self._ran)
        if request is not None:
            if self._left is not None and self._left[0] == request.root:
                self._left[1].remove()
            name = f"{request.source.layer.name} {self.models.entries[request.models[0]].name}"
            self._result, self._left = ResultLayer(self.viewer, request.source, name, request.models[-1]), None
            self._root = request.root

    def stop(self) -> None:
        """Cancel; what is done is kept."""
        if self.work is not None:
            self.work.cancel()
            self.status.value = "stopping …"

    def _heard(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Writing):
                self._root = event.root
            elif isinstance(event, Live) and self._result is not None:
                self._result.open(event)
        self._advanced(events)
        if self._result is not None:
            self._result.refresh()

    def _ran(self, how: Ended) -> None:
        """Show the finished result in the place of the layer that filled in."""
        self.ended(how)
        result = self._result
        if result is None:
            return
        if how.cancelled:
            self.status.value = "stopped; what is done is kept, Resume goes on"
        self._settle.start()  # what the next run would do
        if how.result is None:
            result.refresh(always=True)
            self._left = self._root, result
        elif result.removed:
            self.inform(f"done; its layer was removed meanwhile: the result is in {how.result.group}")
        else:
            result.finish(how.result)
            self.live.value = False
            self._preview.remove()
            gone = "" if result.source.layer in self.viewer.layers else "; the layer of its image was removed meanwhile"
            self.status.value = f"done: {found_in(how.result)} in {self.taken}{gone}"
            self.outcome.choose(result.layer)

    # The viewed part

    def show_preview(self) -> None:
        """Show the result of the part that is viewed."""
        try:
            request = self.request()
            if self._look is None or not self._look.fits(request):
                self._look = Look(request)
            self.preview.text = "Preview …"
            if self._checking is not None and self._checking.running:
                self._checking.cancel()  # what a run takes is said later: the same process makes the preview
            self._preview.show(self._look)
        except UnetError as error:
            self._looked(Ended(error=str(error)))

    def show_another(self) -> None:
        """Preview the sample of the next seed."""
        seed = self.settings["seed"]
        seed.value = str((int(seed.value) if seed.value.strip().isdigit() else 0) + 1)
        self.show_preview()

    def _looked(self, how: Ended) -> None:
        if not self._preview.running:
            self.preview.text = "Preview"
            if self.preflight.value in (WAKING, ESTIMATING):  # it was not found out yet
                self._awake = self._awake or not how.error
                self.preflight.value = ESTIMATING if self._awake else WAKING
                self._settle.start()
        if how.error:
            self.fail(how.error)

    def _follow(self) -> None:
        if self.live.value and self.image.value is not None and not self.busy:
            self.show_preview()

    # To be pasted elsewhere

    def copy_python(self) -> None:
        """Copy the run as Python."""
        self._copy(snippets.python)

    def copy_command(self) -> None:
        """Copy the run as a command for the shell."""
        self._copy(snippets.command)

    def _copy(self, written: Callable[[Request], str]) -> None:
        try:
            found = written(self.request())
        except UnetError as error:
            self.fail(str(error))
            return
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(found)
        self.status.value = f"copied:\n{found}"
