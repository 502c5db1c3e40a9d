"""Parts of the widgets: forms made from settings, layers as stacks, places of results, work beside the window."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

import dask.array as da
import zarr
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtGui import QTextDocument

from napari_unet import Opened, open_stack
from napari_unet.arrays.stack import Stack
from napari_unet.arrays.views import Zeros
from napari_unet.cards import SHIPPED, locate, models
from napari_unet.errors import DataError, UsageError
from napari_unet.events import Progress
from napari_unet.inference.config import PredictConfig
from napari_unet.training.config import TrainConfig
from napari_unet.widgets.curves import TICKS, Scale
from napari_unet.widgets.form import Form
from napari_unet.widgets.jobs import Clock, Ended, Worker, duration
from napari_unet.widgets.layers import Place, Placed, look, named, seen, table
from napari_unet.widgets.live import Live
from napari_unet.widgets.panel import plain_tip, text
from napari_unet.widgets.pixels import choices, misfit, understood
from napari_unet.widgets.source import Source, known_axes, say_axes, usual_axes
from windows import until


@pytest.fixture(autouse=True)
def _window(display, qapp):
    return qapp


# Forms


@pytest.mark.parametrize("settings", [PredictConfig, TrainConfig])
def test_a_form_begins_with_the_defaults(settings):
    assert settings(**Form(settings).chosen()) == settings()


def test_a_form_reads_what_is_written():
    form = Form(TrainConfig, skip={"resume"}, precision="fp32")
    form["patch"].value, form["depth"].value, form["learning_rate"].value = "32, 64 x 64", "3", "1e-4"
    chosen = TrainConfig(**form.chosen())
    assert (chosen.patch, chosen.depth, chosen.learning_rate, chosen.precision) == ((32, 64, 64), 3, 1e-4, "fp32")
    form.suggest(depth=4, patch=(1, 2))
    assert form["patch"].native.placeholderText() == "1 2"
    form["depth"].value = "three"
    with pytest.raises(UsageError, match="depth is 'three'"):
        form.chosen()


# Work beside the window


def counting(n, fail=None):
    for i in range(n):
        yield Progress(i + 1, n, "count")
        time.sleep(0.002)
    if fail:
        raise fail
    return n


def run(work):
    events, ends = [], []
    job = Worker(work, events.extend, ends.append).start()
    until(lambda: ends)
    assert not job.running
    return events, ends


def test_events_and_the_result_arrive_in_the_windows_thread():
    events, ends = run(lambda: counting(20))
    assert [e.done for e in events] == list(range(1, 21))
    assert ends == [Ended(20)]


@pytest.mark.parametrize("error", [DataError("the stack is\nbroken"), ZeroDivisionError("zero")])
def test_an_error_ends_the_work_with_one_line(error):
    _, ends = run(lambda: counting(2, error))
    assert ends[0].error.startswith(
        "the stack is broken" if isinstance(error, DataError) else "ZeroDivisionError: zero"
    )
    if not isinstance(error, DataError):
        assert "Traceback" in Path(ends[0].error.rpartition(" in ")[2].rstrip(")")).read_text()


def test_cancelling_closes_the_generator():
    closed, ends = [], []

    def endless():
        try:
            while True:
                yield Progress(0, 1, "wait")
                time.sleep(0.02)
        finally:
            closed.append(True)

    job = Worker(endless, lambda _: None, ends.append).start()
    job.cancel()
    assert job.wait(5)
    assert ends == [Ended(cancelled=True)]
    assert closed


def test_time_left_is_counted_from_where_the_work_began():
    clock = Clock()
    assert clock.left(50, 100) == ""
    time.sleep(0.02)
    assert clock.left(75, 100).endswith("s")
    assert (duration(30), duration(600), duration(7200)) == ("30 s", "10 min", "2.0 h")


# Layers


@pytest.mark.parametrize(
    ("shape", "labels", "axes"),
    [((9, 8), None, "yx"), ((5, 9, 8), None, "zyx"), ((5, 9, 8), ("c", "y", "x"), "cyx"), ((2, 5, 9, 8), None, "tzyx")],
)
def test_axes_are_those_of_the_layer_or_the_usual_ones(shape, labels, axes):
    assert usual_axes(Image(np.zeros(shape), axis_labels=labels)) == axes


@pytest.mark.parametrize(
    ("labels", "axes"),
    [
        (("channel", "z", "y", "x"), "czyx"),
        (("T", "Channels", "y", "x"), "tcyx"),
        (("time", "plane", "row", "column"), "tzyx"),
    ],
)
def test_axes_go_by_their_usual_names(labels, axes):
    assert usual_axes(Image(np.zeros((2, 5, 9, 8)), axis_labels=labels)) == axes


def test_axes_that_were_typed_are_those_of_the_layer_for_every_form():
    layer = Image(np.zeros((2, 5, 9, 8)), name="cells", metadata={"mine": 1})
    assert known_axes(layer) is None
    assert say_axes(layer, "Channel, z, y, x") == usual_axes(layer) == known_axes(layer) == "czyx"
    assert layer.metadata["mine"] == 1
    with pytest.raises(UsageError, match="4 dimensions, the axes zyx are 3"):
        say_axes(layer, "zyx")
    assert usual_axes(layer) == "czyx"


def test_the_scale_that_a_layer_has_now_counts_and_is_told_to_whoever_opens_its_file(tmp_path):
    path = tmp_path / "raw.zarr"
    zarr.create_array(path, data=np.zeros((4, 9, 8), "u1"), dimension_names=["z", "y", "x"])
    layer = Image(np.zeros((4, 9, 8), "u1"), metadata={"napari_unet": {"path": str(path)}})
    assert "pixel_size" not in Source(layer, "zyx").whole()[1]
    layer.scale, layer.units = (2, 0.5, 0.5), "um"
    where, opening = Source(layer, "zyx").whole()
    assert opening["pixel_size"] == "2 0.5 0.5 micrometer"
    assert open_stack(where, **opening).scale == Source(layer, "zyx").stack().scale == (2, 0.5, 0.5)


def test_six_dimensions_are_refused():
    with pytest.raises(DataError, match="6 dimensions"):
        usual_axes(Image(np.zeros((1, 1, 1, 1, 4, 4))))


@pytest.mark.parametrize(("axes", "order"), [("tzyx", "tczyx"), ("tzyx", "zcyxt"), ("yx", "xy"), ("zyx", "zyx")])
def test_a_placed_array_has_the_layers_dimensions(axes, order):
    data = np.random.default_rng(0).integers(0, 99, [3, 4, 5, 6][-len(axes) :])
    placed = Placed(data, axes, order, {"c": 2})
    letters = [a for a in order if a != "c"]
    whole = data.transpose([axes.index(a) for a in letters])
    if "c" in order:
        whole = np.repeat(np.expand_dims(whole, order.index("c")), 2, order.index("c"))
    np.testing.assert_array_equal(np.asarray(placed), whole)
    key = tuple(1 if a in "tc" else slice(1, 3) for a in order)
    np.testing.assert_array_equal(placed[key], whole[key])


def viewer_of(data, **more):
    viewer = ViewerModel()
    return viewer, viewer.add_image(data, **more)


@pytest.mark.parametrize("turn", [{}, {"rotate": 30}, {"affine": [[1, 0.2, 3], [0, 2, 1], [0, 0, 1]]}])
@pytest.mark.parametrize("level", [0, 1])
def test_a_result_lies_on_its_image(turn, level):
    data = [np.zeros((64, 48)), np.zeros((32, 24))]
    viewer, layer = viewer_of(data, multiscale=True, scale=(0.5, 0.25), translate=(3, 4), units="um", **turn)
    stack = Source(layer, "yx", level).stack()
    place = Place.of(layer, "yx", stack)
    labels = viewer.add_labels(np.zeros(stack.shape, int), **place.shown())
    middle = (np.array(data[0].shape) - 1) / 2
    np.testing.assert_allclose(
        layer.data_to_world(middle), labels.data_to_world((np.array(stack.shape) - 1) / 2), atol=1e-6
    )
    assert labels.units == layer.units


def test_what_is_seen_is_the_field_of_view_in_the_stacks_own_pixels():
    viewer, layer = viewer_of(np.zeros((7, 100, 200)), scale=(2, 0.5, 0.5))
    stack = Source(layer, "zyx").stack()
    layer.corner_pixels = np.array([[0, 10, 20], [0, 30, 60]])
    viewer.dims.set_point(0, 6.0)
    assert seen(viewer, layer, "zyx", stack) == (slice(3, 4), slice(10, 31), slice(20, 61))
    viewer.dims.set_point(0, 1e9)
    assert seen(viewer, layer, "zyx", stack)[0] == slice(6, 7)


def test_the_channel_of_a_layer_is_no_axis_of_what_is_seen():
    viewer, layer = viewer_of(np.zeros((3, 2, 50, 60)), axis_labels=("t", "c", "y", "x"))
    viewer.dims.set_point(0, 2)
    stack = Source(layer, "tcyx", channel=1).stack()
    layer.corner_pixels = np.array([[0, 0, 0, 0], [2, 1, 49, 59]])
    assert seen(viewer, layer, "tcyx", stack) == (slice(2, 3), slice(0, 50), slice(0, 60))
    place = Place.of(layer, "tcyx", stack)
    assert np.asarray(place.arranged(np.zeros((3, 50, 60), int), "tyx")).shape == (3, 2, 50, 60)


def test_colours_and_sizes_follow_the_builtin_conventions():
    attributes = {
        "colors": [{"label-value": 2, "rgba": [255, 0, 0, 255]}],
        "properties": [{"label-value": 2, "class": "cell"}],
    }
    found = table(named(attributes), {"background": 5, "cell": 7}, 0.5, "um^2")
    assert found == {
        "index": [0, 1, 2],
        "class": ["background", "", "cell"],
        "voxels": [5, 0, 7],
        "size (um^2)": [2.5, 0.0, 3.5],
    }
    assert look(attributes)["colormap"].color_dict[2][0] == 1
    assert look({}) == {}


def test_a_live_pyramid_shows_the_blocks_that_are_there(tmp_path):
    data = np.random.default_rng(1).integers(0, 5, (2, 3000, 2100)).astype(np.uint8)
    first = zarr.create_array(tmp_path / "0", shape=data.shape, chunks=(1, 700, 700), dtype=data.dtype)
    where = {"path": tmp_path, "geometry": Stack(data=data, axes="zyx"), "kind": "labels", "attributes": {}}
    live = Live(Opened(0, 5, "predict", **where))
    assert [level.shape for level in live.levels] == [(2, 3000, 2100), (2, 750, 525), (2, 64, 45)]
    for y in range(0, 3000, 700):
        box = (slice(0, 2), slice(y, min(y + 700, 3000)), slice(0, 2100))
        first[box] = data[box]
        live.add(box)
    np.testing.assert_array_equal(live.levels[1][:], data[:, ::4, ::4])
    again = Live(Opened(3, 5, "predict", **where))
    np.testing.assert_array_equal(again.levels[1][:], data[:, ::4, ::4])


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("shape", [(2, 40, 50), (1, 3000, 60)])
def test_of_a_run_that_was_over_before_its_blocks_were_looked_at_the_end_is_shown(shape, seen, tmp_path):
    geometry = Stack(data=Zeros(shape, np.dtype(np.uint32)), axes="zyx")
    where = {"path": tmp_path, "geometry": geometry, "kind": "labels", "attributes": {}}
    if seen:
        zarr.create_array(tmp_path / "0", shape=shape, chunks=shape, dtype=np.uint32)[:] = 1
    live = Live(Opened(0, 1, "predict", **where))
    if seen:
        shutil.rmtree(tmp_path / "0")
    live.add(tuple(slice(0, n) for n in shape))
    assert not np.asarray(live.levels[0]).any() and live.levels[0].shape == shape
    labels = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint32)
    np.testing.assert_array_equal(live.finish(Stack(data=labels, axes="zyx")), labels)


def test_of_a_resumed_run_that_was_over_already_nothing_is_read_before_its_end(tmp_path):
    geometry = Stack(data=Zeros((40_000, 100_000, 100_000), np.dtype(np.uint32)), axes="zyx")  # far more than memory
    live = Live(Opened(3, 5, "predict", path=tmp_path, geometry=geometry, kind="labels", attributes={}))
    assert live.levels[0] is geometry.data and len(live.levels) > 1


# Models and pixels


@pytest.fixture
def entry(tmp_path):
    card = {
        "config": {"in_channels": 1},
        "axes": "yx",
        "channel_names": [],
        "scale": [0.5, 0.5],
        "units": ["micrometer", "micrometer"],
        "task": {"name": "semantic", "class_names": ["background", "nucleus"]},
        "record": {"scores": {"dice": 0.93}},
    }
    (tmp_path / "own.model").mkdir()
    (tmp_path / "own.model" / "model.json").write_text(json.dumps(card))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{")
    return models(tmp_path)["own"]


def test_models_are_listed_by_their_cards(entry):
    assert list(models(entry.path.parent)) == ["own"]
    assert "nucleus" in entry.summary()
    assert "dice 0.93" in entry.summary()
    assert models(entry.path / "none") == {}


def test_every_model_that_ships_has_a_card_and_goes_by_its_name():
    shipped = models(SHIPPED)
    assert shipped
    for name, found in shipped.items():
        assert locate(name) == found.path
        assert {"licence", "data", "made by", "scores"} <= set(found.record)
    assert locate("no-such-model").name == "no-such-model"


@pytest.mark.parametrize(
    ("scale", "first", "line"),
    [
        (0.5, "level 0: 0.5 um", "alike"),
        (0.13, "resample to the model's 0.5 um", "brought to the model's"),
        (0.26, "level 1: 0.52 um", "alike"),
    ],
)
def test_the_most_sensible_pixel_size_comes_first(entry, scale, first, line):
    data = [np.zeros((64, 64)), np.zeros((32, 32))]
    layer = Image(data, multiscale=True, scale=(scale, scale), units="um")
    found = choices(layer, "yx", entry)
    assert str(found[0]) == first
    assert line in understood(layer, "yx", entry, found[0])


def test_pixels_without_units_are_not_compared(entry):
    layer = Image(np.zeros((9, 9)))
    assert [str(size) for size in choices(layer, "yx", entry)] == ["as it is"]
    assert "no unit" in understood(layer, "yx", entry, choices(layer, "yx", entry)[0])


@pytest.mark.parametrize(
    ("units", "said"),
    [
        (("pixel", "um", "um"), " along z, so they are not compared"),
        (("um", "pixel", "um"), " along y, so they are not compared"),
        (("pixel", "pixel", "um"), " along z, y, so they are not compared"),
        (("pixel", "pixel", "pixel"), "has no unit, so they are not compared"),
        (("um", "second", "um"), " along y, so they are not compared"),
        (("um", "nm", "um"), "model"),
    ],
)
def test_a_size_along_some_axes_alone_is_not_compared_with_the_models(units, said):
    entry = models(SHIPPED)["nuclei-3d"]
    layer = Image(np.zeros((4, 8, 8), "u1"), scale=(1, 0.3, 0.3), units=units)
    found = choices(layer, "zyx", entry)
    assert any(size.resample for size in found) == (said == "model")
    assert said in understood(layer, "zyx", entry, found[0])


@pytest.mark.parametrize(
    ("scale", "unit", "name"),
    [
        ((1, 1), None, "nuclei-2d"),
        ((0.5, 0.5), "um", "nuclei-2d"),
        ((5, 5), "nm", "membranes-em"),
        ((50, 5, 5), "nm", "membranes-em"),
        ((2, 0.6, 0.6), "um", "nuclei-3d"),
    ],
)
def test_the_model_that_ships_and_suits_the_image_fits_best(scale, unit, name):
    layer = Image(np.zeros((20,) * len(scale)), scale=scale, units=unit)
    assert min(models(SHIPPED).values(), key=lambda found: misfit(layer, "zyx"[-len(scale) :], found)).name == name


def test_a_source_has_its_own_handle_of_lazy_data():
    layer = Image(da.arange(60).reshape(3, 4, 5), name="lazy")
    stack = Source(layer, "zyx").stack()
    del layer
    np.testing.assert_array_equal(np.asarray(stack.data), np.arange(60).reshape(3, 4, 5))


def test_opening_a_widget_loads_no_torch():
    script = (  # which ends at once: Qt may crash where it takes down a window that was never shown
        "import os, sys, napari, napari_unet.widgets.segment as s, napari_unet.widgets.train as t, "
        "napari_unet.widgets.batch as b; viewer = napari.Viewer(show=False); "
        "made = [s.SegmentWidget(viewer), t.TrainWidget(viewer), b.BatchWidget(viewer)]; "
        "print('torch' in sys.modules, flush=True); os._exit(0)"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["<b>bold</b>", "<img src=x>.tif", "a & b", "[dapi]"])
def test_a_name_in_a_label_is_text_and_no_html(name):
    label = text(name)
    assert label.native.textFormat() == Qt.TextFormat.PlainText and label.native.text() == name
    tip = QTextDocument()
    tip.setHtml(plain_tip(name))
    assert tip.toPlainText() == name


finite = st.floats(-1e9, 1e9, allow_subnormal=False)


@given(finite, finite, st.booleans())
def test_ticks_of_a_plot_are_few_and_lie_within_it(a, b, whole):
    low, high = sorted((round(a), round(b))) if whole else sorted((a, b))
    scale = Scale(low, high, 300.0, 20.0, whole)
    assert scale(low) == 300
    assert 20 - 1e-6 <= scale(high) <= 300
    assert len(scale.ticks()) <= TICKS + 1
    assert all(20 - 1e-3 <= scale(tick) <= 300 + 1e-3 for tick in scale.ticks())
    assert not whole or all(tick == round(tick) for tick in scale.ticks())
