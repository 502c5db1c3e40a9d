"""Judging results: what is decided, what is read, how scores are named, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.io import imsave

from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, UsageError
from napari_unet.evaluation import evaluate as evaluation
from napari_unet.evaluation.evaluate import Evaluation, evaluate
from napari_unet.events import wait
from napari_unet.grid.blocks import blocks
from napari_unet.metrics.boundaries import v_scores
from napari_unet.metrics.contingency import Contingency
from napari_unet.metrics.objects import instance_scores
from napari_unet.store import Output, ResultStore

DATA = Path(__file__).parents[3] / "shared" / "data"
ISBI = DATA / "isbi2012_em" / "train" / "label"
isbi = pytest.mark.skipif(not ISBI.is_dir(), reason="the ISBI 2012 labels are not in ../shared/data")


def stack(data, axes="yx", **fields):
    return Stack(np.asarray(data), axes, **fields)


def labels(seed, shape=(3, 20, 24), high=2):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def objects(seed, shape=(64, 64)):
    """Many small squares, some of them missing."""
    y, x = np.indices(shape) // 8
    ids = y * 8 + x + 1
    gone = np.random.default_rng(seed).integers(1, 65, 10)
    inside = (np.indices(shape) % 8 < 6).all(0)
    return np.where(inside & ~np.isin(ids, gone), ids, 0).astype(np.uint16)


def folder(path, images):
    path.mkdir()
    for name, image in images.items():
        tifffile.imwrite(path / f"{name}.tif", image)
    return path


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=1, max_size=4),
    st.integers(1, 500),
)
def test_blocks_cover_every_element_once_and_stay_small(axes, elements):
    shape, chunks = zip(*axes, strict=True)
    hits = np.zeros(shape, int)
    for box in blocks(shape, chunks, elements):
        hits[box] += 1
        assert hits[box].size <= elements
    assert (hits == 1).all()


def test_blocks_are_whole_chunks():
    assert [box[1] for box in blocks((4, 100), (4, 10), 90)] == [slice(a, min(a + 20, 100)) for a in range(0, 100, 20)]


def test_class_scores_by_hand():
    truth, result = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
    scores = evaluate(result, truth).scores
    assert scores["dice"] == scores["dice_1"] == 0.8
    assert scores["dice_0"] == pytest.approx(2 / 3)
    assert scores["iou"] == scores["iou_1"] == pytest.approx(2 / 3)
    assert scores["pixel_accuracy"] == 0.75
    assert scores["pixel_error"] == 0.25
    assert set(scores) == {
        *("dice", "iou", "dice_0", "dice_1", "iou_0", "iou_1", "pixel_accuracy", "pixel_error", "v_rand", "v_info")
    }


def test_the_mean_is_over_all_classes_but_the_lowest():
    scores = evaluate(labels(0, high=4), labels(1, high=4), axes="zyx").scores
    assert scores["dice"] == pytest.approx(np.mean([scores[f"dice_{v}"] for v in (1, 2, 3)]))
    assert scores["iou"] == pytest.approx(np.mean([scores[f"iou_{v}"] for v in (1, 2, 3)]))
    assert "v_rand" not in scores


def test_borders_are_scored_plane_by_plane():
    truth, result = labels(0), labels(1)
    scores = evaluate(result, truth, axes="zyx").scores
    expected = np.mean([v_scores(t, r) for t, r in zip(truth, result, strict=True)], axis=0)
    assert (scores["v_rand"], scores["v_info"]) == pytest.approx(tuple(expected))


def test_stacks_too_large_for_borders_are_left_out_and_said(monkeypatch):
    monkeypatch.setattr(evaluation, "BORDER_ELEMENTS", 100)
    found = evaluate(labels(0), labels(1), axes="zyx")
    assert "v_rand" not in found.scores
    assert any("v_rand" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["semantic", "instances", "intensity"])
def test_reading_by_blocks_changes_no_score(tmp_path, monkeypatch, kind):
    sides = [objects(s).astype(np.float32) if kind == "intensity" else objects(s) for s in (0, 1)]
    if kind == "semantic":
        sides = [(side > 0).astype(np.uint8) for side in sides]
    whole = evaluate(*[stack(side) for side in sides], kind=kind).scores
    stores = [zarr.create_array(tmp_path / f"{i}.zarr", data=side, chunks=(13, 17)) for i, side in enumerate(sides)]
    monkeypatch.setattr(blocks, "__defaults__", (300,))
    assert evaluate(*[stack(store) for store in stores], kind=kind).scores == pytest.approx(whole)


def test_what_is_compared_with_itself_is_perfect():
    for data in (labels(0), objects(0)):
        scores = evaluate(data, data, axes="zyx"[-data.ndim :]).scores
        wrong = {k: v for k, v in scores.items() if k != "pixel_error" and not k.startswith("n_") and v != 1}
        assert wrong == pytest.approx(dict.fromkeys(wrong, 1.0))


def test_the_kind_is_decided_and_said():
    floats = np.random.default_rng(0).normal(size=(5, 6))
    for data, kind in ((floats, "intensity"), (objects(0), "instances"), (labels(0, (9, 9)), "semantic")):
        found = evaluate(data, data)
        assert found.kind == kind
        assert any(f"scored as {kind}" in note for note in found.notes)
        assert not any("scored as" in note for note in evaluate(data, data, kind=kind).notes)


def test_integers_can_be_scored_as_intensity():
    assert evaluate(labels(0, (5, 5), 200), labels(1, (5, 5), 200), kind="intensity").kind == "intensity"


def test_a_float_result_of_an_integer_image_is_intensity():
    truth = labels(0, (5, 5), 200)
    assert evaluate(truth.astype(np.float32) + 1, truth).scores["mae"] == 1.0


def test_instances_are_scored_from_all_elements():
    truth, result = objects(0), objects(1)
    assert evaluate(result, truth).scores == instance_scores(Contingency.of(truth, result))


def test_objects_of_different_times_are_different():
    movie = np.stack([objects(0), objects(1)])
    scores = evaluate(stack(movie, "tyx"), stack(movie, "tyx")).scores
    assert scores["n_truth"] == sum(len(np.unique(frame)) - 1 for frame in movie)
    assert evaluate(stack(movie, "zyx"), stack(movie, "zyx")).scores["n_truth"] == len(np.unique(movie)) - 1


def test_other_class_values_are_taken_in_order_and_said():
    truth, result = labels(0), labels(1)
    found = evaluate(result, truth * 255, axes="zyx")
    plain = evaluate(result, truth, axes="zyx").scores
    assert found.scores["dice_255"] == plain["dice_1"]
    assert found.scores["v_rand"] == plain["v_rand"]
    assert any("[0, 1] of the result taken as [0, 255]" in note for note in found.notes)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 1), (3, 7), (2, 255), (1, 20)])
def test_one_class_each_and_not_the_same_scores_nothing_and_is_said(one, other):
    data = labels(0, (20, 20))
    found = evaluate(data * np.uint8(other), data * np.uint8(one), kind="semantic")
    assert found.scores["dice"] == 0.0
    assert any("no class in common" in note for note in found.notes)


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8)])
def test_two_empty_sides_agree_and_that_this_says_little_is_said(shape):
    found = evaluate(np.zeros(shape, "u1"), np.zeros(shape, "u1"), "semantic", "zyx"[-len(shape) :])
    assert any("nothing" in note or "background" in note for note in found.notes)
    assert evaluate(np.ones(shape, "u1"), np.ones(shape, "u1"), "semantic", "zyx"[-len(shape) :]).notes == ()


def test_a_result_that_names_more_classes_is_no_mask(tmp_path):
    data = labels(0, (64, 64))
    for names, dice in (({1: "a"}, 1.0), ({1: "a", 2: "b"}, 0.0)):
        rows = [{"label-value": v, "class": name} for v, name in names.items()]
        output = Output("labels/cells", "labels", "yx", data.shape, data.dtype, attributes={"properties": rows})
        path = tmp_path / f"{len(names)}.ome.zarr"
        with ResultStore.create(path, [output], blocks=1, settings={}, provenance={}) as store:
            store.write(0, {"labels/cells": ((slice(0, 64), slice(0, 64)), data)})
            wait(store.finish())
        assert evaluate(path, data * np.uint8(255)).scores["dice"] == dice


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("made", [lambda: labels(0, (4, 6)).repeat(8, 0).repeat(8, 1), lambda: objects(0)])
def test_floats_that_are_labels_are_scored_as_labels(tmp_path, dtype, made):
    data = made()
    expected = evaluate(data, data)
    found = evaluate(data.astype(dtype), data)
    assert (found.kind, found.scores) == (expected.kind, expected.scores)
    tifffile.imwrite(tmp_path / "a.tif", data.astype(dtype) if dtype != np.float16 else data.astype("f4"))
    assert evaluate(tmp_path / "a.tif", data, kind=expected.kind).scores == expected.scores


@pytest.mark.parametrize(
    "data",
    [
        lambda: objects(0) + 0.5,
        lambda: objects(0) * -1.0,
        lambda: np.where(objects(0) > 9, np.nan, objects(0)),
        lambda: objects(0) * 1e12,
    ],
)
def test_other_floats_are_no_labels(data):
    with pytest.raises(DataError, match="labels are integers"):
        evaluate(data(), objects(0), kind="instances")


@pytest.mark.parametrize("value", [1, 255, 7])
def test_a_truth_of_one_id_in_pieces_is_said(value):
    found = evaluate(objects(0), (objects(0) > 0).astype(np.uint8) * np.uint8(value), kind="instances")
    assert any("one id in 54 pieces: is it a mask?" in note for note in found.notes)
    square = np.zeros((64, 64), np.uint8)
    square[10:20, 10:20] = 5
    assert not any("is it a mask" in note for note in evaluate(square, square, kind="instances").notes)


@pytest.mark.parametrize("moved", ["truth", "result"])
@pytest.mark.parametrize(("y", "x"), [(20.0, 0.0), (0.0, -6.0), (8.5, 3.0), (-10.0, 10.0), (0.5, 0.5)])
def test_sides_that_lie_elsewhere_are_compared_where_both_are(moved, y, x):
    whole, pixel = objects(0, (160, 160)), {"scale": (0.5, 0.5), "units": ("micrometer",) * 2}
    begin = [round(40 + 2 * at) for at in (y, x)]
    parts = [whole[40:104, 40:104], whole[begin[0] : begin[0] + 64, begin[1] : begin[1] + 64]]
    places = [(20.0, 20.0), (20.0 + y, 20.0 + x)]
    sides = [stack(part, translation=at, **pixel) for part, at in zip(parts, places, strict=True)]
    found = evaluate(*(sides if moved == "truth" else sides[::-1]), kind="instances")
    assert found.scores["ap_50_95"] == 1.0
    assert any("only what both show" in note for note in found.notes)


def test_regions_apart_are_refused():
    pixel = {"scale": (0.5, 0.5), "units": ("micrometer",) * 2}
    for at, match in (((500.0, 500.0), "do not overlap"), ((10.2, 0.0), "no whole number of pixels")):
        with pytest.raises(DataError, match=match):
            evaluate(stack(objects(0), **pixel), stack(objects(0), translation=at, **pixel))


def test_a_class_that_is_not_in_the_result_scores_nothing():
    assert evaluate(np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8)).scores["dice"] == 0.0


def test_one_value_each_is_never_taken_as_the_same_class():
    found = evaluate(np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)).scores
    assert found["dice"] == 0.0
    assert found["pixel_error"] == 1.0


def test_a_class_that_only_the_result_has_counts_as_wrong():
    truth = np.array([[0, 1, 3, 3]], np.uint8)
    found = evaluate(np.array([[0, 1, 2, 2]], np.uint8), truth).scores
    assert found["dice_1"] == 1.0
    assert found["dice_2"] == found["dice_3"] == 0.0


def test_axes_of_size_1_are_taken_away_by_name():
    data = labels(0, (9, 8))
    assert evaluate(stack(data[None, None], "tzyx"), stack(data)).scores["dice"] == 1.0


@pytest.mark.parametrize(
    ("result", "truth", "message"),
    [
        (
            stack(labels(0, (4, 4)), name="one"),
            stack(labels(0, (4, 5)), name="other"),
            r"one .*\(4, 4\), the truth other .*\(4, 5\)",
        ),
        (stack(labels(0), "zyx", name="one"), stack(labels(0), "tyx", name="other"), "'zyx'.*'tyx'"),
        (
            stack(labels(0, (4, 4)), scale=(0.5, 0.5), units=("micrometer",) * 2),
            stack(labels(0, (4, 4)), scale=(600, 500), units=("nanometer",) * 2),
            "scale of 0.5 micrometer along y",
        ),
        (
            stack(np.array([[0, 5, 6, 7, 8]])),
            stack(np.array([[0, 10, 20, 20, 20]])),
            "the value 5, which is not a class",
        ),
    ],
)
def test_sides_that_do_not_fit_are_refused(result, truth, message):
    with pytest.raises(DataError, match=message):
        evaluate(result, truth)


@pytest.mark.parametrize("scale", [(1, 1), (500, 503)])
def test_scales_that_agree_or_are_not_said_are_accepted(scale):
    units = ("nanometer",) * 2 if scale != (1, 1) else ()
    data = labels(0, (4, 4))
    assert evaluate(
        stack(data, scale=(0.5, 0.5), units=("micrometer",) * 2), stack(data, scale=scale, units=units)
    ).scores["dice"]


def test_floats_are_no_labels():
    with pytest.raises(DataError, match="labels are integers"):
        evaluate(np.zeros((4, 4)), labels(0, (4, 4)), kind="semantic")


def test_a_file_that_is_not_there_keeps_its_message(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        evaluate(tmp_path / "a.tif", tmp_path / "b.tif")


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="choose one of semantic, instances, intensity"):
        evaluate(labels(0), labels(0), kind="objects")


def test_folders_pool_classes_and_name_each_file(tmp_path):
    truth = {name: labels(i, (8, 9 + i)) for i, name in enumerate(("a", "b"))}
    result = {f"{name}_mask": labels(9 + i, (8, 9 + i)) for i, name in enumerate(("a", "b"))}
    scores = evaluate(folder(tmp_path / "result", result), str(folder(tmp_path / "truth", truth))).scores
    for name, image in truth.items():
        alone = evaluate(result[f"{name}_mask"], image).scores
        assert {key: scores[f"{key}_{name}"] for key in alone} == alone
    together = evaluate(
        *[np.concatenate([image.ravel() for image in d.values()])[None] for d in (result, truth)]
    ).scores
    assert scores["dice"] == scores["dice_pooled"] == together["dice"]
    assert scores["dice_mean"] == pytest.approx((scores["dice_a"] + scores["dice_b"]) / 2)
    assert scores["v_rand"] == pytest.approx((scores["v_rand_a"] + scores["v_rand_b"]) / 2)


def test_folders_of_objects_take_the_mean_and_add_numbers(tmp_path):
    sides = [
        folder(tmp_path / side, {n: objects(i + 2 * j) for j, n in enumerate("ab")}) for i, side in enumerate("rt")
    ]
    scores = evaluate(*sides).scores
    assert scores["ap_50"] == pytest.approx((scores["ap_50_a"] + scores["ap_50_b"]) / 2)
    assert scores["n_truth"] == scores["n_truth_a"] + scores["n_truth_b"]
    tables = [Contingency.of(objects(1 + 2 * j), objects(2 * j)) for j in range(2)]
    pooled = instance_scores(tables[0].beside(tables[1]))
    for name in ("ap_50", "ap_50_95", "seg", "pq"):
        assert scores[f"{name}_mean"] == scores[name]
        assert scores[f"{name}_pooled"] == pytest.approx(pooled[name])


def test_files_named_after_classes_take_no_class_score(tmp_path):
    images = {str(i): labels(i, (8, 8)) for i in range(3)}
    others = {str(i): labels(5 + i, (8, 8)) for i in range(3)}
    scores = evaluate(folder(tmp_path / "result", others), folder(tmp_path / "truth", images)).scores
    assert scores["dice_1"] == scores["dice"]
    assert scores["dice_file_1"] == evaluate(others["1"], images["1"]).scores["dice"]


def test_many_files_stay_below_the_limit_of_open_files(tmp_path):
    resource = pytest.importorskip("resource")
    images = {f"a{i}": labels(i, (4, 4)) for i in range(80)}
    sides = folder(tmp_path / "r", images), folder(tmp_path / "t", images)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(used + 60, soft), hard))
    try:
        assert evaluate(*sides).scores["dice"] == 1.0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_result_store_is_judged_by_its_labels(tmp_path):
    image = np.random.default_rng(0).random((300, 280), np.float32)
    truth = (image > 0.5).astype(np.uint16)
    pixel = {"scale": (0.5, 0.5), "units": ("micrometer",) * 2}
    outputs = [
        Output("labels/cells", "labels", "yx", truth.shape, truth.dtype, **pixel),
        Output("", "image", "yx", image.shape, image.dtype, **pixel),
    ]
    box = (slice(0, 300), slice(0, 280))
    with ResultStore.create(tmp_path / "r.ome.zarr", outputs, blocks=1, settings={}, provenance={}) as store:
        store.write(0, {"labels/cells": (box, truth), "": (box, image)})
        wait(store.finish())
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    found = evaluate(tmp_path / "r.ome.zarr", tmp_path / "truth.tif")
    assert (found.kind, found.scores["dice"]) == ("semantic", 1.0)


def test_a_folder_is_not_compared_with_an_image(tmp_path):
    with pytest.raises(DataError, match="give two folders or two images"):
        evaluate(folder(tmp_path / "r", {"a": labels(0, (4, 4))}), labels(0, (4, 4)))


def test_an_evaluation_is_written_as_json_and_as_a_table():
    found = Evaluation({"psnr": float("inf"), "n_result": 12.0, "mae": 0.25}, ("a note",), "intensity")
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written == {"psnr": None, "n_result": 12.0, "mae": 0.25}
    lines = found.table().splitlines()
    assert lines == ["psnr             inf", "n_result          12", "mae           0.2500"]


@isbi
def test_isbi_labels_against_themselves_noisy_and_merged(tmp_path):
    planes = [read(ISBI / f"{i}.png")[:256, :256] for i in range(2)]
    truth = np.stack(planes)
    same = evaluate(truth, truth, axes="zyx").scores
    assert (same["v_rand"], same["v_info"], same["pixel_error"]) == pytest.approx((1.0, 1.0, 0.0))
    noisy = np.where(np.random.default_rng(0).random(truth.shape) < 0.3, truth.max(), truth)
    worse = evaluate(noisy, truth, axes="zyx").scores
    merged = evaluate(np.full_like(truth, truth.max()), truth, axes="zyx").scores
    assert merged["v_rand"] < worse["v_rand"] < 1
    assert merged["v_info"] == pytest.approx(0.0)
    assert 0 < worse["v_info"] < 1
    pngs = tmp_path / "result"
    pngs.mkdir()
    for i, plane in enumerate(planes):
        imsave(pngs / f"{i}.png", plane, check_contrast=False)
    assert evaluate(pngs / "1.png", pngs / "1.png").scores["dice"] == 1.0


def read(path):
    from napari_unet.sources import open_labels

    return np.asarray(open_labels(path).data[...])


@pytest.mark.parametrize(("series", "score"), [(None, 1.0), (0, 1.0), (1, 0.0), ("1", 0.0)])
@pytest.mark.parametrize("kind", ["semantic", "instances"])
def test_of_files_with_several_images_that_of_the_number_is_scored(tmp_path, series, score, kind):
    large, small = np.zeros((20, 20), "u1"), np.zeros((16, 16), "u1")
    large[3:9, 3:9], small[2:6, 2:6] = 1, 1
    for name, moved in (("result", 0), ("truth", 8)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as tif:
            tif.write(large, metadata=None)
            tif.write(np.roll(small, moved, 0), metadata=None)
    found = evaluate(tmp_path / "result.tif", tmp_path / "truth.tif", kind, series=series).scores
    assert found["dice" if kind == "semantic" else "ap_50"] == score
    with pytest.raises(DataError, match="no image '7'"):
        evaluate(tmp_path / "result.tif", tmp_path / "truth.tif", kind, series="7")


SCALES = {  # what is done to the intensities of a good result, and whether that is to be said
    "as 8 bits beside 0 to 1": (lambda image: image * 255, True),
    "as 16 bits beside 0 to 1": (lambda image: image * 65535, True),
    "0 to 1 beside 12 bits": (lambda image: image / 4095, True),
    "an offset": (lambda image: image + 100, True),
    "normalised to mean 0": (lambda image: (image - image.mean()) / image.std() * 9, True),
    "inverted": (lambda image: 1 - image, True),
    "the same": (lambda image: image, False),
    "a little brighter": (lambda image: image * 1.02, False),
    "noise": (lambda image: np.random.default_rng(1).random(image.shape), False),
    "noise of another scale": (lambda image: 99 * np.random.default_rng(1).random(image.shape), False),
}


@pytest.mark.parametrize("what", SCALES)
def test_a_result_on_another_scale_than_its_truth_is_said_to_be(what):
    change, is_said = SCALES[what]
    y, x = np.mgrid[:64, :64] / 64
    truth = (np.sin(9 * y) * np.cos(7 * x) / 2 + 0.5).astype("f4")
    noisy = change(truth) + 1e-3 * change(truth).std() * np.random.default_rng(0).normal(size=truth.shape)
    notes = evaluate(noisy.astype("f4"), truth, "intensity").notes
    assert any("another scale" in note for note in notes) == is_said
