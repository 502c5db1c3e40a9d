"""Train: learn from images and their labels in a process beside the window; watch, stop, correct, go on."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from qtpy.QtCore import QTimer

from ..cards import SHIPPED, models
from ..errors import UnetError, UsageError
from ..events import Epoch, Progress
from ..grid.finer import blank
from ..grid.tiles import scaled
from ..process.remote import Remote
from ..training.config import IMAGE_TASKS, TrainConfig
from ..training.job import View, ViewRequest
from .choice import ReadingForm
from .closing import BACKGROUND, STAY, STOP
from .curves import Curves
from .form import Form
from .jobs import Ended, Worker
from .layers import Place, look, seen
from .panel import Panel, button, column, field, folded, folder, path_in, row, shrink, text
from .preferences import Preferences, models_changed
from .results import contrast
from .source import Source, usual_axes
from .training_request import (
    TrainingRequest,
    cut_pairs,
    export_pairs,
    free_name,
    outlook,
    paired,
    paused_runs,
    training,
)

if TYPE_CHECKING:
    import napari

LESS_WIDTH = 28  # pixels: one sign
LAYERS, FOLDERS = "layers", "folders"
NEW = "a new network"
MINUTES = 10.0  # with a live prediction the most is seen by then
LIVE_EVERY = 3000  # milliseconds between two live predictions
KINDS: dict[str, dict[str, Any]] = {
    "Classes (semantic)": {},
    "Objects (instances)": {"task": "instances"},
    "Foreground (binary)": {"binary": True},
    "Restore (pairs of images)": {"task": "restore"},
    "Denoise without clean images (Noise2Void)": {"task": "restore", "blind": True},
    "Super-resolution": {"task": "super_resolve"},
    "Autoencoder": {"task": "autoencode"},
}
FINER = (2, 2)  # the least that is finer
MARGIN = 24  # pixels for the scroll bar of a list of choices
MAIN = ("task", "minutes", "sparse", "binary", "background", "blind", "resume", "steps")


class TrainWidget(Panel):
    """Learn from images and their labels."""

    closing = "A training is running. Its state is kept, and it can be resumed."
    working, answers = "Training", (STOP, BACKGROUND, STAY)

    def __init__(self, napari_viewer: "napari.Viewer") -> None:
        super().__init__(napari_viewer)
        self._request: TrainingRequest | None = None
        self._job: Path | None = None
        self._training: Remote | None = None
        self._cut: frozenset[int] = frozenset()
        self._model: Path | None = None
        self._live_layer: Any = None
        self._asked = 0
        self._rows: list[Any] = []
        self._build()
        self._pulse = QTimer(self.native)
        self._pulse.setInterval(LIVE_EVERY)
        self._pulse.timeout.connect(self.ask_view)
        self.listen(models_changed, self.reset_choices)
        self.add_pair()
        self.enable()

    def _build(self) -> None:
        """Make the controls."""
        self.origin = ComboBox(choices=[LAYERS, FOLDERS])
        self.pairs = column()
        self.more = button("Add another pair", self.add_pair)
        self.images, self.annotations = folder("Images"), folder("Their labels, of the same names")
        self.reading = ReadingForm()
        self.folders = column(field("images", self.images), field("labels", self.annotations), self.reading.field)
        self.folders.visible = False
        self.sparse = CheckBox(text="Sparse labels (0 = unlabelled)", value=False)
        self.sparse.tooltip = "Learn from painted pixels only; paint background with a label of its own"
        self.background = SpinBox(value=1, min=1, max=255, tooltip="The label that was painted on background")
        self.behind = field("background", self.background)
        self.behind.visible = False
        self.kind = ComboBox(choices=list(KINDS), tooltip="What the labels mean, or what images are learnt for")
        popup: Any = self.kind.native.view()
        popup.setMinimumWidth(popup.sizeHintForColumn(0) + MARGIN)
        self.title = LineEdit(value="my-model", tooltip="Name of the model, in the folder of own models")
        self.start_from = ComboBox(choices=self._starts)
        self.minutes = FloatSpinBox(value=MINUTES, min=0.1, max=10_000, step=1)
        shared = Preferences.read()
        self.plan = Form(TrainConfig, MAIN, device=shared.device, precision=shared.precision)
        self.facts = text("")
        self.begin_button = button("Train", self.start)
        self.pause = button("Pause", self.pause_training, "Stop for now; Resume continues exactly from here")
        self.stop = button("Stop", self.stop_training, "End now, and save the best model so far")
        self.resume = button("Resume", self.resume_training, "Continue a training that was paused or interrupted")
        self.tune = button("Fine-tune", self.fine_tune, "Train on from this model, with the labels as they are now")
        self.paused = ComboBox(choices=self._paused_runs, nullable=True)
        self.live = CheckBox(text="Live prediction in the current view", value=True)
        self.curves = Curves()
        self.card = text("")
        self.extend(
            [
                field("learn from", self.origin),
                self.pairs,
                self.more,
                self.folders,
                self.sparse,
                self.behind,
                field("task", self.kind),
                field("start from", self.start_from),
                field("name", self.title),
                field("minutes", self.minutes),
                *folded("Plan", self.plan),
                button("Analyse data", self.analyse_data, "Show what will be learnt from, and the plan made for it"),
                row(self.begin_button, self.pause, self.stop),
                row(self.resume, self.tune),
                field("Paused runs", self.paused),
                self.live,
                self.progress,
                self.status,
            ]
        )
        self.add_below(self.curves, self.facts.native, self.card.native)
        self.origin.changed.connect(self._turn)
        self.kind.changed.connect(self._aim)
        self.sparse.changed.connect(lambda on: setattr(self.behind, "visible", on))

    # What is learnt from

    def _layers(self, kind: str) -> list[Any]:
        from napari import layers

        wanted = {"image": layers.Image, "labels": layers.Labels}[kind]
        hidden = self._live_layer
        return [layer for layer in self.viewer.layers if isinstance(layer, wanted) and layer is not hidden]

    @property
    def _learns_images(self) -> bool:
        return KINDS[self.kind.value].get("task") in IMAGE_TASKS

    def _aim(self) -> None:
        """Show what can be learnt from for the kind of targets."""
        for pair in self._rows:
            pair[1].reset_choices()
        self.sparse.visible = not self._learns_images
        self.sparse.value = self.sparse.value and not self._learns_images

    def _starts(self, _: Any) -> list[tuple[str, Path | str]]:
        found = models(SHIPPED) | models(Preferences.read().models)
        return [(NEW, NEW), *((name, entry.path) for name, entry in found.items())]

    def _paused_runs(self, _: Any) -> list[tuple[str, Path]]:
        return list(paused_runs(Preferences.read().models).items())

    def _turn(self, origin: str) -> None:
        self.pairs.visible = self.more.visible = origin == LAYERS
        self.folders.visible = origin == FOLDERS

    def add_pair(self) -> None:
        """Add a pair of an image and its labels."""
        image = ComboBox(choices=lambda _: self._layers("image"), tooltip="Image")
        labels = ComboBox(
            choices=lambda _: self._layers("image" if self._learns_images else "labels"),
            tooltip="Its labels, or what it should become",
            nullable=True,
        )
        pair = row(image, labels)
        for control in (image, labels):
            shrink(control)
        less = button("-", lambda: self._take_away(pair), "Take the pair away")
        less.native.setFixedWidth(LESS_WIDTH)
        pair.append(less)
        self.pairs.append(pair)
        self._rows.append(pair)

    def _take_away(self, pair: Any) -> None:
        if len(self._rows) > 1:
            self._rows.remove(pair)
            self.pairs.remove(pair)

    def request(self, init: Path | None = None) -> TrainingRequest:
        """Return what the form asks for.

        Raises
        ------
        UsageError, DataError
            Where something of it cannot be.
        """
        if self.origin.value == FOLDERS:
            images, labels = path_in(self.images), path_in(self.annotations)
            labels = labels or (images if self._learns_images else None)
            if images is None or labels is None:
                raise UsageError("choose the folder of the images, and that of their labels")
            pairs: tuple[Any, ...] = paired(images, labels)
        else:
            rows = [(pair[0].value, pair[1].value) for pair in self._rows]
            rows = [(image, image if labels is None and self._learns_images else labels) for image, labels in rows]
            pairs = tuple((image, labels) for image, labels in rows if image is not None and labels is not None)
            if not pairs:
                raise UsageError("choose an image and its labels; to make labels, add a labels layer and paint")
        name = re.sub(r"[^\w.-]+", "_", self.title.value.strip()).strip("._")
        if not name:
            raise UsageError("give the model a name")
        chosen = self.plan.chosen() | {"sparse": self.sparse.value} | KINDS[self.kind.value]
        chosen["upscale"] = (chosen["upscale"] or FINER) if chosen.get("task") == "super_resolve" else None
        chosen |= {"background": self.background.value} if self.sparse.value else {}
        start = init or (self.start_from.value if self.start_from.value != NEW else None)
        preferences = Preferences.read()
        return TrainingRequest(
            pairs=pairs,
            out=free_name(preferences.models, name),
            config=TrainConfig(minutes=self.minutes.value, **chosen),
            init=start,
            on_disconnect=preferences.when_closed,
            reading=self.reading.chosen(),
        )

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

    def fine_tune(self) -> None:
        """Train a new model from the one at hand, with the labels as they are now."""
        self._prepare(self._model)

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
        self._cut = cut_pairs(self._request) if self._request else frozenset()
        self._run(how.result)

    def _run(self, job: Path, resume: bool = False) -> None:
        self._job = job
        self.native.ensureWidgetVisible(self.curves)
        try:
            self._training = training(job, resume)
        except UnetError as error:
            self.fail(str(error))
            return
        self.begin(Worker(self._training.events, self._heard, self._trained))
        if self.live.value:
            self._pulse.start()

    def resume_training(self) -> None:
        """Continue a training that was paused or interrupted."""
        job = self.paused.value or self._job
        if job is None:
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
        elif isinstance(event, View):
            self._draw(event)

    def _trained(self, how: Ended) -> None:
        self._pulse.stop()
        self._training = None
        self.ended(how)
        if how.cancelled:
            self.status.value = "paused; Resume continues exactly from here"
        elif how.result is not None:
            self._model, self.card.value = how.result
            self.status.value = f"done: {self._model}"
        models_changed.emit()
        self.enable()

    def enable(self) -> None:
        """Enable the buttons that can be used now."""
        self.begin_button.enabled = not self.busy
        self.pause.enabled, self.stop.enabled = self.busy, self._training is not None
        self.tune.enabled = not self.busy and self._model is not None
        self.resume.enabled = not self.busy and bool(self._paused_runs(None))
        self.paused.reset_choices()

    def stop_for_closing(self, answer: str) -> None:
        """Do what was answered, before the window closes."""
        if answer == BACKGROUND and self._training is not None and self.work is not None:
            self._training.leave()
            self.work.leave()
        else:
            super().stop_for_closing(STOP)

    # The viewed part

    def ask_view(self) -> None:
        """Ask the training for a prediction of what is seen now."""
        if not (self.live.value and self._training and self.busy and self._request):
            return
        shown = [i for i, (image, _) in enumerate(self._request.pairs) if image in self.viewer.layers and image.visible]
        shown = [i for i in shown if i not in self._cut]
        if not shown:
            return
        image = self._request.pairs[shown[-1]][0]
        axes = usual_axes(image)
        box = seen(self.viewer, image, axes, Source(image, axes).stack())
        self._asked += 1
        self._training.ask(ViewRequest(self._asked, shown[-1], box))

    def _draw(self, view: View) -> None:
        """Show a prediction that came."""
        if self._request is None or view.request.number != self._asked:
            return
        image = self._request.pairs[view.request.image][0]
        if image not in self.viewer.layers:
            return
        axes = usual_axes(image)
        data = view.data
        stack = blank(Source(image, axes).stack(), view.factors, data.dtype)
        ones = (1,) * (len(stack.axes) - len(view.factors))
        place = Place.of(image, axes, stack)
        box = scaled(view.request.box, (*ones, *view.factors))
        data, translate = np.asarray(place.arranged(data, stack.axes)), place.corner(box, stack.axes)
        if self._live_layer in self.viewer.layers:
            self._live_layer.data, self._live_layer.translate = data, translate
            return
        shown = place.shown() | {"translate": translate}
        if view.kind == "image":
            limits = contrast(data) or image.contrast_limits
            self._live_layer = self.viewer.add_image(data, name=f"{image.name} live", contrast_limits=limits, **shown)
            return
        self._live_layer = self.viewer.add_labels(
            data, name=f"{image.name} live", opacity=0.5, **shown, **look(view.attributes)
        )
        self._live_layer.editable = False
