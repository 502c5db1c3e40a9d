"""The file of scores that evaluate leaves: JSON, and replaced only where it is one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnetError
from ..files import check_replaceable, disk, read, replace

BYTES = 2**20  # some thousand classes
# By which scores are known: of classes, of objects, of intensities.
SIGNS = ({"pixel_accuracy", "pixel_error"}, {"ap_50", "pq"}, {"psnr", "nrmse"})


def check_scores(path: Path) -> None:
    """Refuse to write where something lies that is not a file of scores.

    Raises
    ------
    OutputError, UnsafeError
    """
    check_replaceable(path, _is_scores, "file of scores by evaluate")


def save_scores(path: Path, scores: Mapping[str, Any]) -> None:
    """Write scores by name as JSON.

    Raises
    ------
    OutputError, UnsafeError
        Where something lies there that is not a file of scores.
    ResourceError
        Where it cannot be written.
    """
    check_scores(path)
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, (json.dumps(scores, indent=1) + "\n").encode())


def _is_scores(path: Path) -> bool:
    try:
        found = json.loads(read(path, BYTES))
    except (OSError, ValueError, RecursionError, UnetError):
        return False
    if not isinstance(found, dict) or not any(sign <= set(found) for sign in SIGNS):
        return False
    return all(value is None or type(value) in (int, float) for value in found.values())
