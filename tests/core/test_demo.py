"""The example that ships is learnt from, and what is judged was not trained on."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers import tree
from napari_unet.demo import DIFFUSE, SCENARIOS, SHOWN, TRAINED, example, mosaic, run_demo
from napari_unet.errors import OutputError
from napari_unet.evaluation.evaluate import evaluate
from napari_unet.events import Epoch, Progress, wait
from napari_unet.examples import PIXEL
from napari_unet.model import load_model
from napari_unet.sources import open_labels, open_stack

STEPS, FEW = 25, 4


@pytest.fixture(scope="module", autouse=True)
def small():
    """A mosaic of a few copies: what holds for it holds for the whole."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("segment", "restore"):
            patch.setitem(SCENARIOS, name, dataclasses.replace(SCENARIOS[name], mosaic=(1, 2)))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short demo: (folder, what it returned)."""
    out = tmp_path_factory.mktemp("demo")
    return out, wait(run_demo(out, steps=STEPS))


def test_the_example_is_an_image_and_its_mask():
    image, truth = example()
    assert image.shape == truth.shape == (512, 512)
    assert set(np.unique(truth)) == {0, 1}
    assert image[truth > 0].mean() > 2 * image[truth == 0].mean()


def test_the_mosaic_is_made_of_what_is_not_trained_on_only():
    image, _ = example()
    part = image[:, TRAINED:]
    large = mosaic(part)
    assert large.size > 10 * part.size
    for y in range(0, large.shape[0], part.shape[0]):
        for x in range(0, large.shape[1], part.shape[1]):
            tile = large[y : y + part.shape[0], x : x + part.shape[1]]
            odd = (y // part.shape[0] % 2, x // part.shape[1] % 2)
            assert np.array_equal(tile[:: -1 if odd[0] else 1, :: -1 if odd[1] else 1], part)


def test_everything_is_where_it_says(run):
    _, demo = run
    image, result = open_stack(demo.image), open_labels(demo.result)
    assert image.shape == result.shape == open_labels(demo.image).shape
    assert image.scale == result.scale == open_labels(demo.image).scale == (PIXEL, PIXEL)
    assert image.units == result.units == ("micrometer", "micrometer")
    assert load_model(demo.model).task.name == "semantic"
    again = evaluate(demo.result, demo.image, "semantic").scores
    assert {name: again[name] for name in demo.scores} == demo.scores
    with Image.open(demo.overview) as picture:
        assert picture.width > 3 * picture.height * 0.9
        assert len(set(picture.convert("RGB").get_flattened_data())) > 50


def test_the_picture_shows_no_mirrored_copy():
    image, _ = example()
    assert np.array_equal(mosaic(image[:, TRAINED:])[:SHOWN, :SHOWN], image[:SHOWN, TRAINED : TRAINED + SHOWN])


def test_what_is_in_the_way_is_refused_before_the_training(tmp_path):
    (tmp_path / "result.ome.zarr").mkdir()
    (tmp_path / "result.ome.zarr" / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"result\.ome\.zarr"):
        wait(run_demo(tmp_path, steps=1))
    assert tree(tmp_path) == before


def test_it_learns_the_nuclei(run):
    share = example()[1][:, TRAINED:].mean()
    all_of_it = 2 * share / (1 + share)
    assert run[1].scores["dice"] > all_of_it + 0.1


def test_run_again_it_computes_nothing_again_and_ends_the_same(run):
    out, demo = run
    before = tree(out)
    events = []
    work = run_demo(out, steps=STEPS)
    while True:
        try:
            events.append(next(work))
        except StopIteration as end:
            assert end.value == demo
            break
    assert not any(isinstance(event, Epoch) or event.stage == "predict" for event in events)
    assert all(str(path) in events[-1].message for path in (demo.model, demo.image, demo.result, demo.overview))
    assert tree(out) == before


def test_a_model_made_anew_gives_a_result_made_anew(tmp_path):
    wait(run_demo(tmp_path, steps=1))
    for folder in ("nuclei.model", "nuclei.model.training"):
        shutil.rmtree(tmp_path / folder)
    demo = wait(run_demo(tmp_path, steps=1, seed=1))
    settings = json.loads((demo.result / "zarr.json").read_text())["attributes"]["napari_unet"]["settings"]
    assert settings["model"] == load_model(demo.model).sha256


def test_samples_are_drawn_of_what_was_not_trained_on(tmp_path, monkeypatch):
    quick = dataclasses.replace(DIFFUSE, wishes={"steps": 2, "samples": 2}, settings=DIFFUSE.settings | {"depth": 1})
    monkeypatch.setitem(SCENARIOS, "diffuse", quick)
    demo = wait(run_demo(tmp_path, steps=1, learn="diffuse"))
    assert load_model(demo.model).task.name == "diffuse" and np.isfinite(demo.scores["psnr"])
    found = [open_stack(path) for path in (demo.image, demo.result, demo.result / "uncertainty")]
    assert {each.shape for each in found} == {(512, 512 - TRAINED)}
    with Image.open(demo.overview) as picture:
        assert demo.overview.name == "samples.png" and picture.width > 4.5 * picture.height * 0.9
    before = tree(tmp_path)
    assert wait(run_demo(tmp_path, steps=1, learn="diffuse")) == demo
    assert tree(tmp_path) == before


def test_noise_is_taken_away_from_what_was_not_trained_on(tmp_path):
    demo = wait(run_demo(tmp_path, steps=STEPS, learn="restore"))
    assert demo.scores["psnr"] > demo.scores["psnr_before"] + 1
    noisy, clean, result = (open_stack(path) for path in (demo.image, demo.image / "clean", demo.result))
    assert noisy.shape == clean.shape == result.shape and noisy.scale == result.scale == (PIXEL, PIXEL)
    assert evaluate(demo.result, demo.image / "clean", "intensity").scores["psnr"] == demo.scores["psnr"]
    assert demo.overview.name == "restored.png"
    before = tree(tmp_path)
    assert wait(run_demo(tmp_path, steps=STEPS, learn="restore")) == demo
    assert tree(tmp_path) == before


def test_stopped_in_the_training_it_goes_on_to_the_same(tmp_path):
    work = run_demo(tmp_path / "cut", steps=FEW)
    for event in work:
        if isinstance(event, Progress) and event.stage == "train" and event.done == FEW // 2:
            break
    work.close()
    assert not (tmp_path / "cut" / "nuclei.ome.zarr").exists()
    cut, whole = wait(run_demo(tmp_path / "cut", steps=FEW)), wait(run_demo(tmp_path / "whole", steps=FEW))
    assert cut.scores == whole.scores


def test_a_picture_that_is_not_its_own_is_left_alone(tmp_path):
    Image.new("L", (3, 3)).save(tmp_path / "overview.png")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"overview\.png"):
        wait(run_demo(tmp_path, steps=STEPS))
    assert tree(tmp_path) == before
