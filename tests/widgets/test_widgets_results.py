"""What becomes of a result: it is corrected, measured, exported, and learnt from; what is stored stays as it was."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

import tifffile

from helpers import FP32, cells, image_of, tree
from kinds import finder, finder_of_classes, small
from napari_unet import PredictConfig, load_model, open_labels, predict, wait
from napari_unet.arrays.stack import Stack
from napari_unet.store.save import save_stack
from napari_unet.widgets import live
from napari_unet.widgets.files import read
from napari_unet.widgets.layers import Place
from napari_unet.widgets.outcome import legend
from napari_unet.widgets.snippets import command
from windows import opened, ran, until


@pytest.fixture
def folders(folders):
    """Own folders for results and models, with a model of classes and one of objects."""
    for name, model in {"flat": small(2), "objects": finder(min_size=2), "double": small(2, in_channels=2)}.items():
        model.save(folders / "models" / f"{name}.model")
    return folders


@pytest.mark.parametrize("model", ["flat", "objects"])
def test_a_small_result_can_be_painted_on_and_saved_and_what_is_stored_stays(model, viewer, folders):
    viewer.add_image(cells((90, 80)).data, name="cells")
    widget = opened(viewer, folders, model, "32 32")
    layer = ran(widget)
    stored = tree(widget._root)
    assert layer.editable
    layer.mode = "paint"
    layer.paint((50, 50), 7)
    assert layer.data[50, 50] == 7
    layer.undo()
    layer.redo()
    viewer.layers.selection = {layer}
    viewer.layers.save(str(folders / "corrected.tif"), selected=True)
    np.testing.assert_array_equal(tifffile.imread(folders / "corrected.tif"), layer.data)
    assert tree(widget._root) == stored


def test_a_result_is_shown_by_one_layer_from_its_first_block_to_its_end(viewer, folders):
    viewer.add_image(image_of((20, 96, 96)), name="cells")
    widget = opened(viewer, folders, "flat", "1 32 32")
    widget.start()
    until(lambda: widget._result and widget._result.layer is not None)
    layer = widget._result.layer
    assert not layer.editable  # a block would be written over what is painted
    until(lambda: not widget.busy)
    assert widget._result.layer is layer
    assert layer.editable


def test_what_is_painted_in_one_channel_is_painted_in_all(viewer, folders):
    viewer.add_image(image_of((3, 2, 40, 48)), axis_labels=("t", "c", "y", "x"), name="movie")
    layer = ran(opened(viewer, folders, "double"))
    layer.data_setitem((np.array([1]), np.array([0]), np.array([5]), np.array([6])), 9)
    assert (layer.data[1, :, 5, 6] == 9).all()
    assert layer.data[0, 0, 5, 6] != 9


@pytest.mark.parametrize(("axes", "order"), [("tyx", "tcyx"), ("zyx", "zyx"), ("yx", "cyx")])
def test_arranging_an_array_in_memory_copies_no_pixel(axes, order):
    data = np.zeros([3, 4, 5][-len(axes) :])
    place = Place(order, {"c": 2}, (), (), (), np.eye(1))
    found = place.arranged(data, axes)
    assert found.shape == tuple({"t": 3, "z": 3, "c": 2, "y": 4, "x": 5}[a] for a in order)
    assert np.shares_memory(found, data)


def test_a_result_is_opened_again_with_its_measurements_and_named_after_image_and_model(folders):
    stack, out = cells((90, 80)), folders / "well-1.ome.zarr"
    model = load_model(folders / "models" / "objects.model")
    wait(predict(stack, dataclasses.replace(model, record={"name": "spots"}), out, PredictConfig(**FP32)))
    sizes = np.bincount(np.asarray(open_labels(out).data[...]).ravel())
    for place in (out, out / "labels" / "spots"):
        data, about = next((d, a) for d, a, kind in read(place) if kind == "labels" and a.get("visible", True))
        assert about["name"] == "well-1 spots"
        assert len({a["name"] for _, a, _ in read(place)}) == len(read(place))
        assert list(about["features"]["index"]) == list(range(len(sizes)))
        assert list(about["features"]["voxels"])[1:] == list(sizes)[1:]
        assert isinstance(data, np.ndarray)


def test_a_result_is_measured_exported_and_learnt_from_as_it_was_corrected(viewer, folders):
    image = viewer.add_image(cells((90, 80)).data, name="cells", scale=(0.5, 0.5), units="um")
    widget = opened(viewer, folders, "objects", "32 32")
    layer = ran(widget)
    outcome, count = widget.outcome, int(layer.data.max())
    assert widget.status.value.startswith(f"done: {count} objects in ")
    assert not outcome.native.isHidden()
    assert outcome.layer is layer
    layer.data_setitem(np.nonzero(layer.data == 2), 0)  # a false one is taken away, a missed one is drawn
    layer.data_setitem(tuple(np.mgrid[2:6, 3:8].reshape(2, -1)), count + 1)
    outcome.measure_objects()
    until(lambda: not widget.busy)
    found = layer.features.set_index("index")
    assert list(found.index) == sorted(set(range(1, count + 2)) - {2})
    assert found.loc[count + 1, "voxels"] == np.count_nonzero(layer.data == count + 1)
    for name in ("out.tif", "out.ome.zarr", "out.csv"):
        outcome.export_to(folders / name)
        until(lambda: not widget.busy)
        assert widget.status.value == f"exported: {folders / name}"
    np.testing.assert_array_equal(tifffile.imread(folders / "out.tif"), layer.data)
    exported = open_labels(folders / "out.ome.zarr")
    np.testing.assert_array_equal(exported.data[...], layer.data)
    assert exported.scale == (0.5, 0.5)
    assert len((folders / "out.csv").read_text().splitlines()) == count + 1
    outcome.learn.clicked.emit(True)
    train = viewer.window.add_plugin_dock_widget("napari-unet-stacks", "Train")[1]
    assert train.pairs[0][0].value is image
    assert train.pairs[0][1].value is layer
    assert train.kind.value == "Objects (instances)"
    assert train.start_from.value == folders / "models" / "objects.model"
    assert train.tune.enabled
    assert train.tune.text == "Fine-tune objects"
    ((learnt, labels),) = train.request().stacks()
    np.testing.assert_array_equal(labels.data[...], layer.data)
    assert learnt.scale == (0.5, 0.5)


def test_objects_with_classes_have_them_among_their_features(viewer, folders):
    finder_of_classes((90, 80), min_size=3).save(folders / "models" / "kinds.model")
    viewer.add_image(cells((90, 80)).data, name="cells")
    widget = opened(viewer, folders, "kinds", "32 32")
    layer = ran(widget)
    outcome, features = widget.outcome, layer.features.copy()
    count = int(layer.data.max())
    assert set(features["class"]) == {"", "disc", "ring"} and len(features) == count + 1
    discs = int((features["class"] == "disc").sum())
    assert f"disc: {discs} object" in outcome.legend.text()
    assert widget.status.value.startswith(f"done: {count} objects in ")
    layer.data_setitem(tuple(np.mgrid[2:6, 3:8].reshape(2, -1)), count + 1)
    outcome.measure_objects()
    until(lambda: not widget.busy)
    found = layer.features.set_index("index")["class"]
    assert found[count + 1] == ""
    kept = features.set_index("index")["class"]
    assert all(found[i] == kept[i] for i in found.index if i <= count)
    outcome.learn.clicked.emit(True)
    train = viewer.window.add_plugin_dock_widget("napari-unet-stacks", "Train")[1]
    assert train.kind.value == "Objects (instances)"


def test_objects_appear_in_the_layer_that_showed_their_classes(viewer, folders):
    viewer.add_image(cells((90, 80)).data, name="cells")
    widget = opened(viewer, folders, "objects", "32 32")
    widget.start()
    until(lambda: widget._result and widget._result.layer is not None)
    layer = widget._result.layer
    until(lambda: not widget.busy)
    assert viewer.layers[-1] is layer
    labels = open_labels(widget._root).data[...]
    np.testing.assert_array_equal(layer.data, labels)
    assert len({tuple(layer.get_color(i)) for i in range(1, labels.max() + 1)}) > 40  # as objects, not classes


def test_a_copy_of_a_small_result_is_edited_in_memory(viewer, folders):
    viewer.add_image(cells((90, 80)).data, name="cells")
    widget = opened(viewer, folders, "objects", "32 32")
    layer = ran(widget)
    before = layer.data.copy()
    widget.outcome.edit_copy()
    copy = widget.outcome.layer
    assert copy.name == "cells objects edited"
    assert viewer.layers.selection == {copy}
    copy.paint((1, 1), 9)
    np.testing.assert_array_equal(layer.data, before)
    assert copy.data[1, 1] == 9


def test_a_copy_of_a_large_result_is_edited_on_the_disk_and_opens_again(viewer, folders, monkeypatch):
    monkeypatch.setattr(live, "EDITABLE", 100)
    viewer.add_image(cells((90, 80)).data, name="cells")
    widget = opened(viewer, folders, "objects", "32 32")
    layer = ran(widget)
    stored, labels = tree(widget._root), np.asarray(open_labels(widget._root).data[...])
    assert not layer.editable
    widget.outcome.edit_copy()
    until(lambda: not widget.busy)
    copy = widget.outcome.layer
    assert copy.editable
    copy.paint((1, 1), 9)
    assert tree(widget._root) == stored
    place = widget._root.with_name("cells-objects-edited.ome.zarr")
    expected = labels.copy()
    expected[np.asarray(copy.data[...]) == 9] = 9
    assert expected[1, 1] == 9
    np.testing.assert_array_equal(open_labels(place).data[...], expected)
    widget.outcome.edit_copy()  # of the copy
    until(lambda: not widget.busy)
    np.testing.assert_array_equal(np.asarray(widget.outcome.layer.data), expected)


def test_classes_are_shown_with_their_names_colours_and_shares(viewer, folders):
    viewer.add_image(image_of((40, 48)), name="cells")
    widget = opened(viewer, folders)
    layer = ran(widget)
    (line,) = legend(layer)
    share = 100 * np.count_nonzero(layer.data == 1) / layer.data.size
    red, green, blue = (round(255 * part) for part in layer.get_color(1)[:3])
    assert line == f'<span style="color:#{red:02x}{green:02x}{blue:02x}">■</span> foreground {share:.3g} %'
    assert f"done: foreground {share:.3g} % in " in widget.status.value
    layer.data_setitem(tuple(np.mgrid[:20, :48].reshape(2, -1)), 1)
    widget.outcome.measure_objects()
    until(lambda: not widget.busy)
    count = np.count_nonzero(layer.data == 1)
    assert list(layer.features["voxels"]) == [layer.data.size - count, count]
    assert list(layer.features["class"]) == ["background", "foreground"]
    assert next(iter(legend(layer))).endswith(f"foreground {100 * count / layer.data.size:.3g} %")
    assert widget.outcome.legend.text() == "<br>".join(legend(layer))


def test_a_preview_lies_on_its_image_and_goes_by_its_name_whatever_was_looked_at_before(viewer, folders):
    near = viewer.add_image(image_of((70, 90)), name="A", scale=(0.5, 0.5), units="um")
    far = viewer.add_image(image_of((70, 90)), name="B", scale=(2, 2), rotate=30, translate=(7, 8), units="um")
    widget = opened(viewer, folders)
    for image in (near, far, near):
        widget.image.value = image
        widget.show_preview()
        assert widget.preview.text == "Preview …"
        until(lambda: not widget._preview.running)
        assert widget.preview.text == "Preview"
        layer = widget._preview.layer
        assert layer.name == f"{image.name} preview"
        assert layer.data.shape == (70, 90)
        np.testing.assert_allclose(layer.data_to_world((69, 89)), image.data_to_world((69, 89)))


def test_the_preview_goes_when_the_result_itself_is_there(viewer, folders):
    viewer.add_image(image_of((70, 90)), name="cells")
    widget = opened(viewer, folders)
    widget.show_preview()
    until(lambda: widget._preview.layer is not None and not widget._preview.running)
    layer = ran(widget)
    assert list(viewer.layers) == [viewer.layers["cells"], layer]


def test_what_went_wrong_before_is_not_said_of_a_run(viewer, folders):
    viewer.add_image(image_of((20, 96, 96)), name="cells")
    widget = opened(viewer, folders, "flat", "1 32 32")
    widget.fail("the earlier error")
    widget.start()
    assert "earlier" not in widget.status.value
    until(lambda: not widget.busy)


def test_a_tiff_is_opened_from_the_panel_with_its_pixel_size_and_chosen(viewer, folders):
    data, meta = image_of((3, 40, 50)), {"axes": "ZYX", "unit": "um", "spacing": 3}
    tifffile.imwrite(folders / "a.tif", data, imagej=True, resolution=(2, 2), metadata=meta)
    viewer.add_image(data, name="other")
    widget = opened(viewer, folders)
    widget.form.open(str(folders / "a.tif"))
    until(lambda: widget.image.value.name == "a")
    assert tuple(widget.image.value.scale) == (3.0, 0.5, 0.5)
    widget.form.open(str(folders / "nothing.tif"))
    until(lambda: "nothing.tif does not exist" in widget.status.value)


def test_an_image_is_opened_by_its_address_and_run(viewer, folders, server):
    wait(save_stack(Stack(image_of((40, 50)), "yx", scale=(0.5, 0.5), units=("um",) * 2), folders / "a.ome.zarr"))
    widget = opened(viewer, folders)
    widget.form.open(f"{server}/a.ome.zarr")
    until(lambda: widget.image.value is not None)
    at_address = np.asarray(ran(widget).data)
    assert f"{server}/a.ome.zarr" in command(widget.request())
    widget.form.open(str(folders / "a.ome.zarr"))
    until(lambda: widget.form.source.path == str(folders / "a.ome.zarr"))
    np.testing.assert_array_equal(at_address, np.asarray(ran(widget).data))
