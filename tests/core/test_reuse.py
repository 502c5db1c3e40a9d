"""A run takes what was shown before from there, and only where it is the same."""

import numpy as np
import pytest

from helpers import FP32, image_of, tree
from kinds import finder, model_of, restorer, small
from napari_unet import predict_lazy, preview
from napari_unet.arrays.stack import Stack
from napari_unet.errors import UsageError
from napari_unet.events import Block, wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.engine import Engine
from napari_unet.inference.predict import predict
from napari_unet.task import Restore, SuperResolve


@pytest.fixture
def networks(monkeypatch):
    """What the network is run on, as numbers of elements."""
    import napari_unet.network.stream as stream

    ran = []
    push, logits = stream.Stream.push, Engine.logits
    monkeypatch.setattr(stream.Stream, "push", lambda self, x, last: ran.append(x.shape) or push(self, x, last))
    monkeypatch.setattr(Engine, "logits", lambda self, tile, data: ran.append(data.shape) or logits(self, tile, data))
    return ran


def looked_at(stack, model):
    """A lazy result, all of which has been looked at."""
    lazy = predict_lazy(stack, model, config(block=(16, 16)))
    np.asarray(lazy.data)
    return lazy


def ends_like_an_undisturbed_run(stack, model, shown, networks, folder):
    """Run with what was shown, and without; say whether the first ran the network. The results are the same."""
    networks.clear()
    wait(predict(stack, model, folder / "b.ome.zarr", config(), shown=shown))
    ran = bool(networks)
    wait(predict(stack, model, folder / "a.ome.zarr", config()))
    assert tree(folder / "b.ome.zarr") == tree(folder / "a.ome.zarr")
    return ran


def made(axes="yx", shape=(96, 80), ndim=2):
    return Stack(data=image_of(shape), axes=axes), small(ndim, depth=1)


def config(**how):
    return PredictConfig(**(FP32 | {"block": (32, 32)} | how))


@pytest.mark.parametrize(
    ("axes", "shape", "ndim"), [("yx", (96, 80), 2), ("tyx", (2, 96, 80), 2), ("zyx", (12, 40, 70), 3)]
)
def test_of_what_was_shown_nothing_is_computed_again(axes, shape, ndim, networks, tmp_path):
    stack, model = made(axes, shape, ndim)
    lazy = predict_lazy(stack, model, config(block=(16, 16)))
    seen = np.asarray(lazy.data)
    predict_lazy(stack, model, config(block=(16, 16)))  # of the same, but nobody looks at it
    networks.clear()
    result = wait(predict(stack, model, tmp_path / "b.ome.zarr", config(), shown=lazy))
    assert not networks
    assert (result.data[...] == seen).all()
    wait(predict(stack, model, tmp_path / "a.ome.zarr", config()))
    assert tree(tmp_path / "b.ome.zarr") == tree(tmp_path / "a.ome.zarr")
    assert networks


def test_blocks_that_were_shown_in_part_are_computed(networks, tmp_path):
    stack, model = made()
    lazy = predict_lazy(stack, model, config(block=(16, 16)))
    np.asarray(lazy.data[:32, :48])
    networks.clear()
    events = list(predict(stack, model, tmp_path / "b.ome.zarr", config(), shown=lazy))
    blocks = [event for event in events if isinstance(event, Block) and event.stage == "predict"]
    assert len(blocks) == 9
    assert blocks[0].box == np.s_[0:32, 0:32]
    wait(predict(stack, model, tmp_path / "a.ome.zarr", config()))
    assert tree(tmp_path / "b.ome.zarr") == tree(tmp_path / "a.ome.zarr")


def test_a_preview_serves_as_well(networks, tmp_path):
    stack, model = made()
    looked = preview(stack, model, PredictConfig(device="cpu", precision="fp32"))
    list(looked.blocks(np.s_[0:96, 0:80]))
    networks.clear()
    wait(predict(stack, model, tmp_path / "b.ome.zarr", config(), shown=looked))
    assert not networks


@pytest.mark.parametrize(
    ("model", "axes", "shape"),
    [
        (finder(), "yx", (96, 80)),
        (restorer(Restore, channels=2), "tcyx", (2, 2, 70, 60)),
        (restorer(SuperResolve, channels=2), "tcyx", (2, 2, 70, 60)),
    ],
    ids=["objects", "channels", "finer"],
)
def test_results_of_every_kind_are_taken_over(model, axes, shape, networks, tmp_path):
    stack = Stack(data=image_of(shape), axes=axes)
    assert not ends_like_an_undisturbed_run(stack, model, looked_at(stack, model), networks, tmp_path)
    assert networks


def test_intensities_that_changed_since_are_computed_anew(networks, tmp_path):
    stack, model = made()
    lazy = looked_at(stack, model)
    stack.data[40, 40] = 500  # too little to move the percentiles
    assert ends_like_an_undisturbed_run(stack, model, lazy, networks, tmp_path)


@pytest.mark.parametrize("other", [{"tta": True}, {"probabilities": True}, {"precision": "bf16"}])
def test_another_result_is_not_taken(other, networks, tmp_path):
    stack, model = made()
    lazy = looked_at(stack, model)
    networks.clear()
    wait(predict(stack, model, tmp_path / "b.ome.zarr", config(**other), shown=lazy))
    assert networks


def test_where_blocks_matter_nothing_is_taken(networks, tmp_path):
    stack, model = Stack(data=image_of((96, 80)), axes="yx"), small(norm="instance")
    assert ends_like_an_undisturbed_run(stack, model, looked_at(stack, model), networks, tmp_path)


def test_another_model_is_not_taken(networks, tmp_path):
    stack, model = made()
    lazy, other = looked_at(stack, model), model_of(model.config, seed=1)
    networks.clear()
    wait(predict(stack, other, tmp_path / "b.ome.zarr", config(), shown=lazy))
    assert networks


def test_a_stack_of_another_kind_is_refused_before_anything_is_written(tmp_path):
    stack, model = made()
    with pytest.raises(UsageError, match="predict_lazy"):
        wait(predict(stack, model, tmp_path / "b.ome.zarr", config(), shown=stack))
    assert not list(tmp_path.iterdir())
