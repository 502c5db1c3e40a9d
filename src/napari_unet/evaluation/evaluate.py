"""Judge a result against the truth, read block by block: classes, objects or intensities."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ..errors import DataError, UsageError
from ..metrics.boundaries import v_scores
from ..metrics.contingency import Contingency
from ..metrics.objects import Intensity, dice, instance_scores, iou, pixel_accuracy, pixel_error, same_classes
from ..metrics.similarity import ms_ssim, resolution, ring_correlation, ssim
from ..objects.classes import classes_of
from ..objects.config import MANY
from ..objects.labelling import Labelling, middle_of
from ..sources.omezarr import ome
from ..sources.open import More
from ..sources.pairs import paired_lines
from ..sources.zarrmeta import read_node
from ..store.table import kinds_in, table_of
from ..text import escaped
from .kinds import Tally
from .sides import Case, Sides, cases_of, name_of

KINDS = ("semantic", "instances", "intensity")
BORDER_ELEMENTS = 1 << 26  # 8192 x 8192 pixels: thinning them takes some 6 s
OTHER_SCALE = 20.0  # dB: an error of a tenth of the range, of which a scale and an offset take nine tenths
COUNTS = ("n_result", "n_truth", "n_split", "n_merged")  # scores that are added up over images, not averaged


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a result.

    Parameters
    ----------
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
        """Return the scores as aligned text, one per line."""
        lines = [(escaped(name), _number(name, value)) for name, value in self.scores.items()]
        width = max((len(name) for name, _ in lines), default=0)
        return "\n".join(f"{name:<{width}}  {value:>10}" for name, value in lines)


def _number(name: str, value: float) -> str:
    return f"{value:.0f}" if name.startswith(COUNTS) else f"{value:.4f}"


def evaluate(
    result: Any,
    truth: Any,
    kind: str | None = None,
    axes: str | None = None,
    object_classes: Any = None,
    **more: Unpack[More],
) -> Evaluation:
    """Score a result against the truth.

    Parameters
    ----------
    result, truth : path, Stack or array
        Or two folders of images that pair by name. A result store opens as its labels where labels are scored.
    kind : {"semantic", "instances", "intensity"}, optional
        Without it floats are intensities, a model's objects and labels of over 20 values instances, others semantic.
    axes : str, optional
        Axes of both sides, as for `open_stack`.
    object_classes : path, or sequence with one for each truth, optional
        The class of each true object, as `with_classes` takes them; by default those of the truth's own table. With
        them, and a result that has classes, scores of each class and ``class_accuracy`` are given too.
    **more
        Of both sides, as for `open_stack`: ``series``, ``allow_incomplete``.

    Returns
    -------
    Evaluation
        Of folders: every score with the suffix ``_NAME`` for each file (``_file_NAME`` where that is the name of
        another score already, as for files named after numbers); over all files as ``NAME_pooled``, of all their
        pixels or objects together, and ``NAME_mean``, the mean over files. The plain name is the pooled one for class
        scores, the sum for numbers of objects, and the mean for the rest. Objects at different time points are
        different objects.

    Raises
    ------
    DataError
        Where either side cannot be read, or the two do not fit each other.
    UsageError
        Where `kind` is none of the three.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    cases, many = cases_of(result, truth, {"axes": axes, **more})
    listed = dict.fromkeys(paired_lines([(case.result, case.truth) for case in cases]) if many else [])
    floats = kind == "intensity" or (kind is None and any(case.is_float() for case in cases))
    notes = listed | dict.fromkeys(["scored as intensity: the values are floats"] if floats and kind is None else [])
    if floats:
        return Evaluation(_intensity(cases, many, notes), tuple(notes), "intensity")
    tables = [_tables(case, notes) for case in cases]
    if kind is None:
        kind = _decide(cases, tables, notes)
    if object_classes is not None and kind != "instances":
        raise UsageError(f"object classes are scored with kind instances, not {kind}; leave them out, or choose it")
    if kind == "semantic":
        return Evaluation(_semantic(cases, tables, many, notes), tuple(notes), kind)
    scores, pooled = _instances(cases, tables, many, notes)
    tallies = _tallies(cases, tables, object_classes, notes)
    scores = [one | ({} if tally is None else tally.scores()) for one, tally in zip(scores, tallies, strict=True)]
    counted = [tally for tally in tallies if tally is not None]
    pooled |= functools.reduce(Tally.__add__, counted).scores() if counted else {}
    return Evaluation(_summary(cases, scores, {}, many, pooled), tuple(notes), kind)


def _count(pair: Sides) -> Iterator[Contingency]:
    for box in pair.boxes():
        yield Contingency.of(*pair.read(box))


def _tables(case: Case, notes: dict[str, None]) -> list[Contingency]:
    """Count every time point of a case."""
    pair = case.open(floats=False)
    notes |= _said(pair)
    return [Contingency.total(_count(time)) for time in pair.times()]


def _said(pair: Sides) -> dict[str, None]:
    return dict.fromkeys((*pair.result.notes, *pair.truth.notes))


def _decide(cases: list[Case], tables: list[list[Contingency]], notes: dict[str, None]) -> str:
    results = (case.open(floats=False).result for case in cases)
    if any(table_of(Path(result.source or "-")).is_file() for result in results):
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
    cases: list[Case],
    scores: list[dict[str, float]],
    pooled: dict[str, float],
    many: bool,
    more: dict[str, float] | None = None,
) -> dict[str, float]:
    """Name the scores: those of all files, then those of each.

    `pooled` goes by the plain name where it is given, `more` only as pooled, the mean over files by the plain name.
    """
    if not many:
        return {**scores[0], **pooled}
    names = list(dict.fromkeys(itertools.chain.from_iterable(scores)))
    found = {name: float(np.mean([one[name] for one in scores if name in one])) for name in names}
    counts = [name for name in names if name.startswith(COUNTS)]
    mean = {f"{name}_mean": value for name, value in found.items() if name not in counts}
    beside = {f"{name}_pooled": value for name, value in (pooled or more or {}).items() if name not in counts}
    found |= {name: float(sum(one[name] for one in scores if name in one)) for name in counts}
    found |= pooled | mean | beside
    suffixed = [
        (name, case.name, value) for case, one in zip(cases, scores, strict=True) for name, value in one.items()
    ]
    flat = [f"{name}_{of}" for name, of, _ in suffixed]
    # A file named 1 would take the name of class 1.
    word = "" if len(found.keys() | set(flat)) == len(found) + len(flat) else "file_"
    return found | {f"{name}_{word}{of}": value for name, of, value in suffixed}


def _intensity(cases: list[Case], many: bool, notes: dict[str, None]) -> dict[str, float]:
    scores, total = [], Intensity()
    for case in cases:
        pair = case.open(floats=True)
        notes |= _said(pair)
        sums = sum((Intensity.of(*pair.read(box)) for box in pair.boxes()), Intensity())
        scores.append(sums.scores() | _likeness(pair, sums.high - sums.low, notes))
        total += sums
    pooled = total.scores()
    (mean, sd), (found, found_sd) = total.moments()
    if sd and pooled["psnr"] < OTHER_SCALE < pooled["si_psnr"] - max(pooled["psnr"], 0.0):
        notes[
            f"the result is on another scale than the truth: its mean is {found:.4g} and its standard deviation "
            f"{found_sd:.4g}, where the truth has {mean:.4g} and {sd:.4g}; bring them to one scale, or compare "
            "by si_psnr alone"
        ] = None
    return _summary(cases, scores, {}, many, pooled)


def _likeness(pair: Sides, data_range: float, notes: dict[str, None]) -> dict[str, float]:
    """Return ssim, ms_ssim and the resolution by Fourier rings, the mean over planes, unless these are too large."""
    if math.prod(pair.truth.shape[-2:]) > BORDER_ELEMENTS:
        notes[f"ssim and resolution left out: planes of {pair.truth.shape[-2:]} are too large for them"] = None
        return {}
    found: dict[str, list[float]] = {}
    for truth, result in pair.planes():
        several = ms_ssim(truth, result, data_range)
        detail = resolution(ring_correlation(truth, result), min(truth.shape))
        each = {"ssim": ssim(truth, result, data_range), "frc_resolution_pixels": detail}
        for name, value in (each if several is None else each | {"ms_ssim": several}).items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _instances(
    cases: list[Case], tables: list[list[Contingency]], many: bool, notes: dict[str, None]
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Return the scores of objects of each case, and those of all their objects together."""
    if many or len(tables[0]) > 1:
        notes["objects of different files or time points are different objects"] = None
    for case, times in zip(cases, tables, strict=True):
        if all(table.n_truth <= 1 for table in times) and (pieces := _pieces_of_one(case)) > 1:
            notes[
                f"the truth {name_of(case.truth)} holds one id in {pieces} pieces: is it a mask? Scores of objects "
                "need an id for each; number its pieces, or take kind semantic"
            ] = None
    wholes = [functools.reduce(Contingency.beside, times) for times in tables]
    pooled = instance_scores(functools.reduce(Contingency.beside, wholes))
    return [instance_scores(whole) for whole in wholes], pooled


def _tallies(
    cases: list[Case], tables: list[list[Contingency]], given: Any, notes: dict[str, None]
) -> list[Tally | None]:
    """Count the objects of each class in each case; None where the truth, or the result, has no classes."""
    truths = [case.open(floats=False).truth for case in cases]
    known = [kinds_in(truth.source) for truth in truths] if given is None else classes_of(truths, given)
    if not any(known):
        return [None] * len(cases)
    seen = [kinds_in(case.open(floats=False).result.source) for case in cases]
    if not any(seen):
        notes["the truth has classes of objects and the result has none: they are not scored"] = None
        return [None] * len(cases)
    if not {name for each in known for name in each.values()} & {name for each in seen for name in each.values()}:
        notes["no class of the truth's objects has the name of one of the result's"] = None
    return [
        functools.reduce(Tally.__add__, (Tally.of(table, truth, result) for table in times))
        for times, truth, result in zip(tables, known, seen, strict=True)
    ]


def _pieces_of_one(case: Case) -> int:
    return Labelling.of([middle_of(case.open(floats=False).truth)]).pieces


def _semantic(
    cases: list[Case], tables: list[list[Contingency]], many: bool, notes: dict[str, None]
) -> dict[str, float]:
    truth, values = _matching(cases, tables)
    sides = [set(_values(tables, side)) - {0} for side in ("truth", "result")]
    if values == truth and all(sides) and not sides[0] & sides[1]:
        notes[f"no class in common: the truth holds {sorted(sides[0])[:8]}, the result {sorted(sides[1])[:8]}"] = None
    if not any(sides):
        notes["neither side holds anything but background: the scores say no more than that"] = None
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
    several = any(len(_carried(case)) > 1 for case in cases)
    found = same_classes(truth, result, masks=not several)
    if found is not None:
        return found
    unknown = min(set(result) - set(truth))
    where = next(case for case, times in zip(cases, tables, strict=True) if unknown in _values([times], "result"))
    raise DataError(
        f"the result {name_of(where.result)} holds the value {unknown}, which is not a class of the truth "
        f"{name_of(where.truth)}: its values are {truth[:8]}; give both the same classes, or kind 'instances' if the "
        "values number objects"
    )


def _carried(case: Case) -> set[int]:
    """Return the classes that a result of ours names, whether its labels hold them or not."""
    source = case.open(floats=False).result.source
    node = read_node(source) if source is not None and Path(source).is_dir() else None
    about = {} if node is None or node.is_array else ome(node).get("image-label", {})
    rows = about.get("properties", []) if isinstance(about, dict) else []
    return {row["label-value"] for row in rows if isinstance(row, dict) and "class" in row and "label-value" in row}


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


def _border_scores(pair: Sides, truth_cell: int, result_cell: int, notes: dict[str, None]) -> dict[str, float]:
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
