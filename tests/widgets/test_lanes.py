"""One short way through everything, for environments with the oldest or the newest of what the package works with."""

import importlib
import pkgutil
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import napari_unet
from napari_unet import TrainConfig, evaluate, load_model, open_labels, open_stack, predict, train, wait
from napari_unet.errors import UnetError
from napari_unet.store import verify
from windows import until

GOING, OURS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning), str(Path(napari_unet.__file__).parent)


@pytest.fixture
def going():
    """What other packages warn of, where a line of ours is what calls it: a warning's own file name is not always that.

    The line is that of the innermost frame outside of the warnings and of the file that gives one.
    """
    found = []

    def note(message, category, *_):
        outward = [frame.filename for frame in reversed(traceback.extract_stack()[:-1])]
        outward = [name for name in outward if Path(name).name != "warnings.py"]
        caller = next((name for name in outward if name != outward[0]), "")
        if issubclass(category, GOING) and caller.startswith(OURS):
            found.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        yield found


def boxes(seed=0):
    """Bright boxes on a noisy ground, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((64, 64), np.uint16)
    for number, (row, column) in enumerate(rng.integers(4, 60, (8, 2)), 1):
        labels[row - 4 : row + 4, column - 4 : column + 4] = number
    return np.where(labels, 180, 60).astype(np.uint16) + rng.integers(0, 20, labels.shape).astype(np.uint16), labels


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny network, trained from a TIFF and a zarr."""
    folder = tmp_path_factory.mktemp("trained")
    image, labels = boxes()
    tifffile.imwrite(folder / "image.tif", image, imagej=True, metadata={"axes": "YX", "unit": "um"})
    zarr.save_array(str(folder / "labels.zarr"), (labels > 0).astype(np.uint8))
    pair = open_stack(folder / "image.tif"), open_labels(folder / "labels.zarr", axes="yx")
    wishes = {"steps": 8, "depth": 1, "base_features": 4, "patch": (32, 32), "batch": 2}
    wait(train([pair], folder / "tiny.model", config=TrainConfig(device="cpu", precision="fp32", **wishes)))
    return folder / "tiny.model"


def test_every_module_is_imported():
    names = [found.name for found in pkgutil.walk_packages(napari_unet.__path__, "napari_unet.")]
    assert len(names) > 100
    for name in names:
        if name.endswith("__main__"):
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as missing:  # what an extra brings for files of one vendor
            assert name.startswith("napari_unet.sources.formats."), name
            assert not (missing.name or "").startswith("napari_unet"), name


def test_an_image_is_segmented_and_scored_with_a_network_trained_here(model, tmp_path):
    image, labels = boxes(1)
    tifffile.imwrite(tmp_path / "b.ome.tif", np.stack([image] * 3), metadata={"axes": "ZYX", "PhysicalSizeX": 0.5})
    found = wait(predict(open_stack(tmp_path / "b.ome.tif"), load_model(model), tmp_path / "b.ome.zarr"))
    assert found.shape == (3, 64, 64)
    assert not wait(verify(tmp_path / "b.ome.zarr"))
    truth = open_stack(np.stack([labels > 0] * 3).astype(np.uint8), "zyx")
    assert 0 <= evaluate(open_labels(tmp_path / "b.ome.zarr"), truth).scores["pixel_error"] <= 1
    with pytest.raises(UnetError):
        open_stack(tmp_path / "nothing.tif")


def test_the_window_segments_a_layer_as_the_library_does_and_uses_nothing_that_will_go(
    model, folders, viewer, tmp_path, going
):
    from napari_unet.widgets.segment import SegmentWidget

    image, _ = boxes(2)
    viewer.add_image(image, name="boxes")
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    widget.models.use(model)
    widget.start()
    until(lambda: not widget.busy)
    assert widget.status.value.startswith("done"), widget.status.value
    layer = viewer.layers[-1]
    shown = layer.data[0] if layer.multiscale else layer.data
    expected = wait(predict(open_stack(image, "yx"), load_model(model), tmp_path / "same.ome.zarr"))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(expected.data))
    assert going == []


@pytest.mark.parametrize("name", ["train:TrainWidget", "batch:BatchWidget"])
def test_the_other_widgets_open_and_use_nothing_that_will_go(name, folders, viewer, going):
    module, _, widget = name.partition(":")
    opened = getattr(importlib.import_module(f"napari_unet.widgets.{module}"), widget)(viewer)
    viewer.window.add_dock_widget(opened, name=widget)
    assert opened.native.window() is viewer.window._qt_window
    assert going == []


def test_curves_are_drawn_with_what_every_viewer_brings(display, qapp):
    from napari_unet.widgets.curves import COLOURS, Curves

    shown = Curves()
    shown.resize(300, 300)
    ground = colours(shown)
    shown.add(1, {"training": 0.5, "validation": None}, {"IoU": float("nan"), "Dice": 0.5})
    shown.add(3, {"training": 0.25, "validation": 0.125}, {"IoU": float("inf"), "Dice": 0.5})
    assert shown.points == {
        "training": ([1, 3], [0.5, 0.25]),
        "validation": ([3], [0.125]),
        "Dice": ([1, 3], [0.5, 0.5]),
    }
    assert {*COLOURS[:2]} <= colours(shown) - ground
    shown.clear()
    assert shown.points == {}
    assert colours(shown) == ground


def colours(widget):
    """The colours of a widget's pixels."""
    picture = widget.grab().toImage()
    return {picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(picture.height())}
