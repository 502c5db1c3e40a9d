"""What a package says of a model, in our words: axes, intensities, what its output is."""

import dataclasses
import re
from typing import Any, Literal

from ..errors import ModelError
from ..intensities.normalise import Normalisation
from ..network.steps import Step
from ..task import Restore, Semantic, Task
from ..task.losses import BACKGROUND

Gives = Literal["auto", "labels", "image"]
FLOATS = ("float32", "float64")
SAME = 1e-9  # to which two sizes of a pixel are one, and a whole number is whole


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """The input or the output of a network: its axes as letters, its channels, size and halo per spatial axis."""

    axes: str
    names: tuple[str, ...]
    spatial: tuple[Any, ...]
    apart: bool

    @property
    def space(self) -> str:
        """The spatial axes, in our order."""
        return "".join(a for a in "zyx" if a in self.axes)

    def of(self, letter: str) -> Any:
        """Return the description of a spatial axis."""
        return next(a for a in self.spatial if str(a.id) == letter)


def side(tensor: Any) -> Side:
    """Return a tensor's axes.

    Raises
    ------
    ModelError
        Where they are of a kind that a stack does not have.
    """
    names: tuple[str, ...] = ("",)
    letters, spatial, apart = "", [], False
    for axis in tensor.axes:
        if axis.type == "batch":
            letters, apart = letters + "b", axis.size == 1
        elif axis.type == "channel":
            letters, names = letters + "c", tuple(map(str, axis.channel_names))
        elif axis.type == "space" and str(axis.id) in "zyx":
            letters += str(axis.id)
            spatial.append(axis)
        else:
            raise ModelError(
                f"{tensor.id} has the axis {axis.id} of the kind {axis.type}; space, channel and batch are run"
            )
    if "".join(a for a in "zyx" if a in letters) not in ("yx", "zyx"):
        raise ModelError(f"{tensor.id} has the axes {letters!r}; images have y and x, stacks z too")
    return Side(letters, names, tuple(spatial), apart)


def steps(described: Any, axes: str) -> list[Step]:
    """Return the steps of a package before or behind its network; changes of the element type are left out.

    Raises
    ------
    ModelError
        Where a step is not known, or makes whole numbers of intensities.
    """
    found = []
    for each in described:
        kwargs = getattr(each, "kwargs", None)
        values = {name: getattr(kwargs, name) for name in type(kwargs).model_fields} if kwargs is not None else {}
        found += _step(str(each.id), values, axes)
    return found


def _step(name: str, values: dict[str, Any], axes: str) -> list[Step]:
    if name == "ensure_dtype":
        if values["dtype"] in FLOATS or values["dtype"] == "bool":
            return []
        raise ModelError(
            f"the package converts intensities to {values['dtype']}, which is not done here; get one without"
        )
    if name == "softmax" and str(values["axis"]) == "channel":
        return [Step(name)]
    if name == "sigmoid":
        return [Step(name)]
    if name == "clip" and values.get("min_percentile") is None and values.get("max_percentile") is None:
        return [Step(name, {"low": values["min"], "high": values["max"]})]
    if name in ("scale_linear", "binarize", "fixed_zero_mean_unit_variance") and _by_channel(values):
        kept = {k: _plain(v) for k, v in values.items() if k in ("gain", "offset", "threshold", "mean", "std")}
        return [Step(name, kept)]
    if name in ("zero_mean_unit_variance", "scale_range") and values.get("reference_tensor") is None:
        named = values.get("axes")
        joint = axes if named is None else "".join({"batch": "b", "channel": "c"}.get(str(a), str(a)) for a in named)
        percentiles = (
            {"low": values["min_percentile"], "high": values["max_percentile"]} if name == "scale_range" else {}
        )
        return [Step(name, {"joint": joint, "eps": values["eps"], **percentiles})]
    raise ModelError(f"the package asks for the step {name} with {values}, which is not done here; get one without")


def _by_channel(values: dict[str, Any]) -> bool:
    return str(values.get("axis", "channel")) in ("channel", "None")


def _plain(value: Any) -> Any:
    return [float(v) for v in value] if isinstance(value, list | tuple) else float(value)


def intensities(before: list[Step], given: Side) -> tuple[Normalisation, tuple[Step, ...]]:
    """Split steps into what is measured on the whole image, and what is done point by point behind that.

    Raises
    ------
    ModelError
        Where they cannot be done so: something before what is measured, several that measure, channels together.
    """
    measuring = [i for i, step in enumerate(before) if step.measures]
    if not measuring:
        return Normalisation("none"), tuple(before)
    first = measuring[0]
    if first or len(measuring) > 1:
        raise ModelError(
            f"the package measures intensities after it changed them ({', '.join(s.name for s in before)}); only steps "
            "that begin with what is measured are done here"
        )
    step, joint = before[first], before[first].values["joint"]
    if ("c" in joint and len(given.names) > 1) or set(given.space) - set(joint):
        raise ModelError(
            f"the package measures intensities over the axes {joint!r}; each channel over {given.space!r} is done"
        )
    if step.name == "zero_mean_unit_variance":
        return Normalisation("zscore"), tuple(before[1:])
    return Normalisation("percentile", step.values["low"], step.values["high"]), tuple(before[1:])


def task_of(output: Any, names: tuple[str, ...], after: list[Step], gives: Gives) -> tuple[Task, tuple[Step, ...]]:
    """Choose what a model gives: classes where its output is probabilities, else an image; and the steps to it.

    Raises
    ------
    ModelError
        Where labels are wanted of what holds no classes, or steps need the whole output.
    """
    if any(step.measures for step in after):
        raise ModelError(
            "the package measures its whole output before it is final, which is not done here; get one without"
        )
    last = after[-1].name if after else ""
    span = getattr(output.data, "range", (None, None))
    classes = last in ("softmax", "binarize") or (len(names) == 1 and (last == "sigmoid" or tuple(span) == (0.0, 1.0)))
    if gives == "image" or (gives == "auto" and not classes):
        count = len(names)
        return Restore(_unique(names, "channel"), (0.0,) * count, (1.0,) * count), tuple(after)
    if len(names) > 1:
        return _several(names, after)
    named = names[0] if names[0] not in ("", BACKGROUND) else "foreground"
    return Semantic((0, 1), (BACKGROUND, named)), _one(after, tuple(span) == (0.0, 1.0))


def _several(names: tuple[str, ...], after: list[Step]) -> tuple[Task, tuple[Step, ...]]:
    if after and after[-1].name == "softmax":
        after = after[:-1]  # the task makes probabilities itself
    elif after:
        raise ModelError(
            f"the package gives {len(names)} channels by {after[-1].name}, which are no classes of which one holds "
            "everywhere; import it with --gives image"
        )
    return Semantic(tuple(range(len(names))), _unique(names, "class")), tuple(after)


def _one(after: list[Step], probable: bool) -> tuple[Step, ...]:
    """Return steps that tell two classes apart by one channel: above a threshold is the second."""
    above: Any = 0.5
    if after and after[-1].name == "binarize":
        threshold = after[-1].values["threshold"]
        above, after = threshold[0] if isinstance(threshold, list) else threshold, after[:-1]
        probable = probable or bool(after and after[-1].name == "sigmoid")
    if after and after[-1].name == "sigmoid" and above == 0.5:
        return (*after[:-1], Step("two_classes"))
    if (probable or (after and after[-1].name == "sigmoid")) and above == 0.5:
        return (*after, Step("logit"), Step("two_classes"))
    return (*after, Step("two_classes", {"above": float(above)}))


def _unique(names: tuple[str, ...], kind: str) -> tuple[str, ...]:
    plain = tuple(re.sub(r"\s+", " ", name).strip()[:100] for name in names)
    fine = all(plain) and len(set(plain)) == len(plain)
    return plain if fine else tuple(f"{kind}_{i}" for i in range(len(names)))


def upscale_of(given: Side, gives: Side) -> tuple[int, ...]:
    """Return elements of the output for one of the input, per spatial axis.

    Raises
    ------
    ModelError
        Where they are not on one grid, or on a finer one.
    """
    factors = []
    for letter in given.space:
        size, one, other = gives.of(letter).size, given.of(letter), gives.of(letter)
        fixed = isinstance(size, int) and isinstance(one.size, int)
        if getattr(size, "offset", 0) or (isinstance(size, int) and not fixed):
            raise ModelError(
                f"the output of the network is cut along {letter}, which is not done here; get one that is not"
            )
        ratio = size / one.size if fixed else one.scale / other.scale
        if ratio < 1 - SAME or abs(ratio - round(ratio)) > SAME:
            raise ModelError(f"the network gives {ratio:g} elements for one along {letter}; whole numbers are taken")
        factors.append(round(ratio))
    return tuple(factors) if max(factors) > 1 else ()
