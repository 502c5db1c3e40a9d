"""A model as it is given by the caller: loaded, or by its path or name."""

import os
from collections.abc import Sequence
from typing import Any

from ..errors import UsageError
from .model import Model, load_model

OneModel = Model | str | os.PathLike[str]
Models = OneModel | Sequence[OneModel]


def as_model(what: Any) -> Model:
    """Return a model, loaded where its folder or the name of one that ships is given.

    Raises
    ------
    UsageError
        Where it is neither.
    ModelError, UnsafeError
        As `load_model`.
    """
    if isinstance(what, Model):
        return what
    if isinstance(what, str | os.PathLike):
        return load_model(what)
    raise UsageError(
        f"{type(what).__name__} is not a model; give what load_model returned, the path of its folder, or the name of "
        "a model that ships"
    )


def as_models(what: Any) -> tuple[Model, ...]:
    """Return one model, or each of several, as `as_model` does.

    Raises
    ------
    UsageError, ModelError, UnsafeError
        As `as_model`.
    """
    if isinstance(what, Model | str | os.PathLike) or not isinstance(what, Sequence):
        return (as_model(what),)
    return tuple(map(as_model, what))
