"""Judge a result against the truth, read block by block: classes, objects or intensities."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .boundaries import v_scores
from .contingency import Contingency
from .errors import DataError, UsageError
from .metrics import Intensity, dice, instance_scores, iou, pixel_accuracy, pixel_error, same_classes
from .objects.config import MANY
from .similarity import ms_ssim, resolution, ring_correlation, ssim
from .sources import open_labels, open_stack, pair_paths
from .sources.pairs import is_image, paired_lines, stem
from .sources.wholes import WERE_FLOATS, is_patchy
from .stack import Box, Stack
from .store.plan import TABLE
from .text import escaped
from .units import factor

KINDS = ("semantic", "instances", "intensity")
# Both sides of a block, as the widest type, stay within 64 MiB.
BLOCK_ELEMENTS = (64 << 20) // 16
BORDER_ELEMENTS = 1 << 26
SCALE_TOLERANCE = 0.01
COUNTS = ("n_result", "n_truth", "n_split", "n_merged")


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a result.

    Parameters
    ----------
    scores : dict of str to float
    notes : tuple of str
        What was decided that the user should see.
    kind : {"semantic", "instances", "intensity"}
    """

    scores: dict[str, float]
    notes: tuple[str, ...]
    kind: str

    def to_json(self) -> dict[str, Any]:
        """Return the scores by name, one flat object; None for what is not finite, which JSON lacks."""
        return {name: value if math.isfinite(value) else None for name, value in self.scores.items()}

    def table(self) -> str:
        """Return the scores as aligned text, one a line."""
        lines = [(escaped(name), _number(name, value)) for name, value in self.scores.items()]
        width = max((len(name) for name, _ in lines), default=0)
        return "\n".join(f"{name:<{width}}  {value:>10}" for name, value in lines)


def _number(name: str, value: float) -> str:
    return f"{value:.0f}" if name.startswith(COUNTS) else f"{value:.4f}"


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A result and its truth, opened, with the same axes and shape.

    Parameters
    ----------
    result, truth : Stack
    """

    result: Stack
    truth: Stack

    def read(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Read a region of the truth and of the result."""
        return self.truth.read(box), self.result.read(box)

    def boxes(self) -> Iterator[Box]:
        """Yield boxes that cover the pair: whole chunks of the result, as many as fit a block."""
        return blocks(self.result.shape, self.result.chunks)

    def planes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield each (Y, X) plane of the truth and of the result."""
        shape = self.truth.shape
        for at in itertools.product(*map(range, shape[:-2])):
            box = (*(slice(i, i + 1) for i in at), slice(0, shape[-2]), slice(0, shape[-1]))
            truth, result = (plane.reshape(shape[-2:]) for plane in self.read(box))
            yield truth, result

    def times(self) -> Iterator["Pair"]:
        """Yield each time point, or the pair itself where there is no time."""
        if "t" not in self.truth.axes:
            yield self
            return
        for t in range(self.truth.size("t")):
            yield Pair(self.result.select(t=t), self.truth.select(t=t))


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A result and its truth, to be opened when they are read: a folder can hold more files than may be open.

    Parameters
    ----------
    result, truth : path, Stack or array
    name : str
        What its scores are called after in a folder.
    axes : str, optional
    """

    result: Any
    truth: Any
    name: str
    axes: str | None

    def is_float(self) -> bool:
        """Say whether either side holds floats, which are no labels."""
        return _is_float(self.result, self.axes) or _is_float(self.truth, self.axes)

    def open(self, floats: bool) -> Pair:
        """Open both sides, as images or as labels, and hold them against each other."""
        opener = open_stack if floats else open_labels
        return _fit(opener(self.result, self.axes), opener(self.truth, self.axes))


def evaluate(result: Any, truth: Any, kind: str | None = None, axes: str | None = None) -> Evaluation:
    """Score a result against the truth.

    Parameters
    ----------
    result, truth : path, Stack or array
        Or two folders of images that pair by name. A result store opens as its labels where labels are scored.
    kind : {"semantic", "instances", "intensity"}, optional
        Without it floats are intensities, a model's objects and labels of over 20 values instances, others semantic.
    axes : str, optional
        Axes of both sides, as for `open_stack`.

    Returns
    -------
    Evaluation
        Of folders: every score with the suffix ``_NAME`` for each file (``_file_NAME`` where that is the name of
        another score already, as for files named after numbers), and as such pooled over all files for class
        scores, summed for numbers of objects, and the mean over files for the rest. Objects at different time points
        are different objects.

    Raises
    ------
    DataError
        Where either side cannot be read, or the two do not fit each other.
    UsageError
        Where `kind` is none of the three.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    cases, many = _cases(result, truth, axes)
    listed = dict.fromkeys(paired_lines([(case.result, case.truth) for case in cases]) if many else [])
    floats = kind == "intensity" or (kind is None and any(case.is_float() for case in cases))
    notes = listed | dict.fromkeys(["scored as intensity: the values are floats"] if floats and kind is None else [])
    if floats:
        return Evaluation(_intensity(cases, many, notes), tuple(notes), "intensity")
    tables = [_tables(case, notes) for case in cases]
    if kind is None:
        kind = _decide(cases, tables, notes)
    score = _instances if kind == "instances" else _semantic
    return Evaluation(score(cases, tables, many, notes), tuple(notes), kind)


def blocks(shape: Sequence[int], chunks: Sequence[int], elements: int = BLOCK_ELEMENTS) -> Iterator[Box]:
    """Cut an array into boxes of whole chunks and at most `elements`; a larger chunk is cut itself.

    Parameters
    ----------
    shape, chunks : sequences of int, one an axis
    elements : int
    """
    size = [min(c, n) for c, n in zip(chunks, shape, strict=True)]
    for axis in range(len(size)):
        rest = math.prod(size) // size[axis]
        size[axis] = max(1, min(size[axis], elements // rest))
    for axis in reversed(range(len(size))):
        room = elements // math.prod(size)
        if room > 1:
            size[axis] = min(size[axis] * room, shape[axis])
    starts = [range(0, n, s) for n, s in zip(shape, size, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(a + s, n)) for a, s, n in zip(corner, size, shape, strict=True))


def _cases(result: Any, truth: Any, axes: str | None) -> tuple[list[Case], bool]:
    """Return what to compare, and whether these are the images of folders."""
    one, other = _is_folder(result), _is_folder(truth)
    if one != other:
        folder, single = (result, truth) if one else (truth, result)
        raise DataError(
            f"{folder} is a folder of images and {_named(single)} is one image; give two folders or two images"
        )
    if not one:
        return [Case(result, truth, "", axes)], False
    cases = [Case(a, b, stem(b), axes) for a, b in pair_paths([result], [truth])]
    if len({case.name for case in cases}) < len(cases):
        raise DataError(f"{truth} holds several images of one name; give each a name of its own")
    return cases, True


def _is_folder(what: Any) -> bool:
    if not isinstance(what, str | Path) or "://" in str(what):
        return False
    path = Path(what).expanduser()
    return path.is_dir() and not is_image(path)


def _named(what: Any) -> str:
    return str(what) if isinstance(what, str | Path) else getattr(what, "name", type(what).__name__)


def _is_float(what: Any, axes: str | None) -> bool:
    """Say whether something holds floats that are no labels: whole numbers alone may be an image too."""
    try:
        labels = open_labels(what, axes)
    except DataError:
        if open_stack(what, axes).dtype.kind == "f":
            return True
        raise
    return WERE_FLOATS in labels.notes and not is_patchy(labels)


def _fit(result: Stack, truth: Stack) -> Pair:
    """Take away axes of size 1 and refuse sides that differ."""
    one, other = _squeezed(result), _squeezed(truth)
    if one.axes != other.axes or one.shape != other.shape:
        raise DataError(
            f"the result {result.name} has axes {result.axes!r} and shape {result.shape}, the truth {truth.name} "
            f"{truth.axes!r} and {truth.shape}; both sides must show the same region (give axes where "
            "a file does not say its own)"
        )
    for axis in one.spatial:
        at = one.axes.index(axis)
        ours, theirs = one.scale[at], other.scale[at]
        ratio = factor(one.units[at], other.units[at])
        explicit = one.units[at] is not None or (ours != 1.0 and theirs != 1.0)
        if ratio and explicit and abs(ours * ratio - theirs) > SCALE_TOLERANCE * theirs:
            raise DataError(
                f"the result {result.name} has a scale of {ours} {one.units[at] or ''} along {axis}, the truth "
                f"{truth.name} {theirs} {other.units[at] or ''}; scores need the same pixels: "
                "choose the same level, or correct the scale"
            )
    return Pair(one, other)


def _squeezed(stack: Stack) -> Stack:
    return stack.select(**{axis: 0 for axis in stack.axes if axis not in "yx" and stack.size(axis) == 1})


def _count(pair: Pair) -> Iterator[Contingency]:
    for box in pair.boxes():
        yield Contingency.of(*pair.read(box))


def _tables(case: Case, notes: dict[str, None]) -> list[Contingency]:
    """Count every time point of a case."""
    pair = case.open(floats=False)
    notes |= _said(pair)
    return [Contingency.total(_count(time)) for time in pair.times()]


def _said(pair: Pair) -> dict[str, None]:
    return dict.fromkeys((*pair.result.notes, *pair.truth.notes))


def _decide(cases: list[Case], tables: list[list[Contingency]], notes: dict[str, None]) -> str:
    results = (case.open(floats=False).result for case in cases)
    if any((Path(result.source or "-") / TABLE).is_file() for result in results):
        notes["scored as instances: a model of objects made the result; kind says otherwise"] = None
        return "instances"
    most = max(len(_values(tables, side)) for side in ("truth", "result"))
    kind = "instances" if most > MANY else "semantic"
    notes[f"scored as {kind}: {most} different label values; kind says otherwise"] = None
    return kind


def _values(tables: list[list[Contingency]], side: str) -> list[int]:
    found = [np.unique(getattr(table, side)) for times in tables for table in times]
    return [int(value) for value in np.unique(np.concatenate(found))]


def _summary(
    cases: list[Case], scores: list[dict[str, float]], pooled: dict[str, float], many: bool
) -> dict[str, float]:
    """Name the scores: those of all files, then those of each."""
    if not many:
        return {**scores[0], **pooled}
    names = list(dict.fromkeys(itertools.chain.from_iterable(scores)))
    found = {name: float(np.mean([one[name] for one in scores if name in one])) for name in names}
    found |= {name: float(sum(one[name] for one in scores)) for name in COUNTS if name in found}
    found |= pooled
    suffixed = [
        (name, case.name, value) for case, one in zip(cases, scores, strict=True) for name, value in one.items()
    ]
    flat = [f"{name}_{of}" for name, of, _ in suffixed]
    # A file named 1 would take the name of class 1.
    word = "" if len(found.keys() | set(flat)) == len(found) + len(flat) else "file_"
    return found | {f"{name}_{word}{of}": value for name, of, value in suffixed}


def _intensity(cases: list[Case], many: bool, notes: dict[str, None]) -> dict[str, float]:
    scores = []
    for case in cases:
        pair = case.open(floats=True)
        notes |= _said(pair)
        sums = sum((Intensity.of(*pair.read(box)) for box in pair.boxes()), Intensity())
        scores.append(sums.scores() | _likeness(pair, sums.high - sums.low, notes))
    return _summary(cases, scores, {}, many)


def _likeness(pair: Pair, spread: float, notes: dict[str, None]) -> dict[str, float]:
    """Return ssim, ms_ssim and the resolution by Fourier rings, the mean over planes, unless these are too large."""
    if math.prod(pair.truth.shape[-2:]) > BORDER_ELEMENTS:
        notes[f"ssim and resolution left out: planes of {pair.truth.shape[-2:]} are too large for them"] = None
        return {}
    found: dict[str, list[float]] = {}
    for truth, result in pair.planes():
        several = ms_ssim(truth, result, spread)
        detail = resolution(ring_correlation(truth, result), min(truth.shape))
        each = {"ssim": ssim(truth, result, spread), "frc_resolution_pixels": detail}
        for name, value in (each if several is None else each | {"ms_ssim": several}).items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _instances(
    cases: list[Case], tables: list[list[Contingency]], many: bool, notes: dict[str, None]
) -> dict[str, float]:
    if many or len(tables[0]) > 1:
        notes["objects of different files or time points are different objects"] = None
    scores = []
    for times in tables:
        whole = times[0]
        for table in times[1:]:
            whole = whole.beside(table)
        scores.append(instance_scores(whole))
    return _summary(cases, scores, {}, many)


def _semantic(
    cases: list[Case], tables: list[list[Contingency]], many: bool, notes: dict[str, None]
) -> dict[str, float]:
    truth, values = _matching(cases, tables)
    if values != truth:
        notes[f"classes {values} of the result taken as {truth} of the truth, in order of value"] = None
    matrices = [Contingency.total(times).matrix(truth, values) for times in tables]
    scores = [_class_scores(matrix, truth) for matrix in matrices]
    if len(truth) == 2:
        borders = [_border_scores(case.open(floats=False), truth[1], values[1], notes) for case in cases]
        scores = [one | more for one, more in zip(scores, borders, strict=True)]
    return _summary(cases, scores, _class_scores(np.sum(matrices, axis=0), truth), many)


def _matching(cases: list[Case], tables: list[list[Contingency]]) -> tuple[list[int], list[int]]:
    """Return the label value of each class in the truth, and in the result."""
    truth, result = (_values(tables, side) for side in ("truth", "result"))
    found = same_classes(truth, result)
    if found is not None:
        return found
    unknown = min(set(result) - set(truth))
    where = next(case for case, times in zip(cases, tables, strict=True) if unknown in _values([times], "result"))
    raise DataError(
        f"the result {_named(where.result)} holds the value {unknown}, which is no class of the truth "
        f"{_named(where.truth)}: its values are {truth[:8]}; give both the same classes, or kind 'instances' if the "
        "values number objects"
    )


def _class_scores(confusion: np.ndarray, values: list[int]) -> dict[str, float]:
    found: dict[str, float] = {}
    measures: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (("dice", dice), ("iou", iou))
    each = [(name, measure(confusion)) for name, measure in measures]
    for name, scores in each:
        found[name] = float(scores[1:].mean()) if len(scores) > 1 else 1.0
    found |= {"pixel_accuracy": pixel_accuracy(confusion), "pixel_error": pixel_error(confusion)}
    for name, scores in each:
        found |= {f"{name}_{value}": float(score) for value, score in zip(values, scores, strict=True)}
    return found


def _border_scores(pair: Pair, truth_cell: int, result_cell: int, notes: dict[str, None]) -> dict[str, float]:
    """Return v_rand and v_info, the mean over the planes of a pair; nothing where a plane is too large."""
    shape = pair.truth.shape
    if math.prod(shape) > BORDER_ELEMENTS:
        notes[f"v_rand and v_info left out: {math.prod(shape)} pixels are too many for them"] = None
        return {}
    scores = []
    for truth, result in pair.planes():
        scores.append(v_scores(truth == truth_cell, result == result_cell))
    v_rand, v_info = np.mean(scores, axis=0)
    return {"v_rand": float(v_rand), "v_info": float(v_info)}
