"""What a package does with intensities before and behind its network, on arrays of (batch, channel, *space)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ..errors import ModelError
from .config import refuse_unknown

CERTAIN = 1e-7  # of probabilities: what float32 can tell from 0 and 1
EPSILON = 1e-6  # the specification's own, where a package says nothing


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step, as the specification names it.

    Parameters
    ----------
    name : str
        Its id.
    values : dict
        Its arguments; ``axes``, where it has them, as letters of "bczyx".
    """

    name: str
    values: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def measures(self) -> bool:
        """Whether it depends on more than one element of the image."""
        return self.name in ("zero_mean_unit_variance", "scale_range")

    def apply(self, x: np.ndarray, axes: str) -> np.ndarray:
        """Return the float32 array that it makes of `x`.

        Raises
        ------
        ModelError
            Where the step is not one that is known.
        """
        if self.name not in STEPS:
            raise ModelError(f"the step {self.name!r} is not known; known are {', '.join(STEPS)}")
        return np.asarray(STEPS[self.name](x, axes, **self.values), np.float32)


class WithSteps:
    """Settings of a network of others, a dataclass with the steps ``before`` and ``after`` it, as a file has them.

    Where it takes statistics of what it is given, it is run in windows of the size ``window``, which begin at fixed
    places of the whole image.
    """

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def margin(self) -> tuple[int, ...]:
        """What a window is larger than its core, on each side: about a quarter of it, on the grid of the network."""
        own: Any = self
        return tuple(w // 4 // s * s for w, s in zip(own.window, own.stride, strict=True))

    @property
    def core(self) -> tuple[int, ...]:
        """The part of a window whose result is taken."""
        own: Any = self
        return tuple(w - 2 * m for w, m in zip(own.window, self.margin, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        values: Any = self
        return {"kind": self.kind, **dataclasses.asdict(values)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave.

        Raises
        ------
        ModelError
            Naming the entries that are not known.
        """
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "kind"}
        refuse_unknown(cls, given)
        steps = {
            name: tuple(Step(str(s["name"]), dict(s["values"])) for s in given.get(name, ()))
            for name in ("before", "after")
        }
        return cls(**given | steps)


def applied(steps: Sequence[Step], x: np.ndarray, axes: str) -> np.ndarray:
    """Return what all steps, one behind the other, make of `x`; `axes` as in "bcyx"."""
    for step in steps:
        x = step.apply(x, axes)
    return x


def _of_channels(values: Any, x: np.ndarray) -> Any:
    """Bring numbers, one per channel, to the second axis of `x`."""
    return values if np.isscalar(values) else np.reshape(np.asarray(values, np.float64), (-1, *(1,) * (x.ndim - 2)))


def _over(axes: str, joint: str | None) -> tuple[int, ...]:
    return tuple(i for i, a in enumerate(axes) if joint is None or a in joint)


def _deviation(x: np.ndarray, axes: str, joint: str | None = None, eps: float = EPSILON) -> np.ndarray:
    over, wide = _over(axes, joint), x.astype(np.float64)
    return (wide - wide.mean(over, keepdims=True)) / (wide.std(over, keepdims=True) + eps)


def _range(
    x: np.ndarray, axes: str, joint: str | None = None, low: float = 0.0, high: float = 100.0, eps: float = EPSILON
) -> np.ndarray:
    least, most = np.percentile(x, (low, high), axis=_over(axes, joint), keepdims=True)
    return (x - least) / (most - least + eps)


def _linear(x: np.ndarray, axes: str, gain: Any = 1.0, offset: Any = 0.0) -> np.ndarray:
    return x * _of_channels(gain, x) + _of_channels(offset, x)


def _fixed(x: np.ndarray, axes: str, mean: Any, std: Any) -> np.ndarray:
    return (x - _of_channels(mean, x)) / _of_channels(std, x)


def _clip(x: np.ndarray, axes: str, low: Any = None, high: Any = None) -> np.ndarray:
    return np.clip(x, *(None if bound is None else _of_channels(bound, x) for bound in (low, high)))


def _sigmoid(x: np.ndarray, axes: str) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def _softmax(x: np.ndarray, axes: str) -> np.ndarray:
    wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return wide / wide.sum(1, keepdims=True)


def _logit(x: np.ndarray, axes: str) -> np.ndarray:
    wide = np.clip(x.astype(np.float64), CERTAIN, 1 - CERTAIN)
    return np.log(wide / (1 - wide))


def _two_classes(x: np.ndarray, axes: str, above: float = 0.0) -> np.ndarray:
    return np.concatenate([np.zeros_like(x), x - np.float32(above)], 1)


def _binarize(x: np.ndarray, axes: str, threshold: Any) -> np.ndarray:
    return x > _of_channels(threshold, x)


STEPS: dict[str, Callable[..., np.ndarray]] = {
    "zero_mean_unit_variance": _deviation,
    "scale_range": _range,
    "scale_linear": _linear,
    "fixed_zero_mean_unit_variance": _fixed,
    "clip": _clip,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "binarize": _binarize,
    "logit": _logit,  # the last two are ours: of a probability, and what tells two classes apart
    "two_classes": _two_classes,
}
