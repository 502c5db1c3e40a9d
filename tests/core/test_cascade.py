"""Models one into the other: equal to one after the other over whole images, out of core, one record."""

import json

import numpy as np
import pytest
import tifffile

from helpers import FP32, image_of, stopped_after, tree
from kinds import cascade as three
from kinds import restorer as small
from kinds import small as segmenter
from napari_unet.arrays.stack import Stack
from napari_unet.batch import run_batch
from napari_unet.errors import OutputError, UsageError
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.engine import Engine
from napari_unet.inference.predict import predict
from napari_unet.inference.preflight import preflight
from napari_unet.sources import open_stack
from napari_unet.task import Restore, SuperResolve


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_cascade_equals_its_models_one_after_the_other(ndim, tmp_path):
    models = three(ndim)
    stack = Stack(data=image_of({2: (150, 70), 3: (60, 50, 40)}[ndim]), axes=models[0].axes, scale=(0.5,) * ndim)
    config = PredictConfig(block=(24,) * ndim, **FP32)
    step, after = stack, []
    for number, model in enumerate(models):
        step = wait(predict(step, model, tmp_path / f"{number}.ome.zarr", PredictConfig(**FP32)))
        after.append(step)
    found = wait(predict(stack, models, tmp_path / "all.ome.zarr", config))
    assert found.scale == after[-1].scale and found.translation == after[-1].translation
    assert (np.asarray(found.data[...]) == np.asarray(after[-1].data[...])).mean() > 0.9999
    restored = wait(predict(stack, models[:2], tmp_path / "two.ome.zarr", config))
    wanted = np.asarray(after[1].data[...])
    assert np.abs(np.asarray(restored.data[...]) - wanted).max() <= 1e-3 * np.abs(wanted).max()


def test_a_cascade_that_was_stopped_goes_on_to_the_same_bytes_and_says_what_it_was(tmp_path):
    models = three()
    stack = Stack(data=image_of((300, 90)), axes="yx")
    config = PredictConfig(block=(48, 48), **FP32)
    ahead = preflight(stack, models, tmp_path / "b.ome.zarr", config)
    assert ahead.state == "new"
    wait(predict(stack, models, tmp_path / "a.ome.zarr", config))
    stopped_after(1, predict(stack, models, tmp_path / "b.ome.zarr", config))
    assert preflight(stack, models, tmp_path / "b.ome.zarr", config).state == "unfinished"
    assert preflight(stack, models[1:], tmp_path / "b.ome.zarr", config).state == "other"
    with pytest.raises(OutputError, match=r"cascade|model"):
        wait(predict(stack, [models[1], *models[1:]], tmp_path / "b.ome.zarr", config))
    wait(predict(stack, models, tmp_path / "b.ome.zarr", config))
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")
    record = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())["attributes"]["napari_unet"]
    assert [m["sha256"] for m in record["provenance"]["cascade"]] == [m.sha256 for m in models[:-1]]


def test_each_block_of_a_cascade_is_computed_once(tmp_path, monkeypatch):
    models = [small(Restore), segmenter()]
    seen = []
    run = Engine.logits
    monkeypatch.setattr(Engine, "logits", lambda self, tile, data: seen.append(tile.write) or run(self, tile, data))
    stack = Stack(data=image_of((1200, 700)), axes="yx")
    wait(predict(stack, models, tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    places = [str(box) for box in seen]
    assert len(places) == len(set(places)) > 2


def test_labels_cannot_be_passed_on(tmp_path):
    stack = Stack(data=image_of((60, 60)), axes="yx")
    with pytest.raises(UsageError, match="gives labels, which no model can take; put it last"):
        wait(predict(stack, [segmenter(), small()], tmp_path / "a.ome.zarr"))
    with pytest.raises(UsageError, match="no model"):
        wait(predict(stack, [], tmp_path / "a.ome.zarr"))


def test_a_batch_runs_a_cascade_and_skips_what_is_done(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(2):
        tifffile.imwrite(tmp_path / "in" / f"{i}.tif", image_of((60, 64), i), metadata={"axes": "YX"})
    for models in (three(), [small(Restore), small(SuperResolve)]):
        out = tmp_path / f"out{len(models)}"
        states = [[row.state for row in wait(run_batch(tmp_path / "in", models, out))] for _ in range(2)]
        assert states == [["done", "done"], ["skipped", "skipped"]]
    assert open_stack(out / "0.ome.zarr").shape == (120, 128)
