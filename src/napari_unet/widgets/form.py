"""A form made from settings: each field's default, help and limits become its control."""

import dataclasses
import types
import typing
from collections.abc import Collection
from collections.abc import Container as AnyOf
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, LineEdit, SpinBox, Widget

from ..errors import UsageError

MOST = 2**31 - 1  # the highest that Qt's spin boxes hold
LABELS = {
    "border_bias": "Split touching objects",
    "min_size": "Smallest object (pixels)",
    "fill_holes": "Fill holes up to (pixels)",
    "link": "Follow over time (overlap)",
    "diameter": "Diameter (pixels)",
    "number_objects": "Pieces are objects",
    "above": "Foreground is above",
    "percentiles": "Darkest, brightest (percentiles)",
    "each_time": "Measure each time point",
    "padding": "Value around a mosaic",
    "nan": "NaN",
    "probabilities": "Probabilities",
    "uncertainty": "Uncertainty",
    "overview": "Image beside the labels",
    "region": "Part",
    "in_source": "Into the image's OME-Zarr",
    "ome_version": "OME-Zarr version",
    "tta": "Test-time augmentation",
    "memory": "Memory (GiB)",
    "device": "Compute on",
    "scheduler": "Dask scheduler",
    "ndim": "Dimensions",
    "out": "Result",  # the last are no fields of a form: what messages call options, and controls of their own here
    "resample": "Pixel size",
    "binary": "Foreground (binary)",
    "sparse": "Sparse labels (0 = unlabelled)",
    "predict_std": "Predict standard deviation",
}


class Form(Container[Widget]):
    """Controls for the fields of a settings dataclass.

    Parameters
    ----------
    settings : frozen dataclass
        Its fields made with `setting`.
    skip : collection of str
        Fields without a control.
    values : mapping of str to value
        Instead of the defaults.
    """

    def __init__(self, settings: type, skip: Collection[str] = (), **values: Any) -> None:
        super().__init__(labels=True)
        self.settings = settings
        self._hints = typing.get_type_hints(settings)
        self._fields = {f.name: f for f in dataclasses.fields(settings) if f.name not in skip}
        self._applies = list(self._fields)
        for name, field in self._fields.items():
            self.append(self._control(name, field, values.get(name, field.default)))

    def _control(self, name: str, field: Any, value: Any) -> Widget:
        limits, kind = field.metadata, _plain(self._hints[name])
        about: dict[str, Any] = {"name": name, "label": label_of(name), "tooltip": limits["help"]}
        if limits["choices"] is not None:
            return ComboBox(choices=list(limits["choices"]), value=value, **about)
        if kind is bool:
            return CheckBox(value=value, text="", **about)
        if field.default is not None and kind in (int, float):
            low = 0 if limits["ge"] is None else limits["ge"]
            high = MOST if limits["le"] is None else limits["le"]
            if kind is int:
                return SpinBox(value=value, min=low, max=high, **about)
            return FloatSpinBox(value=value, min=low, max=high, step=0.1, **about)
        line = LineEdit(value=_written(value), **about)
        line.native.setPlaceholderText("chosen for you")
        return line

    def chosen(self) -> dict[str, Any]:
        """Return the values by field, of what applies.

        Raises
        ------
        UsageError
            Where what is written cannot be read.
        """
        return {name: self._read(name) for name in self._applies}

    def apply(self, names: AnyOf[str]) -> bool:
        """Show the controls of these fields alone, without which nothing else is chosen; say whether any is left."""
        self._applies = [name for name in self._fields if name in names]
        for name in self._fields:
            self[name].visible = name in self._applies
        return bool(self._applies)

    def suggest(self, **values: Any) -> None:
        """Show what was chosen in the fields that are left empty."""
        for name, value in values.items():
            if name in self._fields and isinstance(self[name], LineEdit):
                self[name].native.setPlaceholderText(_written(value) or "chosen for you")

    def _read(self, name: str) -> Any:
        control: Any = self[name]
        value = control.value
        if not isinstance(control, LineEdit):
            return value
        text, kind = value.strip(), _plain(self._hints[name])
        if not text:
            return None
        try:
            if typing.get_origin(kind) is tuple:
                return _several(text, typing.get_args(kind)[0])
            return kind(text)
        except ValueError as error:
            example = "numbers such as 64 128 128" if typing.get_origin(kind) is tuple else "a number"
            raise UsageError(f"{name.replace('_', ' ')} is {text!r}; give {example}") from error


def label_of(name: str) -> str:
    """Return what a form calls a setting."""
    return LABELS.get(name) or name.replace("_", " ").capitalize()


def _plain(hint: Any) -> Any:
    """Return the type of an optional setting."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def _several(text: str, kind: Any) -> tuple[Any, ...]:
    """Read values apart by commas, spaces where there are none or, between numbers, x."""
    if kind is str:  # names may hold spaces
        return tuple(filter(None, (word.strip() for word in text.split(",")))) if "," in text else tuple(text.split())
    return tuple(map(kind, text.replace(",", " ").replace("x", " ").split()))


def _written(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else f"{value}"
