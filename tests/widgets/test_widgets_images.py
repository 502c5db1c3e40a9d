"""The widgets where images are made: restored, finer, one model after the other, and learnt."""

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

import tifffile
import zarr
from qtpy.QtWidgets import QApplication

from helpers import FP32, image_of
from kinds import restorer as small
from kinds import sampler
from kinds import small as segmenter
from napari_unet import PredictConfig, load_model, open_labels, open_stack, predict, predict_lazy, wait
from napari_unet.errors import ModelError, UsageError
from napari_unet.task import Autoencode, Diffuse, Restore, SuperResolve
from napari_unet.widgets.batch import BatchWidget
from napari_unet.widgets.segment import SegmentWidget
from napari_unet.widgets.source import OURS
from windows import opened, ran, trainer, until


@pytest.fixture
def folders(folders):
    """Own folders for results and models, with models of images."""
    for name, model in {
        "clean": small(Restore),
        "fine": small(SuperResolve, seed=1),
        "deep": small(Restore, 3),
        "double": small(Restore, channels=2),
        "spread": small(Restore, predict_std=True),
        "parts": segmenter(2),
        "draws": sampler(depth=1),
        "makes": sampler(channels=3, depth=1, condition="labels"),
    }.items():
        model.save(folders / "models" / f"{name}.model")
    return folders


def model_at(folders, *names):
    found = [load_model(folders / "models" / f"{name}.model") for name in names]
    return found[0] if len(found) == 1 else found


def expected(stack, folders, *names, **config):
    out = folders / "expected.ome.zarr"
    return wait(predict(stack, model_at(folders, *names), out, PredictConfig(**FP32, **config)))


def chained(viewer, folders, *names):
    """Open the widget with a cascade chosen."""
    widget = opened(viewer, folders, names[0])
    for box, name in zip(widget.cascade._boxes, names[1:], strict=False):
        box.value = folders / "models" / f"{name}.model"
    return widget


def offered(widget):
    return [not shown.native.isHidden() for shown in widget.cascade._fields]


@pytest.mark.parametrize("name", ["clean", "fine", "deep"])
def test_an_image_that_is_made_is_an_image_layer_in_its_place(name, viewer, folders):
    data = image_of((4, 70, 90))
    image = viewer.add_image(data, name="cells", scale=(3, 0.5, 0.5), translate=(1, 2, 3), units="um")
    layer = ran(opened(viewer, folders, name, "4 32 32" if name == "deep" else "32 32"))
    wanted = np.asarray(expected(open_stack(data, "zyx"), folders, name).data)
    finest = layer.data[0] if layer.multiscale else layer.data
    np.testing.assert_array_equal(np.asarray(finest), wanted)
    assert type(layer).__name__ == "Image" and layer.units == image.units
    factor = wanted.shape[-1] // 90
    corner = np.subtract(layer.data_to_world((0, 0, 0)), np.multiply(layer.scale, 0.5))
    np.testing.assert_allclose(corner, np.subtract((1, 2, 3), np.multiply(image.scale, 0.5)), atol=1e-6)
    np.testing.assert_allclose(layer.scale, np.divide(image.scale, (1, factor, factor)))
    low, high = layer.contrast_limits
    assert wanted.min() <= low < high <= wanted.max()


def test_samples_are_previewed_one_after_the_other_and_mean_and_deviation_are_layers(viewer, folders):
    data = image_of((40, 48))
    viewer.add_image(data, name="cells")
    widget = opened(viewer, folders, "clean", "")
    assert widget.another.native.isHidden() and widget.settings["samples"].native.isHidden()
    widget.models.use(folders / "models" / "draws.model")
    assert not widget.another.native.isHidden()
    widget.settings["steps"].value = "2"
    for seed, show in enumerate((widget.show_preview, widget.show_another, widget.show_another)):
        show()
        until(lambda: widget._preview.layer is not None and not widget._preview.running)
        wanted = predict_lazy(
            open_stack(data, "yx"), model_at(folders, "draws"), PredictConfig(steps=2, seed=seed, **FP32)
        )
        shown = widget._preview.layer.data
        np.testing.assert_allclose(np.asarray(shown[0] if isinstance(shown, list) else shown), wanted.data, rtol=1e-4)
    widget.settings["samples"].value, widget.settings["each_sample"].value = "2", True
    ran(widget)
    names = [layer.name.rpartition(": ")[2] for layer in viewer.layers]
    assert names[-3:] == ["standard deviation", "sample 1", "sample 2"]
    out = folders / "expected.ome.zarr"
    config = PredictConfig(steps=2, seed=2, samples=2, each_sample=True, **FP32)
    mean = wait(predict(open_stack(data, "yx"), model_at(folders, "draws"), out, config))
    for layer, path in zip(viewer.layers[-4:], ("", "uncertainty", "samples", "samples"), strict=True):
        values = np.asarray(open_stack(out / path).data if path else mean.data)
        values = values[int(layer.name[-1]) - 1] if path == "samples" else values
        found = layer.data[0] if layer.multiscale else layer.data
        np.testing.assert_allclose(np.asarray(found), values, rtol=1e-4, atol=1e-3)
        assert layer.contrast_limits[1] > 0.5 * values.max()


def test_a_model_that_makes_images_for_labels_is_run_on_a_labels_layer(viewer, folders):
    image = viewer.add_image(image_of((40, 48)), name="cells")
    widget = opened(viewer, folders, "clean", "")
    assert widget.image.value is image
    name = next(name for name, path in widget.models._ranked() if path.stem == "makes")
    assert name == "makes (for labels)"
    widget.models.use(folders / "models" / "makes.model")
    assert (widget.image.value, widget.run.enabled) == (None, False)
    assert "labels" in widget.note.value
    labels = np.zeros((2, 40, 48), np.uint16)
    labels[:, 5:20, 5:20], labels[1, 15:35, 20:40] = 3, 7
    drawn = viewer.add_labels(labels, name="drawn", scale=(2, 0.5, 0.5), translate=(1, 2, 3))
    assert widget.image.value is drawn
    widget.settings["steps"].value = "2"
    layer = ran(widget)
    wanted = expected(open_stack(drawn, "zyx"), folders, "makes", steps=2)
    np.testing.assert_allclose(np.asarray(layer.data), np.asarray(wanted.data), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), drawn.data_to_world((1, 2, 3)))
    widget.show_preview()
    until(lambda: widget._preview.layer is not None and not widget._preview.running)
    widget.models.use(folders / "models" / "clean.model")
    assert widget.image.value is image


def test_a_layer_a_channel_and_what_else_was_wanted(viewer, folders):
    viewer.add_image(image_of((2, 40, 48)), name="cells")
    widget = opened(viewer, folders, "double")
    widget.axes.value = "cyx"
    ran(widget)
    assert [layer.name.rpartition(": ")[2] for layer in viewer.layers] == ["cells", "channel 1", "channel 0"]
    viewer.layers.clear()
    data = image_of((40, 48))
    viewer.add_image(data, name="cells")
    widget = opened(viewer, folders, "spread")
    widget.settings["uncertainty"].value = True
    ran(widget)
    shown = {layer.name.rpartition(" ")[2]: layer for layer in viewer.layers}
    expected(open_stack(data, "yx"), folders, "spread", uncertainty=True)
    wanted = open_stack(folders / "expected.ome.zarr" / "uncertainty").data
    np.testing.assert_array_equal(np.asarray(shown["uncertainty"].data), np.asarray(wanted))


def test_a_cascade_is_chosen_model_by_model(viewer, folders):
    data = image_of((60, 70))
    viewer.add_image(data, name="cells", scale=(0.5, 0.5), units="um")
    widget = opened(viewer, folders, "parts")
    assert offered(widget) == [False, False, False]  # nothing runs on labels
    widget = chained(viewer, folders, "clean", "fine", "parts")
    assert offered(widget) == [True, True, False]
    layer = ran(widget)
    wanted = expected(open_stack(data, "yx"), folders, "clean", "fine", "parts")
    np.testing.assert_array_equal(np.asarray(layer.data), np.asarray(wanted.data))
    np.testing.assert_allclose(layer.scale, (0.25, 0.25))
    assert type(layer).__name__ == "Labels"


@pytest.mark.parametrize("names", [("clean",), ("fine",), ("clean", "fine"), ("fine", "parts")])
def test_the_preview_is_the_final_result_there(names, viewer, folders):
    data = image_of((200, 300))
    viewer.add_image(data, name="cells")
    widget = chained(viewer, folders, *names)
    widget.show_preview()
    until(lambda: widget._preview.layer is not None and not widget._preview.running)
    layer = widget._preview.layer
    wanted = np.asarray(expected(open_stack(data, "yx"), folders, *names).data)
    shown, finer = np.asarray(layer.data), wanted.shape[0] // 200
    start = np.round((np.asarray(layer.translate) + 0.5) * finer - 0.5).astype(int)
    there = wanted[tuple(slice(s, s + n) for s, n in zip(start, shown.shape, strict=True))]
    assert shown.size > 10_000 and there.shape == shown.shape
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(shown, there, rtol=1e-4, atol=1e-2)
    else:
        assert (shown == there).mean() > 0.999


def test_the_copied_run_is_the_same_run(viewer, folders):
    data = image_of((40, 50))
    zarr.save_array(folders / "raw.zarr", data)
    viewer.add_image(data, name="raw", metadata={"napari_unet": {"path": str(folders / "raw.zarr")}})
    widget = chained(viewer, folders, "clean", "fine")
    widget.copy_python()
    namespace = {}
    exec(QApplication.clipboard().text(), namespace)
    wanted = expected(open_stack(data, "yx"), folders, "clean", "fine")
    np.testing.assert_array_equal(np.asarray(namespace["result"].data), np.asarray(wanted.data))
    widget.copy_command()
    assert QApplication.clipboard().text().count("--model") == 2


def test_a_batch_of_a_cascade(viewer, folders):
    (folders / "in").mkdir()
    data = [image_of((40, 48 + 8 * i)) for i in range(2)]
    for i, image in enumerate(data):
        tifffile.imwrite(folders / "in" / f"{i}.tif", image)
    widget = BatchWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Batch")
    widget.folder.value, widget.out.value = folders / "in", folders / "out"
    widget.model.value = folders / "models" / "clean.model"
    widget.cascade._boxes[0].value = folders / "models" / "fine.model"
    widget.settings["precision"].value, widget.settings["device"].value = "fp32", "cpu"
    widget.start()
    until(lambda: not widget.busy)
    assert widget.status.value.startswith("2 done"), widget.status.value
    for i, image in enumerate(data):
        found = open_stack(folders / "out" / f"{i}.ome.zarr")
        wanted = wait(
            predict(
                open_stack(image, "yx"),
                model_at(folders, "clean", "fine"),
                folders / f"{i}.zarr",
                PredictConfig(**FP32),
            )
        )
        np.testing.assert_array_equal(np.asarray(found.data), np.asarray(wanted.data))


def scene():
    """A clean image, and two noisy shots of it."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    clean = (np.sin(rows / 7) + np.cos(columns / 5)) * 100 + 500
    return clean.astype(np.float32), *(rng.normal(clean, 60).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize(
    ("kind", "target", "task"),
    [
        ("Restore (pairs of images)", True, Restore),
        ("Denoise without clean images (Noise2Void)", False, Restore),
        ("Restore with samples (diffusion)", True, Diffuse),
        ("Super-resolution", False, SuperResolve),
        ("Autoencoder", False, Autoencode),
    ],
)
def test_images_are_learnt_and_segment_offers_the_model_at_once(kind, target, task, viewer, folders):
    clean, noisy, _ = scene()
    layers = [viewer.add_image(data, name=name) for data, name in ((noisy, "noisy"), (clean, "clean"))]
    segment = SegmentWidget(viewer)
    viewer.window.add_dock_widget(segment, name="Segment")
    widget = trainer(viewer, minutes=0.1)
    widget.kind.value = kind
    widget.pairs[0][0].value = layers[0]
    if target:
        widget.pairs[0][1].value = layers[1]
    widget.start()
    until(lambda: not widget.busy)
    assert widget.status.value.startswith("done"), widget.status.value
    model = load_model(widget._model)
    assert type(model.task) is task
    live = [layer for layer in viewer.layers if layer.name == "noisy live"]
    assert all(type(layer).__name__ == "Image" for layer in live)
    assert widget._model in [path for _, path in segment.models.choices()]


def test_images_are_learnt_for_labels_and_made_for_others(viewer, folders):
    labels = np.zeros((64, 80), np.uint16)
    for value, (y, x) in enumerate(np.mgrid[8:64:16, 8:80:16].reshape(2, -1).T, 1):
        labels[y - 5 : y + 5, x - 4 : x + 4] = value
    image = viewer.add_image(np.random.default_rng(0).poisson(20 + 80 * (labels > 0)).astype(np.uint8), name="cells")
    drawn = viewer.add_labels(labels, name="objects")
    widget = trainer(viewer, minutes=0.1)
    widget.kind.value = "Images for labels"
    shown = {name for name in ("noise", "upscale", "sparse", "loss") if not control_of(widget, name).isHidden()}
    assert shown == set()
    assert [widget.painting.object.native.isHidden(), widget.painting.classes[0].native.isHidden()] == [False, True]
    assert [list(box.choices) for box in list(widget.pairs[0])[:2]] == [[image], [None, drawn]]
    widget.start()
    assert "choose an image and its labels" in widget.status.value
    widget.pairs[0][1].value = drawn
    until(lambda: "20 objects" in widget.meaning.line.value)
    widget.start()
    until(lambda: not widget.busy)
    assert widget.status.value.startswith("done"), widget.status.value
    model = load_model(widget._model)
    assert (model.task.condition, model.task.channels, model.config.in_channels) == ("labels", ("intensity",), 4)
    live = [layer for layer in viewer.layers if layer.name == "cells live"]
    assert [type(layer).__name__ for layer in live] == ["Image"] * len(live)
    request = widget.request(widget._model)  # the same model goes on learning, and no other
    assert (request.config.condition, request.init) == ("labels", widget._model)
    with pytest.raises(ModelError, match="for the condition image, the form asks for labels"):
        widget.request(folders / "models" / "draws.model")
    drawn.metadata = {OURS: {"painted": {"background": 1, "objects": True}}}
    with pytest.raises(UsageError, match="label 1 of objects was painted on background"):
        widget.request()
    other = viewer.add_labels(labels[::-1].copy(), name="others")
    segment = opened(viewer, folders, "makes", "")
    segment.models.use(widget._model)
    segment.image.value = other
    made = ran(segment)
    data = np.asarray(made.data[0] if made.multiscale else made.data)
    wanted = wait(predict(open_labels(labels[::-1].copy(), "yx"), model, folders / "made.zarr", PredictConfig(**FP32)))
    np.testing.assert_allclose(data, np.asarray(wanted.data), rtol=1e-3, atol=1e-2)


def control_of(widget, name):
    return (widget.sparse if name == "sparse" else widget.plan[name]).native
