"""What the package tells the viewer of itself leads to what is there."""

import fnmatch
import importlib

import pytest
from npe2 import PluginManifest


def test_the_manifest_is_of_this_distribution_and_its_commands_resolve():
    manifest = PluginManifest.from_distribution("napari-unet-stacks")
    assert manifest.name == "napari-unet-stacks"
    for command in manifest.contributions.commands or []:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(
    ("name", "offered"),
    [("a.tif", False), ("a.TIFF", False), ("a.png", False), ("a.ome.tif", True), ("a.ome.zarr", True), ("a.czi", True)],
)
def test_a_file_that_napari_reads_as_well_opens_without_a_question(name, offered):
    manifest = PluginManifest.from_distribution("napari-unet-stacks")
    patterns = [p for reader in manifest.contributions.readers or [] for p in reader.filename_patterns]
    assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns) is offered
