"""A package of the BioImage Model Zoo in our words, the model it makes, and its own test."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..errors import UNUSABLE, ModelError
from ..intensities.normalise import Normalisation
from ..model import Model
from ..network import NetworkConfig, UNetConfig
from ..network.steps import Step, applied
from ..task import Task, read_task
from ..units import canonical
from .describe import KEY
from .package import Package
from .translate import Gives, Side, intensities, side, steps, task_of

TOLERANCE = 1e-4  # of the largest value of the test's output: rounding of another library
Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """What a package says, in our words."""

    package: Package
    given: Side
    gives: Side
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    normalisation: Normalisation
    pointwise: tuple[Step, ...]
    task: Task
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, package: Package, gives: Gives) -> "Described":
        """Translate a description.

        Raises
        ------
        ModelError
            Where it says what is not done here.
        """
        found = package.description
        if (len(found.inputs), len(found.outputs)) != (1, 1):
            raise ModelError(
                f"the network has {len(found.inputs)} inputs and {len(found.outputs)} outputs; one of each is run"
            )
        (one,), (other,) = found.inputs, found.outputs
        given, behind = side(one), side(other)
        if given.space != behind.space:
            raise ModelError(f"the network takes {given.space} and gives {behind.space}; both must have the same axes")
        before, after = steps(one.preprocessing, given.axes), steps(other.postprocessing, behind.axes)
        normalisation, pointwise = intensities(before, given)
        task, made = task_of(other, behind.names, after, gives)
        return cls(package, given, behind, tuple(before), tuple(after), normalisation, pointwise, task, made)


def model_of(found: Described, config: NetworkConfig, weights: dict[str, np.ndarray]) -> Model:
    """Return the model; one that was written by this package is as it was."""
    about: Any = found.package.description
    kept: Any = (getattr(about.config, "model_extra", None) or {}).get(KEY)
    record = record_of(found)
    if isinstance(config, UNetConfig) and isinstance(kept, dict):
        try:
            rest: dict[str, Any] = {key: tuple(kept[key]) for key in ("scale", "units", "channel_names")}
            rest |= {"diameter": kept.get("diameter"), "shrink": tuple(kept.get("shrink", ()))}
            parts = read_task(kept["task"]), Normalisation.from_json(kept["normalisation"]), str(kept["axes"])
            return Model(config, weights, *parts, record=record | dict(kept["record"]), **rest)
        except UNUSABLE as error:
            raise ModelError(
                f"{found.package.path} has settings under {KEY} that cannot be used: {error}; get the package again"
            ) from error
    axes = [found.given.of(letter) for letter in found.given.space]
    names = found.given.names if all(found.given.names) and len(set(found.given.names)) > 1 else ()
    scale, units = tuple(float(a.scale) for a in axes), tuple(canonical(a.unit) for a in axes)
    return Model(
        config, weights, found.task, found.normalisation, found.given.space, scale, units, names, record=record
    )


def record_of(found: Described) -> dict[str, Any]:
    """Return what is known of where a model comes from."""
    about = found.package.description
    made = ", ".join(str(a.name) for a in about.authors)
    cite = "; ".join(str(c.text) for c in about.cite)
    return {
        "name": str(about.name),
        "about": str(about.description),
        "authors": made,
        "cite": cite,
        "licence": str(about.license or "not said"),
        "imported from": found.package.path.name,
    }


def tested(found: Described, run: Run) -> float:
    """Run the package's test through our own normalisation; return the difference as a part of the largest value.

    Raises
    ------
    ModelError
        Where there is no test, or it does not come out.
    """
    (one,), (other,) = found.package.description.inputs, found.package.description.outputs
    if one.test_tensor is None or other.test_tensor is None:
        raise ModelError(
            f"{found.package.path} has no test: what its network should give is not known; "
            "get a package with test tensors"
        )
    given = _canonical(found.package.array(one.test_tensor), found.given)
    wanted = _canonical(found.package.array(other.test_tensor), found.gives)
    axes = "c" + found.given.space
    statistics = [found.normalisation.measure(Stack(each, axes)) for each in given]
    prepared = np.stack([s.apply(each) for s, each in zip(statistics, given, strict=True)])
    bc = "bc" + found.given.space
    got = np.concatenate([run(each[None]) for each in applied(found.pointwise, prepared, bc)])
    got = applied(found.after, got, bc)
    if got.shape != wanted.shape:
        raise ModelError(
            f"the test of {found.package.path} gives the shape {got.shape}, not {wanted.shape}; get the package again"
        )
    most = max(float(np.abs(wanted).max()), 1e-6)
    difference = float(np.abs(got - wanted).max()) / most
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the test of {found.package.path} does not come out: the output differs by {difference:.2g} of its "
            f"largest value, {TOLERANCE:g} is allowed; it is not imported"
        )
    return difference


def _canonical(data: np.ndarray, axes: Side) -> np.ndarray:
    """Bring an array to (batch, channel, *space) float32."""
    if data.ndim != len(axes.axes) or data.dtype.kind not in "fiub":
        raise ModelError(f"an array of the test is {data.dtype} of {data.ndim} axes; {axes.axes} are described")
    order = axes.axes + "".join(a for a in "bc" if a not in axes.axes)
    data = data.reshape(*data.shape, *(1,) * (len(order) - data.ndim))
    return np.ascontiguousarray(np.transpose(data, [order.index(a) for a in "bc" + axes.space]), np.float32)
