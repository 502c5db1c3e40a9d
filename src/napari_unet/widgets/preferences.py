"""What the user set for the plugin as a whole, on its page of the viewer's preferences."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from psygnal import SignalInstance

from .. import DISTRIBUTION

HOME = "napari-unet"
MARKS = ("zarr.json", ".zgroup", ".zarray")
models_changed = SignalInstance()  # a model was made: lists of models are read again
# What the manifest declares, for viewers before napari 0.9, which have no settings of plugins.
DEFAULTS = SimpleNamespace(
    running=SimpleNamespace(device="auto", precision="auto", memory=2.0, when_closed="stop"),
    folders=SimpleNamespace(results="", models=""),
)


def plugin_settings() -> Any:
    """Return the sections of settings that the viewer keeps for this plugin, or their defaults where it keeps none."""
    try:
        from napari.settings import get_plugin_settings

        return get_plugin_settings(DISTRIBUTION)
    except (ImportError, KeyError):  # an older viewer; one in which the plugin was installed a moment ago
        return DEFAULTS


@dataclasses.dataclass(frozen=True)
class Preferences:
    """Settings that all widgets share.

    Parameters
    ----------
    device, precision : str
        As `PredictConfig` takes them.
    memory : float
        GiB that a network may take while it segments.
    when_closed : "stop" or "continue"
        What a training does when napari closes.
    results : Path or None
        Where segmentations go; beside their image if None.
    models : Path
        Where trained models are kept.
    """

    device: str
    precision: str
    memory: float
    when_closed: str
    results: Path | None
    models: Path

    @classmethod
    def read(cls) -> "Preferences":
        """Read what is set now."""
        found = plugin_settings()
        running, folders = found.running, found.folders
        return cls(
            device=running.device,
            precision=running.precision,
            memory=running.memory,
            when_closed=running.when_closed,
            results=Path(folders.results).expanduser() if folders.results else None,
            models=Path(folders.models).expanduser() if folders.models else Path.home() / HOME / "models",
        )

    def results_beside(self, source: str | None) -> Path:
        """Return the folder for the results of an image that lies at `source`, if it lies on this disk."""
        if self.results is not None:
            return self.results
        beside = _outside(Path(source).parent) if source and Path(source).exists() else None
        return beside if beside is not None and os.access(beside, os.W_OK) else Path.home() / HOME / "results"


def _outside(folder: Path) -> Path:
    """Return a folder, or where the zarr lies that it is a part of."""
    return _outside(folder.parent) if any((folder / mark).is_file() for mark in MARKS) else folder
