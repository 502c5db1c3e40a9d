"""One class per voxel."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..settings import takes_former_names
from .base import COLOURS, Task, as_labels
from .border import LEVELS, border_weights, check_border
from .losses import BACKGROUND, IGNORE, Confusion, cross_entropy, dice, focal, likeliest

LOSSES = ("ce+dice", "ce", "dice", "focal")
MAX_CLASSES = 4096  # more are numbers of objects
NAMED = re.compile(r"(\d+)=(.+)")
LISTED = 5  # values in a message: enough to see what kind they are
LOOKUP = 2**16  # values that are looked up in a table, ten times as fast as searching for them


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True)
class Semantic(Task):
    """One class per voxel; results carry the annotation's own label values.

    Parameters
    ----------
    values : tuple of int
        Label value of each class, rising. Where the annotation is sparse, 0 is unlabelled and no class.
    class_names : tuple of str
        One per value; made from the values where not given.
    sparse : bool
        Whether 0 is unlabelled instead of a class.
    class_weights : tuple of float, optional
        Weight of each class in the cross-entropy and focal terms.
    loss_name : "ce+dice", "ce", "dice" or "focal"
    w0, sigma : float
        Height and width, in pixels of the finest axis, of the weight where parts of the foreground are close, on
        both sides of their edges, in the cross-entropy.
    spacing : tuple of float
        Pixel size per axis of the network, the finest 1; all equal where not given.

    Raises
    ------
    DataError
        Where there are less than two classes, or values, names and weights do not fit.

    References
    ----------
    Ronneberger et al. 2015, section 3, for the weight.
    """

    values: tuple[int, ...] = (0, 1)
    class_names: tuple[str, ...] = ()
    sparse: bool = False
    class_weights: tuple[float, ...] | None = None
    loss_name: str = "ce+dice"
    w0: float = 0.0
    sigma: float = 5.0
    spacing: tuple[float, ...] = ()
    name: ClassVar[str] = "semantic"
    result: ClassVar[Literal["labels", "image"]] = "labels"
    score: ClassVar[str] = "dice"

    def __post_init__(self) -> None:
        values = tuple(map(_whole, self.values))
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "class_names", tuple(self.class_names) or usual_names(values))
        _check_values(values, self.sparse)
        _check_names(self.class_names, values)
        if self.loss_name not in LOSSES:
            raise DataError(f"loss_name is {self.loss_name!r}; choose one of {', '.join(LOSSES)}")
        check_border(self.w0, self.sigma, self.spacing)
        if self.w0 and self.loss_name in ("dice", "focal"):
            raise DataError(f"w0 is {self.w0}, but {self.loss_name} takes no weights; choose ce+dice or ce, or w0 0")
        if self.class_weights is not None:
            weights = tuple(map(float, self.class_weights))
            if len(weights) != len(values) or not all(0 <= w < np.inf for w in weights) or not any(weights):
                raise DataError(f"class weights are {weights}; give one number >= 0 for each of the labels {values}")
            object.__setattr__(self, "class_weights", weights)

    @classmethod
    def of(
        cls,
        values: Sequence[int] | np.ndarray,
        names: Sequence[str] | None = None,
        sparse: bool = False,
        loss_name: str = "ce+dice",
    ) -> Self:
        """Build from the label values that were found, in any order; 0 is left out where the labels are sparse.

        Parameters
        ----------
        names : sequence of str, optional
            In the order of the values; or ``VALUE=NAME`` of some, such as ``2=nucleus``.

        Raises
        ------
        DataError
            Where they make less than two classes, or a value is named that is not there.
        """
        found = sorted({_whole(v) for v in values} - ({0} if sparse else set()))
        return cls(tuple(found), _names_of(found, names or ()), sparse, None, loss_name)

    @property
    def out_channels(self) -> int:
        """Return the number of classes."""
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.class_names

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the smallest unsigned type that holds the label values."""
        return np.min_scalar_type(max(self.values))

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Turn an annotation into class indices.

        Parameters
        ----------
        labels : integer or boolean array of any shape

        Returns
        -------
        int64 array of that shape, ``IGNORE`` where not annotated; with a weight between objects (2, *shape): indices,
        and the weight in sixteenths.

        Raises
        ------
        DataError
            Where labels are not integers, are negative, or are of no class.
        """
        target = self._indices(as_labels(labels))
        if not self.w0:
            return target
        from scipy import ndimage  # not at the top: only who trains needs it

        background = self.class_names.index(BACKGROUND) if BACKGROUND in self.class_names else 0
        parts = ndimage.label((target != IGNORE) & (target != background))[0]
        return np.stack([target, border_weights(parts, self.spacing, self.w0, self.sigma)])

    def _indices(self, labels: np.ndarray) -> np.ndarray:
        known = np.array(self.values, dtype=np.uint64)
        if self.values[-1] < LOOKUP and (not labels.size or int(labels.max()) < LOOKUP):
            table = np.full(LOOKUP, IGNORE - 1, dtype=np.int64)
            table[known] = np.arange(len(known))
            table[0] = IGNORE if self.sparse else table[0]
            target = table[labels]
        else:
            wide = labels.astype(np.uint64)
            target = np.searchsorted(known, wide).clip(max=len(known) - 1)
            target = np.where(known[target] == wide, target, IGNORE - 1)
            target[(wide == 0) & self.sparse] = IGNORE
        if (target < IGNORE).any():
            unknown = np.unique(labels[target < IGNORE])
            raise DataError(
                f"labels have the value{'s' * (len(unknown) > 1)} {_list(unknown)}, which is not a class; "
                f"the classes are {_list(self.values)}{' (0 is unlabelled)' if self.sparse else ''}"
            )
        return target

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (B, K, *S) logits against what `encode` gave; 0 where nothing is annotated."""
        weights = None if self.class_weights is None else torch.tensor(self.class_weights)
        voxel = target[:, 1] / LEVELS if self.w0 else None
        target = target[:, 0] if self.w0 else target
        if self.loss_name == "dice":
            return dice(logits, target)
        if self.loss_name == "focal":
            return focal(logits, target, weights)
        entropy = cross_entropy(logits, target, weights, voxel)
        return entropy + dice(logits, target) if self.loss_name == "ce+dice" else entropy

    def decode(self, logits: Tensor) -> np.ndarray:
        """Turn (K, *S) logits into labels, (*S): the value of the likeliest class, the first of equals.

        Raises
        ------
        ModelError
            Where a logit is NaN or infinite.
        """
        found = likeliest(logits).cpu().numpy()
        if self.values == tuple(range(len(self.values))):
            return found.astype(self.dtype, copy=False)
        return np.array(self.values, dtype=self.dtype)[found]

    def probabilities(self, logits: Tensor) -> np.ndarray:
        """Turn (K, *S) logits into float32 probabilities of the same shape."""
        return np.asarray(logits.float().softmax(0).cpu().numpy())

    def scores(self) -> "Confusion":
        """Return a new sum of scores: Dice per class, and their mean without the background."""
        return Confusion(self.class_names)

    def attributes(self) -> dict[str, Any]:
        """Return colours and class names as OME-Zarr's ``image-label`` has them."""
        shown = [(v, name) for v, name in zip(self.values, self.class_names, strict=True) if v]
        colours = {v: COLOURS[i % len(COLOURS)] for i, (v, _) in enumerate(s for s in shown if s[1] != BACKGROUND)}
        return {
            "colors": [
                {"label-value": v, "rgba": [*colours[v], 255] if v in colours else [0, 0, 0, 0]} for v, _ in shown
            ],
            "properties": [{"label-value": v, "class": name} for v, name in shown],
        }


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise DataError(f"label value {value!r} is not a whole number; give one such as 1")
    return int(value)


def usual_names(values: Sequence[int]) -> tuple[str, ...]:
    """Return what classes are called that nobody named."""
    if len(values) == 2 and values[0] == 0:
        return BACKGROUND, "foreground"
    return tuple(f"class_{v}" if v else BACKGROUND for v in values)


def _names_of(values: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """Return names in the order of values, where they are given by value."""
    given = [NAMED.fullmatch(name) for name in names]
    if not given or not all(given):
        return tuple(names)
    of = {int(match[1]): match[2].strip() for match in given if match}
    if unknown := sorted(of.keys() - set(values)):
        raise DataError(f"a name is given for the label {unknown[0]}, the labels hold {_list(values)}; name these")
    return tuple(of.get(value, usual) for value, usual in zip(values, usual_names(values), strict=True))


def _check_values(values: Sequence[int], sparse: bool) -> None:
    if list(values) != sorted(set(values)) or (values and not 0 <= values[0] <= values[-1] < 2**64):
        raise DataError(f"label values are {_list(values)}; they must rise, from 0 or above")
    if sparse and 0 in values:
        raise DataError("0 is unlabelled where labels are sparse; it cannot be a class too")
    if len(values) < 2:
        hint = "paint a second class, background too" if sparse else "label the background as 0"
        raise DataError(f"labels hold one class ({_list(values) or 'none'}), two are needed; {hint}")
    if len(values) > MAX_CLASSES:
        raise DataError(f"labels hold {len(values)} classes, the most is {MAX_CLASSES}; are they object numbers?")


def _check_names(names: Sequence[str], values: Sequence[int]) -> None:
    if len(names) != len(values) or len(set(names)) != len(names):
        raise DataError(f"class names are {_list(names)}; give {len(values)} different ones, one a label value")
    if not all(isinstance(n, str) and 0 < len(n) <= 100 and n.isprintable() for n in names):
        raise DataError(f"class names are {_list(names)}; each must be 1 to 100 printable characters")


def _list(values: Sequence[Any] | np.ndarray) -> str:
    return ", ".join(str(v) for v in values[:LISTED]) + (", ..." if len(values) > LISTED else "")
