"""Train U-Nets and run them on microscopy stacks larger than memory, with results that do not depend on the tiling."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arrays.stack import Stack
    from .batch import count_voxels, run_batch
    from .comparison import compare_models
    from .errors import UnetError
    from .evaluation.evaluate import evaluate
    from .events import Block, Epoch, Progress, wait
    from .exports.write import export
    from .inference.config import PredictConfig
    from .inference.diagnostics import annotate_next, seam_check
    from .inference.encode import decode, encode
    from .inference.events import Opened, Preflight, Seam
    from .inference.lazy import Preview
    from .inference.predict import predict, predict_lazy, preview
    from .inference.preflight import preflight
    from .model import Model, load_model
    from .network import UNet, UNetConfig, ronneberger2015
    from .objects.classes import with_classes
    from .objects.simulate import simulate_labels
    from .sources import open_labels, open_stack
    from .store.table import read_table
    from .store.tiff import save_tiff
    from .training.config import TrainConfig
    from .training.fit import train
    from .zoo import Credit, export_model, import_model

__all__ = [
    "Block",
    "Credit",
    "Epoch",
    "Model",
    "Opened",
    "PredictConfig",
    "Preflight",
    "Preview",
    "Progress",
    "Seam",
    "Stack",
    "TrainConfig",
    "UNet",
    "UNetConfig",
    "UnetError",
    "annotate_next",
    "compare_models",
    "count_voxels",
    "decode",
    "encode",
    "evaluate",
    "export",
    "export_model",
    "import_model",
    "load_model",
    "open_labels",
    "open_stack",
    "predict",
    "predict_lazy",
    "preflight",
    "preview",
    "read_table",
    "ronneberger2015",
    "run_batch",
    "save_tiff",
    "seam_check",
    "simulate_labels",
    "train",
    "wait",
    "with_classes",
]

DISTRIBUTION = "napari-unet-stacks"  # the name that pip knows
# Names that are loaded when they are first used: torch alone takes seconds.
_ROOMS = {
    "arrays.stack": ("Stack",),
    "batch": ("count_voxels", "run_batch"),
    "comparison": ("compare_models",),
    "errors": ("UnetError",),
    "evaluation.evaluate": ("evaluate",),
    "exports.write": ("export",),
    "events": ("Block", "Epoch", "Progress", "wait"),
    "inference.config": ("PredictConfig",),
    "inference.diagnostics": ("annotate_next", "seam_check"),
    "inference.encode": ("decode", "encode"),
    "inference.events": ("Opened", "Preflight", "Seam"),
    "inference.lazy": ("Preview",),
    "inference.predict": ("predict", "predict_lazy", "preview"),
    "inference.preflight": ("preflight",),
    "model": ("Model", "load_model"),
    "network": ("UNet", "UNetConfig", "ronneberger2015"),
    "objects.classes": ("with_classes",),
    "objects.simulate": ("simulate_labels",),
    "sources": ("open_labels", "open_stack"),
    "store.table": ("read_table",),
    "store.tiff": ("save_tiff",),
    "training.config": ("TrainConfig",),
    "training.fit": ("train",),
    "zoo": ("Credit", "export_model", "import_model"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing the package stays light."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _refuse_namesake() -> None:
    """Say so clearly where another distribution has put its files into this package's folder.

    Only the lists of files of distributions with a name like ours are looked at: those of all others would take longer
    to read than everything else that is imported.

    Raises
    ------
    ImportError
        Naming the other distribution and how to get rid of it.
    """
    lists = (file for folder in sys.path for file in Path(folder).glob("*unet*.dist-info/RECORD"))
    owners = {file.parent.name.partition("-")[0].replace("_", "-") for file in lists if _owns_package(file)}
    others = sorted(owners - {DISTRIBUTION})
    if others:
        raise ImportError(
            f"{', '.join(others)} also installs a package named {__name__}, and the two overwrite each other; "
            f"run: pip uninstall {' '.join(others)}, "
            f"then: pip install --force-reinstall --no-deps {DISTRIBUTION}"
        )


def _owns_package(record: Path) -> bool:
    """Whether a list of a distribution's files names one in this package's folder."""
    try:
        lines = record.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{__name__}/") for line in lines)


_refuse_namesake()
