"""An imported network in a real viewer: it is offered, run and previewed like any other model."""

import numpy as np
import pytest
import torch

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

from helpers import FP32, image_of
from kinds import small
from napari_unet import Credit, Model, PredictConfig, export_model, load_model, open_stack, predict, wait
from napari_unet.intensities.normalise import Normalisation
from napari_unet.network import GraphConfig, build
from napari_unet.network.steps import Step
from napari_unet.task import Semantic
from napari_unet.widgets.segment import SegmentWidget
from napari_unet.widgets.train import TrainWidget
from napari_unet.zoo.known import known
from windows import opened, ran, until

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture
def model():
    """A graph of one convolution, which looks 2 pixels far."""
    kernel = np.random.default_rng(0).normal(size=(1, 1, 5, 5)).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["raw", "kernel"], ["out"], pads=[2, 2, 2, 2])
    ends = [onnx.helper.make_tensor_value_info(n, 1, ["b", 1, "y", "x"]) for n in ("raw", "out")]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(kernel, "kernel")])
    sets = [onnx.helper.make_opsetid("", 17)]
    data = onnx.helper.make_model(graph, opset_imports=sets, ir_version=8).SerializeToString()
    sizes = {"stride": (1, 1), "halo": (2, 2), "least": (8, 8), "step": (1, 1)}
    steps = {"after": (Step("two_classes"),)}
    channels = {"ndim": 2, "in_channels": 1, "out_channels": 2}
    config = GraphConfig(**channels, bytes=len(data), inner="bcyx", outer="bcyx", **sizes, **steps)
    return Model(config, {"graph": np.frombuffer(data, np.uint8)}, Semantic((0, 1)), Normalisation("zscore"), "yx")


def test_a_window_runs_an_imported_network(model, viewer, folders):
    model.save(folders / "models" / "theirs.model")
    data = image_of((300, 420))
    image = viewer.add_image(data, name="cells")
    widget = opened(viewer, folders, "theirs", "64 64")
    image.corner_pixels = np.array([[30, 40], [130, 160]])
    widget.show_preview()
    until(lambda: widget._preview.layer is not None and not widget._preview.running)
    shown = widget._preview.layer
    y, x = np.asarray(shown.translate).astype(int)
    whole = np.asarray(wait(predict(open_stack(data, "yx"), model, folders / "x.ome.zarr", PredictConfig(**FP32))).data)
    part = whole[y : y + shown.data.shape[0], x : x + shown.data.shape[1]]
    np.testing.assert_array_equal(np.asarray(shown.data), part)
    np.testing.assert_array_equal(np.asarray(ran(widget).data), whole)


def test_a_package_is_imported_by_a_button_and_chosen(viewer, folders):
    pytest.importorskip("bioimageio.spec", reason="bioimageio.spec is not installed")
    made = small(2)
    package = wait(export_model(made, folders / "cells.zip", credit=Credit(["A. Name"], "CC-BY-4.0")))
    viewer.add_image(image_of((60, 70)), name="cells")
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    for number in ("", "-2"):  # the one that is there already stays
        widget.models.bring(package)
        until(lambda: not widget.busy)
        found = folders / "models" / f"cells{number}.model"
        assert widget.model.value == found
        assert widget.status.value == f"imported: {found}"
        assert load_model(found).sha256 == made.sha256
    (folders / "other.zip").write_bytes(b"PK no zip")
    widget.models.bring(folders / "other.zip")
    until(lambda: not widget.busy)
    assert "other.zip" in widget.status.value
    assert widget.model.value == found
    assert len(list((folders / "models").iterdir())) == 2


def test_weights_of_a_known_network_are_imported_by_the_button_and_may_be_started_from(viewer, folders):
    words = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    torch.save(build(known("monai.networks.nets", "UNet", words)).state_dict(), folders / "weights.pth")
    viewer.add_image(image_of((60, 70)), name="cells")
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    widget.models.bring(folders / "weights.pth")
    until(lambda: not widget.busy)
    found = folders / "models" / "weights.model"
    assert widget.model.value == found and load_model(found).config.network == "MONAI UNet"
    train = TrainWidget(viewer)
    assert found in train.start_from.choices
