"""A training as a job in a file, that another process carries out, taking requests.

Requests are sent into it between its events: "stop" ends it with the best so far as the model, a `ViewRequest` predicts
a box of an image with the network as it is. Closing it keeps its state, so that it can be resumed.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..settings import from_keys, to_keys
from .config import TrainConfig

if TYPE_CHECKING:
    import numpy as np

    from ..arrays.stack import Stack
    from ..arrays.views import Box
    from ..model import Model
    from .fit import Events, Training

ON_DISCONNECT = ("stop", "continue")
FIELDS = ("pairs", "out", "config", "init", "on_disconnect", "object_classes")
LARGEST_VIEW = 2**22  # elements, a screen of 2048 x 2048: a view is answered between two steps


@dataclasses.dataclass(frozen=True, slots=True)
class TrainJob:
    """What a training process is to do.

    Parameters
    ----------
    pairs : sequence of mapping
        ``image`` and ``labels``, their paths (labels, or the images that are the targets); ``image_options`` and
        ``labels_options`` as `open_stack` takes them.
    out : str
        Model folder to make.
    config : mapping
        Fields of `TrainConfig`.
    init : str, optional
        Model to start from.
    on_disconnect : "stop" or "continue"
        What it does when the window is gone.
    object_classes : str or sequence of str, optional
        Where the classes of objects are, as `with_classes` takes them; a sequence has a path for each pair, or "" for
        none.

    Raises
    ------
    UsageError
        Where a field cannot be.
    """

    pairs: Sequence[Mapping[str, Any]]
    out: str
    config: Mapping[str, Any]
    init: str | None = None
    on_disconnect: str = "stop"
    object_classes: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not self.pairs or not all({"image", "labels"} <= set(pair) for pair in self.pairs):
            raise UsageError("pairs must name an image and its labels each, at least one")
        if self.on_disconnect not in ON_DISCONNECT:
            raise UsageError(f"on_disconnect is {self.on_disconnect!r}; choose one of {', '.join(ON_DISCONNECT)}")

    @property
    def settings(self) -> TrainConfig:
        """Its settings as `TrainConfig`."""
        given = from_keys(TrainConfig, self.config)
        known = {field.name for field in dataclasses.fields(TrainConfig)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise UsageError(f"config has {unknown[0]!r}; known are {', '.join(sorted(known))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return TrainConfig(**values)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return to_keys(self)

    @classmethod
    def read(cls, path: Path) -> "TrainJob":
        """Read a job.

        Raises
        ------
        UsageError
            Where the file cannot be read as one.
        """
        try:
            values = from_keys(cls, json.loads(path.read_text("utf-8")))
            return cls(**{name: values[name] for name in FIELDS if name in values})
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(
                f"{path} is no job of a training: {error}; give the file that the training wrote"
            ) from error

    def viewed(self, pairs: "list[tuple[Stack, Stack]]") -> "list[Stack]":
        """Return of each pair what the network is run on: the image, or the labels that it makes images for."""
        return [other if self.settings.condition == "labels" else image for image, other in pairs]

    def stacks(self) -> "list[tuple[Stack, Stack]]":
        """Open all pairs lazily."""
        from ..objects.classes import with_classes
        from ..sources import open_labels, open_stack

        other = open_labels if self.settings.reads_labels else open_stack
        images = [open_stack(pair["image"], **pair.get("image_options", {})) for pair in self.pairs]
        labels = [other(pair["labels"], **pair.get("labels_options", {})) for pair in self.pairs]
        given = self.object_classes
        if given is not None:
            labels = with_classes(labels, given if isinstance(given, str) else [each or {} for each in given])
        return list(zip(images, labels, strict=True))


@dataclasses.dataclass(frozen=True, slots=True)
class ViewRequest:
    """A box of an image that is to be predicted with the network as it is.

    Parameters
    ----------
    number : int
        Of the request; the view that answers it has it too.
    image : int
        Of the job's pairs.
    box : tuple of slice
        Along the image's tiled axes.
    """

    number: int
    image: int
    box: "Box"


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What the network as it is makes of a box.

    Parameters
    ----------
    data : array
        Labels, or the intensities of an image on their own grid.
    factors : tuple
        Elements of the result for one of the image, per axis.
    kind : "labels" or "image"
    attributes : dict
        Colours and classes of labels.
    """

    request: ViewRequest
    data: "np.ndarray"
    factors: tuple[Any, ...]
    kind: str
    attributes: Mapping[str, Any]


class Views:
    """Predictions of boxes with the network as it is."""

    def __init__(self, images: "list[Stack]") -> None:
        self.training: Training | None = None  # of which there is none before it is planned
        self._images = images
        self._statistics: dict[int, Any] = {}
        self._waiting: ViewRequest | None = None

    def latest(self, requests: Sequence[Any]) -> View | None:
        """Predict the box that was requested last, of a large one the middle; before the first step it waits."""
        wanted = [what for what in requests if isinstance(what, ViewRequest)]
        self._waiting = wanted[-1] if wanted else self._waiting
        request, model = self._waiting, None if self.training is None else self.training.model()
        if request is None or model is None:
            return None
        self._waiting = None
        if not 0 <= request.image < len(self._images) or not all(b.start < b.stop for b in request.box):
            return None
        request = dataclasses.replace(request, box=_middle(request.box))
        data = self.predicted(model, request.image, request.box)
        attributes = model.task.attributes() if model.task.objects is None else {}
        return View(request, data, model.factors, model.task.result, attributes)

    def predicted(self, model: "Model", index: int, box: "Box") -> Any:
        """Return the result of a model on a box of an image's tiled axes."""
        from ..inference.config import PredictConfig
        from ..inference.diffusion import engine_for
        from ..inference.lazy import Preview
        from ..inference.pixelsize import resample_to_model
        from ..inference.seen import read_objects
        from ..objects.condition import conditioned

        own = conditioned(self._images[index], model.task.given, len(model.axes))
        stack = resample_to_model(own, model, PredictConfig())
        if index not in self._statistics:
            self._statistics[index] = model.normalisation.measure(stack)
        view = Preview(engine_for(stack, model, self._statistics[index], PredictConfig()), own=own)
        return view.read(box) if model.task.objects is None else read_objects(view, box)


def _middle(box: "Box") -> "Box":
    """Return the middle of a box that is too large to be predicted between two steps."""
    sides = [[b.start, b.stop] for b in box]
    while math.prod(stop - start for start, stop in sides) > LARGEST_VIEW:
        side = max(sides, key=lambda s: s[1] - s[0])
        quarter = (side[1] - side[0] + 3) // 4
        side[0], side[1] = side[0] + quarter, max(side[0] + quarter + 1, side[1] - quarter)
    return tuple(slice(start, stop) for start, stop in sides)


def carry_out(path: Path, resume: bool = False) -> Generator[Any, Sequence[Any] | None, tuple[Path, str]]:
    """Train as the job in a file says; between two events it takes a list of requests.

    Returns
    -------
    (path of the model, its card as text)
    """
    job = TrainJob.read(path)
    pairs, ending = job.stacks(), False
    views = Views(job.viewed(pairs))
    with contextlib.closing(_events(job, pairs, resume, views)) as events:
        try:
            event: Any = next(events)
            while True:
                requests = (yield event) or ()
                ending = ending or "stop" in requests
                if ending and views.training is not None:
                    views.training.end_soon()
                event = views.latest(requests) or next(events)
        except StopIteration as end:
            return Path(job.out), end.value.card()


def _events(job: TrainJob, pairs: "list[tuple[Stack, Stack]]", resume: bool, views: Views) -> "Events":
    """Train; once it is planned, `views` looks into it."""
    from ..model import load_model
    from .fit import begin

    config = dataclasses.replace(job.settings, resume=job.settings.resume or resume)
    init = None if job.init is None else load_model(job.init)
    views.training = yield from begin(pairs, Path(job.out), config, init)
    return (yield from views.training.events())
