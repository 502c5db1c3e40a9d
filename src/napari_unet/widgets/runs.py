"""What the Segment widget runs beside the window: generators on the library's public functions."""

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arrays.stack import Stack
from ..arrays.views import Box
from ..events import Block, Progress
from ..grid.tiles import scaled
from ..inference.config import PredictConfig
from .layers import Source, warm_up
from .live import Live

if TYPE_CHECKING:
    from ..inference.diagnostics import Seam
    from ..inference.lazy import Preview
    from ..inference.preflight import Preflight
    from ..model import Model


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
        from ..model import load_model

        models = tuple(map(load_model, self.models))
        return self.source.stack(models[0].config.in_channels), models

    def last(self) -> "tuple[Stack, Model]":
        """Return what the last model takes, at the pixel size it is run at, and that model.

        Raises
        ------
        UnetError
            Where something does not fit.
        """
        from ..inference.engine import check_fit
        from ..inference.prepare import cascade, fitted, passed

        stack, models = self.load()
        check_fit(stack, models[0])
        model = cascade(models)[-1]
        return fitted(passed(stack, models[:-1], self.config), model, self.config), model

    @property
    def root(self) -> Path:
        """Where the result's group is."""
        return Path(self.source.path or "") if self.config.in_source else self.out


@dataclasses.dataclass(frozen=True)
class Opened:
    """A result that is being written; `stack` lies where it does."""

    live: Live
    stack: Stack
    kind: str
    attributes: dict[str, Any]
    group: Path


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

    result: Stack
    group: Path
    counts: dict[str, int]
    attributes: dict[str, Any]
    probabilities: tuple[tuple[str, Path, int | None], ...] = ()
    features: dict[str, Any] = dataclasses.field(default_factory=dict)
    places: tuple[tuple[float, ...], ...] = ()


def segment(request: Request, look: "Look | None" = None) -> Generator[Any, None, Finished]:
    """Run a model into an OME-Zarr; yields `Opened` as soon as there is something to show.

    Parameters
    ----------
    request : Request
    look : Look, optional
        What was looked at before: where it is of the same result, that is not computed again.
    """
    from ..batch import voxels
    from ..inference.diagnostics import annotate_next
    from ..inference.instances import read_table
    from ..inference.outputs import blank, classes_path, result_path
    from ..inference.predict import predict
    from ..inference.prepare import fitted, passed
    from ..store.admission import check_folder
    from ..store.plan import TABLE

    check_folder(request.root)
    stack, models = request.load()
    model = models[-1]
    warm_up()
    group = request.root / result_path(model, request.config.name)
    classes = classes_path(model, request.config.name)  # the same, but for objects, which are made of them at the end
    shown = look.preview if look is not None and look.fits(request) else None
    work = predict(stack, models, request.out, request.config, near=request.near, shown=shown)
    live = None
    try:
        while True:
            event = next(work)
            if live is None and event.stage == "predict":
                taken = fitted(passed(stack, models[:-1], request.config, measure=False), model, request.config)
                place = blank(taken, model.config.factors, model.task.dtype)
                live = Live(request.root / classes / "0", place.axes, event.done)
                yield Opened(live, place, model.task.result, model.task.attributes(), group)
            if live is not None and isinstance(event, Block) and event.stage == "predict":
                live.add(event.box)
            yield event
    except StopIteration as end:
        result: Stack = end.value
    finally:
        work.close()
    yield Progress(0, 0, "count")
    names = model.task.names if request.config.probabilities else ()
    more: list[tuple[str, Path, int | None]] = [
        (name, request.root / "probabilities", channel) for channel, name in enumerate(names)
    ]
    if model.task.result == "image":
        more += [
            (name, request.root / name, None) for name in ("uncertainty", "error") if getattr(request.config, name)
        ]
        return Finished(result, group, {}, {}, tuple(more))
    counts = voxels(result, model.task)
    places: tuple[tuple[float, ...], ...] = ()
    if request.config.uncertainty:
        more.append(("uncertainty", request.root / "uncertainty", None))
        places = tuple(centre for centre, _ in annotate_next(request.root))
    if model.task.objects is not None:
        return Finished(result, group, counts, {}, tuple(more), read_table(group / TABLE), places)
    return Finished(result, group, counts, model.task.attributes(), tuple(more), places=places)


def check(request: Request) -> "Generator[None, None, Preflight]":
    """Say what a run will take."""
    from ..inference.preflight import preflight
    from ..store.admission import check_folder

    check_folder(request.root)
    stack, models = request.load()
    yield
    warm_up()
    yield
    return preflight(stack, models, request.out, request.config)


def seams(request: Request) -> "Generator[Progress, None, Seam]":
    """Predict a sample again on a shifted grid."""
    from ..inference.diagnostics import seam_check

    stack, model = request.last()
    yield Progress(0, 0, "seam check", "a sample is predicted twice, on two grids")
    return seam_check(stack, model, request.config, near=request.near if len(request.models) == 1 else None)


class Look:
    """The exact result where somebody looks, kept while image, model and settings stay the same.

    Parameters
    ----------
    request : Request
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.attributes: dict[str, Any] = {}
        self.kind = "labels"
        self.stack: Stack | None = None
        self.result: Stack | None = None
        self.preview: Preview | None = None  # once somebody has looked

    def fits(self, request: Request) -> bool:
        """Whether another request asks for the same result."""
        same = dataclasses.replace(request, out=self.request.out, near=self.request.near)
        return same == self.request

    def at(self, box: Box) -> Generator[Any, None, None]:
        """Yield (whole box, its part, result there), what is kept first, then from the middle outward.

        The box asked for is one of the image; the boxes given are of the result.
        """
        if self.preview is None:
            self._open()
        if self.preview is None:
            return
        whole, factors = self.preview.box_of(box), self.preview.factors
        for part, values in self.preview.blocks(whole):
            yield scaled(whole, factors), scaled(part, factors), values

    def _open(self) -> None:
        from ..inference.engine import Engine
        from ..inference.lazy import Preview
        from ..inference.outputs import blank

        config = self.request.config
        stack, model = self.request.last()
        model = dataclasses.replace(model, task=config.applied(model.task))
        warm_up()
        self.attributes, self.kind = model.task.attributes(), model.task.result
        self.stack, self.result = stack, blank(stack, model.config.factors, model.task.dtype)
        self.preview = Preview(Engine.of(self.stack, model, config))
