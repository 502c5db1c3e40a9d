"""To a description and back: exact however cut up, the same as the whole network."""

import numpy as np
import pytest
import torch

from helpers import FP32, image_of, scene, stopped_after, tree
from kinds import restorer as small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import ModelError, UsageError
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.encode import decode, encode
from napari_unet.inference.predict import predict
from napari_unet.sources import open_stack
from napari_unet.task import Autoencode, Restore
from napari_unet.training import TrainConfig, train


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("shape", [(24, 32, 48), (33, 26, 39)])
def test_what_is_encoded_and_decoded_is_what_the_network_gives(ndim, shape, tmp_path):
    model = small(Autoencode, ndim)
    stack = Stack(data=image_of(shape[:ndim]), axes=model.axes, scale=(0.5,) * ndim, units=("micrometer",) * ndim)
    codes = []
    for number, block in enumerate([(16,) * ndim, (200,) * ndim]):
        out = tmp_path / f"codes{number}.ome.zarr"
        codes.append(wait(encode(stack, model, out, PredictConfig(block=block, **FP32))))
    one, other = (np.asarray(c.data[...]) for c in codes)
    assert one.shape == (16, *(-(-n // 4) for n in stack.shape))
    assert np.abs(one - other).max() <= 1e-4 * np.abs(one).max()
    assert codes[0].scale_along(model.axes) == (2.0,) * ndim
    assert codes[0].values_along(model.axes, "translation") == (0.75,) * ndim  # the middle of 4 elements of 0.5
    whole = wait(predict(stack, model, tmp_path / "whole.ome.zarr", PredictConfig(**FP32)))
    back = wait(decode(codes[0], model, tmp_path / "back.ome.zarr", PredictConfig(block=(8,) * ndim, **FP32)))
    found, wanted = np.asarray(back.data[...]), np.asarray(whole.data[...])
    found = found[tuple(slice(0, n) for n in wanted.shape)]
    assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max()
    assert back.scale == stack.scale and back.translation == pytest.approx((0.0,) * ndim)


def test_encoding_stopped_and_run_again_gives_the_same_bytes(tmp_path):
    model, stack = small(Autoencode), Stack(data=image_of((130, 90)), axes="yx")
    config = PredictConfig(block=(24, 24), **FP32)
    wait(encode(stack, model, tmp_path / "a.ome.zarr", config))
    stopped_after(4, encode(stack, model, tmp_path / "b.ome.zarr", config))
    wait(encode(stack, model, tmp_path / "b.ome.zarr", config))
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


def test_what_the_network_has_not_seen_stands_out_in_the_error(tmp_path):
    pairs = [(s, s) for s in (Stack(data=scene(i), axes="yx", name=str(i)) for i in range(4))]
    wishes = TrainConfig(task="autoencode", steps=150, patch=(32, 32), batch=4, depth=2, base_features=8)
    model = wait(train(pairs, tmp_path / "m.model", wishes))
    assert not model.config.skips and isinstance(model.task, Autoencode)
    strange = scene(9)
    strange[20:36, 20:36] = 500 + 600 * (np.indices((16, 16)).sum(0) % 2)  # finer than anything that was learnt
    out = tmp_path / "r.ome.zarr"
    result = wait(predict(Stack(data=strange, axes="yx"), model, out, PredictConfig(error=True, **FP32)))
    error = np.asarray(open_stack(out / "error").data[...])
    assert np.allclose(error, np.abs(np.asarray(result.data[...]) - strange), atol=1e-2)
    assert error[20:36, 20:36].mean() > 2 * error.mean()


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_error_does_not_depend_on_how_the_work_was_cut_up(ndim, tmp_path):
    model, stack = small(Autoencode, ndim), Stack(data=image_of((70, 40, 30)[:ndim]), axes="zyx"[-ndim:])
    found = []
    for number, block in enumerate([(16,) * ndim, (100,) * ndim]):
        out = tmp_path / f"{number}.ome.zarr"
        wait(predict(stack, model, out, PredictConfig(error=True, block=block, **FP32)))
        found.append(np.asarray(open_stack(out / "error").data[...]))
    assert np.abs(found[0] - found[1]).max() <= 1e-3 * found[0].max()


def test_networks_with_skips_and_other_descriptions_are_refused(tmp_path):
    stack = Stack(data=image_of((40, 40)), axes="yx")
    with pytest.raises(ModelError, match="not a plain encoder-decoder; train one with --task autoencode"):
        wait(encode(stack, small(Restore), tmp_path / "a.ome.zarr"))
    with pytest.raises(ModelError, match="has 1 channels, the model's descriptions have 16"):
        wait(decode(stack, small(Autoencode), tmp_path / "a.ome.zarr"))
    with pytest.raises(UsageError, match="error compares an image with itself"):
        wait(predict(stack, small(Restore), tmp_path / "a.ome.zarr", PredictConfig(error=True)))
    with pytest.raises(ModelError, match="follows from more than its bottleneck"):
        small(Restore).network().decode(torch.zeros(1, 16, 4, 4))
    assert not list(tmp_path.iterdir())
