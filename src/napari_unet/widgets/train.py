"""Train: learn from images and their labels in a process beside the window; watch, stop, correct, go on."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit
from qtpy.QtCore import QTimer

from ..cards import SHIPPED, models
from ..errors import UnetError, UsageError
from ..events import Epoch, Progress
from ..process.remote import Remote
from ..training.config import UPSCALED, TrainConfig
from ..training.job import View
from . import speed
from .closing import BACKGROUND, STAY, STOP
from .curves import Curves
from .groups import TrainSettings
from .jobs import Ended, Worker
from .live_view import LiveView
from .meaning import OBJECTS, Meaning
from .paint import PaintForm
from .pairs_form import LAYERS, PairsForm
from .panel import Panel, button, field, plain_tip, row, text
from .preferences import Preferences, models_changed
from .training_request import (
    TrainingRequest,
    cut_pairs,
    export_pairs,
    free_name,
    outlook,
    paused_runs,
    related,
    training,
)

if TYPE_CHECKING:
    import napari

NEW = "a new network"
MINUTES = 10.0  # with a live prediction the most is seen by then
FINER = (2, 2)  # the least that is finer
SCORES = ("dice", "ap", "ap_50")  # of which 0 says that nothing was found


class TrainWidget(Panel):
    """Learn from images and their labels."""

    closing = "A training is running. Its state is kept, and it can be resumed."
    working, answers = "Training", (STOP, BACKGROUND, STAY)

    def __init__(self, napari_viewer: "napari.Viewer") -> None:
        super().__init__(napari_viewer)
        self._request: TrainingRequest | None = None
        self._job: Path | None = None
        self._training: Remote | None = None
        self._model: Path | None = None
        self._best: dict[str, float] = {}
        self._view = LiveView(napari_viewer, self.native)
        self._build()
        self.listen(models_changed, self.reset_choices)
        self.listen(napari_viewer.layers.selection.events.active, lambda _: self.painting.refresh())
        self._aim()
        self.enable()
        QTimer.singleShot(0, self._wake)

    def _build(self) -> None:
        """Make the controls."""
        self.form = PairsForm(self, lambda: self._view.layer)
        self.origin, self.pairs, self.add_pair = self.form.origin, self.form.rows, self.form.add
        self.images, self.annotations, self.reading = self.form.images, self.form.annotations, self.form.reading
        self.meaning = Meaning(self, lambda: [labels for _, labels in self.form.chosen], self.form.class_layers)
        self.kind, self.sparse, self.background = self.meaning.kind, self.meaning.sparse, self.meaning.background
        self.painting = PaintForm(
            self,
            self._paintable,
            self.form.learn_from,
            lambda: self.form.chosen,
            lambda: self.meaning.of_objects,
            lambda: self.meaning.learns_images,
        )
        self.title = LineEdit(value="my-model", tooltip="Name of the model, in the folder of own models")
        self.start_from = ComboBox(choices=self._starts, tooltip="A new network, or a model that goes on learning")
        self.minutes = FloatSpinBox(value=MINUTES, min=0.1, max=10_000, step=1, tooltip="Minutes that it may take")
        shared = Preferences.read()
        self.plan = TrainSettings(device=shared.device, precision=shared.precision)
        self.facts = text("")
        self.begin_button = button("Train", self.start, "Learn from what is chosen above")
        self.pause = button("Pause", self.pause_training, "Stop for now; Resume continues exactly from here")
        self.stop = button("Stop", self.stop_training, "End now, and save the best model so far")
        self.resume = button("Resume", self.resume_training, "Continue a training that was paused or interrupted")
        self.tune = button("Fine-tune", self.fine_tune)
        self.paused = ComboBox(choices=self._paused_runs, nullable=True, tooltip="Trainings that have not ended")
        self.live = CheckBox(text="Live prediction in the current view", value=True)
        self.curves = Curves()
        self.card = text("")
        self.extend(
            [
                self.form,
                self.painting,
                self.meaning,
                field("start from", self.start_from),
                field("name", self.title),
                field("minutes", self.minutes),
                *self.plan.widgets,
                button("Analyse data", self.analyse_data, "Show what will be learnt from, and the plan made for it"),
                field("Paused runs", self.paused),
                self.live,
            ]
        )
        self.pinned.extend(
            [
                row(self.begin_button, self.pause, self.stop),
                row(self.resume, self.tune),
                self.progress,
                self.status,
            ]
        )
        self.add_below(self.curves, self.facts.native, self.card.native)
        self.form.altered.connect(self._aim_labels)
        self.kind.changed.connect(self._aim)
        self.meaning.names.renamed.connect(self.painting.refresh)
        self.start_from.changed.connect(lambda _: self.enable())
        self.live.changed.connect(lambda on: setattr(self._view, "on", on))

    def _wake(self) -> None:
        """Load in the background what a training and its predictions need."""
        Worker(lambda: Remote(speed.warm, brief=True).events(), lambda _: None, lambda _: None).start()

    def gone(self) -> None:
        """Leave what is running, and listen no more."""
        super().gone()
        self._view.end()
        self.meaning.forget()

    # What is learnt from

    def _paintable(self) -> Any:
        """Return the image that labels are painted on: the selected one, else the first that is learnt from."""
        from napari.layers import Image

        active = self.viewer.layers.selection.active
        chosen = [image for image, _ in self.form.chosen if image is not None]
        return active if isinstance(active, Image) else next(iter(chosen), None)

    def _aim(self) -> None:
        """Show what can be learnt from for the kind of targets."""
        self.form.aim(not self.meaning.reads_labels, self.kind.value == OBJECTS)
        self.painting.visible = self.meaning.reads_labels
        self.painting.refresh()

    def _aim_labels(self) -> None:
        self.meaning.watch()
        self.painting.refresh()
        self.plan.suit(self.kind.value, named=self.origin.value == LAYERS)

    def _starts(self, _: Any) -> list[tuple[str, Path | str]]:
        found = models(SHIPPED) | models(Preferences.read().models)
        return [(NEW, NEW), *((name, entry.path) for name, entry in found.items())]

    def _paused_runs(self, _: Any) -> list[tuple[str, Path]]:
        return list(paused_runs(Preferences.read().models).items())

    def request(self, init: Path | None = None) -> TrainingRequest:
        """Return what the form asks for.

        Raises
        ------
        UsageError, DataError
            Where something of it cannot be.
        """
        pairs = self.form.pairs()
        name = re.sub(r"[^\w.-]+", "_", self.title.value.strip()).strip("._")
        if not name:
            raise UsageError("give the model a name")
        chosen = self.plan.chosen() | self.meaning.chosen()
        finer = FINER if chosen.get("task") == "super_resolve" else None
        chosen["upscale"] = chosen.get("upscale") or finer if chosen.get("task") in UPSCALED else None
        start = init or (self.start_from.value if self.start_from.value != NEW else None)
        preferences = Preferences.read()
        found = TrainingRequest(
            pairs=pairs,
            out=free_name(preferences.models, name),
            config=TrainConfig(minutes=self.minutes.value, **chosen),
            init=start,
            on_disconnect=preferences.when_closed,
            reading=self.reading.chosen(),
            classes=self.form.classes_of_objects,
            class_names=self.meaning.names.given(),
            channel=self.form.channel.value,
        )
        if start is not None:
            related(found, start)
        return found

    def analyse_data(self) -> None:
        """Say what will be learnt from, and plan."""
        try:
            request = self.request()
        except UnetError as error:
            self.fail(str(error))
            return
        self.begin(Worker(lambda: outlook(request), self._heard, self._looked))

    def _looked(self, how: Ended) -> None:
        self.ended(how)
        if how.result is not None:
            chosen, lines = how.result
            self.facts.value = "\n".join(lines)
            self.status.value = ""
            self.plan.suggest(**chosen)

    # The training

    def start(self) -> None:
        """Train on the labels as they are now."""
        self._prepare(None)

    @property
    def _at_hand(self) -> Path | None:
        """The model that is chosen to start from, else the one that was trained last."""
        chosen: Any = self.start_from.value
        return self._model if chosen == NEW else chosen

    def fine_tune(self) -> None:
        """Train a new model from the one at hand, with the labels as they are now."""
        self._prepare(self._at_hand)

    def _prepare(self, init: Path | None) -> None:
        try:
            self._request = request = self.request(init)
        except UnetError as error:
            self.fail(str(error))
            return
        self.curves.clear()
        self.card.value = self.facts.value = ""
        self.begin(Worker(lambda: export_pairs(request), self._heard, self._kept))

    def _kept(self, how: Ended) -> None:
        if how.result is None:
            self.ended(how)
            return
        self._run(how.result)

    def _run(self, job: Path, resume: bool = False) -> None:
        self._job, self._best = job, {}
        self.scroll.ensureWidgetVisible(self.curves)
        try:
            self._training = training(job, resume)
        except UnetError as error:
            self.fail(str(error))
            return
        self.begin(Worker(self._training.events, self._heard, self._trained))
        self._view.begin(self._training, self._request, cut_pairs(self._request) if self._request else frozenset())

    def resume_training(self) -> None:
        """Continue a training that was paused or interrupted."""
        waiting = [path for _, path in self._paused_runs(None)]
        job = self.paused.value or (self._job if self._job in waiting else None)
        if job is None and len(waiting) == 1:
            job = waiting[0]
        if job is None:
            self.status.value = "choose which of the paused runs goes on"
            self.scroll.ensureWidgetVisible(self.paused.native)
            popup: Any = self.paused.native
            popup.showPopup()
            return
        if job != self._job:
            self._request = None
            self.curves.clear()
        self._run(job, resume=True)

    def pause_training(self) -> None:
        """Stop for now."""
        if self.work is not None:
            self.work.cancel()
            self.status.value = "pausing …"

    def stop_training(self) -> None:
        """End the training, and keep the best so far as a model."""
        if self._training is not None:
            self._training.ask("stop")
            self.status.value = "stopping; the best so far becomes the model …"

    def _heard(self, events: list[Any]) -> None:
        for event in events:
            self._take(event)
        if said := [event for event in events if isinstance(event, Progress)]:
            self.advance(said[-1])

    def _take(self, event: Any) -> None:
        if isinstance(event, Progress) and event.stage == "plan" and event.message:
            self.facts.value = f"{self.facts.value}\n{event.message}".strip()
        elif isinstance(event, Epoch):
            losses = {"training": event.train_loss, "validation": event.validation_loss}
            self.curves.add(event.number, losses, event.scores)
            if event.best:
                self._best = dict(event.scores)
        elif isinstance(event, View):
            self._view.draw(event)

    def _trained(self, how: Ended) -> None:
        self._view.end()
        self._training = None
        self.ended(how)
        if how.cancelled:
            self.status.value = "paused; Resume continues exactly from here"
        elif how.result is not None:
            self._model, self.card.value = how.result
            name = self._model.name.removesuffix(".model")
            self.status.value = f"{self._verdict()}: Segment offers {name} now; it lies in {self._model}"
        models_changed.emit()
        if how.result is not None and self.start_from.value != NEW and self._model in self.start_from.choices:
            self.start_from.value = self._model  # what was learnt last is what is corrected next
        self.enable()

    def _verdict(self) -> str:
        """Say how a training ended, by its best score on what was held out."""
        found = {name: self._best[name] for name in SCORES if not math.isnan(self._best.get(name, math.nan))}
        lost = [
            name.removeprefix("dice_") for name, value in self._best.items() if name.startswith("dice_") and not value
        ]
        if not found or (max(found.values()) > 0 and not lost):
            return "done"
        name = next(iter(found)).replace("dice", "Dice").replace("ap", "AP")
        what = f"finds nothing yet ({name} 0" if max(found.values()) == 0 else f"never finds {', '.join(lost)} (Dice 0"
        return (
            f"trained, but it {what} where it was tried). Paint more, in several places, check what the labels are "
            "taken for, or train longer"
        )

    def enable(self) -> None:
        """Enable the buttons that can be used now."""
        self.begin_button.enabled = not self.busy
        self.pause.enabled, self.stop.enabled = self.busy, self._training is not None
        at_hand = self._at_hand
        self.tune.enabled = not self.busy and at_hand is not None
        name = "" if at_hand is None else at_hand.name.removesuffix(".model")
        self.tune.text = f"Fine-tune {name}" if name else "Fine-tune"
        self.tune.tooltip = plain_tip(
            f"Train {name} on, with the labels as they are now"
            if name
            else "Choose what to start from, or train first; then corrections are learnt"
        )
        self.resume.enabled = not self.busy and bool(self._paused_runs(None))
        self.paused.reset_choices()

    def stop_for_closing(self, answer: str) -> None:
        """Do what was answered, before the window closes."""
        if answer == BACKGROUND and self._training is not None and self.work is not None:
            self._training.leave()
            self.work.leave()
        else:
            super().stop_for_closing(STOP)
