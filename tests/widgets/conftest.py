"""Fixtures of tests that open a window."""

import contextlib
import gc
import itertools
import os
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

windows = itertools.count()


@pytest.fixture(scope="session")
def display() -> None:
    """A display to open windows on."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        pytest.skip("needs a display, such as xvfb-run gives")


@pytest.fixture
def viewer(display, monkeypatch, make_napari_viewer):
    """An empty napari window; what takes the first one long is not done again for those after it.

    At the end what still works in it, as after a test that failed, is stopped: the window would ask, and wait.
    """
    from napari_unet.widgets.closing import STOP, Guard

    number = next(windows)
    if number:  # the manifest of each plugin has been read
        monkeypatch.setattr("npe2.PluginManager.discover", lambda *_, **__: 0)
    if number == 1:  # what was imported stays; no later window has it searched for garbage
        gc.collect()
        gc.freeze()
    viewer = make_napari_viewer()
    window = viewer.window._qt_window
    yield viewer
    with contextlib.suppress(RuntimeError):  # a test has closed it
        for panel in [panel for guard in window.findChildren(Guard) for panel in guard.busy]:
            panel.stop_for_closing(STOP)


@pytest.fixture
def folders(tmp_path):
    """Own folders for results and models, below the one that is returned."""
    from napari_unet.widgets.preferences import plugin_settings

    folders = plugin_settings().folders
    before = folders.results, folders.models
    folders.results, folders.models = str(tmp_path / "results"), str(tmp_path / "models")
    yield tmp_path
    folders.results, folders.models = before


@pytest.fixture
def server(folders):
    """The address of a server of what lies in the folder."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    found = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: quiet(*args, directory=str(folders)))
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()
