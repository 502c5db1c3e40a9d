"""An image of noise alone is not stretched until it looks like objects, where what was learnt from had contrast."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from kinds import finder, small
from napari_unet.arrays.stack import Stack
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.intensities import measured, remarks
from napari_unet.inference.predict import predict, predict_lazy
from napari_unet.intensities.contrast import Contrast
from napari_unet.intensities.looks import is_like
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import load_model
from napari_unet.sources import open_labels, open_stack
from napari_unet.training.config import TrainConfig
from napari_unet.training.fit import train

FAST = {"precision": "fp32", "device": "cpu"}
RNG = np.random.default_rng
Y, X = np.mgrid[:160, :160]
WIDE = ((np.mgrid[:256, :256] - 127.5) ** 2).sum(0)  # squares of distances from the middle


def camera(seed=0, shape=(160, 160), level=100.0, sd=3.0):
    return RNG(seed).normal(level, sd, shape)


NOISE = {
    "16 bit": camera().astype("u2"),
    "8 bit": camera(1, level=20, sd=1).astype("u1"),
    "float": camera(2, level=0, sd=1e-3).astype("f4"),
    "few photons": RNG(3).poisson(5, (160, 160)).astype("u2"),
    "many photons": RNG(4).poisson(900, (160, 160)).astype("u2"),
    "volume": camera(5, (8, 64, 64)).astype("u2"),
    "not a whole number of patches": camera(6, (37, 53)).astype("i2"),
    "a gradient": camera() + Y / 8,
    "a vignette": camera() + 20 * np.exp(-((Y - 80) ** 2 + (X - 80) ** 2) / 8000),
    "light from a corner": camera() + 25 * np.exp(-np.hypot(Y, X) / 150),
    "dark corners": camera(9, level=200) * np.cos(np.hypot(Y - 80, X - 80) / 400) ** 4,
    "a volume in uneven light": camera(5, (4, 160, 160)) + 20 * np.exp(-((Y - 40) ** 2 + (X - 70) ** 2) / 20000),
    "uniform": RNG(7).uniform(0, 1, (160, 160)),
}
CONTENT = {
    "a dim disc": camera() + 9 * ((Y - 60) ** 2 + (X - 90) ** 2 < 100),
    "one small spot": camera() + 30 * ((Y - 60) ** 2 + (X - 90) ** 2 < 5),
    "a hot pixel": camera() + 2000 * ((Y == 4) & (X == 7)),
    "a dim disc where light falls off": camera() - Y / 8 + 9 * ((Y - 60) ** 2 + (X - 90) ** 2 < 100),
    "a disc as large as half of it": camera() + 12 * ((Y - 80) ** 2 + (X - 80) ** 2 < 60**2),
    "an edge": camera() + 12 * (X > 80),
    "a narrow light": camera() + 25 * np.exp(-((Y - 80) ** 2 + (X - 80) ** 2) / 3000),
    "a dark corner": camera() - 15 * (X + Y < 60),
    "a bright plane of a volume": camera(8, (8, 64, 64)) + 12 * (np.arange(8) == 3)[:, None, None],
    "stripes": camera() + 6 * np.sign(np.sin(X / 8)),
    "no noise": np.where((Y - 60) ** 2 + (X - 90) ** 2 < 900, 200.0, 100.0),
    "one value": np.full((160, 160), 7.0),
    "a wide image with a narrow light": camera(1, (256, 256)) + 25 * np.exp(-WIDE / 3000),
    "a wide image with a dim disc": camera(1, (256, 256)) + 12 * (WIDE < 60**2),
    "a disc in the light of a laser": camera(1, (256, 256), 500, 10) + 500 * np.exp(-WIDE / 2**14) + 40 * (WIDE < 200),
}


def learnt(model, contrast):
    return dataclasses.replace(model, record={"contrast": contrast})


def statistics(data, **chosen):
    return measured(Stack(data=data, axes="zyx"[-data.ndim :]), chosen.pop("model"), PredictConfig(**FAST, **chosen))


@pytest.mark.parametrize("name", NOISE)
def test_noise_alone_is_known_as_such(name):
    stack = Stack(data=NOISE[name], axes="zyx"[-NOISE[name].ndim :])
    assert Normalisation().measure(stack).only_noise


MORE_NOISE = {
    "hot pixels": camera() + 2000 * (RNG(1).random((160, 160)) < 2e-4),
    "two hot pixels side by side": camera() + 2000 * ((Y == 4) & (X >= 7) & (X <= 8)),
    "smoothed": 100 + 3 * ndimage.gaussian_filter(camera(1, level=0, sd=3), 1.1),
    "photons that are multiplied": camera(sd=5.0) + RNG(1).poisson(0.7, (160, 160)) * RNG(2).gamma(1, 20, (160, 160)),
    "rows and columns of a camera": camera() + RNG(1).normal(0, 1, (160, 1)) + RNG(2).normal(0, 1, (1, 160)),
    "a steep gradient": camera() + 30 * X / 160,
    "the light of a laser": camera(1, (256, 256), 500, 10) + 500 * np.exp(-WIDE / 2**14),
}
SMOOTHED = {
    f"smoothed by {sigma} pixels, {what}": change(ndimage.gaussian_filter(RNG(sigma).normal(size=(256, 256)), sigma))
    for sigma in (2, 3, 5)
    for what, change in {
        "few counts": lambda noise: np.rint(60 + 8 * noise / noise.std()).astype("u1"),
        "many counts": lambda noise: np.rint(9000 + 900 * noise / noise.std()).astype("u2"),
        "raw noise on it": lambda noise: 100 + 9 * noise / noise.std() + RNG(1).normal(0, 3, noise.shape),
        "photons": lambda noise: RNG(2).poisson(200 + 40 * noise / noise.std()),
        "uneven light": lambda noise: 100 + 9 * noise / noise.std() + 30 * np.exp(-WIDE / 2**14),
    }.items()
}
RECORD = {"level": [[0.0, 0.19]], "rough": [[0.05, 0.29]], "coarse": [[0.73, 0.99]]}


def recorded(record=RECORD):
    model = learnt(small(), 28.0)
    return dataclasses.replace(model, record={**model.record, "appearance": record})


@pytest.mark.parametrize("name", {**NOISE, **MORE_NOISE, **SMOOTHED})
def test_whatever_noise_is_like_it_is_empty_for_a_model_that_knows_what_it_learnt_from(name):
    data = (NOISE | MORE_NOISE | SMOOTHED)[name]
    found = statistics(data, model=recorded())
    assert not any(found.scale) and found.is_taken_as_empty and "nothing but noise" in found.notes[0]


@pytest.mark.parametrize("name", sorted({*CONTENT} - {"a hot pixel", "no noise", "one value"}))
def test_whatever_stands_out_is_content_for_a_model_that_knows_what_it_learnt_from_too(name):
    assert statistics(CONTENT[name], model=recorded()).scale[0] > 0


def test_texture_without_objects_is_content_where_such_was_learnt_from():
    texture = recorded(RECORD | {"coarse": [[0.2, 0.9]], "level": [[0.1, 0.5]]})
    assert statistics(MORE_NOISE["smoothed"], model=texture).scale[0] > 0
    assert statistics(MORE_NOISE["smoothed"], model=learnt(small(), 28.0)).scale[0] > 0
    for damaged in ({"coarse": 7}, {"coarse": [["a", "b"]]}, [], "x"):
        assert statistics(MORE_NOISE["smoothed"], model=recorded(damaged)).scale[0] > 0


def test_texture_with_edges_and_smoothed_noise_of_which_such_was_learnt_from_are_content():
    smoothed = SMOOTHED["smoothed by 3 pixels, many counts"]
    assert statistics(smoothed, model=recorded(RECORD | {"level": [[0.1, 0.4]]})).scale[0] > 0
    assert statistics(smoothed, model=recorded({"coarse": RECORD["coarse"]})).scale[0] > 0
    edges = 100 + 9 * np.sign(smoothed - np.median(smoothed)) + RNG(1).normal(0, 1, smoothed.shape)
    assert statistics(edges, model=recorded()).scale[0] > 0


def test_what_is_said_of_noise_is_why_it_was_taken_for_such():
    said = [
        statistics(data, model=recorded()).notes[0]
        for data in (NOISE["16 bit"], MORE_NOISE["smoothed"], SMOOTHED["smoothed by 3 pixels, many counts"])
    ]
    assert "flatter than all training images" in said[0] and "flatter" in said[1]
    assert "half of its values lie above 4" in said[2] and "at most 19 %" in said[2]


@pytest.mark.parametrize(("name", "shape", "sigma"), [("nuclei-2d", (256, 256), 3), ("nuclei-3d", (16, 128, 128), 2)])
def test_models_of_nuclei_that_ship_take_smoothed_noise_as_empty(name, shape, sigma):
    noise = ndimage.gaussian_filter(RNG(3).normal(size=shape), sigma)
    data = np.rint(9000 + 900 * noise / noise.std()).astype("u2")
    assert statistics(data, model=load_model(name)).is_taken_as_empty


def cells(sd=2.0):
    return camera(3, sd=sd) + 90 * (np.sin(X / 9) * np.sin(Y / 9) > 0.5)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (cells(), None),
        (255 - cells(), "dark on bright, as in bright field"),
        (cells(sd=60.0), "it is noisier"),
        (X + Y, "it is smoother"),
    ],
)
def test_an_image_unlike_all_that_was_learnt_from_is_said(data, said):
    stack, model, config = Stack(data=data, axes="yx", name="field"), recorded(), PredictConfig(**FAST)
    lines = [x for x in remarks(stack, model, config, measured(stack, model, config)) if "unlike all" in x]
    assert len(lines) == (said is not None) and all(said in line and line.startswith("field") for line in lines)
    chosen = PredictConfig(percentiles=(1.0, 99.0), **FAST)
    for other, settings in ((learnt(small(), 28.0), config), (model, chosen)):
        assert not any(
            "unlike all" in line for line in remarks(stack, other, settings, measured(stack, other, settings))
        )


def textured(level=0.52, sd=40.0, sigma=3.0):
    """Edges everywhere, as in electron microscopy: bright and dark in equal parts, and noise."""
    coarse = ndimage.gaussian_filter(RNG(2).normal(size=(160, 160)), sigma)
    return np.clip(255 * level + sd * np.sign(coarse) + RNG(3).normal(0, 20, coarse.shape), 0, 255).astype("u1")


@pytest.mark.parametrize(
    ("data", "said"),
    [(textured(), "take membranes-em, which learnt from images like it"), (255 - cells(), "no model that ships")],
)
def test_of_an_image_unlike_what_was_learnt_the_model_that_learnt_such_is_named(data, said):
    stack, model, config = Stack(data=data, axes="yx", name="field"), load_model("nuclei-2d"), PredictConfig(**FAST)
    (line,) = [x for x in remarks(stack, model, config, measured(stack, model, config)) if "unlike all" in x]
    assert said in line


@pytest.mark.parametrize(("data", "unlike"), [(textured(), False), (cells(), True), (400 - cells(), True)])
def test_the_model_of_membranes_knows_what_its_images_looked_like(data, unlike):
    stack, model, config = Stack(data=data, axes="yx", name="field"), load_model("membranes-em"), PredictConfig(**FAST)
    found = remarks(stack, model, config, measured(stack, model, config))
    assert any("unlike all" in line for line in found) == unlike


@pytest.mark.parametrize(
    ("level", "coarse", "known", "like"),
    [
        (0.5, 0.7, RECORD, False),
        (0.1, 0.9, RECORD, True),
        (0.1, np.nan, RECORD, True),
        (np.nan, 0.9, RECORD, False),
        (0.1, 0.5, RECORD, False),
        (0.1, 0.9, {"level": 7}, False),
        (0.1, 0.9, "x", False),
    ],
)
def test_an_image_is_like_those_learnt_from_only_in_all_that_is_known(level, coarse, known, like):
    image = [Contrast(level=level, rough=0.2, coarse=coarse)]
    assert is_like(image, {"appearance": known}) == like
    assert not is_like(image * 2, {"appearance": known}) and not is_like([], {"appearance": known})


def test_a_large_image_has_looks_too(monkeypatch):
    data = cells()
    whole = Normalisation().measure(Stack(data, "yx")).contrast[0]
    monkeypatch.setattr("napari_unet.intensities.normalise.WHOLE", 1000)
    found = Normalisation().measure(Stack(data, "yx")).contrast[0]
    assert (found.level, found.rough) == pytest.approx((whole.level, whole.rough), rel=0.1)


@pytest.mark.parametrize("name", CONTENT)
def test_whatever_stands_out_of_noise_is_content(name):
    assert not Normalisation().measure(Stack(data=CONTENT[name], axes="zyx"[-CONTENT[name].ndim :])).only_noise


def test_contrast_is_that_of_the_whole_however_the_strips_fall():
    tall = camera(8, (700, 64)) + 9 * (np.arange(700)[:, None] > 640)
    found = Contrast.of(tall, 16.0)
    steps = np.concatenate([np.diff(tall, axis=0).ravel(), np.diff(tall, axis=1).ravel()])
    assert found.span == pytest.approx(16.0 / np.sqrt(np.mean(steps**2) / 2), rel=0.01)
    assert not found.only_noise


def test_measuring_takes_a_few_times_the_memory_of_an_image():
    data = camera(shape=(512, 512)).astype("u2")
    tracemalloc.start()
    Contrast.of(data, 20.0, 90.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * data.size  # bytes: some float64 arrays; all powers of y and x at all pixels took 500


@pytest.mark.parametrize("contrast", [None, 3.0, 8.0, "28", [28.0]])
def test_models_that_know_no_contrast_or_learnt_from_noise_take_noise_as_before(contrast):
    model = learnt(small(), contrast)
    found = statistics(NOISE["16 bit"], model=model)
    assert found.to_json() == Normalisation().measure(Stack(data=NOISE["16 bit"], axes="yx")).to_json()
    assert found.scale[0] > 0


def test_noise_is_taken_as_one_value_where_the_model_learnt_from_contrast_and_that_is_said():
    model, stack = learnt(small(), 28.0), Stack(data=NOISE["16 bit"], axes="yx", name="empty well")
    config = PredictConfig(**FAST)
    found = measured(stack, model, config)
    assert found.scale == (0.0,)
    (line,) = remarks(stack, model, config, found)
    assert line.startswith("empty well: there is nothing but noise") and "--percentiles 1 99.8" in line
    chosen = PredictConfig(percentiles=(1.0, 99.8), **FAST)
    assert measured(stack, model, chosen).scale[0] > 0
    assert len({*np.unique(np.asarray(predict_lazy(stack, model, config).data))}) == 1


@pytest.mark.parametrize("name", CONTENT)
def test_images_with_content_are_normalised_as_before(name):
    data = CONTENT[name]
    assert statistics(data, model=learnt(small(), 28.0)).to_json() == statistics(data, model=small()).to_json()


def test_each_time_point_is_judged_by_itself():
    data = np.stack([CONTENT["no noise"], camera(9), CONTENT["a dim disc"]])
    found = measured(Stack(data=data, axes="tyx"), learnt(small(), 28.0), PredictConfig(each_time=True, **FAST))
    assert [each.scale[0] > 0 for each in found.times] == [True, False, True]


@pytest.mark.parametrize("block", [(64, 64), (160, 96)])
def test_an_empty_field_gives_no_object_with_the_model_that_ships(block, tmp_path):
    stack = Stack(data=NOISE["16 bit"], axes="yx")
    result = wait(predict(stack, load_model("nuclei-2d"), tmp_path / "r.ome.zarr", PredictConfig(block=block, **FAST)))
    assert not np.asarray(result.data).any()
    assert any("nothing but noise" in note for note in result.notes)


def test_objects_over_nearly_all_of_an_image_are_said_where_they_had_a_small_share(tmp_path):
    stack, model = Stack(data=CONTENT["a narrow light"], axes="yx"), learnt(finder(foreground_bias=50.0), 28.0)
    model = dataclasses.replace(model, record={**model.record, "foreground": 0.13})
    result = wait(predict(stack, model, tmp_path / "r.ome.zarr", PredictConfig(**FAST)))
    assert np.asarray(result.data).astype(bool).mean() > 0.7
    assert any(note.startswith("objects cover") for note in result.notes)
    assert any("little but noise" in note for note in result.notes)


def test_a_training_keeps_the_least_contrast_and_the_share_of_objects(tmp_path):
    labels = np.zeros((64, 64), "u1")
    labels[8:24, 8:24], labels[36:56, 36:56] = 1, 2
    pairs = [
        (open_stack((camera(i, (64, 64)) + height * (labels > 0)).astype("f4")), open_labels(labels))
        for i, height in enumerate((400, 100))
    ]
    config = TrainConfig(task="instances", steps=2, depth=1, base_features=4, device="cpu")
    model = wait(train(pairs, tmp_path / "m.model", config))
    each = [Normalisation().measure(image).contrast[0].span for image, _ in pairs]
    assert model.record["contrast"] == pytest.approx(min(each), abs=0.01)
    looks = [Normalisation().measure(image).contrast[0] for image, _ in pairs]
    for name, (ends,) in model.record["appearance"].items():
        values = [getattr(one, name) for one in looks]
        assert ends == pytest.approx([min(values), max(values)], abs=0.001)
    assert sorted(model.record["appearance"]) == ["coarse", "level", "rough"]
    assert model.record["foreground"] == pytest.approx((labels > 0).mean(), abs=0.001)
