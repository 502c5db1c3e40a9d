"""The widgets, opened and brought to their ends, for tests in a real viewer."""

import time

import numpy as np
from qtpy.QtWidgets import QApplication

from napari_unet.widgets.segment import SegmentWidget
from napari_unet.widgets.train import TrainWidget


def until(done, seconds=60):
    """Let the window work until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came to that"
        QApplication.processEvents()
        time.sleep(0.02)


def opened(viewer, folders, model="flat", block="32 32"):
    """Open the widget with a model chosen."""
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    widget.models.use(folders / "models" / f"{model}.model")
    widget.settings["precision"].value, widget.settings["device"].value = "fp32", "cpu"
    widget.settings["block"].value = block
    return widget


def ran(widget):
    """Run to the end and return the layer."""
    widget.start()
    until(lambda: not widget.busy)
    assert widget.status.value.startswith("done"), widget.status.value
    return widget._result.layer


def trainer(viewer, minutes=0.2):
    """Open the widget, with a tiny network."""
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train")
    # A rate at which some 20 steps find the squares: on a busy machine the minutes are no more.
    values = {"depth": "1", "base_features": "4", "patch": "32 32", "batch": "2", "learning_rate": "0.02"}
    for name, value in values.items():
        widget.plan[name].value = value
    widget.plan["precision"].value, widget.plan["device"].value = "fp32", "cpu"
    widget.minutes.value = minutes
    return widget


def squares():
    """An image of bright squares, their mask, and a sparse annotation: background 1, squares 2."""
    image = np.random.default_rng(0).normal(100, 10, (96, 96)).astype(np.float32)
    mask = np.zeros((96, 96), np.uint8)
    mask[20:60, 20:60] = 1
    mask[70:90, 10:40] = 1
    image[mask > 0] += 60
    painted = np.zeros((96, 96), np.uint8)
    painted[5:15] = 1
    painted[30:50, 30:50] = 2
    painted[75:85, 15:35] = 2
    painted[75:85, 60:80] = 1
    return image, mask, painted
