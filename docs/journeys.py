"""Drive the three journeys in a real window, and keep pictures: ``python docs/journeys.py --out docs/images``.

Segment a pyramid of 8192 x 8192 that ships as sample data; paint a few labels, train, and segment with the new model;
segment a folder. ``clicks`` is a fourth, short one, made with the mouse alone: it fails where the result is not what it
should be. ``correct`` and ``paint`` are made with the mouse alone on ``--images``, ``montage`` on folders, in a window
of ``--size``; they say what each step took in clicks and seconds. ``recording`` makes the moving picture of the README:
preview, run, correct, fine-tune. All that is made goes to a temporary folder. Needs a screen, or ``xvfb-run``.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import napari
import numpy as np
import tifffile
from mouse import JOURNEYS
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from screen import NAME, SIZE, Window

from napari_unet.cards import locate
from napari_unet.demo import example
from napari_unet.widgets.preferences import plugin_settings

LEAST_DICE = 0.9  # of the model that ships, on an image like those it learnt from


def segment(out: Path) -> None:
    """Open the large sample, look at a preview, run, and keep the labels filling in."""
    window = Window(out)
    viewer = window.viewer
    viewer.open_sample(NAME, "nuclei-large")
    widget = window.widget("Segment")
    window.until(lambda: "blocks" in widget.preflight.value)
    camera = getattr(viewer, "scene", viewer).camera  # the viewer itself has it before napari 0.9
    camera.zoom = camera.zoom * 12
    widget.show_preview()
    window.until(lambda: any("preview" in layer.name for layer in viewer.layers))
    window.until(lambda: not widget._preview.running)
    window.shot("segment-preview")
    viewer.layers.remove("nuclei-large preview" if "nuclei-large preview" in viewer.layers else viewer.layers[-1].name)
    viewer.reset_view()
    widget.start()
    for name, share in (("start", 0.02), ("middle", 0.4)):
        window.until(lambda share=share: widget.progress.value >= 1000 * share or not widget.busy)
        window.shot(f"segment-{name}")
    window.until(lambda: not widget.busy)
    window.shot("segment-end")
    window.close()


def train(out: Path) -> None:
    """Paint some labels, train with a live prediction, and segment with the new model."""
    window = Window(out)
    viewer = window.viewer
    image, truth = example()
    viewer.add_image(image, name="nuclei", scale=(0.5, 0.5), units="um")
    painted = viewer.add_labels(scribbles(truth), name="painted", scale=(0.5, 0.5), units="um")
    widget = window.widget("Train")
    widget.form.learn_from(viewer.layers["nuclei"], painted)
    window.until(lambda: widget.meaning.seen is not None)
    widget.sparse.value, widget.background.value = True, 1
    widget.minutes.value, widget.title.value = 1.0, "painted-nuclei"
    widget.analyse_data()
    window.until(lambda: not widget.busy)
    window.shot("train-start")
    widget.start()
    window.until(lambda: any("live" in layer.name for layer in viewer.layers), 60)
    window.until(lambda: len(widget.curves.points.get("training", ([], []))[0]) >= 4 or not widget.busy)
    window.shot("train-middle")
    window.until(lambda: not widget.busy)
    window.shot("train-end")
    for layer in list(viewer.layers)[1:]:
        layer.visible = False
    chosen = window.widget("Segment")
    chosen.models.use(widget._model)
    chosen.start()
    window.until(lambda: not chosen.busy)
    window.shot("train-segment")
    window.close()


def batch(out: Path, work: Path) -> None:
    """Segment a folder of images, one of them broken."""
    folder = work / "images"
    folder.mkdir()
    image, _ = example()
    for i in range(6):
        part = np.roll(image, 97 * i, i % 2)[: 256 + 32 * i]
        tifffile.imwrite(folder / f"well-{i + 1}.tif", part, metadata={"axes": "YX"})
    (folder / "well-7.tif").write_bytes(b"II*\0 broken")
    window = Window(out)
    widget = window.widget("Batch")
    widget.folder.value, widget.out.value, widget.model.value = folder, work / "results", locate("nuclei-2d")
    widget.start()
    window.until(lambda: not widget.busy)
    widget.table.selectRow(0)
    widget.show_chosen()
    window.shot("batch-end")
    window.close()


def clicks(out: Path) -> None:
    """Segment a sample with the mouse alone, and hold the result against the sample's own labels."""
    window = Window(out)
    layers = window.viewer.layers
    window.viewer.open_sample(NAME, "nuclei")
    truth = np.asarray(layers["nuclei labels"].data) > 0
    widget = window.widget("Segment")
    QTest.keyClicks(widget.model.native, "nuclei-2d")
    window.until(lambda: bool(widget.preflight.value), 120)
    QTest.mouseClick(widget.run.native, Qt.MouseButton.LeftButton)
    window.until(lambda: not widget.busy, 120)
    window.shot("clicks")
    if not widget.status.value.startswith("done"):
        raise SystemExit(widget.status.value)
    shown = layers[-1].data[0] if layers[-1].multiscale else layers[-1].data
    found = np.asarray(shown) > 0
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    sys.stdout.write(f"napari {napari.__version__}: {layers[-1].name} by clicks, Dice with its labels {dice:.3f}\n")
    if dice < LEAST_DICE:
        raise SystemExit(f"a Dice of {LEAST_DICE} or more was expected")
    window.close()


def recording(out: Path) -> None:
    """Film a preview, a run, a correction, and what a model makes of it after it has learnt it."""
    window = Window(out)
    viewer = window.viewer
    viewer.open_sample(NAME, "nuclei")
    viewer.layers.remove("nuclei labels")
    widget = window.widget("Segment")
    QTest.keyClicks(widget.model.native, "nuclei-2d")
    window.until(lambda: bool(widget.preflight.value))
    window.film = []
    window.wait(1.6)
    window.click(widget.preview)
    window.until(lambda: any("preview" in layer.name for layer in viewer.layers))
    window.until(lambda: not widget._preview.running)
    window.wait(1.6)
    window.click(widget.run)
    window.until(lambda: not widget.busy)
    window.wait(2.4)
    layer = widget.outcome.layer
    layer.selected_label, layer.brush_size = int(layer.data.max()) + 1, 16
    layer.mode = "paint"
    for turn in np.linspace(0, 2 * np.pi, 12):
        layer.paint((256 + 8 * np.sin(turn), 256 + 10 * np.cos(turn)), layer.selected_label)
        window.wait(0.2)
    window.click(widget.outcome.learn)
    train = viewer.window.add_plugin_dock_widget(NAME, "Train")[1]
    train.minutes.value = 0.4
    window.click(train.tune)
    window.until(lambda: any("live" in layer.name for layer in viewer.layers) or not train.busy)
    window.until(lambda: not train.busy)
    window.wait(2)
    window.save_film("journey")
    window.close()


def scribbles(truth: np.ndarray) -> np.ndarray:
    """Paint the middles of some nuclei (2) and strokes of background between them (1); the rest is unlabelled."""
    from scipy import ndimage

    painted = np.zeros(truth.shape, np.uint8)
    middles = ndimage.binary_erosion(truth, iterations=3)
    far = ndimage.binary_erosion(truth == 0, iterations=4)
    for y, x in [(60, 60), (60, 300), (200, 180), (330, 80), (330, 400), (450, 250)]:
        box = (slice(y - 30, y + 30), slice(x - 30, x + 30))
        painted[box][far[box]] = 1
        painted[box][middles[box]] = 2
    return painted


def main() -> None:
    """Run the journeys that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journeys", nargs="*", default=["segment", "train", "batch"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=SIZE)
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        os.environ.setdefault("NAPARI_CONFIG", str(Path(work) / "settings.yaml"))
        settings = plugin_settings()
        settings.folders.results, settings.folders.models = f"{work}/results-here", f"{work}/models"
        for name in args.journeys:
            if name in JOURNEYS:
                for path in args.images:
                    JOURNEYS[name](path, args.out, tuple(args.size), args.theme)
            elif name == "batch":
                batch(args.out, Path(work))
            else:
                {"segment": segment, "train": train, "clicks": clicks, "recording": recording}[name](args.out)


if __name__ == "__main__":
    main()
