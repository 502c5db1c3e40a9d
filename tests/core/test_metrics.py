"""Scores: against skimage, brute force, hand-made cases, and properties."""

import itertools
import operator
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment
from skimage import metrics as reference
from skimage.metrics._contingency_table import contingency_table

from napari_unet.errors import DataError
from napari_unet.metrics import objects as metrics
from napari_unet.metrics.boundaries import components, thinned, v_info, v_rand, v_scores
from napari_unet.metrics.contingency import Contingency

ids = hnp.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5))
two = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint16, shape, elements=st.integers(0, 5))] * 2)
)


def table_of(table):
    return dict(zip(zip(table.truth.tolist(), table.result.tolist(), strict=True), table.count.tolist(), strict=True))


def confusion(truth, result, values):
    return Contingency.of(truth, result).matrix(values, values)


def brute_table(truth, result):
    found = {}
    for pair in zip(truth.ravel().tolist(), result.ravel().tolist(), strict=True):
        found[pair] = found.get(pair, 0) + 1
    return found


def brute_matches(truth, result, threshold):
    """Match as stardist and cellpose do, by linear assignment on the full IoU matrix."""
    rows, columns = (np.unique(a[a > 0]) for a in (truth, result))
    iou = np.zeros((len(rows), len(columns)))
    for i, j in itertools.product(range(len(rows)), range(len(columns))):
        a, b = truth == rows[i], result == columns[j]
        iou[i, j] = (a & b).sum() / (a | b).sum()
    at = (
        linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * max(iou.shape) + 1))
        if iou.size
        else ([], [])
    )
    matched = iou[at] if iou.size else np.zeros(0)
    return matched[matched >= threshold], len(rows), len(columns)


@given(two)
def test_a_table_counts_every_pair(pair):
    assert table_of(Contingency.of(*pair)) == brute_table(*pair)


def test_a_table_is_that_of_skimage():
    rng = np.random.default_rng(0)
    truth, result = rng.integers(0, 40, (2, 60, 70))
    expected = contingency_table(truth, result).toarray()
    assert (Contingency.of(truth, result).matrix(range(40), range(40)) == expected).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, np.int64, bool])
def test_a_table_is_the_same_for_every_integer_type(dtype):
    truth, result = np.random.default_rng(1).integers(0, 2, (2, 30, 30))
    assert table_of(Contingency.of(truth.astype(dtype), result)) == brute_table(truth, result)


def test_large_ids_are_kept_exactly():
    high = 2**64 - 1
    truth = np.array([high, high - 1, high - 1, 0], np.uint64)
    result = np.array([high - 1, high - 1, high, 2**53 + 1], np.uint64)
    expected = {(high, high - 1): 1, (high - 1, high - 1): 1, (high - 1, high): 1, (0, 2**53 + 1): 1}
    assert table_of(Contingency.of(truth, result)) == expected


def test_many_ids_count_as_few_do():
    truth, result = np.random.default_rng(2).integers(0, 5000, (2, 200, 200))
    assert table_of(Contingency.of(truth, result)) == brute_table(truth, result)


@given(two, st.integers(0, 9), st.integers(0, 9))
def test_tables_of_blocks_add_up_to_that_of_the_whole(pair, y, x):
    truth, result = pair
    parts = [(slice(None, y), slice(None, x)), (slice(None, y), slice(x, None)), (slice(y, None), slice(None))]
    tables = [Contingency.of(truth[box], result[box]) for box in parts]
    whole = brute_table(truth, result)
    assert table_of(reduce(operator.add, tables)) == table_of(Contingency.total(tables)) == whole
    assert (sum(t.matrix(range(6), range(6)) for t in tables) == confusion(*pair, range(6))).all()


def test_tables_add_up_in_batches(monkeypatch):
    monkeypatch.setattr("napari_unet.metrics.contingency.COMPACT", 10)
    truth, result = np.random.default_rng(3).integers(0, 20, (2, 30, 40))
    tables = (Contingency.of(a, b) for a, b in zip(truth, result, strict=True))
    assert table_of(Contingency.total(tables)) == brute_table(truth, result)


@given(two, two)
def test_objects_beside_each_other_stay_apart(one, other):
    a, b = Contingency.of(*one), Contingency.of(*other)
    both = a.beside(b)
    assert both.n_truth == a.n_truth + b.n_truth
    assert both.n_result == a.n_result + b.n_result
    assert both.count.sum() == a.count.sum() + b.count.sum()
    seg = [metrics.seg(metrics.Overlaps.of(t)) * t.n_truth for t in (a, b, both)]
    if a.n_truth and b.n_truth:
        assert seg[0] + seg[1] == pytest.approx(seg[2])


@given(two, st.permutations(range(1, 6)), st.permutations(range(1, 6)))
def test_new_numbers_for_objects_change_nothing(pair, one, other):
    truth, result = (np.array([0, *p])[a] for a, p in zip(pair, (one, other), strict=True))
    old, new = Contingency.of(*pair), Contingency.of(truth, result)
    assert metrics.instance_scores(new) == pytest.approx(metrics.instance_scores(old))
    assert v_rand(new.without_border()) == pytest.approx(v_rand(old.without_border()))
    assert v_info(new.without_border()) == pytest.approx(v_info(old.without_border()))


def test_what_was_split_and_merged_is_counted():
    truth = np.repeat([1, 2, 3, 0], [6, 4, 4, 2])
    result = np.repeat([1, 2, 7, 0, 9], [3, 3, 8, 1, 1])
    overlaps = metrics.Overlaps.of(Contingency.of(truth, result))
    assert overlaps.split().tolist() == [0]
    assert overlaps.merged().tolist() == [2]
    scores = metrics.instance_scores(Contingency.of(truth, result))
    assert (scores["n_split"], scores["n_merged"]) == (1, 1)


@given(ids)
def test_what_is_compared_with_itself_is_perfect(labels):
    table = Contingency.of(labels, labels)
    scores = metrics.instance_scores(table)
    counts = scores.pop("n_truth"), scores.pop("n_result")
    assert counts == (len(np.unique(labels[labels > 0])),) * 2
    assert scores.pop("n_split") == scores.pop("n_merged") == 0
    assert set(scores.values()) == {1.0}
    matrix = confusion(labels, labels, range(6))
    assert (metrics.dice(matrix) == 1).all()
    assert (metrics.iou(matrix) == 1).all()
    assert metrics.pixel_error(matrix) == 0.0
    assert v_scores(labels, labels) == pytest.approx((1.0, 1.0))


@given(two, st.sampled_from([0.3, 0.5, 0.75, 0.95]))
def test_matches_are_those_of_an_assignment(pair, threshold):
    matched, n_truth, n_result = brute_matches(*pair, threshold)
    overlaps = metrics.Overlaps.of(Contingency.of(*pair))
    found = overlaps.matched(threshold)
    assert len(found) == len(matched)
    union = n_truth + n_result - len(matched)
    assert metrics.average_precision(overlaps, threshold) == (len(matched) / union if union else 1.0)
    if threshold >= 0.5:
        assert np.allclose(sorted(found), sorted(matched))


@given(two)
def test_seg_is_its_definition(pair):
    truth, result = pair
    scores = []
    for t in np.unique(truth[truth > 0]):
        right, best = truth == t, 0.0
        for r in np.unique(result[result > 0]):
            if 2 * (right & (result == r)).sum() > right.sum():
                best = (right & (result == r)).sum() / (right | (result == r)).sum()
        scores.append(best)
    if scores:
        assert metrics.seg(metrics.Overlaps.of(Contingency.of(truth, result))) == pytest.approx(np.mean(scores))


def test_v_info_is_made_of_skimages_variation_of_information():
    truth, result = np.random.default_rng(4).integers(1, 7, (2, 40, 40))
    split, merge = reference.variation_of_information(truth, result)
    h = [reference.variation_of_information(np.ones_like(a), a).sum() for a in (truth, result)]
    table = Contingency.of(truth, result)
    assert v_info(table) == pytest.approx(1 - (split + merge) / sum(h))


def test_instances_by_hand():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3]])
    result = np.array([[5, 5, 5, 0, 0, 6, 6, 7, 7, 7, 0]])
    scores = metrics.instance_scores(Contingency.of(truth, result))
    # 1-5: IoU 3/4; 2-6: 2/4; 2-7: 2/5; 3 is missed.
    assert scores["ap_50"] == 2 / (3 + 3 - 2)
    assert scores["f1_50"] == scores["precision_50"] == scores["recall_50"] == pytest.approx(2 / 3)
    assert scores["pq"] == pytest.approx((0.75 + 0.5) / 3)
    assert scores["seg"] == pytest.approx(0.75 / 3)  # no result covers more than half of 2
    assert scores["ap_50_95"] == pytest.approx((2 / 4 + 5 * 1 / 5) / 10)


@pytest.mark.parametrize(
    ("truth", "result", "expected"), [([[0, 0]], [[0, 0]], 1.0), ([[0, 0]], [[0, 1]], 0.0), ([[1, 0]], [[0, 0]], 0.0)]
)
def test_empty_sides_are_defined(truth, result, expected):
    truth, result = np.array(truth), np.array(result)
    table = Contingency.of(truth, result)
    scores = metrics.instance_scores(table)
    names = ("ap_50", "ap_50_95", "f1_50", "precision_50", "recall_50", "pq", "seg")
    assert {scores[name] for name in names} == {expected}
    assert metrics.dice(confusion(truth, result, [0, 1]))[1] == expected
    assert metrics.iou(confusion(truth, result, [0, 1]))[1] == expected
    assert v_scores(truth, result) == (expected, expected)


def test_tables_of_nothing_are_defined():
    nothing = Contingency.of(np.zeros((0, 3), int), np.zeros((0, 3), int))
    assert len(nothing.count) == 0
    assert metrics.instance_scores(Contingency.empty())["ap_50"] == 1.0
    assert metrics.pixel_accuracy(np.zeros((2, 2), int)) == 1.0


def test_classes_by_hand():
    matrix = confusion(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0]), [0, 1, 2])
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert metrics.dice(matrix).tolist() == [0.5, 0.8, 0.0]
    assert metrics.iou(matrix).tolist() == pytest.approx([1 / 3, 2 / 3, 0.0])
    assert metrics.pixel_accuracy(matrix) == 0.6
    assert metrics.pixel_error(matrix) == pytest.approx(0.4)


def test_values_that_are_no_class_are_named():
    with pytest.raises(DataError, match=r"the result holds the values \[7\], the classes are \[0, 1\]"):
        confusion(np.array([0, 1]), np.array([0, 7]), [0, 1])


@pytest.mark.parametrize(
    ("truth", "result", "message"),
    [
        (np.zeros(3, int), np.zeros(4, int), "shape"),
        (np.zeros(3), np.zeros(3, int), "truth holds float64"),
        (np.zeros(3, int), np.array([0, -1, 2]), "result holds the label -1"),
    ],
)
def test_a_table_refuses_what_are_no_labels(truth, result, message):
    with pytest.raises(DataError, match=message):
        Contingency.of(truth, result)


def test_a_widened_border_costs_nothing():
    truth = np.ones((21, 20), int)
    truth[10] = 0
    wide = truth.copy()
    wide[7:14] = 0
    assert v_scores(truth, wide) == pytest.approx((1.0, 1.0))


def test_a_merge_and_a_split_by_hand():
    truth = np.ones((3, 9), int)
    truth[:, 4] = 0
    whole = np.ones((3, 9), int)
    rand, info = v_scores(truth, whole)
    assert rand == pytest.approx(2 * 0.5 / (1 + 0.5))  # p: two halves; s: one; t: two halves
    assert info == 0.0
    split = v_scores(whole, np.where(np.arange(9) == 4, 0, 1) * whole)
    p = np.array([15, 12]) / 27  # the column between goes to one side
    assert split[0] == pytest.approx(2 * (p**2).sum() / (1 + (p**2).sum()))
    assert v_scores(whole, whole) == (1.0, 1.0)


def test_cells_are_4_connected_and_grow_to_fill_the_plane():
    cells = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    assert components(cells).max() == 2
    grown = thinned(cells)
    assert (grown > 0).all()
    assert (grown[cells] == components(cells)[cells]).all()


def test_borders_are_scored_on_planes():
    with pytest.raises(DataError, match="planes of one shape"):
        v_scores(np.zeros((2, 3, 3)), np.zeros((2, 3, 3)))


def test_intensity_is_that_of_skimage():
    rng = np.random.default_rng(5)
    truth = rng.normal(10, 3, (40, 50)).astype(np.float32)
    result = truth + rng.normal(0, 1, truth.shape).astype(np.float32)
    scores = sum(
        (metrics.Intensity.of(truth[i : i + 7], result[i : i + 7]) for i in range(0, 40, 7)), metrics.Intensity()
    )
    spread = float(truth.max()) - float(truth.min())
    assert scores.scores()["psnr"] == pytest.approx(reference.peak_signal_noise_ratio(truth, result, data_range=spread))
    assert scores.scores()["nrmse"] == pytest.approx(reference.normalized_root_mse(truth, result), rel=1e-6)
    assert scores.scores()["mae"] == pytest.approx(np.abs(truth - result).mean(), rel=1e-6)


def test_integers_do_not_wrap():
    assert metrics.Intensity.of(np.array([0, 255], np.uint8), np.array([255, 0], np.uint8)).scores()["mae"] == 255


def test_intensity_without_difference_or_spread():
    flat = np.zeros(4)
    same, off = ({"si_psnr": v} for v in (np.inf, -np.inf))
    assert metrics.Intensity.of(flat, flat).scores() == {"psnr": np.inf, "nrmse": 0.0, "mae": 0.0} | same
    assert metrics.Intensity.of(flat, flat + 1).scores() == {"psnr": -np.inf, "nrmse": np.inf, "mae": 1.0} | off
    assert metrics.Intensity.of(np.zeros(0), np.zeros(0)) == metrics.Intensity()


def test_intensity_refuses_what_is_not_finite():
    with pytest.raises(DataError, match="result holds 1 elements that are NaN"):
        metrics.Intensity.of(np.zeros(3), np.array([0, np.nan, 1]))
    with pytest.raises(DataError, match="must be the same"):
        metrics.Intensity.of(np.zeros(3), np.zeros(4))


@pytest.mark.parametrize(
    ("truth", "result", "same"),
    [
        ([0, 1], [0, 1], ([0, 1], [0, 1])),
        ([0, 255], [0, 1], ([0, 255], [0, 1])),
        ([0, 255], [1], ([0, 255], [0, 1])),
        ([0], [0, 7], ([0, 7], [0, 7])),
        ([0, 1, 2], [0, 1], ([0, 1, 2], [0, 1, 2])),
        ([0, 1], [0, 1, 2], ([0, 1, 2], [0, 1, 2])),
        ([0, 85, 170], [0, 1, 2], ([0, 85, 170], [0, 1, 2])),
        ([0, 1, 3], [0, 1, 2], ([0, 1, 2, 3], [0, 1, 2, 3])),
        ([0, 85, 170], [0, 2], ([0, 85, 170], [0, 1, 2])),
        ([0, 10, 20], [0, 5, 6, 7, 8], None),
        ([0, 1], [0, 2], ([0, 1, 2], [0, 1, 2])),
        ([0, 7], [0, 1], ([0, 1, 7], [0, 1, 7])),
        ([0, 3], [0, 4], ([0, 3, 4], [0, 3, 4])),
        ([0, 2], [0, 255], ([0, 2, 255], [0, 2, 255])),
        ([0, 1], [0, 65535], ([0, 1], [0, 65535])),
        ([0, 128], [0, 255], ([0, 128], [0, 255])),
        ([0, 1, 2], [0, 3, 4], ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])),
        ([0, 5, 9], [0, 1, 2], ([0, 1, 2, 5, 9], [0, 1, 2, 5, 9])),
        ([1, 2], [0, 1], ([1, 2], [0, 1])),
    ],
)
def test_classes_are_matched_by_value_and_else_by_order(truth, result, same):
    assert metrics.same_classes(truth, result) == same
    turned = metrics.same_classes(result, truth)
    assert turned == (None if same is None else same[::-1])
