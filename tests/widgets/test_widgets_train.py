"""The Train and Batch widgets in a real viewer: from layers and folders to models and results."""

import json
import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

import tifffile

from kinds import small
from napari_unet import load_model, open_labels, wait
from napari_unet.arrays.classed import apart
from napari_unet.cards import models
from napari_unet.errors import ModelError
from napari_unet.training.job import TrainJob
from napari_unet.widgets.closing import BACKGROUND, STOP
from napari_unet.widgets.outcome import legend
from napari_unet.widgets.pairs_form import FOLDERS
from napari_unet.widgets.segment import SegmentWidget
from napari_unet.widgets.train import TrainWidget
from napari_unet.widgets.training_request import cut_pairs, export_pairs, paused_runs
from windows import squares, trainer, until


def on_layers(viewer, labels):
    image, *_ = squares()
    layers = (
        viewer.add_image(image, name="cells", scale=(0.5, 0.5), units="um"),
        viewer.add_labels(labels, name="drawn", scale=(0.5, 0.5), units="um"),
    )
    widget = trainer(viewer)
    widget.form.learn_from(*layers)
    until(lambda: widget.meaning.seen is not None)
    return widget, *layers


def test_what_will_be_learnt_from_is_said_before(viewer, folders):
    widget, *_ = on_layers(viewer, squares()[2])
    widget.sparse.value, widget.background.value = True, 1
    widget.plan["learning_rate"].value = ""
    widget.analyse_data()
    until(lambda: not widget.busy)
    assert widget.facts.value.startswith("cells with drawn")
    assert "1 labelled image, 0 is unlabelled" in widget.facts.value
    assert "1 background: 1,160 voxels" in widget.facts.value
    assert "2 class_2: 600 voxels" in widget.facts.value
    assert widget.plan["learning_rate"].native.placeholderText() == "0.002"
    assert not (folders / "models").exists()


def test_painted_layers_become_a_model_that_segment_offers_at_once(viewer, folders):
    widget, image, _ = on_layers(viewer, squares()[2])
    segment = SegmentWidget(viewer)
    viewer.window.add_dock_widget(segment, name="Segment")
    widget.sparse.value, widget.background.value, widget.title.value = True, 1, "my squares"
    assert [field.visible for field in widget.meaning.names.fields[:2]] == [widget.visible, False]
    widget.meaning.names.fields[0].value = "square, bright"
    widget.start()
    until(lambda: any(layer.name == "cells live" for layer in viewer.layers))
    until(lambda: not widget.busy)
    assert widget.status.value.startswith("done"), widget.status.value
    epochs, losses = widget.curves.points["training"]
    assert len(epochs) == len(losses) > 1
    model = load_model(folders / "models" / "my_squares.model")
    assert model.task.names == ("background", "square, bright")
    assert model.scale == (0.5, 0.5)
    assert "my_squares" in [name for name, _ in segment.models.choices()]
    assert "dice" in widget.card.value
    segment.models.use(folders / "models" / "my_squares.model")
    segment.image.value = image
    segment.start()
    until(lambda: not segment.busy)
    found = np.asarray(segment._result.layer.data)
    assert (found == squares()[1] + 1).mean() > 0.9
    assert [line.partition("</span> ")[2].split(" ")[:2] for line in legend(segment._result.layer)][-1] == [
        "square,",
        "bright",
    ]
    assert list(segment._result.layer.features["class"]) == ["", "background", "square, bright"]
    np.testing.assert_array_equal(segment._result.layer.features["voxels"], np.bincount(found.ravel(), minlength=3))


def test_a_model_that_goes_on_learning_keeps_the_names_of_its_classes(viewer, folders):
    widget, _, drawn = on_layers(viewer, squares()[1])
    widget.meaning.names.fields[0].value = "square"
    widget.start()
    until(lambda: not widget.busy)
    assert load_model(widget._model).task.names == ("background", "square")
    widget.meaning.names.fields[0].value = ""
    assert not drawn.metadata["napari_unet"]["class names"]
    widget.fine_tune()
    until(lambda: not widget.busy)
    assert load_model(widget._model).task.names == ("background", "square")


def test_paused_and_gone_on_with_when_the_layers_are_gone(viewer, folders):
    widget, *_ = on_layers(viewer, squares()[1])
    widget.minutes.value = 3
    widget.start()
    until(lambda: "step" in widget.status.value)
    widget.pause_training()
    until(lambda: not widget.busy)
    assert "paused" in widget.status.value
    assert list(paused_runs(folders / "models")) == ["my-model"]
    for layer in list(viewer.layers):
        viewer.layers.remove(layer)
    later = trainer(viewer)
    later.paused.value = folders / "models" / "my-model.model.job.json"
    assert later.resume.enabled
    later.resume_training()
    until(lambda: "step" in later.status.value)
    later.stop_training()
    until(lambda: not later.busy)
    assert "my-model.model" in later.status.value  # after a step or two it may find nothing yet, and says so
    assert list(models(folders / "models")) == ["my-model"]
    assert not paused_runs(folders / "models")


def test_after_corrections_it_goes_on_from_the_weights_at_hand(viewer, folders):
    widget, _, labels = on_layers(viewer, squares()[2])
    widget.sparse.value, widget.background.value, widget.minutes.value = True, 1, 3
    widget.start()
    until(lambda: "step" in widget.status.value)
    widget.stop_training()
    until(lambda: not widget.busy)
    labels.data[88:95, 60:90] = 1
    assert widget.tune.text == "Fine-tune my-model"
    widget.start_from.value = folders / "models" / "my-model.model"
    widget.fine_tune()
    until(lambda: "step" in widget.status.value)
    widget.stop_training()
    until(lambda: not widget.busy)
    first, second = (load_model(folders / "models" / f"my-model{n}.model") for n in ("", "-2"))
    assert second.record["settings"]["init"] == first.sha256
    assert widget.start_from.value == folders / "models" / "my-model-2.model"
    assert widget.tune.text == "Fine-tune my-model-2"
    kept = open_labels(folders / "models" / "my-model-2.model.data" / "0.ome.zarr" / "labels" / "annotation")
    np.testing.assert_array_equal(np.asarray(kept.data), labels.data)


def test_a_window_killed_in_the_middle_leaves_a_training_that_can_be_gone_on_with(viewer, folders):
    widget, *_ = on_layers(viewer, squares()[1])
    widget.minutes.value = 3
    widget.start()
    until(lambda: "step" in widget.status.value)
    process = widget._training.child.process
    process.stdin.close()  # what the system does when the window's process is gone
    process.wait(30)
    assert list(paused_runs(folders / "models")) == ["my-model"]
    until(lambda: not widget.busy)


@pytest.mark.parametrize("answer", [STOP, BACKGROUND])
def test_closing_while_training_stops_it_or_lets_it_go_on(answer, viewer, folders, monkeypatch):
    from qtpy.QtGui import QCloseEvent

    monkeypatch.setattr(TrainWidget, "ask_closing", lambda self: answer)
    widget, *_ = on_layers(viewer, squares()[1])
    widget.minutes.value = 3
    widget.start()
    until(lambda: "step" in widget.status.value)
    process = widget._training.child.process
    began = time.monotonic()
    widget._guard.eventFilter(widget._guard.parent(), QCloseEvent())
    assert time.monotonic() - began < 10
    assert not widget.busy
    if answer == STOP:
        assert process.wait(10) == 0
        return
    process.stdin.close()
    time.sleep(1)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    process.wait(30)


def test_what_the_labels_are_decides_the_task(viewer, folders):
    widget, *_ = on_layers(viewer, squares()[1])
    for choice, (task, binary) in zip(
        widget.kind.choices, (("semantic", False), ("instances", False), ("semantic", True)), strict=False
    ):
        widget.kind.value = choice
        config = widget.request().config
        assert (config.task, config.binary) == (task, binary)


def test_labels_of_another_size_are_named_as_in_the_viewer_and_nothing_is_kept(viewer, folders):
    widget, *_ = on_layers(viewer, np.eye(64, dtype=np.uint8))
    widget.start()
    until(lambda: not widget.busy and widget.status.value)
    assert "the labels drawn are 64 x 64, their image cells is 96 x 96" in widget.status.value
    assert not list(folders.glob("models/*"))


def test_a_folder_of_pairs_is_learnt_from(viewer, folders):
    image, mask, _ = squares()
    for kind, data in (("images", image), ("labels", mask)):
        (folders / kind).mkdir()
        for i in range(2):
            tifffile.imwrite(folders / kind / f"{i}.tif", np.roll(data, 5 * i, 0))
    widget = trainer(viewer)
    widget.origin.value = FOLDERS
    widget.images.value, widget.annotations.value = folders / "images", folders / "labels"
    widget.analyse_data()
    until(lambda: not widget.busy)
    assert widget.facts.value.splitlines()[:2] == ["0.tif with 0.tif", "1.tif with 1.tif"]
    assert "2 labelled images" in widget.facts.value


def test_the_class_of_each_object_is_painted_in_a_second_layer(viewer, folders):
    image, mask, _ = squares()
    ids, kinds = np.zeros_like(mask), np.zeros_like(mask)
    ids[20:60, 20:40], ids[20:60, 40:60], ids[70:90, 10:40] = 3, 7, 9
    kinds[30:40, 25:35], kinds[30:40, 45:55] = 1, 4
    widget = trainer(viewer)
    widget.kind.value = "Objects (instances)"
    layers = [
        viewer.add_image(image, name="cells"),
        *(viewer.add_labels(d, name=n) for n, d in (("ids", ids), ("kinds", kinds))),
    ]
    for control, layer in zip(widget.pairs[0], layers, strict=False):
        assert control.visible or not widget.visible
        control.value = layer
    request = widget.request()
    job = TrainJob.read(wait(export_pairs(request)))
    ((_, labels),) = job.stacks()
    assert labels.object_classes == ("class_1", "class_4")
    until(lambda: widget.meaning.seen is not None and widget.meaning.seen.kinds == (1, 4))
    widget.meaning.names.fields[1].value = "round"
    job = TrainJob.read(wait(export_pairs(widget.request())))
    assert job.stacks()[0][1].object_classes == ("round", "class_1")
    found = apart(labels.data[...])
    np.testing.assert_array_equal(found[0], ids)
    np.testing.assert_array_equal(found[1], np.select([ids == 3, ids == 7], [1, 2]))
    widget.analyse_data()
    until(lambda: not widget.busy)
    assert "1 objects without a class: " in widget.facts.value and " round: " in widget.facts.value
    kinds[75, 15:20], kinds[76, 15:20] = 1, 4
    widget.start()
    until(lambda: not widget.busy)
    assert "1 of 3 objects of ids have two classes or more (id 9)" in widget.status.value
    widget.kind.value = "Classes (semantic)"
    assert widget.request().classes is None and not widget.pairs[0][2].visible


@pytest.mark.parametrize("kind", ["rgb", "cyx"])
def test_one_channel_of_an_image_with_several_is_corrected_and_learnt_from(kind, viewer, folders):
    image, mask, _ = squares()
    several = np.stack([image, np.zeros_like(image), image / 2], 0 if kind == "cyx" else -1)
    several = (several / several.max() * 255).astype(np.uint8)
    layer = viewer.add_image(several, name="colours", rgb=kind == "rgb")
    small(2).save(folders / "models" / "one.model")
    widget = trainer(viewer)
    widget.form.learn_from(layer, viewer.add_labels(mask, name="drawn"))
    if kind == "cyx":
        widget.form.axes.value = "cyx"
    assert [name for name in widget.form.channel.choices] == [None, 0, 1, 2]
    widget.start_from.value = folders / "models" / "one.model"
    with pytest.raises(
        ModelError, match="one takes 1 channel; colours has the axes cyx and 3 channels: choose one below"
    ):
        widget.request()
    widget.form.channel.value = 2
    ((stack, _),) = widget.request().stacks()
    assert stack.axes == "yx" or stack.size("c") == 1
    np.testing.assert_array_equal(np.squeeze(stack.data[...]), several[2] if kind == "cyx" else several[..., 2])
    ((kept, labels),) = TrainJob.read(wait(export_pairs(widget.request()))).stacks()
    np.testing.assert_array_equal(np.squeeze(kept.data[...]), np.squeeze(stack.data[...]))
    np.testing.assert_array_equal(labels.data[...], mask)
    assert not cut_pairs(widget.request())


@pytest.mark.parametrize("task", ["Classes (semantic)", "Restore (pairs of images)"])
def test_the_image_of_files_with_several_is_chosen_and_incomplete_ones_are_read(viewer, folders, task):
    image, mask, _ = squares()
    images = task.startswith("Restore")
    for kind, data in (("images", image), ("labels", mask)):
        (folders / kind).mkdir()
        with tifffile.TiffWriter(folders / kind / "0.tif") as file:
            if kind == "images" or images:
                file.write(np.zeros((200, 200), "u1"), metadata=None)
            file.write(data, metadata=None)
    widget = trainer(viewer)
    widget.origin.value, widget.kind.value = FOLDERS, task
    widget.images.value, widget.annotations.value = folders / "images", folders / "labels"
    widget.reading.series.value, widget.reading.allow_incomplete.value = "1", True
    request = widget.request()
    assert [stack.shape for stack in request.stacks()[0]] == [(96, 96)] * 2
    pair = json.loads(wait(export_pairs(request)).read_text())["pairs"][0]
    assert pair["image_options"] == {"series": "1", "allow_incomplete": True}
    assert pair["labels_options"] == (
        {"series": "1", "allow_incomplete": True} if images else {"allow_incomplete": True}
    )


def test_what_cannot_be_learnt_from_is_said(viewer, folders):
    widget = trainer(viewer)
    widget.start()
    assert "press New labels and paint" in widget.status.value
    viewer.add_image(squares()[0], name="cells")
    viewer.add_labels(np.zeros((96, 96), int), name="empty")
    widget.pairs[0][1].value = viewer.layers["empty"]
    widget.start()
    until(lambda: not widget.busy)
    assert "nothing is painted in empty" in widget.status.value
    assert widget.begin_button.enabled
    assert not (folders / "models" / "my-model.model").exists()
