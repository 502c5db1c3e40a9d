"""Images as results: exact however the work was cut up, in their own units, on the right grid."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import FP32, image_of, scene
from kinds import restorer as small
from kinds import restorer_of as model_of
from kinds import run_tiled
from napari_unet.arrays.degrade import degraded
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, ModelError, UsageError
from napari_unet.events import Epoch, wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.diagnostics import seam_check
from napari_unet.inference.predict import predict, predict_lazy
from napari_unet.model import load_model
from napari_unet.sources import open_stack
from napari_unet.task import Autoencode, Restore, SuperResolve
from napari_unet.task.blind import blind_spots
from napari_unet.task.restore import LOSSES, TYPES
from napari_unet.training import TrainConfig, config, train
from strategies import configs

KINDS = (Restore, SuperResolve, Autoencode)


def whole_of(model, data):
    """(C, *S) intensities -> what the task makes of the network's output on the whole image at once."""
    image = model.normalisation.measure(Stack(data=data, axes="c" + model.axes)).apply(data)
    return model.task.decode(torch.from_numpy(run_tiled(model.network(), image, image.shape[1:])))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs(), data=st.data())
def test_the_result_does_not_depend_on_how_the_work_was_cut_up(config, data, tmp_path_factory):
    top = 24 if config.ndim == 3 else 70
    shape = tuple(data.draw(st.integers(1, top), label="shape") for _ in range(config.ndim))
    block = tuple(max(n // 3, data.draw(st.integers(1, 40), label="block")) for n in shape)
    model, image = model_of(config), image_of((config.in_channels, *shape))
    stack = Stack(data=image, axes="c" + model.axes, scale=(1.0, *(0.5,) * config.ndim))
    out = tmp_path_factory.mktemp("restore") / "out.ome.zarr"
    result = wait(predict(stack, model, out, PredictConfig(block=block, **FP32)))
    wanted = whole_of(model, image)
    found = np.asarray(result.data[...]).reshape(wanted.shape)
    assert result.axes == ("c" if config.out_channels > 1 else "") + model.axes
    assert np.abs(found - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())
    lazy = np.asarray(predict_lazy(stack, model, PredictConfig(block=block, **FP32)).data)
    assert np.abs(lazy.reshape(wanted.shape) - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_no_seams(kind):
    stack = Stack(data=image_of((200, 220)), axes="yx")
    assert seam_check(stack, small(kind), PredictConfig(**FP32), size=(64, 64)).largest < 1e-4


def test_a_finer_result_lies_on_the_image_to_the_half_pixel(tmp_path):
    model = small(SuperResolve)
    stack = Stack(data=image_of((3, 20, 24)), axes="tyx", scale=(1, 0.4, 0.6), translation=(0, 5.0, 7.0))
    result = wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    assert result.shape == (3, 40, 48)
    assert result.scale == pytest.approx((1, 0.2, 0.3))
    assert result.translation == pytest.approx((0, 5.0 - 0.1, 7.0 - 0.15))  # centres of a half before and behind


def test_integers_are_rounded_and_never_wrap():
    task = Restore(offset=(100.0,), scale=(100.0,), dtype_name="uint8")
    values = torch.tensor([[-5.0, -1.0, 0.004, 0.006, 1.5, 9.0]])
    assert task.decode(values).tolist() == [[0, 0, 100, 101, 250, 255]]
    halves = dataclasses.replace(task, dtype_name="float16", scale=(1e6,))
    assert np.isfinite(halves.decode(values)).all()
    with pytest.raises(ModelError, match="NaN"):
        task.decode(torch.tensor([[float("nan")]]))


def test_intensities_keep_their_meaning_from_image_to_image(tmp_path):
    model = small()
    image = image_of((40, 40))
    one, both = (
        wait(predict(Stack(data=d, axes="yx"), model, tmp_path / f"{i}.ome.zarr", PredictConfig(**FP32)))
        for i, d in enumerate((image, np.concatenate([image, 60 * image.astype(np.uint32)], 0)))
    )
    assert np.allclose(np.asarray(one.data[:16]), np.asarray(both.data[:16]), rtol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_blind_spots_are_hidden_behind_a_neighbour_and_nothing_else_changes(ndim):
    images = torch.arange(2 * 2 * 30**ndim, dtype=torch.float32).reshape(2, 2, *(30,) * ndim)
    changed, hidden = blind_spots(images, torch.Generator().manual_seed(3))
    differs = changed != images
    assert (differs == hidden.expand_as(differs)).all()
    share = float(hidden.float().mean())
    assert 0.5 / 8**ndim < share < 2 / 5**ndim
    steps = (changed - images)[:, 0][hidden[:, 0]].abs()
    assert steps.max() <= sum(2 * 30**axis for axis in range(ndim))


def test_the_loss_with_blind_spots_looks_at_these_alone():
    task = Restore(blind=True)
    target = torch.zeros(1, 2, 8, 8)
    target[0, 1, 3, 3] = 1
    output = torch.zeros(1, 1, 8, 8)
    output[0, 0, 5, 5] = 100
    assert float(task.loss(output, target)) == 0
    output[0, 0, 3, 3] = 2
    assert float(task.loss(output, target)) == pytest.approx(4)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_least_at_the_truth(loss):
    task, truth = Restore(loss_name=loss), torch.rand(2, 1, 24, 24)
    assert float(task.loss(truth, truth)) < float(task.loss(truth + 0.1, truth)) < float(task.loss(truth + 0.5, truth))


def test_settings_of_the_shell_are_those_of_the_task():
    assert set(config.LOSSES) == set(LOSSES) and set(config.TYPES) == set(TYPES)


def test_what_is_coarser_covers_the_same_part_of_the_world():
    stack = Stack(data=image_of((40, 60)).astype(np.float32), axes="yx", scale=(0.2, 0.2))
    worse = degraded(stack, 0.0, (2, 2))
    assert worse.scale == pytest.approx((0.4, 0.4)) and worse.translation == pytest.approx((0.1, 0.1))
    means = stack.data.reshape(20, 2, 30, 2).mean((1, 3))
    assert np.allclose(np.asarray(worse.data), means, rtol=1e-5)
    blurred = degraded(stack, 1.5)
    whole = np.asarray(blurred.data[...])
    assert whole.std() < 0.5 * stack.data.std()
    assert np.allclose(blurred.data[7:19, 11:40], whole[7:19, 11:40], rtol=1e-5)


def learn(tmp_path, pairs, steps=60, **settings):
    wishes = TrainConfig(steps=steps, patch=(32, 32), batch=4, depth=2, base_features=8, precision="fp32", **settings)
    return wait(train(pairs, tmp_path / "m.model", wishes)), wishes


def rms(a, b):
    return float(np.sqrt(np.mean((np.asarray(a, np.float64) - b) ** 2)))


def noisy(clean, seed, sd=150):
    return clean + np.random.default_rng(seed).normal(0, sd, clean.shape).astype(np.float32)


@pytest.mark.parametrize("way", ["pairs", "made", "blind", "two shots"])
def test_noise_is_learnt_away(way, tmp_path):
    clean = [scene(i) for i in range(4)]
    first = [Stack(data=noisy(c, i), axes="yx", name=f"a{i}") for i, c in enumerate(clean)]
    second = [Stack(data=noisy(c, 50 + i), axes="yx", name=f"b{i}") for i, c in enumerate(clean)]
    truth = [Stack(data=c, axes="yx", name=f"c{i}") for i, c in enumerate(clean)]
    other = {"pairs": truth, "made": truth, "blind": first, "two shots": second}[way]
    images = truth if way == "made" else first
    settings = {"made": {"noise": 150.0}, "blind": {"blind": True}}.get(way, {})
    model, _ = learn(tmp_path, list(zip(images, other, strict=True)), steps=150, task="restore", **settings)
    unseen = noisy(scene(9), 99)
    found = wait(predict(Stack(data=unseen, axes="yx"), model, tmp_path / "r.ome.zarr", PredictConfig(**FP32)))
    assert rms(found.data[...], scene(9)) < 0.6 * rms(unseen, scene(9))


def test_a_finer_image_is_better_than_an_interpolated_one(tmp_path):
    pairs = [(s, s) for s in (Stack(data=scene(i), axes="yx", name=str(i)) for i in range(4))]
    model, _ = learn(tmp_path, pairs, steps=150, task="super_resolve", upscale=(2, 2))
    fine = scene(9)
    coarse = np.asarray(degraded(Stack(data=fine, axes="yx"), 0.0, (2, 2)).data)
    found = wait(predict(Stack(data=coarse, axes="yx"), model, tmp_path / "r.ome.zarr", PredictConfig(**FP32)))
    assert found.shape == (64, 64)
    assert rms(found.data[...], fine) < 0.5 * rms(coarse.repeat(2, 0).repeat(2, 1), fine)


def test_the_spread_is_right_on_what_was_held_out(tmp_path):
    clean = [scene(i) for i in range(6)]
    pairs = [(Stack(data=noisy(c, i), axes="yx", name=f"a{i}"), Stack(data=c, axes="yx")) for i, c in enumerate(clean)]
    model, _ = learn(tmp_path, pairs, steps=150, task="restore", predict_std=True)
    assert model.config.out_channels == 2
    fine = scene(9)
    stack = Stack(data=noisy(fine, 99), axes="yx")
    found = wait(predict(stack, model, tmp_path / "r.ome.zarr", PredictConfig(uncertainty=True, **FP32)))
    spread = np.asarray(open_stack(tmp_path / "r.ome.zarr" / "uncertainty").data[...])
    off = np.abs(np.asarray(found.data[...]) - fine)
    assert spread.shape == fine.shape and (spread > 0).all()
    assert 0.5 < np.sqrt(np.mean((off / spread) ** 2)) < 2


def test_a_training_resumed_is_the_one_undisturbed(tmp_path):
    pairs = [(s, s) for s in (Stack(data=scene(i), axes="yx", name=str(i)) for i in range(3))]
    settings = {"task": "restore", "noise": 100.0, "steps": 16}
    whole, wishes = learn(tmp_path / "a", pairs, **settings) if (tmp_path / "a").mkdir() is None else (None, None)
    (tmp_path / "b").mkdir()
    run = train(pairs, tmp_path / "b" / "m.model", wishes)
    for event in run:
        if isinstance(event, Epoch):
            break
    run.close()
    again = wait(train(pairs, tmp_path / "b" / "m.model", dataclasses.replace(wishes, resume=True)))
    assert again.sha256 == whole.sha256
    assert load_model(tmp_path / "b" / "m.model").sha256 == whole.sha256


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "super_resolve"}, "needs upscale"),
        ({"task": "restore", "upscale": (2, 2)}, "no other task takes it"),
        ({"task": "semantic", "noise": 3.0}, "noise is for images, not for labels"),
        ({"task": "restore", "sparse": True}, "sparse is for labels, not for images"),
        ({"task": "restore", "blind": True, "noise": 3.0}, "blind learns from the noisy images themselves"),
        ({"task": "autoencode", "blur": 1.0}, "learns the unchanged image"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**settings)


def test_pairs_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    image = Stack(data=scene(0), axes="yx", name="a")
    with pytest.raises(DataError, match=r"a and its target b do not fit: .*needs yx \(128, 128\)"):
        wrong = Stack(data=scene(0)[:40, :40], axes="yx", name="b")
        learn(tmp_path, [(image, wrong)], task="super_resolve", upscale=(2, 2))
    with pytest.raises(DataError, match="constant"):
        learn(tmp_path, [(image, Stack(data=np.ones((64, 64)), axes="yx"))], task="restore")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["probabilities", "in_source", "uncertainty"])
def test_what_only_labels_have_is_refused_for_images(option, tmp_path):
    stack = Stack(data=image_of((40, 40)), axes="yx")
    with pytest.raises(UsageError, match="leave"):
        wait(predict(stack, small(), tmp_path / "a.ome.zarr", PredictConfig(**{option: True}, **FP32)))
    assert not list(tmp_path.iterdir())
