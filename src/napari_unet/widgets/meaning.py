"""What labels mean: objects, classes, or a part that was painted; seen in the labels, said in a line, and changed."""

import dataclasses
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Container, Widget

from ..errors import UsageError
from ..training.config import IMAGE_TASKS
from .groups import FOR_LABELS, SAMPLES
from .jobs import Ended, Worker, quiet
from .names import ClassNames
from .panel import Panel, counted, field, text
from .source import OURS

CLASSES, OBJECTS = "Classes (semantic)", "Objects (instances)"
KINDS: dict[str, dict[str, Any]] = {
    CLASSES: {},
    OBJECTS: {"task": "instances"},
    "Foreground (binary)": {"binary": True},
    "Restore (pairs of images)": {"task": "restore"},
    "Denoise without clean images (Noise2Void)": {"task": "restore", "blind": True},
    SAMPLES: {"task": "diffuse"},
    FOR_LABELS: {"task": "diffuse", "condition": "labels"},
    "Super-resolution": {"task": "super_resolve"},
    "Autoencoder": {"task": "autoencode"},
}
ASK, NONE = -1, 0  # the label of background: not said yet; none of them
MARGIN = 24  # pixels for the scroll bar of a list of choices
CHANGES = ("paint", "data", "labels_update")  # events of a labels layer
MOST = 2**24  # labels that are looked at: 4096 x 4096, in some tenths of a second
LISTED = 4  # labels that a line names
LITTLE = 0.05  # share that is painted, below which it may be that a part was
SETTLE = 500  # milliseconds without a stroke before labels are looked at again


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen in labels.

    Parameters
    ----------
    values : tuple of int
        Those above 0.
    pieces : tuple of int
        In how many connected pieces each of them is.
    share : float
        Of all that was looked at, how much is not 0.
    kinds : tuple of int
        Classes that objects have, in labels of their own.
    """

    values: tuple[int, ...] = ()
    pieces: tuple[int, ...] = ()
    share: float = 0.0
    kinds: tuple[int, ...] = ()

    @property
    def numbered(self) -> bool:
        """Whether the values look like numbers of objects."""
        from ..objects.config import MANY

        several = len(self.values) > LISTED and set(self.pieces) == {1}
        return len(self.values) >= MANY or several

    @property
    def scattered(self) -> bool:
        """Whether values that should be objects look like classes: most of them are in many pieces."""
        return len(self.pieces) > 0 and float(np.median(self.pieces)) > LISTED


def looked_at(layers: Sequence[Any], kinds: Sequence[Any] = ()) -> Generator[None, None, Seen]:
    """Look at labels layers, and at those of the classes of objects; of large ones at the middle."""
    from ..objects.labelling import numbered, pieces_of

    values: set[int] = set()
    pieces: dict[int, int] = {}
    painted = size = 0
    for layer in layers:
        data = middle(layer)
        found = np.unique(data[data > 0])
        yield
        counts = pieces_of(numbered(np.squeeze(data))) if len(found) else []
        values |= {int(v) for v in found}
        for value, count in zip(found, counts, strict=False):
            pieces[int(value)] = pieces.get(int(value), 0) + count
        painted, size = painted + int(np.count_nonzero(data)), size + data.size
        yield
    order = tuple(sorted(values))
    classes = {int(v) for layer in kinds for v in np.unique(middle(layer))} - {0}
    return Seen(order, tuple(pieces.get(v, 1) for v in order), painted / size if size else 0.0, tuple(sorted(classes)))


def middle(layer: Any) -> np.ndarray:
    """Return labels of a layer, of a large one the middle."""
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(data.shape)
    edge = shape if math.prod(shape) <= MOST else tuple(min(n, round(MOST ** (1 / len(shape)))) for n in shape)
    found = np.asarray(data[tuple(slice((n - e) // 2, (n - e) // 2 + e) for n, e in zip(shape, edge, strict=True))])
    return found.view(np.uint8) if found.dtype.kind == "b" else found


class Meaning(Container[Widget]):
    """What the labels mean; taken from them until the user says it.

    Parameters
    ----------
    panel : Panel
        That it belongs to.
    layers, kinds : callable
        Return the labels layers that are learnt from, and those of the classes of their objects.
    """

    def __init__(self, panel: Panel, layers: Callable[[], list[Any]], kinds: Callable[[], list[Any]]) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 0, 0)
        self._panel, self._layers, self._kinds_of = panel, layers, kinds
        self.seen: Seen | None = None
        self._said_kind = self._said_sparse = False  # by the user
        self._own = False  # whether a change is ours
        self._watched: list[Any] = []
        self._kinds: list[Any] = []
        self._job: Worker | None = None
        self.line = text("")
        self.kind = ComboBox(choices=list(KINDS), tooltip="What the labels mean, or what images are learnt for")
        popup: Any = self.kind.native.view()
        popup.setMinimumWidth(popup.sizeHintForColumn(0) + MARGIN)
        self.sparse = CheckBox(text="Sparse labels (0 = unlabelled)", value=False)
        self.sparse.tooltip = "Learn from painted pixels only; paint background with a label of its own"
        self.background = ComboBox(choices=self._backgrounds, tooltip="The label that was painted on background")
        self._behind = field("background", self.background)
        self.names = ClassNames()
        self.extend([field("task", self.kind), self.sparse, self._behind, self.line, self.names])
        self._settle = quiet(panel.native, SETTLE, self.look)
        self.kind.changed.connect(self._say_kind)
        self.sparse.changed.connect(self._say_sparse)
        self.background.changed.connect(self._tell)
        self._behind.visible = False

    @property
    def learns_images(self) -> bool:
        """Whether images are learnt instead of labels."""
        return KINDS[self.kind.value].get("task") in IMAGE_TASKS

    @property
    def reads_labels(self) -> bool:
        """Whether labels are read, as what is learnt or as what images are made for."""
        return not self.learns_images or self.kind.value == FOR_LABELS

    @property
    def of_objects(self) -> bool:
        """Whether each label value is an object."""
        return self.kind.value in (OBJECTS, FOR_LABELS)

    @property
    def _painted(self) -> dict[str, Any] | None:
        """What is known of labels that were painted with our buttons."""
        found = (layer.metadata.get(OURS, {}).get("painted") for layer in self._watched)
        return next((painted for painted in found if painted is not None), None)

    def _backgrounds(self, _: Any) -> list[tuple[str, int]]:
        values = self.seen.values if self.seen is not None else ()
        found = [(f"label {v}", v) for v in values[: 4 * LISTED]]
        return [("which label is it?", ASK), *found, ("none of them", NONE)]

    def watch(self) -> None:
        """Look at the labels that are learnt from, now and after each change of them."""
        self._leave()
        self._watched = [layer for layer in self._layers() if layer is not None] if self.reads_labels else []
        self._kinds = self._kinds_of() if self.kind.value == OBJECTS else []
        for layer in {*self._watched, *self._kinds}:
            for name in CHANGES:
                getattr(layer.events, name).connect(self._soon)
        self.seen = None
        self.look()

    def forget(self) -> None:
        """Look no more."""
        self._leave()
        if self._job is not None:
            self._job.abandon()

    def _leave(self) -> None:
        """Listen to no layer any more."""
        for layer in {*self._watched, *self._kinds}:
            for name in CHANGES:
                getattr(layer.events, name).disconnect(self._soon)
        self._watched, self._kinds = [], []

    def _soon(self, *_: Any) -> None:
        self._settle.start()

    def look(self) -> None:
        """Look at the labels, beside the window."""
        if self._job is not None:
            self._job.abandon()
        layers, kinds = list(self._watched), list(self._kinds)
        if not layers:
            self.line.value = ""
            self.names.show_of([], [])
            return
        self._job = Worker(lambda: looked_at(layers, kinds), lambda _: None, self._looked).start()

    def _looked(self, how: Ended) -> None:
        if how.result is not None:
            self.take(how.result)

    def take(self, seen: Seen) -> None:
        """Choose what fits labels in which this was seen."""
        self.seen = seen
        painted = self._painted
        self._own = True
        chosen = self.background.value
        self.background.reset_choices()
        self.background.value = chosen if chosen in self.background.choices else ASK
        if not self._said_kind and (painted is not None or seen.values):
            numbered = seen.numbered if painted is None else painted["objects"]
            self.kind.value = OBJECTS if numbered else CLASSES
        if not self._said_sparse and painted is not None and not self.learns_images:
            self.sparse.value = True
        if painted is not None and painted["background"] in seen.values and self.background.value == ASK:
            self.background.value = painted["background"]
        self._own = False
        self._tell()

    def _say_kind(self) -> None:
        self._said_kind = self._said_kind or not self._own
        self.sparse.visible = not self.learns_images
        self.sparse.value = self.sparse.value and not self.learns_images
        self._tell()

    def _say_sparse(self) -> None:
        self._said_sparse = self._said_sparse or not self._own
        self._tell()

    def _tell(self) -> None:
        """Say in a line what the labels are taken for."""
        self._behind.visible = bool(self.sparse.value) and not self.learns_images
        self.line.value = self._told(self.seen) if self.reads_labels and self.seen is not None else ""
        seen, classes = self.seen or Seen(), self.kind.value == CLASSES and not self.learns_images
        behind = self.background.value if self.sparse.value else 0
        values = [v for v in seen.values if v != behind] if classes else seen.kinds
        self.names.show_of(self._watched if classes else self._kinds, values)

    def _told(self, seen: Seen) -> str:
        if not seen.values:
            return "Nothing is painted yet."
        objects, count = self.of_objects, len(seen.values)
        if self.sparse.value:
            names = [v for v in seen.values if v != self.background.value]
            behind = {ASK: "background is: choose it", NONE: "none of them is background"}.get(
                self.background.value, f"background is {self.background.value}"
            )
            what = counted(len(names), "object") if objects else self._classes(names)
            return f"Taken for sparse: {what}; {behind}; 0 is unlabelled."
        whole = "one class" if self.kind.value != CLASSES else self._classes(seen.values)
        what = counted(count, "object") if objects else whole
        return f"Taken for {what}; background is 0, all that is not painted. {self._hint(seen, objects)}".strip()

    @staticmethod
    def _classes(values: Sequence[int]) -> str:
        listed = ", ".join(map(str, values[:LISTED])) + ", …" * (len(values) > LISTED)
        return f"{len(values)} class{'es' * (len(values) != 1)} ({listed})"

    def _hint(self, seen: Seen, objects: bool) -> str:
        """Say what the labels look like, where that is something else."""
        if self.kind.value == CLASSES and seen.numbered:
            return "They look like numbers of objects: choose the task Objects."
        if objects and seen.scattered:
            other = "give each object its own number" if self.learns_images else "choose the task Classes"
            return f"Their labels are in many pieces, as classes are: {other}."
        if seen.share < LITTLE and not objects:
            return "Was only a part painted? Then tick Sparse labels, and paint background with a label of its own."
        return ""

    def _named(self) -> dict[str, Any]:
        """Return what classes are called, where somebody named them."""
        names = self.names.given() if self.kind.value == CLASSES else {}
        return {"class_names": tuple(f"{value}={name}" for value, name in names.items())} if names else {}

    def _check_whole(self, values: set[int], where: str) -> None:
        """Refuse a label of background where images are made for labels."""
        painted = self._painted
        if self.learns_images and painted is not None and painted["background"] in values:
            raise UsageError(
                f"label {painted['background']} of {where} was painted on background, and would be taken for an "
                "object where images are made for labels; erase it, and label all objects: what is 0 is background"
            )

    def chosen(self) -> dict[str, Any]:
        """Return the settings of a training.

        Raises
        ------
        UsageError
            Where the labels do not say enough, or hold nothing to learn.
        """
        found = {"sparse": self.sparse.value} | KINDS[self.kind.value] | self._named()
        if not self.reads_labels or not self._watched:
            if self.sparse.value and self.background.value > 0:
                found["background"] = self.background.value
            return found
        values = {int(v) for layer in self._watched for v in np.unique(middle(layer))} - {0}
        where = ", ".join(layer.name for layer in self._watched)
        if not values:
            raise UsageError(f"nothing is painted in {where}: paint some of each class, or some objects")
        painted = self._painted
        self._check_whole(values, where)
        if not self.sparse.value:
            return found
        if len(values) == 1:
            raise UsageError(
                f"only label {values.pop()} is painted in {where}: paint a second one too, and background with a label "
                "of its own; or untick Sparse labels, and all that is not painted is background"
            )
        if self.background.value == ASK and painted is not None and painted["background"] not in values:
            raise UsageError(f"no background is painted in {where}: press Background and paint some of it too")
        if self.background.value == ASK:
            raise UsageError(
                f"which label of {where} was painted on background: {', '.join(map(str, sorted(values)[:LISTED]))}? "
                "Choose it below Sparse labels"
            )
        return found | ({"background": self.background.value} if self.background.value else {})
