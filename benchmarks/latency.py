"""Measure how smooth the window stays: ``python benchmarks/latency.py`` (with a screen, or ``xvfb-run``).

The time between two turns of the window's event loop, idle, while a run writes its result and shows it, and while a
training with a live prediction runs in its own process: median, 99th percentile and worst, side by side in one session;
"own" is the processor time of the window's thread alone. Also the time from a click on Cancel to the end of the run,
and what of it was kept.
"""

import tempfile
import time
from collections.abc import Callable

import napari
import numpy as np
from napari.settings import get_plugin_settings
from qtpy.QtCore import QEventLoop, QTimer

from napari_unet.demo import example

SECONDS = 15
TICK = 5


def ticks(busy: Callable[[], bool], most: float = SECONDS) -> np.ndarray:
    """Milliseconds between turns of the event loop, beyond the timer's own, while something is busy; and of these the
    processor time of the window's own thread, which does not depend on what else the machine does: (turns, 2)."""
    times, loop, timer = [], QEventLoop(), QTimer()
    end = time.monotonic() + most

    def tick() -> None:
        times.append((time.perf_counter(), time.thread_time()))
        if not busy() or time.monotonic() > end:
            loop.quit()

    timer.setInterval(TICK)
    timer.timeout.connect(tick)
    timer.start()
    loop.exec()
    timer.stop()
    return np.clip(np.diff(times, axis=0) * 1000 - (TICK, 0), 0, None)


def show(name: str, found: np.ndarray) -> None:
    wall, own = found.T
    print(
        f"| {name} | {np.median(wall):.1f} | {np.percentile(wall, 99):.0f} | {wall.max():.0f} | "
        f"{np.percentile(own, 99):.0f} | {own.max():.0f} | {len(found)} |"
    )


def main() -> None:
    image, truth = example()
    large = np.tile(np.pad(image, [(0, 512), (0, 512)], mode="symmetric"), (8, 8))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        settings = get_plugin_settings("napari-unet-stacks")
        settings.folders.results, settings.folders.models = f"{work}/results", f"{work}/models"
        viewer = napari.Viewer()
        layer = viewer.add_image(large, name="large")
        _, segment = viewer.window.add_plugin_dock_widget("napari-unet-stacks", "Segment", tabify=True)
        _, train = viewer.window.add_plugin_dock_widget("napari-unet-stacks", "Train", tabify=True)
        ticks(lambda: "block" not in segment.preflight.value, 60)
        print(
            "| | median ms | 99 % ms | worst ms | own 99 % ms | own worst ms | turns |\n|---|---|---|---|---|---|---|"
        )
        show("idle", ticks(lambda: True, 5))
        segment.start()
        show("run", ticks(lambda: segment.progress.value < 500 and segment.busy, 120))
        blocks = segment.status.value.partition("\n")[0]
        began = time.monotonic()
        segment.stop()
        ticks(lambda: segment.busy, 60)
        cancelled = time.monotonic() - began
        ticks(lambda: segment.run.text != "Resume", 10)
        kept = segment.preflight.value.rpartition("; ")[2]
        viewer.layers.remove(layer)
        viewer.add_image(image, name="image")
        ticks(lambda: "block" not in segment.preflight.value, 60)
        segment.start()
        show("run to its end", ticks(lambda: segment.busy, 120))
        show("after it", ticks(lambda: True, 5))
        labels = viewer.add_labels(truth, name="labels")
        train.pairs[0][0].value, train.pairs[0][1].value = viewer.layers["image"], labels
        train.minutes.value = 1
        train.start()
        show("training", ticks(lambda: train.busy, 60))
        train.stop_training()
        ticks(lambda: train.busy, 60)
        print(f"\ncancelled at '{blocks}': stopped after {cancelled:.2f} s; {kept}")
        viewer.close()


if __name__ == "__main__":
    main()
