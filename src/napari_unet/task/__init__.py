"""What a network is for; one class per task."""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ModelError
from .base import Task, as_labels
from .diffuse import Diffuse
from .instances import Instances
from .restore import Autoencode, Restore, SuperResolve
from .semantic import LOSSES, Semantic

__all__ = [
    "LOSSES",
    "TASKS",
    "Autoencode",
    "Diffuse",
    "Instances",
    "Restore",
    "Semantic",
    "SuperResolve",
    "Task",
    "as_labels",
    "read_task",
]

KINDS = (Semantic, Instances, Restore, SuperResolve, Autoencode, Diffuse)
TASKS: dict[str, Callable[[Mapping[str, Any]], Task]] = {kind.name: kind.from_json for kind in KINDS}


def read_task(values: Mapping[str, Any]) -> Task:
    """Build the task that a JSON file describes.

    Raises
    ------
    ModelError
        Where it is not one of ours.
    """
    name = values.get("name") if isinstance(values, Mapping) else values
    if not isinstance(name, str) or name not in TASKS:
        raise ModelError(f"the task is {name!r}; known are {', '.join(TASKS)}: made by a newer version?")
    return TASKS[name](values)
