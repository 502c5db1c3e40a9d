"""A run of the widget as text: the same run from Python and from the shell."""

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..cards import SHIPPED
from ..inference import PredictConfig
from .runs import Request


def python(request: Request) -> str:
    """Return a run as Python.

    Raises
    ------
    DataError
        Where the image does not lie on disk.
    """
    path, opening = request.source.whole()
    chosen = ", ".join(f"{name}={value!r}" for name, value in _changed(request.config))
    about = "".join(f", {name}={value!r}" for name, value in opening.items() if value is not None)
    return "\n".join(
        [
            "from napari_unet import PredictConfig, load_model, open_stack, predict, wait",
            "",
            f"stack = open_stack({path!r}{about})",
            f"model = {_loaded(request)}",
            f"result = wait(predict(stack, model, {str(request.out)!r}, PredictConfig({chosen})))",
        ]
    )


def command(request: Request) -> str:
    """Return a run as a command for the shell.

    Raises
    ------
    DataError
        Where the image does not lie on disk.
    """
    path, opening = request.source.whole()
    words = ["napari-unet", "predict", path]
    for model in request.models:
        words += ["--model", _model(model)]
    if not request.config.in_source:
        words += ["--out", str(request.out)]
    for name, value in (*((n, v) for n, v in opening.items() if v is not None), *_changed(request.config)):
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def _loaded(request: Request) -> str:
    each = [f"load_model({_model(path)!r})" for path in request.models]
    return each[0] if len(each) == 1 else f"[{', '.join(each)}]"


def _model(path: Path) -> str:
    return path.name if path.parent == SHIPPED else str(path)


def _changed(config: PredictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the settings that are not the default."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            yield field.name, value
