"""What a user may choose: each setting's default, help and limits, written once beside its field."""

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .errors import UsageError

# Fields, and the names they had at first. Files (model.json, run.json, the settings in a ledger) keep the former name
# as their key, so that hashes stay and old files are read; scripts and the shell may use it until 0.2.
FORMER = {
    "tta": "mirror",
    "flips": "mirror",
    "border_bias": "split",
    "border_weight": "border",
    "loss": "objective",
    "loss_name": "objective",
    "upscale": "factor",
    "predict_std": "spread",
    "on_disconnect": "orphan",
}
PRESENT = {old: new for new, old in reversed(FORMER.items())}  # of the ledger of a result: tta before flips
Kind = TypeVar("Kind", bound=type)


def setting(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    choices: Sequence[str] | None = None,
    several: bool = False,
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
    several : bool
        Whether several of them may be given, with commas between, each with a number behind a colon.
    """
    metadata = {"help": help, "ge": ge, "le": le, "choices": choices, "several": several}
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
        words = [part.partition(":")[0] for part in value.split(",")] if limits["several"] else [value]
        if limits["choices"] is not None and not set(words) <= set(limits["choices"]):
            raise UsageError(f"{field.name} is {value!r}; choose one of {', '.join(limits['choices'])}")
        if limits["ge"] is not None and value < limits["ge"]:
            raise UsageError(f"{field.name} is {value}; it must be at least {limits['ge']}")
        if limits["le"] is not None and value > limits["le"]:
            raise UsageError(f"{field.name} is {value}; it must be at most {limits['le']}")


def former_names(kind: type) -> dict[str, str]:
    """Return the fields of a dataclass that had another name, by that name."""
    return {FORMER[field.name]: field.name for field in dataclasses.fields(kind) if field.name in FORMER}


def takes_former_names(kind: Kind) -> Kind:
    """Let a dataclass also be built with the former names of its fields, and say the new ones."""
    built: Any = vars(kind)["__init__"]

    @functools.wraps(built)
    def init(self: Any, *values: Any, **named: Any) -> None:
        for old, new in former_names(type(self)).items():
            if old in named:
                text = f"{old} of {kind.__name__} is now {new}; the former name goes with 0.2"
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                named[new] = named.pop(old)
        built(self, *values, **named)

    type.__setattr__(kind, "__init__", init)
    return kind


def to_keys(part: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as a JSON file has them: plain values, under the names that files keep."""
    plain = dataclasses.asdict(part)
    inner = {name: to_keys(value) for name in plain if dataclasses.is_dataclass(value := getattr(part, name))}
    return {FORMER.get(name, name): inner.get(name, value) for name, value in plain.items()}


def from_keys(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass from the keys of a JSON file, former and present names alike."""
    names = former_names(kind)
    return {names.get(key, key): value for key, value in values.items()}
