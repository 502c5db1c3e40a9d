"""Compare a result with the truth, block by block."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..boundaries import boundary_scores
from ..errors import DataError, UsageError
from ..metrics import (
    Contingency,
    Differences,
    Overlaps,
    adapted_rand_error,
    class_scores,
    confusion,
    intensity_scores,
    object_scores,
    semantic_scores,
    ssim,
)
from .coding import Classes, decide_kind, match_classes
from .pairing import Pair, open_pairs
from .report import PLAIN, Evaluation

KINDS = ("semantic", "instances", "intensity")
PLANEWISE = 2**26
Scores = dict[str, float]


def evaluate(
    result: Any,
    truth: Any,
    kind: str | None = None,
    axes: str | None = None,
    ignore: int | None = None,
    data_range: float | None = None,
) -> Evaluation:
    """Score a result against the truth.

    Parameters
    ----------
    result, truth
        Two paths, arrays, layers or stacks of one shape, or two folders of files that are paired by name. Axes of size
        1 do not count.
    kind : "semantic", "instances" or "intensity", optional
        Classes, objects or images. Where not given: intensity for real numbers; instances where more than 20 label values
        occur, and more than one besides 0 on both sides; else semantic. The notes say which.
    axes : str, optional
        One letter of ``tczyx`` a dimension of both, where they do not name them.
    ignore : int, optional
        Voxels with this label in the truth do not count.
    data_range : float, optional
        Span of intensities for psnr and ssim: 255 for 8-bit truth, else the span of the truth, where not given.

    Returns
    -------
    Evaluation, a dict of str to float
        semantic: dice, iou, precision, recall (means over the classes but the lowest value, in two-class images thus
        those of the foreground; with the label value as suffix for each class: ``dice_255``), pixel_accuracy,
        pixel_error; with two classes also v_rand and v_info, where the lower value is the border between cells: the
        mean over planes. Of a folder, voxels of all files are counted together; v_rand and v_info are means over files.
        instances: ap_50, ap_50_95, f1_50, precision_50, recall_50, pq, sq, rq, seg, adapted_rand_error,
        objects_result, objects_truth; an id is one object a time point. Of a folder, the mean over files (numbers of
        objects: the sum), and pooled_ap_50 and pooled_f1_50 of the matches of all files counted together.
        intensity: psnr, nrmse, mae, ssim (2-D, mean over planes). Of a folder, the mean over files.
        In folders, the name of a file is the suffix of its own scores: ``dice_cell``, ``dice_file_18`` for a number.

    Raises
    ------
    DataError
        Where they cannot be opened or compared; it names what differs.
    UsageError
        Where an argument cannot be.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    if data_range is not None and not 0 < data_range < math.inf:
        raise UsageError(f"data_range is {data_range}; it must be a number above 0")
    decided, pairs = open_pairs(result, truth, axes, kind)
    notes = [note for pair in pairs for note in pair.notes]
    if decided == "intensity":
        notes += [] if kind else ["taken as intensities: both hold real numbers"]
        return _intensity(pairs, notes, data_range)
    tables = [[_table(frame, ignore) for frame in pair.frames()] for pair in pairs]
    if decided is None:
        decided, note = decide_kind(*_values([table for frames in tables for table in frames]))
        notes.append(note)
    return (_instances if decided == "instances" else _semantic)(pairs, tables, notes)


def _table(pair: Pair, ignore: int | None) -> Contingency:
    table = Contingency.total(Contingency.of(result, truth, ignore) for result, truth in pair.labels())
    if not table.voxels:
        raise DataError(
            f"{pair.truth.source or pair.truth.name} is {ignore} everywhere, which is ignored; nothing is left"
        )
    return table


def _values(tables: Sequence[Contingency]) -> tuple[set[int], set[int]]:
    found, true = zip(*(table.values() for table in tables), strict=True)
    return set().union(*found), set().union(*true)


def _semantic(pairs: Sequence[Pair], tables: Sequence[Sequence[Contingency]], notes: list[str]) -> Evaluation:
    sums = [Contingency.total(frames) for frames in tables]
    classes = match_classes(*_values(sums))
    if classes.note:
        notes.append(classes.note)
    counts = [confusion(table, classes.result, classes.truth, len(classes.values)) for table in sums]
    files = [semantic_scores(each) for each in counts]
    if len(classes.values) == 2:
        for pair, scores in zip(pairs, files, strict=True):
            scores.update(_boundaries(pair, classes, notes))
    whole = np.sum(counts, axis=0)
    plain = {**_means(files), **semantic_scores(whole)}
    if len(files) > 1:
        notes.append(
            f"dice, iou and pixels of {len(files)} files are counted together; other scores are means over files"
        )
    each_class = class_scores(whole)
    rows = {PLAIN: plain}
    for i, value in enumerate(classes.values):
        rows[str(value)] = {name: float(scores[i]) for name, scores in each_class.items()}
    return Evaluation(rows | _file_rows(pairs, files), "semantic", notes)


def _boundaries(pair: Pair, classes: Classes, notes: list[str]) -> Scores:
    """Mean over planes of the scores of borders, the lower of two classes."""

    def score(result: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
        return boundary_scores(np.isin(result, inside[0]), np.isin(truth, inside[1]))

    inside = [[v for v, number in side.items() if number] for side in (classes.result, classes.truth)]
    return _planewise(pair, ("v_rand", "v_info"), score, notes)


def _planewise(
    pair: Pair, names: Sequence[str], score: Callable[[np.ndarray, np.ndarray], Sequence[float]], notes: list[str]
) -> Scores:
    """Score plane by plane, and take the mean over the planes where scores are defined."""
    if pair.voxels > PLANEWISE:
        notes.append(
            f"{' and '.join(names)} left out: {pair.voxels} voxels, at most {PLANEWISE} are looked at by planes"
        )
        return {}
    found = np.array([score(*planes) for planes in pair.planes()])
    known = found[~np.isnan(found).any(axis=1)]
    means = known.mean(axis=0) if len(known) else np.full(len(names), np.nan)
    return dict(zip(names, means.tolist(), strict=True))


def _instances(pairs: Sequence[Pair], tables: Sequence[Sequence[Contingency]], notes: list[str]) -> Evaluation:
    objects = [Overlaps.join([Overlaps.of(table) for table in frames]) for frames in tables]
    files = [object_scores(overlaps) for overlaps in objects]
    for scores, frames in zip(files, tables, strict=True):
        scores["adapted_rand_error"] = float(np.mean([adapted_rand_error(table) for table in frames]))
    plain = _means(files)
    if len(files) > 1:
        pooled = object_scores(Overlaps.join(objects))
        plain |= {name: pooled[name] for name in ("objects_result", "objects_truth")}
        plain |= {f"pooled_{name}": pooled[name] for name in ("ap_50", "f1_50")}
        notes.append(f"scores are means over {len(files)} files; pooled ones count the objects of all together")
    return Evaluation({PLAIN: plain} | _file_rows(pairs, files), "instances", notes)


def _intensity(pairs: Sequence[Pair], notes: list[str], data_range: float | None) -> Evaluation:
    files = []
    for pair in pairs:
        sums = sum((Differences.of(*block) for block in _finite(pair)), Differences())
        known = 255.0 if pair.truth.dtype == np.uint8 else sums.high - sums.low
        span = data_range or known
        scores = intensity_scores(sums, span)
        scores |= _planewise(pair, ("ssim",), lambda one, other, span=span: [ssim(one, other, span)], notes)
        files.append(scores)
        notes.append(f"psnr and ssim are for intensities that span {span:g}")
    if len(files) > 1:
        notes.append(f"scores are means over {len(files)} files")
    return Evaluation({PLAIN: _means(files)} | _file_rows(pairs, files), "intensity", notes)


def _finite(pair: Pair) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for block in pair.blocks():
        for stack, data in zip((pair.result, pair.truth), block, strict=True):
            if data.dtype.kind == "f" and not np.isfinite(data).all():
                raise DataError(f"{stack.source or stack.name} has values that are NaN or infinite; replace them first")
        yield block


def _means(files: Sequence[Mapping[str, float]]) -> Scores:
    """Return the mean of each score over the files that have it."""
    means: Scores = {}
    for name in dict.fromkeys(name for scores in files for name in scores):
        known = [scores[name] for scores in files if not math.isnan(scores.get(name, math.nan))]
        means[name] = sum(known) / len(known) if known else math.nan
    return means


def _file_rows(pairs: Sequence[Pair], files: Sequence[Scores]) -> dict[str, Scores]:
    if len(pairs) == 1 and not pairs[0].suffix:
        return {}
    return {pair.suffix: scores for pair, scores in zip(pairs, files, strict=True)}
