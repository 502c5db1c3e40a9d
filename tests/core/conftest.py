"""Tests of the library, which needs neither Qt nor napari."""

import sys

WINDOW = ("napari", "magicgui", "psygnal", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6")


def pytest_configure(config):
    """Where napari's and Qt's plugins of pytest are off, as in `.ci/check`, there is no window to import."""
    if not any(config.pluginmanager.hasplugin(name) for name in ("napari", "pytest-qt")):
        sys.modules.update(dict.fromkeys(WINDOW))
