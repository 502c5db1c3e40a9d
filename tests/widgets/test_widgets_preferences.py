"""Preferences: what the viewer keeps for the plugin, or their defaults in a viewer that keeps nothing."""

from pathlib import Path

import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

import yaml
from napari import settings

from napari_unet.widgets import preferences
from napari_unet.widgets.preferences import DEFAULTS, Preferences, plugin_settings

ROOT = Path(__file__).parents[2]


def test_defaults_are_those_of_the_manifest():
    declared = yaml.safe_load((ROOT / "napari.yaml").read_text())["contributions"]["configurations"]
    found = {
        section: {name: field["default"] for name, field in content["properties"].items()}
        for section, content in declared.items()
    }
    assert {section: vars(content) for section, content in vars(DEFAULTS).items()} == found


def _unknown(name):
    raise KeyError(f"Plugin named '{name}' does not exist.")


@pytest.mark.parametrize("lacking", ["the function", "the plugin"])
def test_a_viewer_that_keeps_no_settings_gives_their_defaults(monkeypatch, lacking):
    if lacking == "the function":
        monkeypatch.delattr(settings, "get_plugin_settings", raising=False)
    else:
        monkeypatch.setattr(settings, "get_plugin_settings", _unknown, raising=False)
    assert plugin_settings() is DEFAULTS
    found = Preferences.read()
    assert (found.device, found.precision, found.memory, found.when_closed) == ("auto", "auto", 2.0, "stop")
    assert found.results is None
    assert found.models == Path.home() / preferences.HOME / "models"


def test_folders_that_are_set_are_read(folders):
    found = Preferences.read()
    assert (found.results, found.models) == (folders / "results", folders / "models")
