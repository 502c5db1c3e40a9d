"""The oldest viewer that the widgets run in: an environment may hold an older one, whatever the package declares."""

import importlib.metadata
import re

from ..errors import UsageError

FLOORS = {"napari": "0.7", "magicgui": "0.10"}  # the extra "all" declares the same; older ones lack what is called


def check_viewer() -> None:
    """Refuse an environment whose viewer is too old, in one line.

    Raises
    ------
    UsageError
        Naming what is too old, and how to renew it.
    """
    for name, floor in FLOORS.items():
        found = importlib.metadata.version(name)
        if _numbers(found) < _numbers(floor):
            raise UsageError(
                f"U-Net Stacks needs {name} {floor} or newer, this is {name} {found}: pip install -U {name}"
            )


def _numbers(version: str) -> tuple[int, ...]:
    """Return major and minor of a version; what follows does not matter to a floor."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
