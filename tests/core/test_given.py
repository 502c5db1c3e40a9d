"""A model may be given as it is, by its path, or by the name of one that ships; an image as a stack, path or array."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from kinds import restorer, small
from napari_unet.batch import run_batch
from napari_unet.errors import ModelError, UsageError
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.diagnostics import seam_check
from napari_unet.inference.encode import decode, encode
from napari_unet.inference.predict import predict, predict_lazy
from napari_unet.inference.preflight import preflight
from napari_unet.model import as_model
from napari_unet.sources import open_labels, open_stack
from napari_unet.task import Autoencode
from napari_unet.training import TrainConfig
from napari_unet.training.fit import train

CONFIG = PredictConfig(precision="fp32", device="cpu")


@pytest.fixture
def stack():
    return open_stack(np.random.default_rng(0).integers(0, 999, (40, 48)).astype(np.uint16), axes="yx")


@pytest.mark.parametrize("kind", [str, Path, lambda path: f"{path}/", lambda path: path / "model.json"])
def test_a_path_gives_what_its_model_gives(kind, stack, tmp_path):
    model = small().save(tmp_path / "m.model")
    given = kind(tmp_path / "m.model")
    want = np.asarray(predict_lazy(stack, model, CONFIG).data)
    assert (np.asarray(predict_lazy(stack, given, CONFIG).data) == want).all()
    assert (np.asarray(wait(predict(stack, given, tmp_path / "r.ome.zarr", CONFIG)).data) == want).all()
    assert preflight(stack, given, tmp_path / "r.ome.zarr", CONFIG).state == "finished"


def test_every_model_of_a_cascade_may_be_a_path(stack, tmp_path):
    first, last = restorer().save(tmp_path / "a.model"), small().save(tmp_path / "b.model")
    want = wait(predict(stack, [first, last], tmp_path / "1.ome.zarr", CONFIG))
    got = wait(predict(stack, [str(tmp_path / "a.model"), tmp_path / "b.model"], tmp_path / "2.ome.zarr", CONFIG))
    assert (np.asarray(got.data) == np.asarray(want.data)).all()


def test_the_parts_batch_and_the_seam_check_take_a_path(stack, tmp_path):
    restorer(Autoencode).save(tmp_path / "a.model")
    codes = wait(encode(stack, str(tmp_path / "a.model"), tmp_path / "c.ome.zarr", CONFIG))
    assert wait(decode(codes, tmp_path / "a.model", tmp_path / "d.ome.zarr", CONFIG)).axes == "yx"
    small(depth=1).save(tmp_path / "m.model")
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "no image.npy", np.zeros(3))
    tifffile.imwrite(tmp_path / "in" / "a.tif", np.asarray(stack.data), metadata={"axes": "YX"})
    rows = wait(run_batch(tmp_path / "in", str(tmp_path / "m.model"), tmp_path / "out", CONFIG))
    assert [row.state for row in rows] == ["done"]
    large = open_stack(np.random.default_rng(0).random((300, 300), np.float32), axes="yx")
    assert seam_check(large, tmp_path / "m.model", CONFIG, size=(64, 64)).changed == 0


def test_the_name_of_a_model_that_ships_is_taken():
    assert as_model("nuclei-2d").config.ndim == 2


@pytest.mark.parametrize("what", [5, None, b"nuclei-2d", {"a": 1}, np.zeros(3), [5], object()])
def test_what_is_no_model_is_said_to_be_none(what, stack, tmp_path):
    with pytest.raises(UsageError, match=r"is not a model; give what load_model returned"):
        wait(predict(stack, what, tmp_path / "r.ome.zarr", CONFIG))


@pytest.mark.parametrize("what", ["no such model", "", "/nowhere/m.model", Path("nuclei")])
def test_a_path_without_a_model_is_named(what, stack, tmp_path):
    with pytest.raises(ModelError, match="model"):
        predict_lazy(stack, what, CONFIG)


@pytest.mark.parametrize("given", ["path", "text", "array"])
def test_an_image_and_its_labels_may_be_given_as_open_stack_takes_them(given, tmp_path):
    data = np.random.default_rng(0).integers(0, 999, (64, 72)).astype(np.uint16)
    for name, values in (("image", data), ("labels", (data > 500).astype(np.uint8))):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, metadata={"axes": "YX"})
    image, labels = tmp_path / "image.tif", tmp_path / "labels.tif"
    what = {"path": (image, labels), "text": (str(image), str(labels)), "array": (data, (data > 500).astype(np.uint8))}
    one, other = what[given]
    few = TrainConfig(steps=2, depth=1, base_features=4, patch=(32, 32), batch=1, precision="fp32", device="cpu")
    model = wait(train([(one, other)], tmp_path / "m.model", few))
    stacks = [(open_stack(image), open_labels(labels))]
    assert model.sha256 == wait(train(stacks, tmp_path / "n.model", few)).sha256
    want = np.asarray(predict_lazy(stacks[0][0], model, CONFIG).data)
    assert (np.asarray(predict_lazy(one, model, CONFIG).data) == want).all()
    assert (np.asarray(wait(predict(one, model, tmp_path / "r.ome.zarr", CONFIG)).data) == want).all()
    assert preflight(one, model, tmp_path / "r.ome.zarr", CONFIG).blocks == 1
    coder = restorer(Autoencode)
    assert seam_check(one, model, CONFIG, size=(16, 16)).changed == 0
    codes = wait(encode(one, coder, tmp_path / "c.ome.zarr", CONFIG))
    assert wait(decode(codes.source, coder, tmp_path / "d.ome.zarr", CONFIG)).shape == data.shape
