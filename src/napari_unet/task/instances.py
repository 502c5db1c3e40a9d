"""Single objects: inside, border where two meet, background; what touches is kept apart."""

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..arrays.classed import apart
from ..cards import OBJECT_CLASSES
from ..errors import DataError
from ..metrics.contingency import Contingency
from ..metrics.objects import THRESHOLDS, Overlaps
from ..objects import ObjectConfig, objects_of
from ..objects.borders import borders, touching
from ..objects.components import votes_of
from ..objects.config import BORDER, CORE, INSIDE, PARTS
from ..objects.labelling import numbered
from ..settings import takes_former_names, to_keys
from .base import COLOURS, Task, as_labels, check_names
from .border import LEVELS, border_weights, check_border
from .losses import IGNORE, Scores, cross_entropy, dice, likeliest

CLASSES = OBJECT_CLASSES
Kinds = tuple[np.ndarray, np.ndarray]
LATER = (
    "reach",
    "nearest",
    "foreground_bias",
    "core_margin",
    "object_classes",
)  # fields that came after the first models
# Of equal scores the first is taken, so what changes nothing comes first.
BIASES = (0.0, 1.0, -1.0, 2.0)  # of logits, a factor of e each: from fewer borders to many more
FOREGROUND = (0.0, 0.5, -0.5, 1.0, -1.0)  # of logits: foreground from where it is 0.27 to 0.73
MARGINS = (0.0, 1.0, 2.0, 3.0)  # of logits: inside of 0.73, 0.88 and 0.95 or more where there are two classes
GROWTH = (3, 2, 4, 6, 8)  # voxels: over borders, and over the inside that is no core
STEPS = (2, 0, 1, 3)  # the same of models that grow step by step
HOLES = (0.0, 0.06, 0.25, 1.0)  # of a quarter of an object; a larger one only where it scores more: rings stay rings
SMALLEST = (0.0, 0.25, 0.5, 0.75)  # of the size that 1 % of the objects are below: larger ones would drop real objects


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True)
class Instances(Task):
    """One id per object; the network tells inside, border to another object, and background apart.

    Parameters
    ----------
    sparse : bool
        Whether 0 is unlabelled.
    background : int, optional
        Of sparse labels, the value that was painted on background.
    spacing : tuple of float
        Pixel size per axis of the network, the finest 1; all equal where not given.
    w0, sigma : float
        Height and width, in pixels of the finest axis, of the weight between objects that are close.
    border_bias : float
        Added to the border's logits: above 0 objects are separated more.
    min_size, fill_holes, grow : int
        As in `ObjectConfig`, in voxels.
    link : float
        As in `ObjectConfig`.
    reach : int, optional
        Of models before 0.2, the width of a border in pixels; 2, in 3-D 1, if not given.
    nearest : bool
        Whether borders are as wide as each object leaves room for and growth goes to the nearest object; otherwise
        borders have one width, as in models before 0.2.
    foreground_bias : float
        Added to the logits of inside and border: above 0 objects are larger, and more of what is dim is one.
    core_margin : float
        Objects are the parts of inside whose logit is more than this above the others, and grow over the rest of inside
        too: above 0 objects that hang together by a doubtful bridge are two. 0 takes all of inside.
    object_classes : tuple of str
        Names of the classes that objects have, if the network tells them apart: a channel more for each, learnt inside
        the objects whose class is known. An object is of the class that most of its voxels are of.

    Raises
    ------
    DataError
        Where sparse labels have no value for background, or a number is out of range.

    References
    ----------
    Ronneberger et al. 2015, section 3, for the weight: w(x) = 1 + w0 exp(-(d1 + d2)^2 / 2 sigma^2), d1 and d2 the
    distances to the two nearest objects.
    """

    sparse: bool = False
    background: int | None = None
    spacing: tuple[float, ...] = ()
    w0: float = 10.0
    sigma: float = 5.0
    border_bias: float = 0.0
    min_size: int = 0
    fill_holes: int = 0
    grow: int = 2
    link: float = 0.0
    reach: int | None = None
    nearest: bool = False
    foreground_bias: float = 0.0
    core_margin: float = 0.0
    object_classes: tuple[str, ...] = ()
    name: ClassVar[str] = "instances"
    result: ClassVar[Literal["labels", "image"]] = "labels"
    score: ClassVar[str] = "ap"

    def __post_init__(self) -> None:
        if self.sparse and (self.background is None or self.background < 1):
            raise DataError(
                f"the background of sparse object labels is {self.background}; paint some background with a value of "
                "its own and name it with --background, as 0 is unlabelled"
            )
        check_border(self.w0, self.sigma, self.spacing)
        for name in ("border_bias", "foreground_bias", "core_margin"):
            if not np.isfinite(getattr(self, name)):
                raise DataError(f"{name} is {getattr(self, name)}; it must be finite")
        if self.core_margin < 0:
            raise DataError(f"core_margin is {self.core_margin}; it must be 0 or more")
        object.__setattr__(self, "object_classes", tuple(self.object_classes))
        check_names(self.object_classes)
        _ = self.objects

    @property
    def objects(self) -> ObjectConfig:
        """How objects are made from the classes."""
        return ObjectConfig(
            self.min_size,
            self.fill_holes,
            self.grow,
            self.link,
            self.nearest,
            cores=self.core_margin > 0,
            kinds=self.object_classes,
        )

    @property
    def out_channels(self) -> int:
        """Return 3, background, inside and border, and one more for each class of objects."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class, then of those of objects."""
        return (*CLASSES, *self.object_classes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the classes that `decode` gives."""
        return np.dtype(np.uint8)

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Turn object ids into what `loss` and `scores` take.

        Parameters
        ----------
        labels : (*S) integer array
            Ids of objects; 0 is background, or unlabelled where the labels are sparse. With classes of objects as
            `ClassedLabels` gives them.

        Returns
        -------
        (3, *S) int64 array
            Class (``IGNORE`` where not annotated), weight in sixteenths, id from 1 in the patch; with classes of
            objects (4, *S): the class of the object too, ``IGNORE`` where there is none or it has none.
        """
        labels = as_labels(labels)
        kinds = np.zeros(labels.shape, np.int64)
        if self.object_classes:
            labels, kinds = apart(labels)
        ids = numbered(np.where(labels == self.background, 0, labels) if self.sparse else labels)
        border = borders(ids) if self.nearest else touching(ids, self.reach)
        classes = np.where(border, BORDER, np.sign(ids))
        if self.sparse:
            classes[labels == 0] = IGNORE
        found = [classes, border_weights(ids, self.spacing, self.w0, self.sigma), ids]
        if self.object_classes:  # from 0; what is painted over background is of no object
            found.append(np.where((ids > 0) & (kinds > 0), kinds - 1, IGNORE))
        return np.stack(found)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted cross-entropy and the Dice loss of (B, 3, *S) logits against (B, 3, *S) targets.

        Of classes of objects, those of their channels are added, inside the objects whose class is known.
        """
        logits, classes = logits.float(), target[:, 0]
        main, more = logits[:, : len(CLASSES)], logits[:, len(CLASSES) :]
        loss = cross_entropy(main, classes, voxel=target[:, 1] / LEVELS) + dice(main, classes)
        if self.object_classes:
            loss = loss + cross_entropy(more, target[:, 3]) + dice(more, target[:, 3])
        return loss

    def decode(self, logits: Tensor) -> np.ndarray:
        """Turn (3, *S) logits into classes, (*S) uint8; ``napari_unet.objects`` makes objects of them.

        With `core_margin` there is a fourth: 3, the core of an object. With classes of objects (3 + K, *S) are taken,
        and inside and core are more by four times the likeliest class.

        Raises
        ------
        ModelError
            Where a logit is NaN or infinite.
        """
        bias = torch.tensor([0.0, self.foreground_bias, self.foreground_bias + self.border_bias], device=logits.device)
        logits, more = logits[: len(CLASSES)], logits[len(CLASSES) :]
        biased = logits.float() + bias.reshape(-1, *(1,) * (logits.ndim - 1))
        classes = likeliest(biased)
        if self.core_margin:  # a difference, no probability: what is computed voxel by voxel is the same for every tile
            above = biased[INSIDE] - torch.maximum(biased[0], biased[BORDER])
            classes.masked_fill_(above > self.core_margin, CORE)
        if self.object_classes:
            kind = PARTS * likeliest(more.float()).to(torch.uint8)
            classes += kind * ((classes == INSIDE) | (classes == CORE))
        return classes.cpu().numpy()

    def probabilities(self, logits: Tensor) -> np.ndarray:
        """Turn (3, *S) logits into float32 probabilities of the same shape; of classes of objects by themselves."""
        if not self.object_classes:
            return np.asarray(logits.float().softmax(0).cpu().numpy())
        each = [part.softmax(0) for part in (logits[: len(CLASSES)].float(), logits[len(CLASSES) :].float())]
        return np.asarray(torch.cat(each).cpu().numpy())

    @property
    def exclusive(self) -> int:
        """Return 3: the channels of classes of objects say what is there by themselves."""
        return len(CLASSES)

    def scores(self) -> "Matches":
        """Return a new sum of scores: average precision of objects."""
        return Matches(self)

    def attributes(self) -> dict[str, Any]:
        """Return colours and names of the classes as OME-Zarr's ``image-label`` has them."""
        names = (*CLASSES, "core") if self.core_margin else CLASSES
        shown = [(value, name) for value, name in enumerate(names) if value]
        if self.object_classes:
            several = {INSIDE, CORE}
            shown = [each for each in shown if each[0] not in several] + [
                (value + PARTS * kind, f"{part} of {name}")
                for kind, name in enumerate(self.object_classes)
                for value, part in shown
                if value in several
            ]
        return {
            "colors": [{"label-value": v, "rgba": [*COLOURS[(v - 1) % len(COLOURS)], 255]} for v, _ in shown],
            "properties": [{"label-value": v, "class": name} for v, name in shown],
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        values = {"name": self.name, **to_keys(self), "spacing": list(self.spacing)}
        values["object_classes"] = list(self.object_classes)
        for name in LATER:  # as models were written before there was another
            if not values[name]:
                del values[name]
        return values


class Matches(Scores):
    """Keeps what a validation pass sees, to score objects and to choose how they are best made."""

    def __init__(self, task: Instances) -> None:
        self._task = task
        self._seen: list[tuple[Tensor, np.ndarray, np.ndarray]] = []
        self._kinds: list[np.ndarray] = []  # by id: the number of its class from 1, or 0 where that is not known

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take in (B, 3, *S) logits and (B, 3, *S) targets; with classes of objects what these have more."""
        for one, wanted in zip(logits.detach().half().cpu(), target.cpu().numpy(), strict=True):
            self._seen.append((one, wanted[0] != IGNORE, wanted[2]))
            kinds = np.zeros(int(wanted[2].max(initial=0)) + 1, np.int64)
            if self._task.object_classes:
                np.maximum.at(kinds, wanted[2].ravel(), wanted[3].ravel() + 1)
            self._kinds.append(kinds)

    def result(self) -> dict[str, float]:
        """Return ``ap_50``, ``ap`` (the mean over IoU 0.5 to 0.95) and ``dice`` of all objects against background.

        With classes of objects, one of another class than the truth's is not found; ``class_accuracy`` is the share of
        those that are there, by an IoU of 0.5, which have the right class. All are 0, which says nothing, where no
        object is there to be found.
        """
        tables = [self._tables(self._task, i) for i in range(len(self._seen))]
        kinds = [self._told(i) for i in range(len(self._seen))] if self._task.object_classes else None
        both = sum(int(t.count[(t.truth > 0) & (t.result > 0)].sum()) for t in tables)
        either = sum(int(t.count[t.truth > 0].sum() + t.count[t.result > 0].sum()) for t in tables)
        found = precisions(tables, kinds) if any((t.truth > 0).any() for t in tables) else [0.0] * len(THRESHOLDS)
        scores = {"ap": float(np.mean(found)), "ap_50": found[0], "dice": 2 * both / either if either else 0.0}
        right = [] if kinds is None else [self._right(*each) for each in zip(tables, kinds, strict=True)]
        return scores | ({"class_accuracy": float(np.concatenate(right).mean())} if sum(map(len, right)) else {})

    def settings(self) -> dict[str, Any]:
        """Return how objects are best made, each choice after the others: fields of `Instances`."""
        sizes = self._sizes()
        if not len(sizes):
            return {}
        small = float(np.percentile(sizes, 1))
        hole = int(np.median(sizes) / 4)
        nearest = self._task.nearest
        task = dataclasses.replace(self._task, grow=max(GROWTH)) if nearest else self._task
        options: dict[str, list[Any]] = {
            "border_bias": list(BIASES),
            **({"foreground_bias": list(FOREGROUND), "core_margin": list(MARGINS)} if nearest else {}),
            "fill_holes": list(dict.fromkeys(round(share * hole) for share in HOLES)),
            "min_size": [round(share * small) for share in SMALLEST],
            "grow": list(GROWTH if nearest else STEPS),
        }
        for field, values in options.items():
            tried = [dataclasses.replace(task, **{field: value}) for value in values]
            scores = [np.mean(precisions([self._tables(t, i) for i in range(len(self._seen))])) for t in tried]
            task = tried[int(np.argmax(scores))]
        return {field: getattr(task, field) for field in options}

    def _sizes(self) -> np.ndarray:
        """Return the sizes of the objects that were painted whole; of all where there is none."""
        from scipy import ndimage  # not at the top: only who trains needs it

        every, whole = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for _, known, ids in self._seen:
            counts = np.bincount(ids.ravel())
            counts[0] = 0
            every.append(counts[counts > 0])
            counts[np.unique(ids[ndimage.binary_dilation(~known)])] = 0
            whole.append(counts[counts > 0])
        found = np.concatenate(whole)
        return found if len(found) else np.concatenate(every)

    def _tables(self, task: Instances, index: int) -> Contingency:
        """Count which true object shares how much with which found one, where anything is known."""
        logits, known, ids = self._seen[index]
        found = objects_of(task.decode(logits), task.objects)
        return Contingency.of(ids[known], found[known])

    def _told(self, index: int) -> Kinds:
        """Return the class of each true object that is in its table, from 1, and of each that was found there."""
        logits, known, ids = self._seen[index]
        classes = self._task.decode(logits)
        found = objects_of(classes, self._task.objects)
        votes = votes_of(found, classes, int(found.max(initial=0)), self._task.objects)
        (there, seen) = (np.unique(side[known]) for side in (ids, found))
        return self._kinds[index][there[there > 0]], votes[seen[seen > 0]].argmax(1) + 1

    @staticmethod
    def _right(table: Contingency, kinds: Kinds) -> np.ndarray:
        """Return of each true object whose class is known and that was found whether that has its class."""
        truth, result, _ = Overlaps.of(table).matches()
        known = kinds[0][truth] > 0
        return np.asarray((kinds[0][truth] == kinds[1][result])[known])


def precisions(tables: list[Contingency], kinds: list[Kinds] | None = None) -> list[float]:
    """Return the average precision at each of `THRESHOLDS`, of all objects of all tables.

    Parameters
    ----------
    kinds : list of (array, array), optional
        Classes of the true objects of each table, 0 where it is not known, and of those found, which have to agree.
    """
    overlaps = [Overlaps.of(table) for table in tables]
    every = sum(o.n_truth + o.n_result for o in overlaps)
    precisions = []
    for threshold in THRESHOLDS:
        if kinds is None:
            right = sum(len(o.matched(threshold)) for o in overlaps)
        else:
            right = sum(_agree(o, *each, threshold) for o, each in zip(overlaps, kinds, strict=True))
        precisions.append(right / (every - right) if every else 1.0)
    return precisions


def _agree(overlaps: Overlaps, true: np.ndarray, found: np.ndarray, threshold: float) -> int:
    """Count the true objects that are found and have no known class, or that of what was found."""
    truth, result, _ = overlaps.matches(threshold)
    return int(((true[truth] == 0) | (true[truth] == found[result])).sum())
