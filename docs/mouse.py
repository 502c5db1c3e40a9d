"""Journeys by the mouse alone, from a cold start to the end: what is cut off, or grey, ends them."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from screen import NAME, Window

from napari_unet.widgets.files import read

MENU = 3  # clicks: Plugins, U-Net Stacks, and the widget
FILE = 3  # clicks: the button beside Image, what it offers, and the name of the file
BRUSH = 12  # pixels: about half a nucleus


class Journey:
    """One journey, and what it took in clicks and in seconds from its beginning.

    Parameters
    ----------
    path : Path
        The image, or the folder, that it is about.
    """

    def __init__(self, kind: str, path: Path, out: Path, size: tuple[int, int], theme: str) -> None:
        self.path, self._steps, self._began = path, list[str](), time.monotonic()
        self.name = f"{kind}-{path.name.split('.')[0][:12]}-{size[0]}{'-light' if theme == 'light' else ''}"
        self.window = Window(out, size, theme)
        self.viewer = self.window.viewer

    def look(self, what: str) -> None:
        """Note a step, and keep a picture."""
        self._steps.append(f"{what} {self.window.clicks} clicks {time.monotonic() - self._began:.0f} s")
        self.window.shot(f"{self.name}-{what.replace(' ', '-')}")

    def learn(self, train: Any, button: Any, what: str) -> None:
        """Begin a training by a button, look at its live prediction, and wait for its end."""
        self.window.click(button)
        self.window.until(lambda: any("live" in layer.name for layer in self.viewer.layers) or not train.busy, 120)
        self.look("live")
        self.window.until(lambda: not train.busy)
        self.look(what)

    def end(self, said: str) -> None:
        """Write all steps in a line, with what the window said last, and close it."""
        sys.stdout.write(f"{self.name}: {'; '.join(self._steps)}: {said}\n")
        sys.stdout.flush()
        self.window.close()


def correct(path: Path, out: Path, size: tuple[int, int], theme: str) -> None:
    """Preview, run, correct, fine-tune, and run again with what was learnt."""
    journey = Journey("correct", path, out, size, theme)
    window, viewer = journey.window, journey.viewer
    widget = window.widget("Segment")
    window.clicks += MENU + FILE
    widget.form.open(str(path))
    window.until(lambda: widget.image.value is not None, 60)
    window.until(lambda: "block" in widget.preflight.value, 120)
    journey.look("open")
    window.click(widget.preview)
    window.until(lambda: any("preview" in layer.name for layer in viewer.layers), 120)
    window.until(lambda: not widget._preview.running)
    journey.look("preview")
    window.click(widget.run)
    window.until(lambda: not widget.busy)
    journey.look("run")
    if not mended(window, widget):
        journey.end(widget.status.value)
        return
    window.click(widget.outcome.learn)
    train = viewer.window.add_plugin_dock_widget(NAME, "Train")[1]
    window.until(lambda: train.meaning.seen is not None)
    window.write(train.minutes, "0.3")
    journey.look("correct")
    journey.learn(train, train.tune, "fine-tune")
    if train._model is None:
        journey.end(train.status.value)
        return
    viewer.window.add_plugin_dock_widget(NAME, "Segment")[0].raise_()
    window.wait(0.3)
    window.choose(widget.model, train._model.name.removesuffix(".model"))
    window.click(widget.run)
    window.until(lambda: not widget.busy)
    journey.look("run again")
    journey.end(widget.status.value)


def mended(window: Window, widget: Any) -> bool:
    """Paint on the result, of a large one on a copy; False where it is no labels."""
    result = widget.outcome.layer
    if result is None:
        return False
    if not result.editable:
        window.click(widget.outcome.edit)
        window.until(lambda: widget.outcome.layer is not result and not widget.busy)
        result = widget.outcome.layer
    window.viewer.layers.selection = {result}
    result.mode, result.brush_size = "paint", BRUSH
    result.selected_label = int(np.max(result.data)) + (1 if result.features.get("class") is None else 0)
    window.clicks += 2  # the brush, and a label
    place = result.world_to_data(np.asarray(window.viewer.dims.point)[-result.ndim :])
    middle = [n // 2 for n in result.data.shape[-2:]]
    strokes = [(*map(round, place[:-2]), middle[0] + step, middle[1] + step) for step in (-6, 0, 6)]
    window.stroke(result, *strokes)
    return True


def paint(path: Path, out: Path, size: tuple[int, int], theme: str) -> None:
    """Paint strokes of two classes and name one, train with a live prediction, and go on learning."""
    journey = Journey("paint", path, out, size, theme)
    window, viewer = journey.window, journey.viewer
    for layer in read(path)[:1]:
        viewer.add_layer(Layer.create(*layer))
    widget = window.widget("Train")
    window.clicks += MENU + 1
    window.click(widget.painting.new_button)
    layer = widget.painting.layer
    place = layer.world_to_data(np.asarray(viewer.dims.point)[-layer.ndim :])
    rows, columns = layer.data.shape[-2:]
    for number, share in enumerate((0.3, 0.6)):
        window.click(widget.painting.classes[number])
        across = np.linspace(0.2, 0.7, 9)
        window.stroke(layer, *((*map(round, place[:-2]), round(rows * share), round(columns * x)) for x in across))
    window.until(lambda: widget.meaning.seen is not None and len(widget.meaning.seen.values) > 1)
    window.write(widget.meaning.names.fields[0], "cells")
    window.write(widget.minutes, "0.4")
    journey.look("paint")
    journey.learn(widget, widget.begin_button, "train")
    window.click(widget.tune)
    window.until(lambda: not widget.busy)
    journey.look("fine-tune")
    journey.end(widget.status.value)


def montage(path: Path, out: Path, size: tuple[int, int], theme: str) -> None:
    """Segment a folder, and look at the montage and at one image with its result."""
    journey = Journey("montage", path, out, size, theme)
    window = journey.window
    widget = window.widget("Batch")
    window.clicks += MENU
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as results:
        window.write(widget.folder.line_edit, str(path))
        window.write(widget.out.line_edit, results)
        window.choose(widget.model, "nuclei-2d")
        journey.look("choose")
        window.click(widget.run)
        window.until(lambda: not widget.busy)
        journey.look("run")
        window.click(widget.looks["Montage"])
        window.until(lambda: not (widget._drawing and widget._drawing.running))
        journey.look("montage")
        place = widget.montage.visualItemRect(widget.montage.item(0)).center()
        QTest.mouseClick(widget.montage.viewport(), Qt.MouseButton.LeftButton, pos=place)
        window.click(widget.show_button)
        journey.look("show")
        journey.end(widget.status.value)


JOURNEYS = {"correct": correct, "paint": paint, "montage": montage}
