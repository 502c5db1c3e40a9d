"""Build hook: the manifest at the top of the repository is copied into the package, where napari looks for it."""

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManifestHook(BuildHookInterface):
    """Copy ``napari.yaml`` into ``src/napari_unet`` before anything is packed or linked."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy the file; called for wheels, source distributions and editable installs."""
        root = Path(self.root)
        shutil.copyfile(root / "napari.yaml", root / "src" / "napari_unet" / "napari.yaml")
