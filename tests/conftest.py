"""Fixtures that every test may use."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Before torch and numba are there: tests run beside each other, and every thread of one computes alike. With a window
# numba, which napari uses, else gives the main thread as many threads as there are cores.
os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
# And before napari: what tests set is not what the user of this machine has set.
os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp(prefix="napari-settings-")) / "settings.yaml")

import pytest

if "numba" in sys.modules:  # a plugin of pytest was earlier
    sys.modules["numba"].config.reload_config()
atexit.register(shutil.rmtree, Path(os.environ["NAPARI_CONFIG"]).parent, ignore_errors=True)
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images beside the checkout; a clone elsewhere has none of them."""
    if not SHARED.is_dir():
        pytest.skip("the real images are not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def display() -> None:
    """A display to open windows on."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        pytest.skip("needs a display, such as xvfb-run gives")


@pytest.fixture
def viewer(display, make_napari_viewer):
    """An empty napari window."""
    return make_napari_viewer()


@pytest.fixture
def folders(tmp_path):
    """Own folders for results and models, below the one that is returned."""
    from napari_unet.widgets.preferences import plugin_settings

    folders = plugin_settings().folders
    before = folders.results, folders.models
    folders.results, folders.models = str(tmp_path / "results"), str(tmp_path / "models")
    yield tmp_path
    folders.results, folders.models = before
