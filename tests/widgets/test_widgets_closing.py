"""What is running stays in sight: a panel that is closed is found again, napari lists it, and one question is asked."""

import subprocess
import sys

import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

from napari.utils import progress
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QMessageBox

from helpers import image_of
from kinds import small
from napari_unet.widgets import closing
from napari_unet.widgets.closing import BACKGROUND, STAY, STOP
from napari_unet.widgets.jobs import end_all
from napari_unet.widgets.panel import Panel
from windows import opened, until

NAME = "napari-unet-stacks"


@pytest.fixture
def folders(folders):
    """Own folders for results and models, with a model of 2-D; what still runs at the end is stopped."""
    small(2).save(folders / "models" / "flat.model")
    yield folders
    end_all()


def start(viewer, folders, planes=60):
    """Open the panel by its menu entry and start a run that takes a while; return its dock, too."""
    viewer.add_image(image_of((planes, 96, 96)), name="cells")
    dock, widget = viewer.window.add_plugin_dock_widget(NAME, "Segment")
    widget.models.use(folders / "models" / "flat.model")
    widget.settings["precision"].value, widget.settings["device"].value = "fp32", "cpu"
    widget.settings["block"].value = "1 32 32"
    widget.start()
    until(lambda: widget.progress.value > 20)
    return dock, widget


def test_a_panel_that_was_closed_while_it_worked_is_opened_again_with_its_run_and_can_stop_it(viewer, folders):
    dock, widget = start(viewer, folders)
    dock.destroyOnClose()
    QApplication.processEvents()
    assert widget.busy
    _, again = viewer.window.add_plugin_dock_widget(NAME, "Segment")
    assert again is widget
    assert again.cancel.enabled
    assert again.status.value.startswith("predict")
    again.cancel.clicked.emit(True)
    until(lambda: not again.busy)
    assert "Resume" in again.status.value
    assert not closing._closed


def test_a_run_of_a_closed_panel_comes_to_its_end_and_shows_its_result(viewer, folders):
    dock, widget = start(viewer, folders)
    dock.destroyOnClose()
    until(lambda: not widget.busy)
    layer = viewer.layers["cells flat"]
    assert layer.editable
    until(lambda: not closing._closed)
    _, again = viewer.window.add_plugin_dock_widget(NAME, "Segment")
    assert again is not widget
    assert again.outcome.layer is layer


def test_work_is_among_the_activities_of_napari_and_can_be_stopped_there(viewer, folders):
    _, widget = start(viewer, folders)
    (line,) = progress._all_instances
    assert line.desc == "Segmenting"
    assert 0 < line.n < line.total
    line.cancel()
    until(lambda: not widget.busy)
    assert "Resume" in widget.status.value
    assert not progress._all_instances


@pytest.mark.parametrize("answer", [STAY, STOP])
def test_one_question_is_asked_whatever_is_running(answer, viewer, folders, monkeypatch):
    _, widget = start(viewer, folders, planes=240)  # it goes on while the other one begins
    other = opened(viewer, folders, block="1 32 32")
    other.out.value = str(folders / "other.ome.zarr")
    other.start()
    until(lambda: other.progress.value > 0)
    asked = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: asked.append([b.text() for b in box.buttons()]))
    monkeypatch.setattr(QMessageBox, "clickedButton", lambda box: next(b for b in box.buttons() if b.text() == answer))
    window = widget._guard.parent()
    assert widget._guard is other._guard
    assert widget._guard.eventFilter(window, QCloseEvent()) is (answer == STAY)
    assert len(asked) == 1
    assert set(asked[0]) == {STOP, STAY}
    assert widget.busy is other.busy is (answer == STAY)


def test_the_answers_are_those_of_all_that_runs():
    assert BACKGROUND not in Panel.answers
    assert set(Panel.answers) <= {STOP, STAY}


def test_python_ends_with_work_that_is_running():
    script = """
import time
from qtpy.QtWidgets import QApplication
from napari_unet.widgets.jobs import Worker
app = QApplication([])
def work():
    try:
        while True:
            time.sleep(0.01)
            yield 1
    finally:
        print("closed")
Worker(work, lambda events: None, lambda how: None).start()
end = time.monotonic() + 0.5
while time.monotonic() < end:
    app.processEvents()
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr) == (0, "closed\n", "")
