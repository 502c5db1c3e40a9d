"""From labelled stacks to a model; loaded when it is first used."""

import importlib
from typing import TYPE_CHECKING, Any

from .config import TrainConfig

if TYPE_CHECKING:
    from .fingerprint import Fingerprint
    from .fit import train
    from .plan import TrainingPlan, make_plan
    from .run import finish

__all__ = ["Fingerprint", "TrainConfig", "TrainingPlan", "finish", "make_plan", "train"]
_ROOM_OF = {
    "Fingerprint": "fingerprint",
    "TrainingPlan": "plan",
    "finish": "run",
    "make_plan": "plan",
    "train": "fit",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
    globals()[name] = value
    return value
