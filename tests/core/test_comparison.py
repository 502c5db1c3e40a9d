"""Several models on the same images: each is scored, the best comes first, and the picture shows what each found."""

import csv

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers import FP32, call, image_of, tree
from kinds import finder, model_of, restorer, small
from napari_unet import PredictConfig, compare_models, evaluate, open_labels, predict, wait
from napari_unet.comparison import FOUND, TRUTH, _apart
from napari_unet.errors import DataError, OutputError, UsageError
from napari_unet.network import UNetConfig

CONFIG = PredictConfig(**FP32)
SHAPES = {"a": (60, 70), "b": (50, 40)}


@pytest.fixture
def given(tmp_path):
    """Images, what the model `right` finds on them as the truth, and two other models."""
    for folder in ("images", "truth"):
        (tmp_path / folder).mkdir()
    right = model_of(UNetConfig(depth=1, base_features=4), 3)
    for number, (name, shape) in enumerate(SHAPES.items()):
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", image_of(shape, number), metadata={"axes": "YX"})
        labels = wait(predict(tmp_path / "images" / f"{name}.tif", right, tmp_path / f"{name}.ome.zarr", CONFIG))
        tifffile.imwrite(tmp_path / "truth" / f"{name}.tif", np.asarray(labels.data[...]), metadata={"axes": "YX"})
    right.save(tmp_path / "right.model")
    model_of(UNetConfig(depth=1, base_features=4), 1).save(tmp_path / "other.model")
    return tmp_path


def test_the_best_comes_first_with_the_scores_of_evaluate_and_a_picture(given):
    models = [given / "other.model", given / "right.model"]
    found = wait(compare_models(given / "images", given / "truth", models, given / "out", CONFIG))
    assert [each.name for each in found] == ["right", "other"]
    assert found[0].score == 1 > found[1].score > 0
    assert found[1].scores == evaluate(given / "out" / "other", given / "truth", "semantic").scores
    lines = list(csv.DictReader((given / "out" / "comparison.csv").open()))
    assert next((line["model"], line["dice_pooled"], line["failed"]) for line in lines) == ("right", "1", "0")
    assert float(lines[1]["dice_a"]) == pytest.approx(found[1].scores["dice_a"], abs=1e-5)
    picture = np.asarray(Image.open(given / "out" / "comparison.png"))
    columns = picture.shape[1] // 4
    parts = [picture[36:, i * columns : (i + 1) * columns] for i in range(4)]
    assert [
        (part == colour).all(-1).any() for part, colour in zip(parts, (FOUND, TRUTH, FOUND, FOUND), strict=True)
    ] == [
        False,
        True,
        True,
        True,
    ]
    before = tree(given / "out" / "right")
    again = wait(compare_models(given / "images", given / "truth", models[::-1], given / "out", CONFIG))
    assert [(each.name, each.scores, each.seconds) for each in again] == [(each.name, each.scores, 0) for each in found]
    assert {k: v for k, v in tree(given / "out" / "right").items() if "zarr" in k} == {
        k: v for k, v in before.items() if "zarr" in k
    }


def test_one_image_in_the_shell_and_two_models_of_one_name(given):
    (given / "more").mkdir()
    model_of(UNetConfig(depth=1, base_features=4), 1).save(given / "more" / "right.model")
    sides = str(given / "images" / "a.tif"), str(given / "truth" / "a.tif")
    names = [word for folder in (given, given / "more") for word in ("--model", str(folder / "right.model"))]
    code, said = call("compare", *sides, *names, "--out", str(given / "out"), "--precision", "fp32")
    assert code == 0
    assert said.index("1.0000") < said.index("right-2")
    assert "comparison.png" in said
    assert open_labels(given / "out" / "right-2" / "a.ome.zarr").shape == SHAPES["a"]


def test_a_model_that_fails_on_an_image_has_no_score_and_stands_last(given):
    small(2, in_channels=2).save(given / "double.model")
    models = [given / "double.model", given / "other.model"]
    found = wait(compare_models(given / "images", given / "truth", models, given / "out", CONFIG))
    assert [(each.name, each.failed) for each in found] == [("other", 0), ("double", 2)]
    assert not found[1].scores
    assert "channels" in found[1].message


def test_axes_may_be_given_by_their_names(given):
    image = tifffile.imread(given / "images" / "a.tif")[None]
    tifffile.imwrite(given / "one.tif", image, photometric="minisblack")
    models = [given / "other.model", given / "right.model"]
    named = {"axes": "channel, y, x"}
    found = wait(compare_models(given / "one.tif", given / "truth" / "a.tif", models, given / "out", CONFIG, **named))
    assert [each.name for each in found] == ["right", "other"]
    assert found[0].score == 1


@pytest.mark.parametrize("kind", ["objects", "images"])
def test_objects_and_images_are_put_in_order_by_their_own_scores(kind, given):
    one, other = (finder(2), finder(2, min_size=30)) if kind == "objects" else (restorer(), restorer(seed=1))
    truth = wait(predict(given / "images" / "a.tif", one, given / "t.ome.zarr", CONFIG))
    found = wait(compare_models(given / "images" / "a.tif", truth.source, [other, one], given / "out", CONFIG))
    assert found[0].order == {"objects": "ap_50", "images": "psnr"}[kind]
    assert found[0].name == "model-2"
    assert found[0].score > found[1].score


def test_what_cannot_be_compared_is_refused_before_anything_is_written(given):
    finder(2).save(given / "cells.model")
    right, cells = given / "right.model", given / "cells.model"
    with pytest.raises(UsageError, match="at least two"):
        wait(compare_models(given / "images", given / "truth", [right], given / "out"))
    with pytest.raises(UsageError, match=r"instances, semantic.*choose the kind"):
        wait(compare_models(given / "images", given / "truth", [right, cells], given / "out"))
    (given / "truth" / "b.tif").rename(given / "truth" / "c.tif")
    with pytest.raises(DataError, match="b"):
        wait(compare_models(given / "images", given / "truth", [right, right], given / "out"))
    assert not (given / "out").exists()
    (given / "truth" / "c.tif").rename(given / "truth" / "b.tif")
    (given / "out").mkdir()
    (given / "out" / "comparison.csv").write_text("mine\n")
    with pytest.raises(OutputError, match=r"comparison.csv"):
        wait(compare_models(given / "images", given / "truth", [right, right], given / "out"))
    assert [path.name for path in (given / "out").iterdir()] == ["comparison.csv"]


def test_pixels_where_objects_meet_are_found_for_every_type_of_labels():
    """The largest label of a type has no larger one to stand for the ground."""
    labels = np.zeros((9, 9), np.uint8)
    labels[1:4, 1:8], labels[4:8, 1:8] = 7, 255
    wanted = labels.copy()
    wanted[3:5, 1:8] = 0
    with np.errstate(all="raise"):
        assert np.array_equal(_apart(labels), wanted)
        assert np.array_equal(_apart(labels.astype(np.uint32)), wanted)
