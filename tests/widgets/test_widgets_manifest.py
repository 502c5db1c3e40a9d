"""What the package tells the viewer of itself leads to what is there."""

import importlib

from npe2 import PluginManifest


def test_the_manifest_is_of_this_distribution_and_its_commands_resolve():
    manifest = PluginManifest.from_distribution("napari-unet-stacks")
    assert manifest.name == "napari-unet-stacks"
    for command in manifest.contributions.commands or []:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
