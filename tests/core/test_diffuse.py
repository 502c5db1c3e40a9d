"""The task diffuse: what is learnt, from which pairs, and what a short training already gives."""

import math

import numpy as np
import pytest
import torch

from helpers import FP32, call, collect, same, scene, short
from napari_unet.arrays.stack import Stack
from napari_unet.errors import ModelError, UsageError
from napari_unet.events import Epoch, wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.model import load_model
from napari_unet.network import carried, drift
from napari_unet.network.timed import ALIKE
from napari_unet.task import Diffuse, read_task
from napari_unet.task.diffuse import TRIED_SAMPLES
from napari_unet.training import TrainConfig, train
from napari_unet.training.setup import outlook
from napari_unet.zoo import export_model


def pairs(count=3, size=48, noise=200.0):
    stacks = [Stack(scene(i, size), "yx", name=f"{i}") for i in range(count)]
    rng = np.random.default_rng(0)
    return [(Stack((s.data + rng.normal(0, noise, s.shape)).astype(np.float32), "yx"), s) for s in stacks]


def test_the_network_is_given_what_lies_between_noise_and_target_and_learns_the_way():
    task, generator = Diffuse(("a", "b"), (0.0, 0.0), (1.0, 1.0)), torch.Generator().manual_seed(3)
    images, targets = torch.randn(4, 1, 8, 8), torch.randn(4, 2, 8, 8)
    given, wanted = task.prepare(images, targets, generator)
    state, image, times = given[:, :2], given[:, 2:3], given[:, 3:]
    velocity = wanted[:, :2] + drift(times)[0] * state
    assert torch.equal(image, images) and torch.equal(wanted[:, 2:], targets)
    assert torch.allclose(state + (1 - times) * velocity, targets, atol=1e-5)  # where the way ends
    noise = state - times * velocity  # where it begins
    assert abs(float(noise.mean())) < 0.2 and abs(float(noise.std()) - 1) < 0.2
    each = times.flatten(1)
    assert (each == each[:, :1]).all() and np.diff(sorted(map(float, each[:, 0]))).min() > 0.2  # spread over the batch
    assert abs(float((wanted[:, :2] * state).mean())) < 0.15  # what is left to learn does not follow from the state
    assert float(task.loss(wanted[:, :2], wanted)) == 0 and float(task.loss(wanted + 2, wanted)) == pytest.approx(4)


def test_place_and_image_tell_what_can_be_told_linearly():
    """The least squares of the velocity on both, of draws that are as they are taken to be."""
    rng = np.random.default_rng(0)
    clean, noise, more = rng.normal(size=(3, 400_000))
    image = ALIKE * clean + (1.3 - ALIKE**2) ** 0.5 * more
    for time in (0.0, 0.3, 0.9):
        seen = np.stack([time * clean + (1 - time) * noise, image], 1)
        assert np.linalg.lstsq(seen, clean - noise)[0] == pytest.approx(drift(time, 1.3), abs=0.02)
        assert np.linalg.lstsq(seen[:, :1], clean - noise)[0] == pytest.approx(drift(time)[:1], abs=0.02)


@pytest.mark.parametrize("power", [None, 1.3])
def test_a_step_follows_what_is_told_linearly_exactly(power):
    """Against small steps by Runge and Kutta, with a network that gives 0.7."""
    for start, stop in ((0.0, 0.25), (0.4, 0.9), (0.0, 1.0)):
        at, image = 1.5, -0.8
        step = (stop - start) / 400

        def velocity(time, place, image=image):
            along, share = drift(time, power)
            return along * place + share * image + 0.7

        for time in start + step * np.arange(400):
            first = velocity(time, at)
            second = velocity(time + step / 2, at + step / 2 * first)
            third = velocity(time + step / 2, at + step / 2 * second)
            at += step / 6 * (first + 2 * second + 2 * third + velocity(time + step, at + step * third))
        place, share, length = carried(start, stop, power)
        assert place * 1.5 + share * image + length * 0.7 == pytest.approx(at, abs=1e-7)


def test_samples_of_what_is_normally_distributed_are_as_far_apart_as_it_is_however_few_the_steps():
    """A network that adds nothing: the image tells linearly all that there is to tell."""
    task, (clean, noise) = Diffuse(power=(1.3,)), torch.randn(2, 1, 1, 200, 200)
    image = ALIKE * clean + (1.3 - ALIKE**2) ** 0.5 * noise
    given, wanted = task.prepare(image, clean, torch.Generator().manual_seed(0))
    found = task.tried(lambda x: torch.zeros_like(x[:, :1]), given)
    mean, apart = found[:, 1:2], found[:, 2:]
    left = 1 - ALIKE**2 / 1.3  # variance of the truth where the image is known
    assert torch.allclose(mean, ALIKE / 1.3 * image, atol=1e-4)  # what is odd in the noise goes in a mean of pairs
    pairs = TRIED_SAMPLES / (TRIED_SAMPLES - 1)  # which are farther apart than so many others
    assert float(apart.square().mean()) == pytest.approx(left * pairs, rel=0.05)
    scores = task.scores()
    scores.add(found, wanted)
    assert 0.85 < scores.result()["held_90"] < 0.95
    narrow = task.scores()
    narrow.add(torch.cat([found[:, :2], 0.5 * apart], 1), wanted)
    assert narrow.result()["held_90"] < 0.75


@pytest.mark.parametrize(
    ("ndim", "upscale", "fine", "wanted"),
    [(2, None, (48, 48), (48, 48)), (2, (2, 2), (48, 48), (48, 48)), (3, (2, 1, 1), (16, 24, 24), (16, 24, 24))],
    ids=["one grid", "finer", "planes"],
)
def test_a_short_training_of_any_factor_gives_a_model_that_draws(ndim, upscale, fine, wanted, tmp_path):
    rng = np.random.default_rng(0)
    target = Stack(rng.normal(100, 20, fine).astype(np.float32), "zyx"[-ndim:])
    clean = [(each, each) for each in (target, Stack(target.data[::-1].copy(), target.axes))]
    patch = {"patch": (8,) * ndim, "depth": 1, "upscale": upscale, "noise": 10.0}
    model = wait(train(clean, tmp_path / "m.model", short(task="diffuse", **patch)))
    assert load_model(tmp_path / "m.model").sha256 == model.sha256
    assert read_task(model.task.to_json()) == model.task
    assert model.factors == (upscale or (1,) * ndim) and model.in_channels == 1
    shape = tuple(n // f for n, f in zip(fine, model.factors, strict=True))
    stack = Stack(target.data[tuple(slice(0, n) for n in shape)].copy(), target.axes)
    config = PredictConfig(steps=2, samples=2, **FP32)
    result = wait(predict(stack, model, tmp_path / "a.ome.zarr", config))
    assert result.shape == wanted and np.isfinite(np.asarray(result.data[...])).all()
    with pytest.raises(ModelError, match="draws samples"):
        wait(export_model(model, tmp_path / "m.onnx"))
    code, said = call("info", tmp_path / "m.model")
    assert code == 0 and "diffuse: intensity" in said and "psnr" in said


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A training of some seconds: its epochs, its model, its settings."""
    config = TrainConfig(
        task="diffuse", steps=60, seed=1, patch=(32, 32), batch=4, depth=2, base_features=8, precision="fp32"
    )
    events, model = collect(train(pairs(), tmp_path_factory.mktemp("diffuse") / "m.model", config))
    return [event for event in events if isinstance(event, Epoch)], model


def test_training_lowers_the_loss_and_a_mean_of_samples_is_nearer_to_the_truth_than_one(learnt, tmp_path):
    epochs, model = learnt
    assert epochs[-1].validation_loss < 0.7 * epochs[0].validation_loss
    assert max(epoch.scores["psnr"] for epoch in epochs) > epochs[0].scores["psnr"]
    clean = scene(9, 48)
    noisy = (clean + np.random.default_rng(9).normal(0, 200, clean.shape)).astype(np.float32)
    found = {}
    for samples in (1, 8):
        out = tmp_path / f"{samples}.ome.zarr"
        result = wait(predict(Stack(noisy, "yx"), model, out, PredictConfig(samples=samples, **FP32)))
        found[samples] = float(np.sqrt(np.mean((np.asarray(result.data[...]) - clean) ** 2)))
    assert found[8] < found[1]
    assert math.isfinite(model.record["scores"]["psnr"]) and model.record["plan"]["network"]["timed"]


def test_resumed_it_is_the_same_model(tmp_path):
    whole = wait(train(pairs(), tmp_path / "a.model", short(task="diffuse")))
    run = train(pairs(), tmp_path / "b.model", short(task="diffuse"))
    for event in run:
        if getattr(event, "stage", "") == "train" and event.done >= 5:
            break
    run.close()
    assert same(whole, wait(train(pairs(), tmp_path / "b.model", short(task="diffuse", resume=True))))


def test_the_plan_looks_less_far_and_counts_the_finer_grid():
    coarse, fine = (
        wait(outlook(pairs(2, 96), TrainConfig(task="diffuse", minutes=20, upscale=upscale))).plan
        for upscale in (None, (2, 2))
    )
    assert coarse.network.timed and coarse.network.depth <= 3 and coarse.network.in_channels == 2
    assert math.prod(fine.patch) * 4 <= 1.5 * math.prod(coarse.patch)


@pytest.mark.parametrize(
    "wishes", [{"blind": True}, {"predict_std": True}, {"loss": "l1"}, {"preset": "ronneberger2015"}]
)
def test_what_it_does_not_take_is_refused(wishes):
    with pytest.raises(UsageError, match="diffuse"):
        TrainConfig(task="diffuse", **wishes)


def test_it_starts_from_a_model_of_its_own_kind_alone(tmp_path, learnt):
    own = TrainConfig(task="restore", steps=2, depth=1, base_features=4, patch=(16, 16), batch=2)
    with pytest.raises(ModelError, match="draws samples"):
        wait(train(pairs(), tmp_path / "a.model", own, init=learnt[1]))
    tuned = wait(train(pairs(), tmp_path / "b.model", TrainConfig(task="diffuse", steps=4), init=learnt[1]))
    assert tuned.config == learnt[1].config
