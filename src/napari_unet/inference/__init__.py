"""Running a model over a stack; loaded when it is first used."""

import importlib
from typing import TYPE_CHECKING, Any

from .config import PredictConfig

if TYPE_CHECKING:
    from .lazy import predict_lazy
    from .predict import predict

__all__ = ["PredictConfig", "predict", "predict_lazy"]
_ROOM_OF = {"predict": "predict", "predict_lazy": "lazy"}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
    globals()[name] = value
    return value
