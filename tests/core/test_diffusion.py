"""Samples: the same however the work was cut up, of the whole at once, and what several of them are together."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from helpers import FP32, image_of, stopped_after, tree
from kinds import restorer, sampler, small
from napari_unet.arrays.noise import normal
from napari_unet.arrays.stack import Stack
from napari_unet.errors import OutputError, ResourceError, UsageError
from napari_unet.events import wait
from napari_unet.inference import diffusion
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.diagnostics import seam_check
from napari_unet.inference.predict import predict, predict_lazy
from napari_unet.inference.prepare import prepare
from napari_unet.intensities.normalise import Normalisation
from napari_unet.network import carried
from napari_unet.objects.condition import conditioned
from napari_unet.sources import open_stack

STEPS = 3


def drawn(model, image, seed=0, sample=0, time=0, steps=STEPS):
    """(C, *S) intensities -> a sample in its own units, computed on the whole image at once by the timed network."""
    ndim, factors = model.config.ndim, model.factors
    given = model.normalisation.measure(Stack(data=image, axes="c" + model.axes)).apply(image)
    for axis, factor in enumerate(factors, 1):
        given = np.repeat(given, factor, axis)
    box = (slice(time, time + 1), *(slice(0, 1),) * (3 - ndim), *(slice(0, n) for n in given.shape[1:]))
    sign = 1 - 2 * (sample % 2)  # two samples share their noise
    noise = np.stack(
        [sign * normal(box, seed, sample // 2, i).reshape(given.shape[1:]) for i in range(model.task.drawn)]
    )
    x = torch.from_numpy(np.concatenate([noise, given]))
    # Mirrored at the far border up to the stride, as elements of the image: several of the finer grid together.
    for axis, (factor, stride) in enumerate(zip(factors, model.config.stride, strict=True), 1):
        cells = x.unflatten(axis, (-1, factor))
        count, size = cells.shape[axis], stride // np.gcd(stride, factor)
        at = list(range(count)) + [count - 2 - i for i in range(-count % size)]
        x = cells.index_select(axis, torch.tensor(at)).flatten(axis, axis + 1)
    net, moving = model.network(), model.task.drawn
    with torch.inference_mode():
        state, rest = x[None, :moving], x[None, moving:]
        for step in range(steps):
            now = torch.full_like(rest[:, :1], step / steps)
            told = [carried(step / steps, (step + 1) / steps, power) for power in model.task.powers]
            place, share, length = (torch.tensor(each).reshape(1, -1, *(1,) * ndim) for each in zip(*told, strict=True))
            linear = place * state + (share * rest if model.task.power else 0)
            state = length * net(torch.cat([state, rest, now], 1)) + linear.float()
    return model.task.decode(state[0][(..., *(slice(0, n) for n in given.shape[1:]))])


CASES = {
    "2-D": (2, {}, (90, 50), [(24, 24), (100, 16), (16, 100), (100, 100)]),
    "2-D, channels": (2, {"channels": 2, "outs": 2, "power": (1.0, 1.3)}, (90, 40), [(24, 24), (100, 16)]),
    "2-D, finer": (2, {"upscale": (2, 3), "power": (1.2,)}, (75, 35), [(16, 16), (100, 12)]),
    "3-D": (3, {"depth": 1}, (40, 21, 18), [(8, 8, 8), (64, 8, 64)]),
    "3-D, finer along z": (3, {"depth": 1, "upscale": (4, 1, 1)}, (9, 30, 18), [(4, 8, 8), (16, 32, 10)]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sample_in_many_cuts_is_that_of_the_whole(case, tmp_path):
    ndim, more, shape, cuts = CASES[case]
    model = sampler(ndim, **more)
    channels = more.get("channels", 1)
    image = image_of((channels, *shape))
    stack = Stack(data=image, axes="c" + model.axes, scale=(1.0, *(0.5,) * ndim))
    wanted = drawn(model, image, seed=5)
    found = []
    for number, block in enumerate([*cuts, None]):
        config = PredictConfig(block=block, steps=STEPS, seed=5, **FP32)
        result = wait(predict(stack, model, tmp_path / f"{number}.ome.zarr", config))
        found.append(np.asarray(result.data[...]).reshape(wanted.shape))
        lazy = np.asarray(predict_lazy(stack, model, config).data)
        assert np.abs(lazy.reshape(wanted.shape) - wanted).max() <= 1e-4 * np.abs(wanted).max()
    for each in found:
        assert np.abs(each - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert result.scale[-1] == 0.5 / model.factors[-1]
    other = np.asarray(predict_lazy(stack, model, PredictConfig(steps=STEPS, seed=6, **FP32)).data)
    assert np.abs(other.reshape(wanted.shape) - wanted).std() > 1


@pytest.mark.parametrize(("ndim", "shape"), [(2, (90, 70)), (3, (20, 24, 22))])
def test_an_image_for_labels_in_many_cuts_is_that_of_the_whole(ndim, shape, tmp_path):
    cells = np.indices(shape) // 8
    labels = np.where(cells.sum(0) % 3, 1 + np.ravel_multi_index(cells, (16,) * ndim), 0)  # of which many touch
    model = dataclasses.replace(
        sampler(ndim, channels=3, depth=1, condition="labels"),
        normalisation=Normalisation("fixed", offset=(0.0,) * 3, scale=(1.0,) * 3),
    )
    stack = Stack(labels, model.axes)
    wanted = drawn(model, conditioned(stack, "labels", ndim).data[...])[0]
    for number, block in enumerate([(8,) * ndim, (64, 16, 8)[-ndim:], None]):
        config = PredictConfig(block=block, steps=STEPS, **FP32)
        found = np.asarray(wait(predict(stack, model, tmp_path / f"{number}.ome.zarr", config)).data[...])
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("timed", [False, True], ids=["one time", "a series"])
def test_mean_and_deviation_are_those_of_the_samples(timed, tmp_path):
    model, times = sampler(), 2 if timed else 1
    image = image_of((times, 40, 52))
    stack = Stack(data=image if timed else image[0], axes="tyx"[not timed :])
    config = PredictConfig(steps=STEPS, samples=4, seed=2, block=(24, 24), **FP32)
    result = wait(predict(stack, model, tmp_path / "a.ome.zarr", config))
    wanted = np.stack([[drawn(model, image[t : t + 1], 2, s, t)[0] for s in range(4)] for t in range(times)])
    for data, truth in (
        (result.data, wanted.mean(1)),
        (open_stack(tmp_path / "a.ome.zarr" / "uncertainty").data, wanted.std(1, ddof=1)),
    ):
        found = np.asarray(data[...])
        assert found.shape == stack.shape
        assert np.abs(found.reshape(truth.shape) - truth).max() <= 1e-3 * np.abs(wanted).max()
    record = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())["attributes"]["napari_unet"]
    assert {name: record["provenance"][name] for name in ("steps", "samples", "seed")} == {
        "steps": STEPS,
        "samples": 4,
        "seed": 2,
    }
    assert not list((tmp_path / "a.ome.zarr").rglob("working*"))


@pytest.mark.parametrize("case", ["one time", "a series", "channels, finer, a part"])
def test_each_sample_is_kept_beside_their_mean_where_that_is_wanted(case, tmp_path):
    plain = case != "channels, finer, a part"
    model = sampler(depth=1) if plain else sampler(depth=1, channels=1, outs=2, upscale=(2, 2), dtype_name="uint8")
    image = image_of((2 if case == "a series" else 1, 40, 36))
    stack = Stack(image, "tyx") if case == "a series" else Stack(image[0], "yx")
    region = {} if plain else {"region": "8:29,4:33"}
    given = {"steps": 2, "seed": 3, **region, **FP32}
    found = []
    for samples in (2, 3):
        out = tmp_path / f"{samples}.ome.zarr"
        wait(predict(stack, model, out, PredictConfig(samples=samples, each_sample=True, block=(16, 16), **given)))
        found.append(open_stack(out / "samples"))
    mean, each = np.asarray(open_stack(out).data[...]), np.asarray(found[1].data[...])
    names = ("sample 1", "sample 2") if plain else ("sample 1 channel 0", "sample 1 channel 1")
    assert found[1].channel_names[:2] == names
    at = found[1].axes.index("c")
    channels = each.shape[at] // 3
    apart = np.stack(np.split(each, 3, at)).astype(float)
    inside = ((apart > 0) & (apart < 255)).all(0) if not plain else np.ones(apart.shape[1:], bool)  # else they are cut
    assert channels == (1 if plain else 2) and inside.mean() > 0.8
    assert np.abs((apart.mean(0) - mean.reshape(apart.shape[1:]))[inside]).max() < 1
    first = wait(predict(stack, model, tmp_path / "one.ome.zarr", PredictConfig(**given)))
    assert np.abs(apart[0].reshape(mean.shape) - first.data[...]).max() <= 1
    assert (np.asarray(found[0].data[...]) == np.split(each, [2 * channels], at)[0]).all()


@pytest.mark.parametrize("samples", [None, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(samples, tmp_path):
    model, stack = sampler(), Stack(data=image_of((120, 60)), axes="yx")
    config = PredictConfig(block=(16, 32), steps=STEPS, samples=samples, **FP32)
    wait(predict(stack, model, tmp_path / "a.ome.zarr", config))
    for blocks in (2, 7, 11):
        stopped_after(blocks, predict(stack, model, tmp_path / "b.ome.zarr", config))
    for other in ({"seed": 1}, {"steps": 4}, {"samples": 2}):
        wishes = {"steps": STEPS, "samples": samples} | other
        with pytest.raises(OutputError, match=next(iter(other))):
            wait(predict(stack, model, tmp_path / "b.ome.zarr", PredictConfig(block=(16, 32), **wishes, **FP32)))
    wait(predict(stack, model, tmp_path / "b.ome.zarr", config))
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


@pytest.mark.parametrize("ndim", [2, 3])
def test_steps_that_do_not_fit_are_made_some_at_a_time_to_the_same_result(ndim, tmp_path):
    """The state between them is whole before it is read, and gone in the end, wherever the run was stopped."""
    model, image = sampler(ndim, outs=2, depth=1), image_of((1, *{2: (43, 37), 3: (45, 41, 5)}[ndim]))
    stack = Stack(image, "c" + model.axes)
    wide, narrow = (
        PredictConfig(block=block, steps=4, **FP32) for block in ((64,) * ndim, {2: (16, 16), 3: (24, 8, 8)}[ndim])
    )
    jobs = [prepare(stack, model, config).job() for config in (wide, narrow)]
    assert not jobs[0].stages and len(jobs[1].stages) > 1
    assert f"the steps in {len(jobs[1].stages) + 1} parts" in jobs[1].summary(0, 2.0)
    found = []
    for config, name in ((wide, "wide"), (narrow, "narrow"), (narrow, "parts")):
        out = tmp_path / f"{name}.ome.zarr"
        for blocks in range(3, jobs[1].total - 1, 7) if name == "parts" else ():
            stopped_after(blocks, predict(stack, model, out, config))
            assert len(list(out.rglob("state-*"))) in (1, 2)
        events = list(predict(stack, model, out, config))
        assert not list(out.rglob("state-*"))
        assert all(event.done <= event.total for event in events)
        found.append(np.asarray(open_stack(out).data[...]))
    wanted = drawn(model, image, steps=4)
    assert np.abs(found[0] - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.abs(found[1] - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert tree(tmp_path / "narrow.ome.zarr") == tree(tmp_path / "parts.ome.zarr")


def test_integers_keep_their_range_and_a_mean_is_of_unrounded_samples(tmp_path):
    model, stack = sampler(dtype_name="uint8"), Stack(data=image_of((40, 40)), axes="yx")
    samples = [drawn(sampler(), stack.data[None], 0, s)[0] for s in range(2)]
    assert min(s.min() for s in samples) < 0 or max(s.max() for s in samples) > 255
    config = PredictConfig(steps=STEPS, samples=2, **FP32)
    found = np.asarray(wait(predict(stack, model, tmp_path / "a.ome.zarr", config)).data[...])
    wanted = np.rint(np.mean(samples, 0)).clip(0, 255)
    assert found.dtype == np.uint8 and (found == wanted).mean() > 0.999


def test_a_constant_image_is_not_taken_for_one_that_repeats(tmp_path):
    model, image = sampler(), np.full((1, 900, 20), 300, np.uint16)
    config = PredictConfig(steps=STEPS, **FP32)
    found = np.asarray(wait(predict(Stack(image[0], "yx"), model, tmp_path / "a.ome.zarr", config)).data[...])
    wanted = drawn(model, image)[0]
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_a_region_is_the_same_part_of_the_whole(tmp_path):
    model, stack = sampler(), Stack(data=image_of((130, 150)), axes="yx")
    for samples in (None, 2):
        config = PredictConfig(steps=STEPS, samples=samples, **FP32)
        whole = np.asarray(wait(predict(stack, model, tmp_path / f"{samples}.ome.zarr", config)).data[...])
        part = PredictConfig(steps=STEPS, samples=samples, region="37:60,50:101", **FP32)
        found = np.asarray(wait(predict(stack, model, tmp_path / f"{samples}part.ome.zarr", part)).data[...])
        assert np.abs(found - whole[37:60, 50:101]).max() <= 1e-4 * np.abs(whole).max()


def test_a_view_that_does_not_fit_the_memory_is_refused_and_a_run_is_not(tmp_path, monkeypatch):
    model, stack = sampler(depth=1), Stack(image_of((64, 64)), "yx")
    config = PredictConfig(steps=2, **FP32)
    monkeypatch.setattr(diffusion, "memory", lambda: 2**19)
    with pytest.raises(ResourceError, match="take fewer steps"):
        np.asarray(predict_lazy(stack, model, config).data)
    assert wait(predict(stack, model, tmp_path / "a.ome.zarr", config)).shape == (64, 64)


def test_there_are_no_seams_and_a_cascade_takes_a_sample(tmp_path):
    model, stack = sampler(depth=1), Stack(data=image_of((100, 110)), axes="yx")
    config = PredictConfig(steps=2, **FP32)
    assert seam_check(stack, model, config, size=(32, 32)).largest < 1e-4
    one = wait(predict(stack, model, tmp_path / "a.ome.zarr", config))
    after = wait(predict(one, small(), tmp_path / "b.ome.zarr", PredictConfig(**FP32)))
    both = wait(predict(stack, [model, small()], tmp_path / "c.ome.zarr", config))
    assert (np.asarray(both.data[...]) == np.asarray(after.data[...])).mean() > 0.9999


@pytest.mark.parametrize(
    ("models", "wishes", "says"),
    [
        (lambda: [restorer()], {"steps": 4}, "the model draws no samples"),
        (lambda: [sampler(), small()], {"samples": 2}, "the last model draws none"),
        (lambda: [sampler()], {"tta": True}, "give --samples"),
        (lambda: [sampler()], {"seed": 2**32}, "must be at most"),
        (lambda: [sampler()], {"uncertainty": True}, "--samples 2 or more"),
        (lambda: [sampler()], {"each_sample": True}, "--samples 2 or more"),
    ],
)
def test_what_samples_cannot_have_is_refused_before_anything_is_written(models, wishes, says, tmp_path):
    stack = Stack(data=image_of((40, 40)), axes="yx")
    with pytest.raises(UsageError, match=says):
        wait(predict(stack, models(), tmp_path / "a.ome.zarr", PredictConfig(**wishes, **FP32)))
    assert not list(tmp_path.iterdir())
