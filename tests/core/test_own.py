"""Where a network runs at other pixels than the image has, the result lies at the image's own, however it is cut."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import FP32, cells, image_of, stopped_after, tree
from kinds import cascade, finder, restorer
from napari_unet import Block, PredictConfig, open_stack, predict, predict_lazy, preflight, preview, wait
from napari_unet.arrays.resample import Resampled, ResampledLabels, ResampledScribbles
from napari_unet.arrays.stack import Stack
from napari_unet.inference.prepare import prepare
from napari_unet.store import verify
from napari_unet.store.layout import WORKING
from napari_unet.store.save import save_stack
from napari_unet.store.table import read_table
from napari_unet.task import Autoencode, Restore, Semantic, SuperResolve

MICROMETRE = "micrometer"


def at(model, *scale):
    """A model that has learnt from pixels of so many micrometres."""
    return dataclasses.replace(model, scale=scale[-len(model.axes) :], units=(MICROMETRE,) * len(model.axes))


def pixels(stack, *scale):
    return dataclasses.replace(stack, scale=scale, units=(MICROMETRE,) * len(scale))


PLANE = pixels(cells((61, 75)), 0.25, 0.25)
VOLUME = pixels(cells((9, 30, 34)), 1.0, 0.5, 0.5)
CLASSES = dataclasses.replace(finder(), task=Semantic.of(range(3)))
KINDS = {
    "objects, coarser": (at(finder(), 0.4, 0.4), PLANE, {"probabilities": True, "uncertainty": True}),
    "objects, finer": (at(finder(min_size=9), 0.15, 0.15), PLANE, {}),
    "objects of a volume": (at(finder(3), 1.0, 0.8, 0.8), VOLUME, {}),
    "planes, linked": (at(finder(link=0.1), 0.8, 0.8), VOLUME, {}),
    "classes": (at(CLASSES, 0.7, 0.4), PLANE, {"probabilities": True}),
    "an image": (at(restorer(Restore), 0.4, 0.4), PLANE, {}),
    "a finer image": (at(restorer(SuperResolve), 0.4, 0.4), PLANE, {}),
    "the image itself": (at(restorer(Autoencode), 0.4, 0.4), PLANE, {"error": True}),
}
SMALL = {2: (24, 32), 3: (4, 16, 16)}


def run(model, stack, out, **chosen):
    return wait(predict(stack, model, out, PredictConfig(resample=True, **FP32, **chosen)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_pairs_with_the_image_whatever_the_blocks_and_interruptions(kind, tmp_path):
    model, stack, chosen = KINDS[kind]
    whole = run(model, stack, tmp_path / "a.ome.zarr", **chosen)
    factors = model.config.factors
    assert whole.shape[-len(factors) :] == tuple(
        math.ceil(n * f) for n, f in zip(stack.shape[-len(factors) :], factors, strict=True)
    )
    assert whole.scale[-len(factors) :] == tuple(
        s / f for s, f in zip(stack.scale[-len(factors) :], factors, strict=True)
    )
    assert len(np.unique(whole.data[...])) > 1
    cut = chosen | {"block": SMALL[len(model.axes)]}
    config = PredictConfig(resample=True, **FP32, **cut)
    stopped_after(2, predict(stack, model, tmp_path / "b.ome.zarr", config))
    ahead = preflight(stack, model, tmp_path / "b.ome.zarr", config)
    assert ahead.state == "unfinished" and 0 < ahead.done < ahead.blocks
    last = None
    for event in predict(stack, model, tmp_path / "b.ome.zarr", config):
        if isinstance(event, Block) and event.stage != "predict":
            last = event
            break  # in the midst of what is made at the image's pixels
    assert last.done <= last.total
    again = wait(predict(stack, model, tmp_path / "b.ome.zarr", config))
    assert np.array_equal(again.data[...], whole.data[...])
    for folder in (tmp_path / "a.ome.zarr", tmp_path / "b.ome.zarr"):
        assert not wait(verify(folder))
        assert not [path for path in folder.rglob("*") if path.name.startswith(WORKING)]


@pytest.mark.parametrize("kind", ["objects, coarser", "objects, finer", "planes, linked"])
def test_the_table_is_of_the_objects_as_they_are_written(kind, tmp_path):
    model, stack, _ = KINDS[kind]
    found = run(model, stack, tmp_path / "a.ome.zarr", block=SMALL[2])
    labels = np.asarray(found.data[...])
    ids = np.unique(labels[labels > 0])
    assert ids.tolist() == list(range(1, len(ids) + 1))
    lines = (tmp_path / "a.ome.zarr" / "labels" / "instances" / "table" / "objects.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for number in ids:
        assert sum(int(row[1]) for row in rows if int(row[0]) == number) == (labels == number).sum()
    if kind != "planes, linked":
        table = read_table(tmp_path / "a.ome.zarr" / "labels" / "instances")
        where = np.argwhere(labels == 1) * found.scale + found.translation
        assert np.allclose([table["centroid_y"][1], table["centroid_x"][1]], where.mean(0))
        assert np.isclose(table["mean_0"][1], stack.data[labels == 1].mean())


@pytest.mark.parametrize("kind", ["classes", "an image", "a finer image"])
def test_what_is_looked_at_is_what_is_written(kind, tmp_path):
    model, stack, _ = KINDS[kind]
    config = PredictConfig(resample=True, **FP32)
    lazy = predict_lazy(stack, model, dataclasses.replace(config, block=(16, 16)))
    seen = np.asarray(lazy.data)
    found = wait(predict(stack, model, tmp_path / "a.ome.zarr", config, shown=lazy))
    assert (lazy.shape, lazy.scale, lazy.translation) == (found.shape, found.scale, found.translation)
    assert np.array_equal(seen, found.data[...])
    view = preview(stack, model, config)
    assert view.geometry.shape == found.shape
    box = (slice(10, 40), slice(20, 55))
    canvas = np.full(found.shape, 99, found.dtype)
    views = list(view.seen(box))
    for _, part, values in views:
        canvas[part] = values
    whole, factors = views[0][0], model.config.factors
    for b, w, f in zip(box, whole, factors, strict=True):
        assert w.start <= b.start * f and b.stop * f <= w.stop
    assert np.array_equal(canvas[whole], found.data[...][whole])


def test_models_one_into_the_other_give_a_result_at_the_pixels_of_the_image(tmp_path):
    models = [at(model, size, size) for model, size in zip(cascade(), (0.3, 0.5, 0.4), strict=True)]
    found = run(models, PLANE, tmp_path / "a.ome.zarr", block=(16, 16))
    plain = wait(predict(PLANE, models, tmp_path / "b.ome.zarr", PredictConfig(**FP32)))
    assert (found.shape, found.scale, found.translation) == (plain.shape, plain.scale, plain.translation)
    assert np.array_equal(found.data[...], run(models, PLANE, tmp_path / "c.ome.zarr").data[...])


def test_labels_are_added_to_the_image_that_they_are_of(tmp_path):
    wait(save_stack(PLANE, tmp_path / "i.ome.zarr"))
    before = tree(tmp_path / "i.ome.zarr")
    stack = open_stack(tmp_path / "i.ome.zarr")
    found = run(at(finder(), 0.4, 0.4), stack, tmp_path / "i.ome.zarr", in_source=True, name="cells")
    after = tree(tmp_path / "i.ome.zarr")
    assert found.shape == stack.shape and before.items() <= after.items()


def test_a_run_that_is_replaced_leaves_nothing_of_its_work(tmp_path):
    model, stack, _ = KINDS["objects, coarser"]
    stopped_after(1, predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(resample=True, **FP32)))
    assert list((tmp_path / "a.ome.zarr").rglob(WORKING))
    found = wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(overwrite=True, **FP32)))
    assert found.shape == stack.shape and not list((tmp_path / "a.ome.zarr").rglob(WORKING))


def test_a_tiff_has_the_pixels_of_the_image(tmp_path):
    model, stack, _ = KINDS["classes"]
    assert run(model, stack, tmp_path / "a.tif").shape == stack.shape


def test_where_pixels_are_the_same_nothing_is_made_twice():
    ready = prepare(PLANE, at(finder(), 0.25, 0.25), PredictConfig(resample=True, **FP32))
    assert ready.own is ready.stack and ready.job().own is None


@settings(deadline=None, max_examples=40)
@given(
    labels=st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).integers(0, 4, (7, 9)).astype("u4")),
    ratio=st.floats(0.2, 4.5) | st.sampled_from([1.0, 0.5, 0.25, 2.0, 3.0]),
    data=st.data(),
)
def test_a_pixel_takes_the_label_of_most_weight_wherever_it_is_read(labels, ratio, data):
    shape = tuple(max(1, round(n / ratio)) for n in labels.shape)
    made = ResampledLabels(labels, shape, (ratio, ratio))
    whole = made[...]
    shares = [Resampled((labels == v).astype("f8"), shape, (ratio, ratio))[...] for v in range(4)]
    chosen = np.take_along_axis(np.stack(shares), whole[None].astype(int), 0)[0]
    assert (chosen >= np.max(shares, 0) - 1e-5).all()
    box = tuple(slice(a := data.draw(st.integers(0, n - 1)), data.draw(st.integers(a + 1, n))) for n in shape)
    assert np.array_equal(made[box], whole[box])
    assert made[...].dtype == labels.dtype


def test_equal_weights_take_the_smallest_id_and_thin_strokes_stay_where_zero_is_no_label():
    halves = np.array([[5, 2], [5, 2]], "u2")
    assert ResampledLabels(halves, (1, 1), (2.0, 2.0))[...] == 2
    stroke = np.zeros((12, 12), "u1")
    stroke[:, 5] = 3
    assert not ResampledLabels(stroke, (3, 3), (4.0, 4.0))[...].any()
    assert (ResampledScribbles(stroke, (3, 3), (4.0, 4.0))[...] == [[0, 3, 0]] * 3).all()


def test_a_smooth_outline_is_smooth_at_finer_pixels():
    y, x = np.indices((400, 400))
    disk = (((y - 199.5) ** 2 + (x - 199.5) ** 2) < 120**2).astype("u1")
    back = ResampledLabels(ResampledLabels(disk, (100, 100), (4.0, 4.0))[...], (400, 400), (0.25, 0.25))[...]
    assert (back & disk).sum() / (back | disk).sum() > 0.985


def test_an_image_at_random_pixels_covers_its_result(tmp_path):
    stack = pixels(Stack(data=image_of((2, 23, 31)), axes="tyx"), 1.0, 0.31, 0.17)
    found = run(at(finder(), 0.43, 0.29), stack, tmp_path / "a.ome.zarr", link=0.1)
    assert (found.shape, found.scale) == (stack.shape, stack.scale)
