"""What another process does for the window: public functions by their arguments, without napari and without Qt."""

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arrays.views import Box
from ..events import Progress
from ..files import following
from ..inference import PredictConfig
from ..process.parcel import unpack
from ..training.config import TrainConfig

if TYPE_CHECKING:
    from .. import Model, Preflight, Preview, Seam, Stack
    from ..summary import Row


DEVIATION = "standard deviation"  # of several samples, as its layer is called


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as it is sent.

    Parameters
    ----------
    models : tuple of Path
        Folders, each of the model that takes what the one before gives.
    near : tuple of float, or None
        Indices, along the tiled axes, of the viewed position.
    """

    stack: "Stack"
    models: tuple[Path, ...]
    out: Path
    config: PredictConfig
    near: tuple[float, ...] | None = None

    @property
    def root(self) -> Path:
        """Where the result's group is."""
        return Path(self.stack.source or "") if self.config.in_source else self.out

    def load(self) -> "tuple[Model, ...]":
        """Load the models, once it is sure that there is a place for the result.

        Raises
        ------
        UnetError
            Where one of them cannot be used.
        """
        from .. import load_model
        from ..store.admission import check_folder

        check_folder(self.root)
        return tuple(map(load_model, self.models))


@dataclasses.dataclass(frozen=True)
class Finished:
    """A result that is there.

    Parameters
    ----------
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
    labels : array or None
        The labels in memory, where they are small: a copy that can be painted on.
    """

    result: "Stack"
    group: Path
    counts: dict[str, int]
    attributes: dict[str, Any]
    probabilities: tuple[tuple[str, Path, int | None], ...] = ()
    features: dict[str, Any] = dataclasses.field(default_factory=dict)
    places: tuple[tuple[float, ...], ...] = ()
    labels: Any = None


@dataclasses.dataclass(frozen=True)
class Writing:
    """Where a run writes: the first that is said of it."""

    root: Path


def segment(run: Run) -> Generator[Progress | Writing, None, Finished]:
    """Run a model into an OME-Zarr; what was looked at before is not computed again where it is of the same result."""
    from .. import predict

    models = run.load()
    run = _beside_finished(run, models)
    yield Writing(run.root)
    same = [kept.preview for kept in _kept if (kept.run.models, kept.run.config) == (run.models, run.config)]
    shown = same[0] if same else None
    result = yield from predict(run.stack, models, run.out, run.config, near=run.near, shown=shown)
    yield Progress(0, 0, "count")
    return _finished(result, models[-1], run)


def _beside_finished(run: Run, models: "tuple[Model, ...]") -> Run:
    """Return a run to the next name that is free: what is finished, or a run of other settings, stays as it is."""
    from .. import preflight

    fixed = run.config.overwrite or run.config.in_source
    while not fixed and preflight(run.stack, models, run.out, run.config).taken:
        run = dataclasses.replace(run, out=following(run.out))
    return run


def _finished(result: "Stack", model: "Model", run: Run) -> Finished:
    """Say what is to be shown of a result that is there."""
    from .. import annotate_next, count_voxels, open_stack, read_table
    from ..inference.outputs import SAMPLES

    config, root, task = run.config, run.root, model.task
    channels = task.names if config.probabilities else ()
    more: list[tuple[str, Path, int | None]] = [
        (name, root / "probabilities", channel) for channel, name in enumerate(channels)
    ]
    more += [(name, root / name, None) for name in ("uncertainty", "error") if getattr(config, name)]
    if (config.samples or 1) > 1:
        more.append((DEVIATION, root / "uncertainty", None))
    if config.each_sample:
        names = open_stack(root / SAMPLES).channel_names
        more += [(name, root / SAMPLES, channel) for channel, name in enumerate(names)]
    found = Finished(result, Path(result.source or root), count_voxels(result, task), {}, tuple(more))
    if task.result == "image":
        return found
    if config.uncertainty:
        found = dataclasses.replace(found, places=tuple(centre for centre, _ in annotate_next(root)))
    if task.objects is not None:
        return dataclasses.replace(found, features=read_table(found.group))
    return dataclasses.replace(found, attributes=task.attributes())


def check(run: Run) -> "Generator[None, None, Preflight]":
    """Say what a run will take."""
    from .. import preflight

    models = run.load()
    yield
    return preflight(run.stack, models, run.out, run.config)


def seams(run: Run) -> "Generator[Progress, None, Seam]":
    """Predict a sample again on a shifted grid."""
    from .. import seam_check

    models = run.load()
    yield Progress(0, 0, "seam check", "a sample is predicted twice, on two grids")
    return seam_check(run.stack, models, run.config, near=run.near)


@dataclasses.dataclass(frozen=True)
class Looked:
    """What a preview is like: the first that is said of it.

    Parameters
    ----------
    geometry : Stack
        Zeros that lie where the whole result does.
    kind : "labels" or "image"
    attributes : dict
        Colours and classes of labels.
    """

    geometry: "Stack"
    kind: str
    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Counted:
    """What is said of the objects of a preview in the end.

    Parameters
    ----------
    story : str
    cut : tuple of int
        Ids of those that its edge cuts.
    classes : dict
        By id, the class of each; empty where objects have none.
    """

    story: str
    cut: tuple[int, ...]
    classes: dict[int, str]


@dataclasses.dataclass(frozen=True)
class _Kept:
    """The preview that was looked at last, and of what it is."""

    sent: "bytes | Run"
    run: Run
    preview: "Preview"


_kept: list[_Kept] = []  # one at most


def look(sent: bytes | Run, box: Box) -> Generator[Any, None, None]:
    """Yield a `Looked`, then (whole box, its part, result there), what is kept first, then from the middle outward.

    Of objects a `Counted` ends it.

    Parameters
    ----------
    sent : Run, or one that is packed
        What is computed of it is kept until another one is looked at.
    box : box
        Of the run's stack; the boxes given are of the result.
    """
    from .. import load_model, preview

    if not _kept or not (_kept[0].sent is sent or (isinstance(sent, bytes) and _kept[0].sent == sent)):
        _kept.clear()
        run: Run = unpack(sent) if isinstance(sent, bytes) else sent
        _kept.append(_Kept(sent, run, preview(run.stack, tuple(map(load_model, run.models)), run.config)))
    found, given = _kept[0].preview, _kept[0].run.stack
    task = found.engine.model.task
    yield Looked(found.geometry, task.result, dict(task.attributes()) if task.objects is None else {})
    for event in found.seen(_resampled(box, given, found.own)):
        yield event if isinstance(event, tuple) else Counted(event.story(), tuple(event.cut.tolist()), event.classes)


def _resampled(box: Box, given: "Stack", stack: "Stack") -> Box:
    """Return a box of an image as one of the same image at another pixel size."""
    axes = given.axes.replace("c", "")
    ratios = [a / b for a, b in zip(given.scale_along(axes), stack.scale_along(axes), strict=True)]
    ends = ((math.floor(b.start * r), math.ceil(b.stop * r)) for b, r in zip(box, ratios, strict=True))
    return tuple(slice(low, max(high, low + 1)) for low, high in ends)


def batch(
    images: Path, models: Sequence[Path], out: Path, config: PredictConfig, opening: Mapping[str, Any]
) -> "Generator[Progress, None, list[Row]]":
    """Run a model on every image of a folder; `opening` says which, and how each is opened."""
    from .. import run_batch

    return run_batch(images, list(models), out, config, **opening)


def bring(package: Path, out: Path) -> Generator[Progress, None, Path]:
    """Make a model folder of a package of the BioImage Model Zoo, and return it."""
    from ..zoo import import_model

    yield from import_model(package, out)
    return out


def outlook(
    pairs: "Sequence[tuple[Stack, Stack]]", config: TrainConfig, init: Path | None
) -> Generator[Progress, None, tuple[dict[str, Any], list[str]]]:
    """Analyse data and plan, without training; return what was chosen by name, and lines on what is found."""
    from .. import load_model
    from ..training.setup import outlook

    found = yield from outlook(pairs, config, None if init is None else load_model(init))
    plan = found.plan
    chosen = {name: getattr(plan.network, name) for name in ("ndim", "depth", "base_features")}
    chosen |= {name: getattr(plan, name) for name in ("patch", "batch", "learning_rate")}
    chosen |= {"working_pixel_size": round(max(plan.shrink), 3)} if plan.shrink else {}
    return chosen, found.lines()
