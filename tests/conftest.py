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
