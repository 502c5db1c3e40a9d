"""What a user may choose: each setting's default, help and limits, written once beside its field."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from .errors import UsageError


def setting(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """Describe one field of a settings dataclass.

    Parameters
    ----------
    default
        Value where the user says nothing.
    help : str
        One line for the widget's tooltip and the shell's ``--help``.
    ge, le : float, optional
        Smallest and largest value allowed.
    choices : sequence of str, optional
        The words allowed.
    """
    metadata = {"help": help, "ge": ge, "le": le, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def check(config: Any) -> None:
    """Hold every field of a settings dataclass against its limits.

    Raises
    ------
    UsageError
        Naming the setting, its value, what is allowed.
    """
    for field in dataclasses.fields(config):
        value, limits = getattr(config, field.name), field.metadata
        if value is None or not limits:
            continue
        if limits["choices"] is not None and value not in limits["choices"]:
            raise UsageError(f"{field.name} is {value!r}; choose one of {', '.join(limits['choices'])}")
        if limits["ge"] is not None and value < limits["ge"]:
            raise UsageError(f"{field.name} is {value}; it must be at least {limits['ge']}")
        if limits["le"] is not None and value > limits["le"]:
            raise UsageError(f"{field.name} is {value}; it must be at most {limits['le']}")
