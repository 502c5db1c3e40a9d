"""What the Segment widget runs beside the window: generators on the library's public functions."""

import contextlib
import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arrays.views import Box
from ..events import Progress
from ..inference import PredictConfig
from .layers import Source, warm_up
from .live import Live

if TYPE_CHECKING:
    from .. import Model, Preflight, Preview, Seam, Stack


@dataclasses.dataclass(frozen=True)
class Request:
    """A run as the form describes it.

    Parameters
    ----------
    source : Source
    models : tuple of Path
        Folders, each of the model that takes what the one before gives.
    out : Path
    config : PredictConfig
    near : tuple of float, or None
        Indices, along the tiled axes, of where somebody looks.
    """

    source: Source
    models: tuple[Path, ...]
    out: Path
    config: PredictConfig
    near: tuple[float, ...] | None = None

    def load(self) -> "tuple[Stack, tuple[Model, ...]]":
        """Open the image and load the models.

        Raises
        ------
        UnetError
            Where one of them cannot be used.
        """
        from .. import load_model

        models = tuple(map(load_model, self.models))
        return self.source.stack(models[0].config.in_channels), models

    @property
    def root(self) -> Path:
        """Where the result's group is."""
        return Path(self.source.path or "") if self.config.in_source else self.out


@dataclasses.dataclass(frozen=True)
class Finished:
    """A result that is there.

    Parameters
    ----------
    result : Stack
    group : Path
        Of the labels.
    counts : dict of str to int
        Voxels of each class; or the number of objects.
    attributes : dict
        Colours and classes of the labels.
    probabilities : tuple of (name, group, channel or None)
        Of classes, and the uncertainty, where they were wanted.
    places : tuple of indices in the result
        Where to annotate next.
    features : dict of column name to array
        Of objects; empty where the labels are classes.
    """

    result: "Stack"
    group: Path
    counts: dict[str, int]
    attributes: dict[str, Any]
    probabilities: tuple[tuple[str, Path, int | None], ...] = ()
    features: dict[str, Any] = dataclasses.field(default_factory=dict)
    places: tuple[tuple[float, ...], ...] = ()


def segment(request: Request, look: "Look | None" = None) -> Generator[Any, None, Finished]:
    """Run a model into an OME-Zarr; yields the events of `predict`, after `Opened` a `Live` to look at.

    Parameters
    ----------
    request : Request
    look : Look, optional
        What was looked at before: where it is of the same result, that is not computed again.
    """
    from .. import Block, Opened, predict
    from ..store.admission import check_folder

    check_folder(request.root)
    stack, models = request.load()
    warm_up()
    shown = look.preview if look is not None and look.fits(request) else None
    live = None
    events = predict(stack, models, request.out, request.config, near=request.near, shown=shown)
    with contextlib.closing(events):
        try:
            while True:
                event = next(events)
                if isinstance(event, Opened):
                    live = Live(event)
                    yield live
                elif live is not None and isinstance(event, Block) and event.stage == "predict":
                    live.add(event.box)
                yield event
        except StopIteration as end:
            result: Stack = end.value
    yield Progress(0, 0, "count")
    return _finished(result, models[-1], request)


def _finished(result: "Stack", model: "Model", request: Request) -> Finished:
    """Say what is to be shown of a result that is there."""
    from .. import annotate_next, count_voxels, read_table

    config, root, task = request.config, request.root, model.task
    channels = task.names if config.probabilities else ()
    more: list[tuple[str, Path, int | None]] = [
        (name, root / "probabilities", channel) for channel, name in enumerate(channels)
    ]
    more += [(name, root / name, None) for name in ("uncertainty", "error") if getattr(config, name)]
    found = Finished(result, Path(result.source or root), count_voxels(result, task), {}, tuple(more))
    if task.result == "image":
        return found
    if config.uncertainty:
        found = dataclasses.replace(found, places=tuple(centre for centre, _ in annotate_next(root)))
    if task.objects is not None:
        return dataclasses.replace(found, features=read_table(found.group))
    return dataclasses.replace(found, attributes=task.attributes())


def check(request: Request) -> "Generator[None, None, Preflight]":
    """Say what a run will take."""
    from .. import preflight
    from ..store.admission import check_folder

    check_folder(request.root)
    stack, models = request.load()
    yield
    warm_up()
    yield
    return preflight(stack, models, request.out, request.config)


def seams(request: Request) -> "Generator[Progress, None, Seam]":
    """Predict a sample again on a shifted grid."""
    from .. import seam_check

    stack, models = request.load()
    yield Progress(0, 0, "seam check", "a sample is predicted twice, on two grids")
    return seam_check(stack, models, request.config, near=request.near)


class Look:
    """The exact result where somebody looks, kept while image, model and settings stay the same.

    Parameters
    ----------
    request : Request
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.preview: Preview | None = None  # once somebody has looked

    def fits(self, request: Request) -> bool:
        """Whether another request asks for the same result."""
        same = dataclasses.replace(request, out=self.request.out, near=self.request.near)
        return same == self.request

    def at(self, box: Box) -> Generator[Any, None, None]:
        """Yield (whole box, its part, result there), what is kept first, then from the middle outward.

        The box asked for is one of the image; the boxes given are of the result.
        """
        from .. import preview

        if self.preview is None:
            stack, models = self.request.load()
            warm_up()
            self.preview = preview(stack, models, self.request.config)
        yield from self.preview.seen(box)
