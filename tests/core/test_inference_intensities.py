"""How intensities are measured can be chosen and is part of what a run is; what is odd about them is said."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile
import zarr

from kinds import cascade, restorer, small
from napari_unet.arrays.stack import Stack
from napari_unet.batch import run_batch
from napari_unet.cli.options import repeated
from napari_unet.errors import OutputError, UsageError
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.intensities import measured, remarks
from napari_unet.inference.predict import predict, predict_lazy
from napari_unet.inference.preflight import preflight
from napari_unet.intensities.normalise import Normalisation, Statistics
from napari_unet.sources import open_stack

FAST = {"precision": "fp32", "device": "cpu"}


def image(shape=(48, 64), seed=0, level=1000, dtype=np.uint16):
    return np.random.default_rng(seed).gamma(4.0, level / 4, shape).astype(dtype)


def bleaching(times=6, shape=(40, 48)):
    return np.stack([image(shape, 1, 4000 * 0.6**t) for t in range(times)])


def said(stack, models=None, **chosen):
    models = models or [small()]
    config = PredictConfig(**FAST, **chosen)
    return "\n".join(remarks(stack, models[-1], config, measured(stack, models[-1], config)))


@pytest.mark.parametrize("chosen", [(5.0, 90.0), (0.0, 100.0), (1, 99), (20.5, 20.6), (0.1, 99.9)])
def test_percentiles_chosen_are_those_of_a_model_that_has_them(chosen, tmp_path):
    stack, model = open_stack(image(), "yx"), small()
    like = dataclasses.replace(model, normalisation=Normalisation(low=chosen[0], high=chosen[1]))
    want = np.asarray(predict_lazy(stack, like, PredictConfig(**FAST)).data)
    config = PredictConfig(percentiles=chosen, **FAST)
    assert (np.asarray(predict_lazy(stack, model, config).data) == want).all()
    assert (np.asarray(wait(predict(stack, model, tmp_path / "r.ome.zarr", config)).data) == want).all()


@pytest.mark.parametrize("model", [small(), small(3)])
@pytest.mark.parametrize("block", [None, (16, 16), (24, 40)])
def test_each_time_gives_what_each_time_point_gives_by_itself(model, block, tmp_path):
    ndim = model.config.ndim
    shape = (40, 48) if ndim == 2 else (8, 40, 48)
    stack = Stack(data=bleaching(4, shape), axes="t" + "zyx"[-ndim:])
    config = PredictConfig(each_time=True, block=block and ((8, *block) if ndim == 3 else block), **FAST)
    got = wait(predict(stack, model, tmp_path / "r.ome.zarr", config))
    lazy = np.asarray(predict_lazy(stack, model, config).data)
    assert (np.asarray(got.data) == lazy).all()
    for t in range(4):
        alone = predict_lazy(stack.select(t=t), model, PredictConfig(**FAST))
        assert (lazy[t] == np.asarray(alone.data)).all()


@pytest.mark.parametrize("chosen", [{"percentiles": (5.0, 90.0)}, {"each_time": True}, {"padding": 0.0}])
def test_the_choice_is_what_a_run_is_resumed_by_and_what_its_result_says(chosen, tmp_path):
    stack, model = Stack(data=bleaching(), axes="tyx"), small()
    out, config = tmp_path / "r.ome.zarr", PredictConfig(block=(16, 16), **FAST)
    run = predict(stack, model, out, dataclasses.replace(config, **chosen))
    for event in run:
        if event.done > 2:
            break
    run.close()
    with pytest.raises(OutputError, match=f"{next(iter(chosen))}|intensities"):
        wait(predict(stack, model, out, config))
    assert preflight(stack, model, out, config).state == "other"
    assert preflight(stack, model, out, dataclasses.replace(config, **chosen)).state == "unfinished"
    wait(predict(stack, model, out, dataclasses.replace(config, **chosen)))
    kept = zarr.open_group(out)["labels"].attrs.asdict() | zarr.open_group(out).attrs.asdict()
    assert next(iter(chosen)) in str(kept)


def test_a_batch_does_not_take_other_percentiles_for_done(tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", image(), metadata={"axes": "YX"})
    model, config = small(), PredictConfig(**FAST)
    states = []
    for chosen in (config, config, dataclasses.replace(config, percentiles=(3, 97)), config):
        states += [row.state for row in wait(run_batch(tmp_path / "in", model, tmp_path / "out", chosen))]
    assert states == ["done", "skipped", "failed", "skipped"]


def test_a_cascade_takes_percentiles_where_a_model_of_it_does(tmp_path):
    stack = open_stack(image((40, 40)), "yx")
    models = cascade()
    plain = wait(predict(stack, models, tmp_path / "1.ome.zarr", PredictConfig(**FAST)))
    other = wait(predict(stack, models, tmp_path / "2.ome.zarr", PredictConfig(percentiles=(30, 60), **FAST)))
    plans = [json.loads(next((tmp_path / f"{i}.ome.zarr").rglob("plan.json")).read_bytes()) for i in (1, 2)]
    assert plain.shape == other.shape
    assert plans[0]["settings"]["image"]["intensities"] != plans[1]["settings"]["image"]["intensities"]
    with pytest.raises(UsageError, match="no percentiles"):
        wait(predict(stack, models[:2], tmp_path / "3.ome.zarr", PredictConfig(percentiles=(30, 60), **FAST)))


@pytest.mark.parametrize("wrong", [(1,), (1, 2, 3), (99, 1), (-1, 50), (1, 101), (5, 5)])
def test_percentiles_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError, match="percentiles"):
        PredictConfig(percentiles=wrong)


def test_the_shell_takes_percentiles_as_two_words_before_its_argument():
    args = ["--percentiles", "1", "99.8", "stack.tif", "--block", "64", "64", "more"]
    want = ["--percentiles", "1", "--percentiles", "99.8", "stack.tif", "--block", "64", "--block", "64", "more"]
    assert list(repeated(args, {"--percentiles", "--block"})) == want


def mosaic():
    data = image((200, 200)) + 500
    data[:, :80] = 0
    data[150:] = 0
    return data


def turned():
    y, x = np.mgrid[:200, :200]
    return np.where(abs(y - 100) + abs(x - 100) < 110, image((200, 200)) + 500, 0).astype(np.float32)


@pytest.mark.parametrize("data", [mosaic(), turned(), np.stack([mosaic()] * 3), mosaic().astype(np.int32)])
def test_padding_is_said_and_left_out_on_request(data):
    stack = Stack(data=data, axes="zyx"[-data.ndim :])
    assert "--padding 0" in said(stack)
    assert "--padding" not in said(stack, padding=0)
    found = measured(stack, small(), PredictConfig(padding=0))
    assert found.offset[0] == pytest.approx(np.percentile(data[data != 0], 1))


def scale_bar(value=65535):
    data = image((300, 300))
    data[280:284, 100:250] = value
    return data


def hot_pixels():
    data = image((300, 300)).astype(np.float32)
    data.ravel()[::150] = np.random.default_rng(0).uniform(50_000, 60_000, 600)
    return data


@pytest.mark.parametrize("data", [scale_bar(), scale_bar(20_000), hot_pixels(), scale_bar().astype(np.int32)])
def test_what_stands_out_is_said_and_left_out_as_it_is_said(data):
    line = said(Stack(data=data, axes="yx"))
    assert "--percentiles 1 " in line
    better = float(line.rpartition("--percentiles 1 ")[2].split()[0])
    assert "--percentiles" not in said(Stack(data=data, axes="yx"), percentiles=(1, better))


def spots():
    data = np.random.default_rng(0).normal(100, 5, (300, 300))
    y, x = np.mgrid[:300, :300]
    for at in np.random.default_rng(1).integers(20, 280, (8, 2)):
        data += 2000 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 30)
    return data.astype(np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        image((200, 200)),
        spots(),
        (spots() - 95).clip(0),
        spots() / 2100,
        np.random.default_rng(0).poisson(0.3, (99, 99)),
    ],
)
def test_of_ordinary_images_nothing_is_said(data):
    assert said(Stack(data=data, axes="yx")) == ""


@pytest.mark.parametrize("axes", ["tyx", "tzyx", "tcyx"])
def test_bleaching_is_said_and_each_time_mends_it(axes):
    data = bleaching()
    data = data if axes == "tyx" else np.repeat(data[:, None], 2, 1)
    stack = Stack(data=data, axes=axes)
    assert "--each-time" in said(stack)
    assert "--each-time" not in said(stack, each_time=True)
    assert said(Stack(data=np.repeat(data[:1], 6, 0), axes=axes)) == ""


LEARNT = restorer()  # from intensities of 400 and a standard deviation of 250


@pytest.mark.parametrize(
    ("data", "odd"),
    [
        (image(level=500), False),
        (image(level=150), False),
        (image(level=1500), False),
        (image(level=500).astype(np.float64), False),
        (image(level=500) / 65535, True),
        (image(level=30_000), True),
        ((image(level=500) // 257).astype(np.uint8), True),
        (image(level=500).astype(np.int32) + 100_000, True),
        (np.zeros((48, 64), np.uint16), False),
    ],
)
def test_intensities_on_another_scale_than_was_learnt_from_are_said(data, odd, tmp_path):
    stack = Stack(data=data, axes="yx")
    events = []
    run = predict(stack, LEARNT, tmp_path / "r.ome.zarr", PredictConfig(**FAST))
    try:
        while True:
            events.append(next(run))
    except StopIteration as end:
        result = end.value
    lines = [event.message for event in events if event.stage == "note"]
    assert any("another scale" in line for line in lines) == odd
    assert any("another scale" in note for note in result.notes) == odd
    assert any("another scale" in note for note in predict_lazy(stack, LEARNT).notes) == odd


def test_fixed_intensities_of_labels_are_held_against_their_scale():
    model = dataclasses.replace(small(), normalisation=Normalisation("fixed", offset=(0.0,), scale=(255.0,)))
    for data, odd in ((image(level=60), False), (image(level=60) / 255, True), (image(level=40_000), True)):
        assert ("another scale" in said(Stack(data=data, axes="yx"), [model])) == odd
    assert said(Stack(data=image() / 65535, axes="yx")) == ""


def test_an_image_of_one_value_is_said_to_be_one():
    assert "one value, 7" in said(Stack(data=np.full((40, 40), 7, np.uint8), axes="yx"))


@pytest.mark.parametrize(
    "found",
    [
        Statistics((1.0,), (2.0,)),
        Statistics((1.0, 2.0), (2.0, 0.0), 3, True),
        Statistics.of_times([Statistics((float(t),), (1.0,)) for t in range(3)]),
    ],
)
def test_statistics_are_kept_in_a_ledger(found):
    assert Statistics.from_json(found.to_json()) == found
