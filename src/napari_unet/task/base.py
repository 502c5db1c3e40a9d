"""What a network is for: `encode` turns labels into targets, `decode` its output into a result, side by side."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, ModelError
from ..objects import ObjectConfig
from ..settings import from_keys, to_keys
from .losses import Scores

# Okabe and Ito: distinct with every kind of colour vision.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
LONGEST_NAME = 100  # characters of the name of a class: what a legend shows


class Task(abc.ABC):
    """What a network learns, and what its output becomes; one class per task.

    Attributes
    ----------
    name : str
        What model files call it.
    learns_from, result : "labels" or "image"
        What `encode` takes, and what `decode` gives.
    score : str
        The score, higher is better, by which the best epoch is chosen.
    """

    __slots__ = ()
    name: ClassVar[str]
    learns_from: ClassVar[Literal["labels", "image"]] = "labels"
    result: ClassVar[Literal["labels", "image"]]
    score: ClassVar[str]

    @property
    @abc.abstractmethod
    def out_channels(self) -> int:
        """Channels the network gives."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Name of each channel of `probabilities`."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Element type of what `decode` gives."""

    @property
    def drawn(self) -> int:
        """Channels of the network's input that begin as noise, and of which results are samples; 0 for most tasks."""
        return 0

    @property
    def given(self) -> str:
        """What the network is given: "image" by most tasks; "labels" of objects, or "none"."""
        return "image"

    @property
    def factors(self) -> tuple[int, ...]:
        """Elements of the result for one of the image, where not the network makes it finer; empty for most tasks."""
        return ()

    @property
    def exclusive(self) -> int:
        """How many of the first channels of `probabilities` add up to 1: predictive entropy is of these."""
        return len(self.names)

    @property
    def objects(self) -> ObjectConfig | None:
        """How objects are made of the classes that `decode` gives; None where its result is final."""
        return None

    @abc.abstractmethod
    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Turn an annotation, (*S) labels or (C, *S) intensities, into the target of `loss`: (*S) or (channels, *S)."""

    def prepare(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change normalised (B, C, *S) images and their targets before a step; left as they are by most tasks."""
        return images, targets

    def tried(self, net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Run the network on what `prepare` gave of images held out, for `loss` and `scores`."""
        return net(images)

    @abc.abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the scalar to be made small, float32 and never NaN, of (B, K, *S) network output."""

    @abc.abstractmethod
    def decode(self, logits: Tensor) -> np.ndarray:
        """Turn network output, (K, *S), into the result, each place for itself: (*S) labels or (C, *S) intensities."""

    @abc.abstractmethod
    def probabilities(self, logits: Tensor) -> np.ndarray:
        """Turn network output, (K, *S), into float32 probabilities of the same shape."""

    @abc.abstractmethod
    def scores(self) -> Scores:
        """Return a new sum of scores for a validation pass."""

    @abc.abstractmethod
    def attributes(self) -> dict[str, Any]:
        """Return what OME-Zarr metadata says of the result."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file, `name` among them."""
        return {"name": self.name, **to_keys(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave.

        Raises
        ------
        ModelError
            Naming what does not fit.
        """
        named = from_keys(cls, values).items()
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in named if key != "name"}
        try:
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the task {cls.name!r} cannot be read: {error}; get the model again") from error


def check_names(names: Sequence[str]) -> None:
    """Refuse names of classes that are no names, or are there twice.

    Raises
    ------
    DataError
    """
    if len(set(names)) != len(names):
        raise DataError(f"class names are {', '.join(map(str, names))}; give each class a name of its own")
    if not all(isinstance(n, str) and 0 < len(n) <= LONGEST_NAME and n.isprintable() for n in names):
        raise DataError(f"class names are {', '.join(map(repr, names))}; each must be 1 to 100 printable characters")


def as_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels as integers of 0 and above.

    Raises
    ------
    DataError
        Where they are not.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind == "b":
        return labels.view(np.uint8)
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels have the type {labels.dtype}; convert them to integers")
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise DataError(f"labels have negative values ({int(labels.min())}); labels are 0 and above")
    return labels
