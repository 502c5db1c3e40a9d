"""What a training learns from, put where its own process can read it: labels as they are now, and their images."""

import dataclasses
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..events import Progress
from ..stack import Stack
from ..training.config import TrainConfig
from .layers import OURS, Source, path_of, usual_axes, warm_up

JOB, DATA = ".job.json", ".data"
ANNOTATION = "annotation"


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A training as the form describes it.

    Parameters
    ----------
    pairs : tuple of (image layer, labels layer), or of (Path, Path)
    out : Path
        Model folder to make.
    config : TrainConfig
    init : Path or None
        Model to start from.
    orphan : "stop" or "continue"
        What the training does whose window is gone.
    """

    pairs: tuple[tuple[Any, Any], ...]
    out: Path
    config: TrainConfig
    init: Path | None = None
    orphan: str = "stop"

    def stacks(self) -> list[tuple[Stack, Stack]]:
        """Open all pairs lazily.

        Raises
        ------
        DataError
            Where a pair cannot be opened.
        """
        from ..sources import open_labels, open_stack

        if not self.pairs:
            raise DataError("there is nothing to learn from; choose an image and its labels")
        found = []
        for image, labels in self.pairs:
            if isinstance(image, Path):
                found.append((open_stack(image), open_labels(labels)))
                continue
            axes = usual_axes(image)
            inside = axes.replace("c", "")
            found.append((Source(image, axes).stack(), open_labels(labels, _labels_axes(labels, inside))))
        return found


def _labels_axes(layer: Any, inside: str) -> str:
    """Return the axes of a labels layer on an image with these: of as many dimensions, counted from the last."""
    if layer.ndim > len(inside):
        raise DataError(f"{layer.name} has {layer.ndim} dimensions, its image has {len(inside)}: {inside}")
    return inside[len(inside) - layer.ndim :]


def keep(lesson: Lesson) -> Generator[Progress, None, Path]:
    """Write labels, and images that are only in the viewer, beside the model; return the file that a process reads.

    So a training can be gone on with when the layers are gone.
    """
    from ..store.save import save_stack
    from ..train_process import TrainJob

    warm_up()
    folder = lesson.out.with_name(lesson.out.name + DATA)
    pairs = []
    for number, ((image, labels), stacks) in enumerate(zip(lesson.pairs, lesson.stacks(), strict=True)):
        if isinstance(image, Path):
            pairs.append(_pair(image, labels))
            continue
        root = folder / f"{number}.ome.zarr"
        source, opening = _on_disk(image)
        if source is None:
            yield from save_stack(stacks[0], root)
            source = str(root)
        yield from save_stack(stacks[1], root, kind="labels", name=ANNOTATION)
        pairs.append(_pair(source, root / "labels" / ANNOTATION, opening))
    job = TrainJob(
        pairs=tuple(pairs),
        out=str(lesson.out),
        config=dataclasses.asdict(lesson.config),
        init=None if lesson.init is None else str(lesson.init),
        orphan=lesson.orphan,
    )
    path = lesson.out.with_name(lesson.out.name + JOB)
    path.write_text(json.dumps(job.to_json(), indent=1), encoding="utf-8")
    return path


def _on_disk(layer: Any) -> tuple[str | None, dict[str, Any]]:
    """Return where the image of a layer lies, and how it is opened, where our reader made the layer."""
    about = layer.metadata.get(OURS, {})
    if not about or path_of(layer) is None:
        return None, {}
    return path_of(layer), {"channel": about["channel"]} if about.get("channel") is not None else {}


def _pair(image: Path | str, labels: Path | str, opening: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"image": str(image), "labels": str(labels), "image_options": opening or {}, "labels_options": {}}


def unfinished(folder: Path) -> dict[str, Path]:
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
