"""The Segment widget in a real viewer: what it shows is what `predict` writes, whatever happens meanwhile."""

import contextlib
import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

import dask.array as da
import zarr
from qtpy.QtWidgets import QApplication

from helpers import FP32, cells, image_of, tree
from kinds import finder, finder_of_classes, small
from napari_unet import PredictConfig, load_model, open_stack, predict, read_table, wait
from napari_unet.arrays.stack import Stack
from napari_unet.cli import app
from napari_unet.inference.diagnostics import annotate_next
from napari_unet.inference.preflight import preflight
from napari_unet.process import remote
from napari_unet.process.parcel import NotSentError, pack
from napari_unet.store.save import save_stack
from napari_unet.widgets.files import add_layers
from napari_unet.widgets.panel import STAY, STOP
from napari_unet.widgets.segment import SegmentWidget
from windows import opened, ran, until


@pytest.fixture
def folders(folders):
    """Own folders for results and models, with models of 2-D, 3-D and two channels."""
    for name, model in {
        "flat": small(2),
        "deep": small(3, depth=1),
        "double": small(2, in_channels=2),
    }.items():
        model.save(folders / "models" / f"{name}.model")
    return folders


def expected(stack, folders, model="flat"):
    return np.asarray(
        wait(
            predict(
                stack,
                load_model(folders / "models" / f"{model}.model"),
                folders / "x.ome.zarr",
                PredictConfig(**FP32),
            )
        ).data
    )


KINDS = {
    "numpy": lambda data: ({"data": data}, data.shape),
    "dask": lambda data: ({"data": da.from_array(data, chunks=(1, 40, 40))}, data.shape),
    "zarr": lambda data: ({"data": zarr.array(data, chunks=(2, 32, 32))}, data.shape),
    "multiscale": lambda data: ({"data": [data, data[:, ::2, ::2]], "multiscale": True}, data.shape),
    "turned": lambda data: ({"data": data, "rotate": 20, "scale": (3, 0.5, 0.5), "units": "um"}, data.shape),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["flat", "deep"])
def test_the_result_of_any_layer_is_that_of_predict(kind, model, viewer, folders):
    data = image_of((6, 70, 90))
    image = viewer.add_image(**KINDS[kind](data)[0], name="cells")
    widget = opened(viewer, folders, model, "4 32 32" if model == "deep" else "32 32")
    layer = ran(widget)
    found = layer.data[0] if layer.multiscale else layer.data
    np.testing.assert_array_equal(np.asarray(found), expected(open_stack(data, "zyx"), folders, model))
    np.testing.assert_allclose(image.data_to_world((2, 10, 20)), layer.data_to_world((2, 10, 20)), atol=1e-6)
    assert layer.units == image.units
    assert list(layer.features["class"]) == ["background", "foreground"]
    assert layer.features["voxels"].sum() == data.size


def test_objects_are_shown_with_what_is_known_of_each(viewer, folders):
    finder(min_size=2).save(folders / "models" / "objects.model")
    stack = cells((90, 80))
    viewer.add_image(stack.data, name="cells")
    widget = opened(viewer, folders, "objects", "32 32")
    layer = ran(widget)
    labels = np.asarray(layer.data)
    np.testing.assert_array_equal(labels, expected(stack, folders, "objects"))
    sizes = np.bincount(labels.ravel())
    assert list(layer.features["index"]) == list(range(len(sizes)))
    assert list(layer.features["voxels"])[1:] == list(sizes)[1:]
    assert layer.features["touches_border"].isin([0, 1]).all()
    assert [layer.name for layer in viewer.layers] == ["cells", layer.name]


def test_colours_and_channels_are_chosen_from(viewer, folders):
    rgb = image_of((40, 50, 3)).astype(np.uint8)
    viewer.add_image(rgb, rgb=True, name="stain")
    widget = opened(viewer, folders)
    widget.channel.value = 1
    layer = ran(widget)
    np.testing.assert_array_equal(np.asarray(layer.data), expected(open_stack(rgb[..., 1], "yx"), folders))


def test_what_was_chosen_stays_when_layers_come_go_and_are_renamed(viewer, folders):
    widget = opened(viewer, folders)
    rgb = image_of((40, 50, 3)).astype(np.uint8)
    stain = viewer.add_image(rgb, rgb=True, name="stain")
    assert widget.channel.choices == (0, 1, 2)  # though the widget was there before the image
    widget.channel.value = 2
    points = viewer.add_points(name="marks")
    stain.name = "stained"
    viewer.layers.remove(points)
    assert widget.channel.value == 2
    ran(widget)
    assert widget.channel.value == 2
    levels = [image_of((64, 64)), image_of((32, 32))]
    viewer.add_image(levels, multiscale=True, name="levels", scale=(0.5, 0.5))
    widget.image.value = viewer.layers["levels"]
    coarse = next(size for size in widget.size.choices if size.level == 1)
    widget.size.value = coarse
    viewer.layers["levels"].name = "pyramid"
    assert widget.size.value == coarse


def test_the_model_that_suits_the_image_is_offered_until_one_is_chosen(viewer, folders):
    viewer.add_image(image_of((40, 40)), name="nuclei")
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    assert widget.entry.name == "nuclei-2d"
    sections = viewer.add_image(image_of((40, 40)), name="sections", scale=(4, 4), units="nm")
    widget.image.value = sections
    assert widget.entry.name == "membranes-em" and "membrane" in widget.about.value
    widget.models.use(folders / "models" / "flat.model")
    widget.image.value = viewer.layers["nuclei"]
    assert widget.entry.name == "flat"


def test_an_axis_of_channels_stays_where_it_is(viewer, folders):
    data = image_of((3, 2, 40, 48))
    viewer.add_image(data, axis_labels=("t", "c", "y", "x"), name="movie")
    widget = opened(viewer, folders, "double")
    layer = ran(widget)
    assert layer.data.shape == data.shape
    whole = expected(Stack(data, "tcyx"), folders, "double")
    for channel in range(2):
        np.testing.assert_array_equal(np.asarray(layer.data)[:, channel], whole)


def test_five_dimensions_are_segmented_at_every_time_point(viewer, folders):
    data = image_of((2, 2, 4, 40, 48))
    viewer.add_image(data, axis_labels=("t", "c", "z", "y", "x"), name="movie of stacks")
    widget = opened(viewer, folders, "deep", "4 32 32")
    widget.channel.value = 1
    layer = ran(widget)
    whole = expected(Stack(data[:, 1], "tzyx"), folders, "deep")
    np.testing.assert_array_equal(np.broadcast_to(np.asarray(layer.data), data.shape)[:, 0], whole)


def test_what_does_not_fit_is_said_and_nothing_is_written(viewer, folders):
    viewer.add_image(image_of((40, 50)), name="plane")
    widget = opened(viewer, folders, "deep")
    until(lambda: "3-D and needs zyx" in widget.preflight.value)
    widget.start()
    until(lambda: not widget.busy)
    assert "3-D and needs zyx" in widget.status.value
    widget.status.value = ""
    widget.show_preview()
    until(lambda: widget.status.value)
    assert "3-D and needs zyx" in widget.status.value
    assert not (folders / "results").exists()
    assert widget.run.enabled


def test_the_preview_is_the_final_result_there(viewer, folders):
    data = image_of((4, 900, 1000))
    image = viewer.add_image(data, name="cells", scale=(2, 0.5, 0.5))
    widget = opened(viewer, folders)
    viewer.dims.set_point(0, 4)

    def preview(left, right):
        image.corner_pixels = np.array([[0, 300, left], [0, 500, right]])
        widget.show_preview()
        until(lambda: widget._preview.layer is not None and not widget._preview.running)

    preview(100, 380)
    layer = widget._preview.layer
    z, y, x = (np.asarray(layer.translate) / layer.scale).astype(int)
    assert z == 2
    assert layer.data.shape[1] >= 200
    whole = expected(open_stack(data, "zyx"), folders)
    part = whole[z : z + 1, y : y + layer.data.shape[1], x : x + layer.data.shape[2]]
    np.testing.assert_array_equal(np.asarray(layer.data), part)
    preview(100, 700)
    np.testing.assert_array_equal(
        np.asarray(layer.data), whole[z : z + 1, y : y + layer.data.shape[1], x : x + layer.data.shape[2]]
    )


def test_a_preview_of_objects_shows_them_and_names_those_that_its_edge_cuts(viewer, folders):
    model = finder(min_size=9)
    model.save(folders / "models" / "finder.model")
    data = cells((420, 400)).data
    image = viewer.add_image(data, name="cells")
    widget = opened(viewer, folders, "finder")
    image.corner_pixels = np.array([[0, 0], [150, 140]])
    widget.show_preview()
    until(lambda: widget._preview.layer is not None and not widget._preview.running)
    layer = widget._preview.layer
    labels = np.asarray(layer.data)
    whole = expected(open_stack(data, "yx"), folders, "finder")[: labels.shape[0], : labels.shape[1]]
    cut = layer.features["index"].tolist()
    assert len(cut) > 1 and labels.max() > len(cut)
    kept = ~np.isin(labels, cut)
    assert kept.any() and len(np.unique(labels[kept])) == len(np.unique(whole[kept]))
    assert "of them cut by the edge of the preview" in viewer.status


def test_a_preview_of_objects_with_classes_shows_the_class_of_each(viewer, folders, tmp_path):
    finder_of_classes((45, 50), min_size=3).save(folders / "models" / "finder.model")
    data = cells((45, 50)).data
    image = viewer.add_image(data, name="cells")
    widget = opened(viewer, folders, "finder")
    image.corner_pixels = np.array([[0, 0], [45, 50]])
    widget.show_preview()
    until(lambda: widget._preview.layer is not None and not widget._preview.running)
    shown = widget._preview.layer.features
    wait(predict(Stack(data, "yx"), folders / "models" / "finder.model", tmp_path / "run.ome.zarr"))
    run = read_table(tmp_path / "run.ome.zarr" / "labels" / "instances")
    assert shown["index"].tolist() == run["index"].tolist() and shown["class"].tolist() == run["class"].tolist()
    assert set(run["class"]) == {"", "disc", "ring"} and f"{(run['class'] == 'disc').sum()} disc" in viewer.status


def test_a_run_shows_what_the_preview_did_until_the_image_is_changed(viewer, folders):
    image = viewer.add_image(image_of((150, 140)), name="cells")
    widget = opened(viewer, folders)
    image.corner_pixels = np.array([[0, 0], [150, 140]])
    widget.show_preview()
    until(lambda: widget._preview.layer is not None and not widget._preview.running)
    previewed = np.array(widget._preview.layer.data)
    np.testing.assert_array_equal(np.asarray(ran(widget).data), previewed)
    image.data[70, 70] ^= 1  # as a user does who mends a pixel by hand
    widget.out.value = str(folders / "results" / "mended.ome.zarr")
    whole = expected(Stack(image.data, "yx"), folders)
    np.testing.assert_array_equal(np.asarray(ran(widget).data), whole)
    widget.show_preview()
    until(lambda: not widget._preview.running)
    np.testing.assert_array_equal(widget._preview.layer.data, whole)


def test_a_cancelled_run_goes_on_to_the_same_bytes(viewer, folders):
    data = image_of((60, 96, 96))
    viewer.add_image(data, name="cells")
    widget = opened(viewer, folders, "flat", "1 32 32")
    out = widget.out.value
    widget.start()
    until(lambda: widget.progress.value > 50)
    widget.stop()
    until(lambda: not widget.busy)
    assert "Resume" in widget.status.value
    until(lambda: widget.run.text == "Resume")
    assert "blocks are done" in widget.preflight.value
    layer = ran(widget)
    assert list(viewer.layers) == [viewer.layers["cells"], layer]  # what the stopped run showed is gone
    until(lambda: widget.run.text == "Run")
    config = PredictConfig(block=(1, 32, 32), **FP32)
    model = load_model(folders / "models" / "flat.model")
    stack = dataclasses.replace(open_stack(data, "zyx"), name="cells")
    wait(predict(stack, model, folders / "y.ome.zarr", config))
    assert tree(out) == tree(folders / "y.ome.zarr")


def test_in_a_process_in_a_thread_and_from_the_shell_a_run_gives_the_same_bytes(viewer, folders):
    data, path, found = image_of((6, 96, 96)), folders / "raw.zarr", {}
    zarr.create_array(path, data=data, chunks=(2, 32, 32), dimension_names=["z", "y", "x"])
    lazy = da.from_array(data, chunks=(2, 32, 32)).map_blocks(lambda part: part)
    widget = opened(viewer, folders, "flat", "1 32 32")
    for way, array in {"process": data, "thread": lazy}.items():
        viewer.layers.clear()
        viewer.add_image(array, name="raw", metadata={"napari_unet": {"path": str(path)}})
        widget.out.value = str(folders / f"{way}.ome.zarr")
        with contextlib.nullcontext() if way == "process" else pytest.raises(NotSentError, match="lambda"):
            pack(widget.request().run())
        ran(widget)
        found[way] = tree(folders / f"{way}.ome.zarr")
    widget.out.value = str(folders / "shell.ome.zarr")
    widget.copy_command()
    with pytest.raises(SystemExit) as end:
        app(shlex.split(QApplication.clipboard().text())[1:])
    assert not end.value.code
    assert found["process"] == found["thread"] == tree(folders / "shell.ome.zarr")


def test_a_run_whose_process_is_killed_says_so_and_goes_on_and_what_was_painted_stays(viewer, folders):
    data = image_of((60, 96, 96))
    viewer.add_image(data, name="cells")
    painted = viewer.add_labels(np.zeros(data.shape, np.uint8), name="painted")
    painted.data[3] = 2
    widget = opened(viewer, folders, "flat", "1 32 32")
    widget.start()
    until(lambda: widget.progress.value > 50)
    for child in set(remote._children._all) - set(remote._children._idle):
        child.process.kill()  # as the system does when memory runs out
    until(lambda: not widget.busy)
    assert 'memory ran out; what is done is kept; close other programs, or choose less with "Memory"' in (
        widget.status.value
    )
    assert (painted.data[3] == 2).all()
    until(lambda: widget.run.text == "Resume" and "blocks are done" in widget.preflight.value)
    np.testing.assert_array_equal(np.asarray(ran(widget).data), expected(open_stack(data, "zyx"), folders))


def test_a_finished_result_is_never_written_over(viewer, folders):
    viewer.add_image(image_of((50, 60)), name="cells")
    widget = opened(viewer, folders)
    first = widget.out.value
    layer = ran(widget)
    widget.out.value = first
    again = ran(widget)  # at once, before it is known what lies there
    assert widget._root.name == "cells-flat-2.ome.zarr"
    assert again is not layer
    until(lambda: widget.out.value.endswith("cells-flat-3.ome.zarr"))
    until(lambda: "block" in widget.preflight.value)


def test_labels_that_are_finished_in_an_image_itself_are_named_and_the_form_stays(viewer, folders):
    wait(save_stack(Stack(image_of((50, 60)), "yx"), folders / "a.ome.zarr"))
    add_layers(viewer, folders / "a.ome.zarr")
    widget = opened(viewer, folders)
    widget.settings["in_source"].value = True
    ran(widget)
    out = widget.out.value
    until(lambda: "of this name already" in widget.preflight.value)
    assert widget.out.value == out
    widget.start()
    until(lambda: not widget.busy)
    assert "finished already" in widget.status.value
    widget.settings["name"].value = "again"
    until(lambda: "block" in widget.preflight.value)
    assert widget.run.text == "Run"


def test_the_image_may_be_removed_while_it_is_segmented(viewer, folders):
    data = image_of((20, 96, 96))
    image = viewer.add_image(data, name="cells")
    widget = opened(viewer, folders, "flat", "1 32 32")
    widget.start()
    until(lambda: widget._result and widget._result.layer is not None)
    viewer.layers.remove(image)
    until(lambda: not widget.busy)
    assert "image was removed" in widget.status.value
    np.testing.assert_array_equal(np.asarray(widget._result.layer.data), expected(open_stack(data, "zyx"), folders))


def test_a_result_whose_layer_was_removed_stays_away_and_is_named(viewer, folders):
    viewer.add_image(image_of((20, 96, 96)), name="cells")
    widget = opened(viewer, folders, "flat", "1 32 32")
    widget.start()
    until(lambda: widget._result and widget._result.layer is not None)
    viewer.layers.remove(widget._result.layer)
    until(lambda: not widget.busy)
    assert [layer.name for layer in viewer.layers] == ["cells"]
    assert "its layer was removed" in widget.status.value


def test_two_runs_into_one_place_are_kept_apart(viewer, folders):
    viewer.add_image(image_of((40, 96, 96)), name="cells")
    widgets = [opened(viewer, folders, "flat", "1 32 32") for _ in range(2)]
    widgets[0].start()
    until(lambda: widgets[0]._result and widgets[0]._result.layer is not None)
    assert not widgets[0].run.enabled
    widgets[1].out.value = widgets[0].out.value
    widgets[1].start()
    until(lambda: not widgets[1].busy)
    refused = "is being written by" in widgets[1].status.value
    assert refused or widgets[1]._root != widgets[0]._root  # the first had ended: it stays, and the next name is taken
    until(lambda: not widgets[0].busy)
    assert widgets[0].status.value.startswith("done")


@pytest.mark.parametrize("answer", [STAY, STOP])
def test_closing_the_window_asks_first(answer, viewer, folders, monkeypatch):
    viewer.add_image(image_of((60, 96, 96)), name="cells")
    widget = opened(viewer, folders, "flat", "1 32 32")
    asked = []
    monkeypatch.setattr(SegmentWidget, "ask_closing", lambda self: asked.append(True) or answer)
    widget.start()
    until(lambda: widget.progress.value > 20)
    window = widget._guard.parent()
    closed = window.close() if answer == STAY else None
    if answer == STAY:
        assert not closed
        assert widget.busy
        until(lambda: not widget.busy)
    else:
        widget._guard.eventFilter(window, _close_event())
        assert not widget.busy
        model = load_model(folders / "models" / "flat.model")
        config = PredictConfig(block=(1, 32, 32), **FP32)
        found = preflight(open_stack(viewer.layers[0], "zyx"), model, widget.out.value, config)
        assert found.state == "unfinished"
        assert 0 < found.done < found.blocks
    assert asked


def _close_event():
    from qtpy.QtGui import QCloseEvent

    return QCloseEvent()


def test_a_run_reads_each_chunk_of_a_lazy_pyramid_once(viewer, folders):
    data = image_of((6, 256, 256))
    reads = {}

    def load(block_info=None):
        at = tuple(block_info[None]["chunk-location"])
        reads[at] = reads.get(at, 0) + 1
        return data[tuple(slice(a, b) for a, b in block_info[None]["array-location"])]

    chunks = ((2, 2, 2), (64,) * 4, (64,) * 4)
    fine = da.map_blocks(load, chunks=chunks, dtype=data.dtype, meta=np.empty((0, 0, 0), data.dtype))
    viewer.add_image([fine, data[:, ::2, ::2]], multiscale=True, name="lazy")
    widget = opened(viewer, folders, "deep", "2 64 64")
    until(lambda: "block" in widget.preflight.value)
    viewer.layers[0].visible = False
    reads.clear()
    layer = ran(widget)
    assert set(reads.values()) == {1}
    assert len(reads) == 3 * 4 * 4
    found = layer.data[0] if layer.multiscale else layer.data
    np.testing.assert_array_equal(np.asarray(found), expected(open_stack(data, "zyx"), folders, "deep"))


def test_the_copied_run_is_the_same_run(viewer, folders):
    path = folders / "raw.zarr"
    zarr.save_array(path, image_of((40, 50)))
    viewer.add_image(image_of((40, 50)), name="raw", metadata={"napari_unet": {"path": str(path)}})
    widget = opened(viewer, folders)
    widget.copy_python()
    text = QApplication.clipboard().text()
    namespace = {}
    code = compile(text, "copied", "exec")
    exec(code, namespace)
    np.testing.assert_array_equal(
        np.asarray(namespace["result"].data), expected(open_stack(image_of((40, 50)), "yx"), folders)
    )
    widget.copy_command()
    words = QApplication.clipboard().text()
    assert words.startswith("napari-unet predict")
    assert "--block 32 32" in words


def test_probabilities_come_as_layers_of_their_own(viewer, folders):
    viewer.add_image(image_of((3, 40, 50)), name="cells")
    widget = opened(viewer, folders)
    widget.probabilities.value = True
    ran(widget)
    names = [layer.name for layer in viewer.layers]
    assert names == ["cells", "cells flat", "cells flat: background", "cells flat: foreground"]
    sums = sum(np.asarray(viewer.layers[name].data).astype(int) for name in names[2:])
    assert abs(sums - 255).max() <= 1


def test_where_to_annotate_next_is_shown_as_points(viewer, folders):
    image = viewer.add_image(image_of((3, 140, 150)), name="cells", scale=(2, 0.5, 0.5), units="um")
    widget = opened(viewer, folders)
    widget.settings["uncertainty"].value = True
    layer = ran(widget)
    names = [layer.name for layer in viewer.layers]
    assert names[2:] == ["cells flat: uncertainty", "cells flat: annotate next"]
    points = viewer.layers[-1]
    places = annotate_next(Path(layer.metadata["napari_unet"]["path"]).parents[1])
    np.testing.assert_allclose(points.data, [centre for centre, _ in places])
    np.testing.assert_allclose(points.data_to_world(points.data[0]), image.data_to_world(points.data[0]))


def test_seams_are_measured(viewer, folders):
    viewer.add_image(image_of((300, 300)), name="cells")
    widget = opened(viewer, folders)
    widget.check_seams()
    until(lambda: not widget.busy)
    assert widget.status.value.startswith("0 of")
