"""What a training learns from, put where its own process can read it: labels as they are now, and their images."""

import csv
import dataclasses
import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..cards import Entry
from ..errors import DataError, ModelError
from ..events import Progress
from ..process.remote import Remote
from ..training.config import TrainConfig
from ..training.job import TrainJob, carry_out
from . import away
from .layers import warm_up
from .panel import counted
from .source import OURS, Source, channels_of, file_options, path_of, pixel_size, usual_axes

SAME = 1e-3  # relative difference of two roundings of one pixel size
SAVES = 600.0  # seconds in which a training must have saved its state: on a slow disk that takes its time
JOB, DATA = ".job.json", ".data"
ANNOTATION = "annotation"


@dataclasses.dataclass(frozen=True)
class TrainingRequest:
    """A training as the form describes it.

    Parameters
    ----------
    pairs : tuple of (image layer, labels layer), or of (Path, Path)
        With images to be learnt, their layers, or paths, in the place of the labels.
    out : Path
        Model folder to make.
    init : Path or None
        Model to start from.
    on_disconnect : "stop" or "continue"
        What the training does when napari closes.
    reading : dict
        How images are opened that are paths.
    classes : tuple of (labels layer or None), or Path, optional
        The class of each object of each pair; or where classes are of labels that are paths.
    class_names : dict of int to str
        What painted classes of objects are called.
    channel : int or None
        The one that is learnt from, of images in the viewer that have several; all if None.
    """

    pairs: tuple[tuple[Any, Any], ...]
    out: Path
    config: TrainConfig
    init: Path | None = None
    on_disconnect: str = "stop"
    reading: dict[str, Any] = dataclasses.field(default_factory=dict)
    classes: tuple[Any, ...] | Path | None = None
    class_names: dict[int, str] = dataclasses.field(default_factory=dict)
    channel: int | None = None

    @property
    def reading_of_others(self) -> dict[str, Any]:
        """How labels, or targets, are opened that are paths: labels are the one image of their file."""
        return {k: v for k, v in self.reading.items() if not self.config.reads_labels or k != "series"}

    @property
    def has_classes(self) -> bool:
        """Whether objects have classes."""
        return isinstance(self.classes, Path) or any(layer is not None for layer in self.classes or ())

    def classed(self) -> list[tuple[Stack, Stack]]:
        """Open all pairs lazily, with the classes of objects, if they have any."""
        from ..objects.classes import with_classes

        pairs = self.stacks()
        if not self.has_classes:
            return pairs
        given = self.classes if isinstance(self.classes, Path) else self.named_classes([labels for _, labels in pairs])
        labels = with_classes([labels for _, labels in pairs], given)
        return [(image, each) for (image, _), each in zip(pairs, labels, strict=True)]

    def named_classes(self, labels: Sequence[Stack]) -> list[dict[int, str]]:
        """Return the name of the class of each object, by its id, where classes are painted in layers."""
        from ..objects.classes import classes_of

        each = zip(self.classes if isinstance(self.classes, tuple) else (), self.pairs, strict=True)
        painted: list[Any] = [{} if layer is None else self._kinds(layer, image) for layer, (image, _) in each]
        called = {f"class_{value}": name for value, name in self.class_names.items()}
        return [{i: called.get(name, name) for i, name in found.items()} for found in classes_of(labels, painted)]

    @staticmethod
    def _kinds(layer: Any, image: Any) -> Stack:
        """Open the classes of objects, cut as their labels are."""
        from ..sources import open_labels
        from ..sources.position import brought_together

        axes = usual_axes(image)
        kinds = open_labels(layer, _labels_axes(layer, axes.replace("c", "")))
        _check_size(image, layer, kinds.spatial)
        return brought_together(Source(image, axes).stack(), kinds)[1]

    def channel_of(self, layer: Any) -> int | None:
        """Return the channel of an image that is learnt from; None where that is all of it."""
        return self.channel if len(channels_of(layer, usual_axes(layer))) > 1 else None

    def stacks(self) -> list[tuple[Stack, Stack]]:
        """Open all pairs lazily.

        Raises
        ------
        DataError
            Where a pair cannot be opened, or labels lie elsewhere than their image.
        """
        from ..sources import open_labels, open_stack
        from ..sources.position import brought_together

        if not self.pairs:
            raise DataError("there is nothing to learn from; choose an image and its labels")
        found = []
        for image, labels in self.pairs:
            if isinstance(image, Path):
                other = open_labels if self.config.reads_labels else open_stack
                found.append((open_stack(image, **self.reading), other(labels, **self.reading_of_others)))
                continue
            axes = usual_axes(image)
            stack = Source(image, axes, channel=self.channel_of(image)).stack()
            if not self.config.reads_labels:
                found.append((stack, Source(labels, usual_axes(labels)).stack()))
                continue
            painted = open_labels(labels, _labels_axes(labels, axes.replace("c", "")))
            _check_size(image, labels, painted.spatial)
            try:
                stack, painted = brought_together(stack, painted)
            except DataError as error:
                raise DataError(f'{error}; or press "Lay on image" if they belong to it pixel by pixel') from error
            wanted = stack.values_along(painted.axes, "shape")
            if painted.shape != wanted:
                raise DataError(
                    f"the labels {labels.name} are {' x '.join(map(str, painted.shape))}, their image {image.name} is "
                    f"{' x '.join(map(str, wanted))}; paint on a labels layer of its size"
                )
            found.append((stack, painted))
        return found


def _check_size(image: Any, labels: Any, axes: str) -> None:
    """Refuse labels whose pixels are larger or smaller than their image's in the viewer: they lie elsewhere."""
    known, drawn = usual_axes(image), axes.rjust(labels.ndim)
    there = [float(image.scale[known.index(a)]) for a in axes if a in known]
    here = [float(labels.scale[drawn.index(a)]) for a in axes if a in known]
    if not np.allclose(here, there, rtol=SAME):
        sizes = [" x ".join(f"{size:g}" for size in each) for each in (here, there)]
        raise DataError(
            f"the labels {labels.name} have another pixel size than their image {image.name}: {sizes[0]} and "
            f'{sizes[1]}, so they lie elsewhere; if they belong to it pixel by pixel, press "Lay on image"'
        )


def _labels_axes(layer: Any, inside: str) -> str:
    """Return the axes of a labels layer on an image with these: of as many dimensions, counted from the last."""
    if layer.ndim > len(inside):
        raise DataError(
            f"{layer.name} has {layer.ndim} dimensions, its image has {len(inside)}, {inside}; "
            "choose labels of that image"
        )
    return inside[len(inside) - layer.ndim :]


def export_pairs(request: TrainingRequest) -> Generator[Progress, None, Path]:
    """Write labels, and images that are only in the viewer, beside the model; return the file that a process reads.

    So a training can be resumed when the layers are closed.
    """
    from ..store.save import save_stack

    warm_up()
    folder = request.out.with_name(request.out.name + DATA)
    pairs, opened = [], request.stacks()
    kinds = _tables(request, opened, folder)
    for number, ((image, labels), stacks) in enumerate(zip(request.pairs, opened, strict=True)):
        if isinstance(image, Path):
            pairs.append(_pair(image, labels, request.reading, request.reading_of_others))
            continue
        root = folder / f"{number}.ome.zarr"
        source, opening = yield from _kept(image, stacks[0], root, request.channel_of(image))
        if labels is image:
            pairs.append(_pair(source, source, opening, opening))
            continue
        if not request.config.reads_labels:
            target, how = yield from _kept(labels, stacks[1], folder / f"{number}-target.ome.zarr")
            pairs.append(_pair(source, target, opening, how))
            continue
        for note in stacks[1].notes:
            yield Progress(0, 1, "plan", note)
        yield from save_stack(_on(source, opening, stacks[1]), root, kind="labels", name=ANNOTATION)
        pairs.append(_pair(source, root / "labels" / ANNOTATION, opening))
    job = TrainJob(
        pairs=tuple(pairs),
        out=str(request.out),
        config=dataclasses.asdict(request.config),
        init=None if request.init is None else str(request.init),
        on_disconnect=request.on_disconnect,
        object_classes=kinds,
    )
    path = request.out.with_name(request.out.name + JOB)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(job.to_json(), indent=1), encoding="utf-8")
    return path


def _tables(
    request: TrainingRequest, pairs: Sequence[tuple[Stack, Stack]], folder: Path
) -> str | tuple[str, ...] | None:
    """Write the classes of objects that are painted in layers as tables, and return where they are."""
    if not request.has_classes:
        return None
    if isinstance(request.classes, Path):
        return str(request.classes)
    found = []
    for number, kinds in enumerate(request.named_classes([labels for _, labels in pairs])):
        path = folder / f"{number}-classes.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "class"), *sorted(kinds.items())])
        found.append(str(path) if kinds else "")
    return tuple(found)


def _kept(
    layer: Any, stack: Stack, root: Path, channel: int | None = None
) -> Generator[Progress, None, tuple[str, dict[str, Any]]]:
    """Return where the image of a layer lies, and how it is opened; one only in the viewer is written to `root`."""
    from ..store.save import save_stack

    source, opening = _on_disk(layer, stack, channel)
    if source is None or _is_cut(layer, stack):
        opening = {}
        yield from save_stack(stack, root)
        source = str(root)
    return source, opening


def cut_pairs(request: TrainingRequest) -> frozenset[int]:
    """Return the pairs of which a part of the image alone is learnt from: their places are not those of the layer."""
    if any(isinstance(image, Path) for image, _ in request.pairs):
        return frozenset()
    each = enumerate(zip(request.pairs, request.stacks(), strict=True))
    return frozenset(i for i, ((image, _), (stack, _)) in each if _is_cut(image, stack))


def _is_cut(layer: Any, stack: Stack) -> bool:
    axes = stack.axes.replace("c", "")
    return Source(layer, usual_axes(layer)).stack().values_along(axes, "shape") != stack.values_along(axes, "shape")


def _on(source: str, opening: dict[str, Any], labels: Stack) -> Stack:
    """Return labels that lie where their image is opened from: the viewer may have moved both."""
    from ..sources import open_stack

    image = open_stack(source, **opening)
    return dataclasses.replace(labels, translation=image.values_along(labels.axes, "translation"))


def _on_disk(layer: Any, stack: Stack, channel: int | None) -> tuple[str | None, dict[str, Any]]:
    """Return where the image of a layer lies, and how it is opened as just this stack, where our reader made it."""
    from ..sources import open_stack

    about = layer.metadata.get(OURS, {})
    if "path" not in about:
        return None, {}
    said = {name: about[name] for name in ("channel", "axes") if about.get(name) is not None}
    said |= {} if channel is None else {"channel": channel}
    if len(said) == 2:  # the axes of one channel are not those of the file
        return None, {}
    path, opening = path_of(layer), file_options(layer) | said
    return path, opening | pixel_size(stack, open_stack(path, **opening))


def _pair(
    image: Path | str,
    labels: Path | str,
    opening: dict[str, Any] | None = None,
    other: dict[str, Any] | None = None,
) -> dict[str, Any]:
    options = {"image_options": opening or {}, "labels_options": other or {}}
    return {"image": str(image), "labels": str(labels), **options}


def paired(images: Path, labels: Path) -> tuple[tuple[Path, Path], ...]:
    """Return the files of two folders by their names; of one folder, each with itself."""
    from ..sources import list_images, pair_paths

    return tuple((p, p) for p in list_images(images)) if images == labels else tuple(pair_paths([images], [labels]))


def related(request: TrainingRequest, start: Path) -> None:
    """Refuse to go on from a model that is gone, or learnt something else than is asked for.

    Raises
    ------
    ModelError
        Naming both, and what to choose.
    """
    config = request.config
    try:
        entry = Entry.read(start)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{start} is no model any more ({error}); start from another one") from error
    if entry.task != config.task:
        raise ModelError(
            f"{entry.name} was trained for the task {entry.task}, the form asks for {config.task}; choose the same "
            "task, or start from another model or a new network"
        )
    if entry.given != config.condition:
        raise ModelError(
            f"{entry.name} makes samples for the condition {entry.given}, the form asks for {config.condition}; choose "
            "the same task, or start from another model or a new network"
        )
    for image, _ in request.stacks():
        channels = image.size("c") if "c" in image.axes else 1
        lacking = sorted(set(entry.axes) - set(image.axes))
        if (config.condition == "image" and channels != entry.channels) or lacking:
            what = f"needs {' and '.join(lacking)}" if lacking else f"takes {counted(entry.channels, 'channel')}"
            one = "choose one below Channel, or " if entry.channels == 1 and channels > 1 and not lacking else ""
            raise ModelError(
                f"{entry.name} {what}; {image.name} has the axes {image.axes} and {counted(channels, 'channel')}: "
                f"{one}start from another model, or from a new network"
            )


def outlook(request: TrainingRequest) -> Generator[Any, None, tuple[dict[str, Any], list[str]]]:
    """Analyse data and plan, without training; return what is chosen by name, and lines on what is found."""
    from ..sources.pairs import paired_lines

    remote = Remote(away.outlook, request.classed(), request.config, request.init)
    chosen, lines = yield from remote.events()
    return chosen, [*paired_lines(request.pairs), *lines]


def training(job: Path, resume: bool) -> Remote:
    """Return the training of a job in a file, which takes requests.

    Raises
    ------
    UsageError
        Where the file holds none.
    """
    goes_on = TrainJob.read(job).on_disconnect == "continue"
    return Remote(carry_out, job, resume, goes_on=goes_on, patience=SAVES, keep=False)


def paused_runs(folder: Path) -> dict[str, Path]:
    """Return the jobs in a folder of models that have not made their model, by name."""
    jobs = sorted(folder.glob("*" + JOB)) if folder.is_dir() else []
    found = {path.name.removesuffix(JOB): path for path in jobs}
    return {
        name.removesuffix(".model"): path
        for name, path in found.items()
        if (folder / f"{name}.training").is_dir() and not (folder / name / "model.json").is_file()
    }


def free_name(folder: Path, name: str) -> Path:
    """Return the model folder of this name, or of the next that is free: ``name-2.model``."""
    number, base = 1, name.removesuffix(".model")
    while True:
        path = folder / (f"{base}-{number}.model" if number > 1 else f"{base}.model")
        taken = [path, path.with_name(path.name + ".training"), path.with_name(path.name + DATA)]
        if not any(p.exists() for p in taken):
            return path
        number += 1
