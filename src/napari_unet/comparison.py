"""Several models on the same images, scored against the same truth: which of them suits the data."""

import csv
import dataclasses
import io
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from scipy import ndimage

from .batch import run_batch
from .errors import UsageError
from .evaluation.evaluate import KINDS, Evaluation, evaluate
from .evaluation.figures import WHITE, Panel, check_picture, enlarged, grey, middle, outlined, save_panels
from .events import Progress
from .files import check_replaceable, disk, read_plain, replace
from .inference import PredictConfig
from .model import Model
from .model.given import OneModel, as_model
from .sources import open_labels, open_stack
from .sources.arrange import check_letters
from .sources.open import Opening
from .sources.pairs import is_image, pair_paths
from .summary import cell

TABLE, PICTURE = "comparison.csv", "comparison.png"
HEAD = ("model", "seconds", "failed", "message")  # columns of the table, before the scores
ORDER = {
    "semantic": "dice",
    "instances": "ap_50",
    "intensity": "psnr",
}  # scores that say which is best, each kind's own
SHOWN, SIDE, ZOOM = 4, 160, 2  # images in the picture, pixels of each, and pixels of the screen for one of them
BYTES = 2**20  # read of a table to know it by its first line
SOFTWARE = "napari-unet compare"  # by which a picture of ours is known
FOUND, TRUTH = (90, 200, 250), (240, 180, 60)  # colours of outlines that are told apart by all


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a model made of the images.

    Parameters
    ----------
    name : str
        Of the model, and of the folder of its results.
    scores : dict of str to float
        As `evaluate` gives them; empty where it failed on an image, since others could not be held against it.
    order : str
        The score that says which model is best.
    seconds : float
        That its results took; 0 for those that were there.
    failed : int
        Images without a result.
    message : str
        Why the first of them has none.
    results : tuple of Path
        In the order of the images.
    """

    name: str
    scores: dict[str, float]
    order: str
    seconds: float
    failed: int
    message: str
    results: tuple[Path, ...]

    @property
    def score(self) -> float:
        """How good it is: what models are put in order by."""
        return self.scores.get(self.order, -np.inf)


def compare_models(
    images: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    models: Sequence[OneModel],
    out: str | os.PathLike[str],
    config: PredictConfig | None = None,
    kind: str | None = None,
    **opening: Unpack[Opening],
) -> Generator[Progress, None, list[Compared]]:
    """Run several models on the same images, score each against the truth, and say which is best.

    Results lie in ``OUT/MODEL``; what is done is skipped when the same is called again. ``OUT/comparison.csv`` has the
    scores, ``OUT/comparison.png`` shows the middles of the first images with what each model found.

    Parameters
    ----------
    images, truth : path
        One image and its truth, or two folders of images that pair by name.
    models : sequence
        Folders of models, names of those that ship, or what `load_model` returned.
    kind : {"semantic", "instances", "intensity"}, optional
        How they are scored; without it as what the models give.
    **opening
        How every image is opened: `Opening`.

    Returns
    -------
    list of Compared
        The best first: by Dice of classes, by AP at an IoU of 0.5 of objects, by PSNR of images.

    Raises
    ------
    UsageError
        Where the models give different kinds of results, or there are fewer than two.
    DataError
        Where images and truth do not pair.
    OutputError, UnsafeError
        Where something else lies in the place of the table or the picture.
    """
    images, truth, out, config = Path(images), Path(truth), Path(out), config or PredictConfig()
    given = [as_model(model) for model in models]
    kind = _kind(given, kind)
    pairs = pair_paths([images], [truth])
    check_replaceable(out / TABLE, _is_table, "table by compare")
    check_picture(out / PICTURE, SOFTWARE, "picture by compare")
    found: list[Compared] = []
    for name, model in zip(_names(models, given), given, strict=True):
        yield Progress(len(found), len(given), "compare", name)
        rows = yield from run_batch(images, model, out / name, config, **opening)
        failed = [row for row in rows if row.state == "failed"]
        results = tuple(out / name / row.result for row in rows if row.state != "failed")
        scored = None if failed else _scored(results, truth, kind, opening)
        said = failed[0].message if failed else ""
        seconds = sum(row.seconds for row in rows if row.state == "done")
        found.append(Compared(name, scored.scores if scored else {}, ORDER[kind], seconds, len(failed), said, results))
    found.sort(key=lambda each: -each.score)
    with disk(out):
        replace(out / TABLE, _table(found).encode())
    save_panels(out / PICTURE, _panels(pairs[:SHOWN], found, kind, opening), SOFTWARE)
    return found


def _kind(models: Sequence[Model], kind: str | None) -> str:
    if len(models) < 2:
        raise UsageError(f"{len(models)} model is given; name at least two to be compared")
    if kind is not None and kind not in KINDS:
        raise UsageError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    tasks = [model.task for model in models]
    found = {"intensity" if t.result == "image" else "semantic" if t.objects is None else "instances" for t in tasks}
    if kind is None and len(found) > 1:
        raise UsageError(
            f"the models give different kinds of results ({', '.join(sorted(found))}); compare those of one kind, or "
            "choose the kind by which all are scored"
        )
    return kind or found.pop()


def _names(given: Sequence[OneModel], models: Sequence[Model]) -> list[str]:
    """Return a name for each model, no two alike: that of its folder, else that of its record."""
    names: list[str] = []
    for what, model in zip(given, models, strict=True):
        base = str(model.record.get("name") or "model") if isinstance(what, Model) else Path(what).name
        base, number = base.removesuffix(".model"), 1
        while (name := f"{base}-{number}" if number > 1 else base) in names:
            number += 1
        names.append(name)
    return names


def _axes_of_truth(opening: Opening) -> str | None:
    """Return the axes of truth and results where those of the images were given: the same without c."""
    given = opening.get("axes")
    return check_letters(given).replace("c", "") if given else None


def _scored(results: Sequence[Path], truth: Path, kind: str, opening: Opening) -> Evaluation:
    """Score the results of a model: one, or those of a folder."""
    axes = _axes_of_truth(opening)
    one = len(results) == 1 and (is_image(truth) or truth.is_file())
    return evaluate(results[0] if one else results[0].parent, truth, kind, axes)


def _table(found: Sequence[Compared]) -> str:
    columns = list(dict.fromkeys(name for each in found for name in each.scores))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*HEAD, *map(cell, columns)])
    for each in found:
        about = (cell(each.name), f"{each.seconds:.1f}", each.failed, cell(each.message))
        lines.writerow([*about, *(f"{each.scores[c]:.6g}" if c in each.scores else "" for c in columns)])
    return text.getvalue()


def _is_table(path: Path) -> bool:
    return read_plain(path, BYTES).startswith(",".join(HEAD).encode())


def _panels(pairs: Sequence[tuple[Path, Path]], found: Sequence[Compared], kind: str, opening: Opening) -> list[Panel]:
    """Draw a column for the images, one for the truth, and one for each model that has results of all."""
    images = [middle(image, opening) for image, _ in pairs]
    axes = _axes_of_truth(opening)
    shown = {"truth": [truth for _, truth in pairs]}
    shown |= {f"{each.name} {each.score:.3f}": list(each.results[: len(pairs)]) for each in found if not each.failed}
    pictures = [enlarged(grey(_cut(image)), ZOOM) for image in images]
    panels: list[Panel] = [("image", _stacked(pictures), WHITE)]
    for title, paths in shown.items():
        colour = TRUTH if title == "truth" else FOUND
        if kind == "intensity":
            drawn = [enlarged(grey(_cut(middle(open_stack(path), {"axes": axes}))), ZOOM) for path in paths]
        else:
            planes = [_apart(_cut(middle(open_labels(path, axes), {}))) for path in paths]
            drawn = [outlined(p, labels, colour, ZOOM) for p, labels in zip(pictures, planes, strict=True)]
        panels.append((title, _stacked(drawn), WHITE if kind == "intensity" else colour))
    return panels


def _cut(plane: np.ndarray) -> np.ndarray:
    """Return the middle of a plane."""
    return plane[tuple(slice((n - min(n, SIDE)) // 2, (n + min(n, SIDE)) // 2) for n in plane.shape)]


def _apart(labels: np.ndarray) -> np.ndarray:
    """Return labels without the pixels at which two of them meet, so that each is outlined for itself."""
    near = np.ones((3, 3), bool)
    wide = labels.astype(np.int64)  # one more than the largest label may not fit in the type of labels
    low = ndimage.grey_erosion(np.where(wide > 0, wide, wide.max(initial=0) + 1), footprint=near)
    return np.where(ndimage.grey_dilation(labels, footprint=near) > low, 0, labels)


def _stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures below each other, smaller ones on black."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, ZOOM), (0, width - p.shape[1]), (0, 0))) for p in pictures])
