"""Settings in a few named groups, folded, of which only what applies is shown."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from magicgui.widgets import Widget
from psygnal import Signal

from ..cards import Entry
from ..inference import PredictConfig
from ..inference.config import DRAWING
from ..training.config import OF_IMAGES, OF_LABELS, OF_OBJECTS, TrainConfig
from .form import Form
from .panel import folded

GROUPS = {
    "Objects": ("border_bias", "min_size", "fill_holes", "link"),
    "Samples": (*DRAWING, "each_sample"),
    "Intensities": ("percentiles", "each_time", "padding", "nan", "missing"),
    "Output": (
        "probabilities",
        "probability_type",
        "uncertainty",
        "error",
        "region",
        "name",
        "in_source",
        "overview",
        "ome_version",
        "overwrite",
    ),
    "Computer": ("device", "precision", "memory", "block", "tta", "scheduler", "allow_tcp", "break_lock"),
}


SAMPLES, FOR_LABELS = "Restore with samples (diffusion)", "Images for labels"
OF_PICTURES = ("Restore", "Denoise", "Super", "Auto", "Images")  # how tasks begin whose targets are images
PLAN = {
    "Labels": ("number_objects", "above", "class_names", "border_weight", "balance", "diameter", "working_pixel_size"),
    "Images": ("loss", "upscale", "blur", "noise", "predict_std", "result_type"),
    "Network": ("ndim", "preset", "patch", "batch", "depth", "base_features", "max_features", "skips"),
    "Learning": ("learning_rate", "augment", "flips", "patience", "seed", "licence"),
    "Computer": ("device", "precision", "memory", "break_lock"),
}


class Groups:
    """Forms of one settings dataclass, each under its title; `widgets` are put into a panel.

    Parameters
    ----------
    settings : frozen dataclass
        Its fields made with `setting`.
    groups : mapping of title to names of fields
        A field in none of them has no control.
    values : mapping of str to value
        Instead of the defaults.
    """

    changed = Signal()

    def __init__(self, settings: type[Any], groups: Mapping[str, Collection[str]], **values: Any) -> None:
        fields = [field.name for field in dataclasses.fields(settings)]
        self._forms = [Form(settings, [f for f in fields if f not in names], **values) for names in groups.values()]
        self._names = list(groups.values())
        self._folded = [folded(title, form) for title, form in zip(groups, self._forms, strict=True)]
        for form in self._forms:
            form.changed.connect(lambda _: self.changed.emit())

    @property
    def widgets(self) -> list[Widget]:
        """Heads and forms, in order."""
        return [widget for pair in self._folded for widget in pair]

    def __getitem__(self, name: str) -> Any:
        """Return the control of a field."""
        return next(form[name] for form, names in zip(self._forms, self._names, strict=True) if name in names)

    def chosen(self) -> dict[str, Any]:
        """Return the values of what applies, by field.

        Raises
        ------
        UsageError
            Where what is written cannot be read.
        """
        return {name: value for form in self._forms for name, value in form.chosen().items()}

    def suggest(self, **values: Any) -> None:
        """Show what was chosen in the fields that are left empty."""
        for form in self._forms:
            form.suggest(**values)

    def apply(self, names: Collection[str]) -> None:
        """Show what applies alone; a group of which nothing does is not there."""
        for form, (head, inner) in zip(self._forms, self._folded, strict=True):
            some = form.apply(names)
            head.visible = some
            if not some:
                inner.visible = False


class RunSettings(Groups):
    """What may be chosen for a run, by what it is about.

    Parameters
    ----------
    more : mapping of title to names of fields
        Groups before the others, of what the panel has no controls of its own for.
    own : collection of str
        Fields that the panel has controls of its own for.
    values : mapping of str to value
        Instead of the defaults.
    """

    def __init__(
        self, more: Mapping[str, Collection[str]] | None = None, own: Collection[str] = (), **values: Any
    ) -> None:
        groups = {**(more or {}), **GROUPS}
        kept = {title: [name for name in names if name not in own] for title, names in groups.items()}
        super().__init__(PredictConfig, kept, **values)

    def suit(self, entry: Entry | None, axes: str) -> None:
        """Show what means something for the model whose result is written, and images of these axes."""
        task = "" if entry is None else entry.task
        off = set() if task == "instances" else set(GROUPS["Objects"])
        off |= set() if entry is None or entry.gives == "labels" else {"probabilities", "name", "in_source"}
        off |= set() if task == "autoencode" else {"error"}
        off |= {"tta", "uncertainty"} if task == "diffuse" else set(GROUPS["Samples"])
        off |= set() if "t" in axes else {"link", "each_time"}
        off |= set() if self["probabilities"].value else {"probability_type"}
        off |= set() if self["scheduler"].value else {"allow_tcp"}
        self.apply({name for names in self._names for name in names} - off)


class TrainSettings(Groups):
    """What may be chosen for a training, by what it is about."""

    def __init__(self, **values: Any) -> None:
        super().__init__(TrainConfig, PLAN, **values)

    def suit(self, kind: str, named: bool = False) -> None:
        """Show what means something for what is learnt; classes of layers are `named` in fields of their own."""
        images = kind.startswith(OF_PICTURES)
        off = set(OF_LABELS) if images else set(OF_IMAGES)
        off |= set() if kind.startswith("Objects") else set(OF_OBJECTS)
        off |= set() if kind.startswith("Classes") and not named else {"class_names"}
        off |= set() if kind.startswith(("Objects", "Foreground")) else {"above"}
        off |= set() if kind == SAMPLES or kind.startswith("Super") else {"upscale"}
        off |= {"loss", "predict_std"} if kind in (SAMPLES, FOR_LABELS) else set()
        off |= {"blur", "noise"} if kind == FOR_LABELS else set()
        self.apply({name for names in PLAN.values() for name in names} - off)
