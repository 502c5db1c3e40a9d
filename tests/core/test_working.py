"""Objects are learnt at a size that fits the network, and the same is made of images that the model is run on."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from helpers import FP32, collect, short
from kinds import finder, restorer, small
from napari_unet import PredictConfig, load_model, predict, predict_lazy, preflight, preview, run_batch, train, wait
from napari_unet.arrays.stack import Stack
from napari_unet.cards import CARD, Entry, describe_model
from napari_unet.errors import ModelError, UsageError
from napari_unet.inference.pixelsize import resample_to_model
from napari_unet.inference.prepare import prepare
from napari_unet.model import Model
from napari_unet.network import UNetConfig
from napari_unet.task import Restore
from napari_unet.training.config import TrainConfig
from napari_unet.training.setup import outlook
from napari_unet.training.working import ObjectSize, choose_working

UM = "micrometer"
DEEP = UNetConfig(ndim=2, depth=4, base_features=4)
SHALLOW = UNetConfig(ndim=2, depth=1, base_features=4)


def field(radius, size=128, seed=0, **place):
    """Touching disks of a radius, as a noisy image, and their numbers."""
    y, x = np.indices((size, size))
    at = np.arange(radius, size, 2 * radius + 1)
    labels = np.zeros((size, size), np.uint16)
    for number, (a, b) in enumerate((a, b) for a in at for b in at):
        labels[(y - a) ** 2 + (x - b) ** 2 <= radius**2] = number + 1
    image = ((labels > 0) * 100.0 + np.random.default_rng(seed).normal(0, 9, labels.shape)).astype(np.float32)
    return Stack(image, "yx", name=f"disks {seed}", **place), Stack(labels, "yx", name="numbers")


def config(**more):
    return short(**{"task": "instances", "depth": 1, "steps": 2} | more)


@pytest.mark.parametrize(
    ("diameter", "width", "network", "more", "shrink"),
    [
        (20, 18, DEEP, {}, 1.0),
        (55, 50, DEEP, {}, 1.0),
        (116, 90, DEEP, {}, 116 / 36),
        (400, 380, DEEP, {}, 400 / 36),
        (116, 20, DEEP, {}, 20 / 12),  # thin objects keep an inside
        (116, 13, DEEP, {}, 1.0),
        (15, 4, DEEP, {}, 0.5),  # small and thin ones get one
        (15, 8, DEEP, {}, 8 / 12),
        (10, 9, DEEP, {}, 1.0),
        (40, 38, SHALLOW, {}, 40 / 24),  # a network that sees less
        (20, 20, SHALLOW, {}, 1.0),
        (116, 90, DEEP, {"working_pixel_size": 1.0}, 1.0),
        (20, 18, DEEP, {"working_pixel_size": 2.5}, 2.5),
        (20, 18, DEEP, {"diameter": 116.0}, 18 / 12),
    ],
)
def test_large_objects_are_shrunk_to_what_the_network_sees_and_those_that_fit_stay(
    diameter, width, network, more, shrink
):
    place = ((0.5, 0.5), (UM, UM))
    found = choose_working(ObjectSize(diameter, width), network, place, TrainConfig(task="instances", **more))
    assert found.shrink == pytest.approx((shrink, shrink))
    assert found.spacing == pytest.approx((0.5 * shrink, 0.5 * shrink))
    assert found.diameter == pytest.approx(more.get("diameter", diameter) / shrink)
    assert bool(found.reason) == found.changes == (shrink != 1)


def test_coarse_planes_stay_as_they_are_where_the_others_are_brought_to_them():
    network = UNetConfig(ndim=3, depth=3, base_features=4)
    place = ((1.0, 0.2, 0.2), (UM,) * 3)
    large = choose_working(ObjectSize(120, 100), network, place, TrainConfig(task="instances"))
    assert large.shrink == pytest.approx((1.0, 120 / 36, 120 / 36))
    tiny = choose_working(ObjectSize(8, 6), network, place, TrainConfig(task="instances"))
    assert tiny.shrink == pytest.approx((1.0, 0.5, 0.5))
    huge = choose_working(ObjectSize(400, 380), network, place, TrainConfig(task="instances"))
    assert len({round(s, 6) for s in huge.spacing}) == 1


@pytest.mark.parametrize("place", [{}, {"scale": (0.5, 0.5), "units": (UM, UM)}])
def test_what_is_learnt_at_another_size_is_run_so_and_lies_on_the_image(place, tmp_path):
    pairs = [field(31, seed=n, **place) for n in range(2)]
    events, model = collect(train(pairs, tmp_path / "m.model", config()))
    assert any("images are shrunk" in str(getattr(e, "message", "")) for e in events)
    assert model.shrink[0] == model.shrink[1] > 1.2
    assert model.diameter * model.shrink[0] == pytest.approx(62, rel=0.05)
    again = load_model(tmp_path / "m.model")
    assert (again.diameter, again.shrink, again.sha256) == (model.diameter, model.shrink, model.sha256)
    assert Entry.read(tmp_path / "m.model").shrink == model.shrink
    assert "pixels across" in describe_model(tmp_path / "m.model")
    image = pairs[0][0]
    notes, found = collect(predict(image, model, tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    assert (found.shape, found.scale) == (image.shape, image.scale)
    taken = prepare(image, model, PredictConfig(**FP32)).stack
    assert taken.shape == tuple(round(n / f) for n, f in zip(image.shape, model.shrink, strict=True))
    said = " ".join(str(getattr(e, "message", "")) for e in notes)
    assert ("give --diameter" in said) == (not place)


def test_a_run_that_was_stopped_goes_on_at_its_size(tmp_path):
    pairs = [field(31, seed=n) for n in range(2)]
    whole = wait(train(pairs, tmp_path / "a.model", config(steps=4)))
    events = train(pairs, tmp_path / "b.model", config(steps=4))
    next(event for event in events if getattr(event, "stage", "") == "train" and event.done == 2)
    events.close()
    assert wait(train(pairs, tmp_path / "b.model", config(steps=4, resume=True))).sha256 == whole.sha256


def test_a_training_goes_on_from_a_model_at_its_objects_size(tmp_path):
    first = wait(train([field(31, seed=n) for n in range(2)], tmp_path / "a.model", config()))
    plan = wait(outlook([field(15, seed=n) for n in range(2)], config(), first)).plan
    assert plan.diameter == pytest.approx(first.diameter, rel=0.05)
    assert plan.shrink[0] == pytest.approx(first.shrink[0] * 31 / 62, rel=0.1)


def test_what_fits_is_learnt_as_it_is(tmp_path):
    found = wait(outlook([field(9, seed=n) for n in range(2)], config()))
    assert found.plan.shrink == () and found.plan.diameter == pytest.approx(18, rel=0.05)
    assert not any("shrunk" in line or "enlarged" in line for line in found.lines())


@pytest.mark.parametrize("sparse", [False, True])
def test_labels_come_along_and_touching_objects_stay_apart(sparse, tmp_path):
    image, labels = field(31)
    data = labels.data.copy()
    if sparse:
        data[data == 0] = 99
        data[:9] = 0
    pairs = [(image, dataclasses.replace(labels, data=data)), field(31, seed=1)]
    more = {"sparse": True, "background": 99} if sparse else {}
    if sparse:
        pairs[1] = (pairs[1][0], pairs[0][1])
    found = wait(outlook(pairs, config(**more)))
    (facts, *_), plan = found.facts.stacks, found.plan
    assert plan.shrink and facts.shape == tuple(round(128 / s) for s in plan.shrink)
    assert set(found.facts.values) == ({1, 2} if sparse else {0, 1})


def learnt(model, **more):
    return dataclasses.replace(model, diameter=10.0, **more)


SCALES = [
    # image: scale, units; model: scale, units, shrink; diameter; pixels of the image that make one
    ((1, 1), None, (1, 1), None, (), None, (1, 1)),
    ((1, 1), None, (4, 4), None, (4.0, 4.0), None, (4, 4)),  # as learnt
    ((1, 1), None, (4, 4), None, (4.0, 4.0), 25.0, (2.5, 2.5)),
    ((1, 1), None, (1, 1), None, (), 25.0, (2.5, 2.5)),
    ((1, 1), None, (1, 1), None, (), 10.0, (1, 1)),
    ((0.5, 0.5), UM, (2, 2), UM, (8.0, 8.0), None, (4, 4)),  # by the pixel size
    ((500, 500), "nanometer", (2, 2), UM, (8.0, 8.0), None, (4, 4)),
    ((0.5, 0.5), UM, (2, 2), UM, (8.0, 8.0), 25.0, (2.5, 2.5)),
    ((500, 500), "nanometer", (2, 2), UM, (8.0, 8.0), 25.0, (2.5, 2.5)),
    ((1, 1), None, (2, 2), UM, (8.0, 8.0), None, (8, 8)),
    ((0.5, 0.5), UM, (4, 4), None, (4.0, 4.0), None, (4, 4)),
    ((5000, 5000), UM, (2, 2), UM, (8.0, 8.0), None, (8, 8)),  # a pixel size that cannot be meant
    ((0.5, 0.5), UM, (2, 2), UM, (), None, (1, 1)),  # a model of images as they are
]


@pytest.mark.parametrize(("scale", "unit", "size", "learnt_unit", "shrink", "diameter", "ratios"), SCALES)
def test_an_image_comes_to_the_pixels_that_were_learnt(scale, unit, size, learnt_unit, shrink, diameter, ratios):
    stack = Stack(np.zeros((80, 80), np.uint8), "yx", scale=scale, units=(unit,) * 2)
    model = learnt(small(), scale=size, units=(learnt_unit,) * 2, shrink=shrink)
    found = resample_to_model(stack, model, PredictConfig(diameter=diameter))
    assert found.shape == tuple(round(80 / r) for r in ratios)
    assert found.scale == pytest.approx(tuple(s * r for s, r in zip(scale, ratios, strict=True)))
    assert (found is stack) == (ratios == (1, 1))


def test_a_volume_without_a_pixel_size_keeps_the_shape_of_voxels_that_was_learnt():
    stack = Stack(np.zeros((20, 80, 80), np.uint8), "zyx")
    model = learnt(small(3), scale=(1.0, 0.8, 0.8), shrink=(1.0, 4.0, 4.0))
    assert resample_to_model(stack, model, PredictConfig()).shape == (20, 20, 20)
    assert resample_to_model(stack, model, PredictConfig(diameter=20.0)).shape == (40, 40, 40)


def test_a_diameter_is_of_the_image_that_is_given_whatever_models_come_before(tmp_path):
    stack = Stack(np.random.default_rng(0).normal(size=(64, 64)).astype("f4"), "yx")
    models = [restorer(Restore), learnt(finder())]
    ready = prepare(stack, models, PredictConfig(diameter=20.0, **FP32))
    assert ready.stack.shape == (32, 32)
    assert wait(predict(stack, models, tmp_path / "a.ome.zarr", PredictConfig(diameter=20.0, **FP32))).shape == (64, 64)


def test_a_batch_says_how_each_image_is_resampled(tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", field(9)[0].data)
    model = learnt(finder(), scale=(4.0, 4.0), shrink=(4.0, 4.0))
    (row,) = wait(run_batch(tmp_path / "in", model, tmp_path / "out", PredictConfig(**FP32)))
    assert row.state == "done" and "objects were about 40 across" in row.message
    (row,) = wait(run_batch(tmp_path / "in", model, tmp_path / "out", PredictConfig(**FP32)))
    assert row.state == "skipped"


def test_a_diameter_that_the_model_does_not_know_is_refused(tmp_path):
    stack, chosen = field(9)[0], PredictConfig(diameter=20.0, **FP32)
    for work in (
        lambda: preflight(stack, finder(), tmp_path / "a.ome.zarr", chosen),
        lambda: predict_lazy(stack, finder(), chosen),
        lambda: preview(stack, finder(), chosen),
        lambda: wait(predict(stack, finder(), tmp_path / "a.ome.zarr", chosen)),
    ):
        with pytest.raises(UsageError, match="does not know how large"):
            work()
    assert not list(tmp_path.iterdir())


def test_the_same_objects_at_twice_the_size_are_found_the_same(tmp_path):
    image, _ = field(15)
    doubled = Stack(ndimage.zoom(image.data, 2, order=0), "yx")
    model = learnt(finder())
    plain = wait(predict(image, model, tmp_path / "a.ome.zarr", PredictConfig(diameter=10.0, **FP32)))
    large = wait(predict(doubled, model, tmp_path / "b.ome.zarr", PredictConfig(diameter=20.0, **FP32)))
    assert plain.data[...].max() == large.data[...].max() > 1
    assert np.mean(np.repeat(np.repeat(plain.data[...], 2, 0), 2, 1) != large.data[...]) < 0.2


def test_models_of_before_are_the_same_and_damaged_sizes_are_refused(tmp_path):
    model = finder()
    model.save(tmp_path / "old")
    card = json.loads((tmp_path / "old" / CARD).read_text())
    assert "shrink" not in card and "diameter" not in card
    assert learnt(model).sha256 != model.sha256 == load_model(tmp_path / "old").sha256
    for name, value in (("shrink", [1.0]), ("shrink", ["a", 2]), ("diameter", -3), ("diameter", "x"), ("shrink", 4)):
        (tmp_path / "old" / CARD).write_text(json.dumps(card | {name: value}))
        with pytest.raises(ModelError):
            load_model(tmp_path / "old")
    with pytest.raises(ModelError):
        Model(**{f.name: getattr(model, f.name) for f in dataclasses.fields(Model) if f.init} | {"diameter": 0.0})


@pytest.mark.parametrize("name", ["diameter", "working_pixel_size"])
def test_sizes_of_objects_are_refused_of_classes(name):
    with pytest.raises(UsageError, match="for objects"):
        TrainConfig(**{name: 3.0})
