"""Coordinate transformations of OME-Zarr 0.4 to 0.6, as far as they are a scale and a translation per axis."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .zarrays import open_array
from .zarrmeta import Node, array_info, below, read_node

MOST_NUMBERS = 64  # of a stored transformation: five axes need 30
DEEPEST = 16  # of sequences in sequences


@dataclasses.dataclass(frozen=True, slots=True)
class Placing:
    """Where the elements of an array lie: position = index * `scale` + `translation`, per axis."""

    scale: tuple[float, ...]
    translation: tuple[float, ...]

    @classmethod
    def identity(cls, ndim: int) -> "Placing":
        """Return the placing of elements at their own index."""
        return cls((1.0,) * ndim, (0.0,) * ndim)

    def then(self, other: "Placing") -> "Placing":
        """Return this placing, with `other` applied to its positions."""
        return Placing(
            tuple(s * o for s, o in zip(self.scale, other.scale, strict=True)),
            tuple(t * s + o for t, s, o in zip(self.translation, other.scale, other.translation, strict=True)),
        )

    def through(self, shapes: Sequence[Sequence[int]]) -> "Placing":
        """Return where the elements of the last of several levels lie, of the first of which this is the placing.

        From 17 over 9 to 5 elements each stands for 4, and not for the 3 of 17 // 5.
        """
        found = self
        for shape, small in itertools.pairwise(shapes):
            found = found.reduced(shape, small)
        return found

    def reduced(self, shape: Sequence[int], small: Sequence[int]) -> "Placing":
        """Return where the elements of a coarser level lie, whose size is `small` where this has `shape`.

        One of them stands for f of these and lies in their middle, (f - 1) / 2 from the first.
        """
        factors = [reduction(n, m) for n, m in zip(shape, small, strict=True)]
        return Placing(tuple(factors), tuple((f - 1) / 2 for f in factors)).then(self)


def reduction(size: int, small: int) -> float:
    """Return how many elements one of a coarser level stands for; whole where the size was only rounded."""
    if not small:
        return 1.0
    whole = max(1, round(size / small))
    rounded = small in (size // whole, math.ceil(size / whole))
    return float(whole) if rounded else size / small


def number(value: Any) -> float | None:
    """Return a JSON value as a number, text too where it is one; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def placing(steps: Any, ndim: int, node: Node) -> tuple[Placing, bool]:
    """Combine the transformations of a dataset, or of a multiscale, in their order.

    Parameters
    ----------
    steps : list of JSON objects
        Other values are skipped.
    node : Node
        The group, in which numbers may be stored as arrays.

    Returns
    -------
    (placing, whether a scale was among them)

    Raises
    ------
    DataError
        Where one of them is not a scale and translation per axis, by its name.
    """
    found, scaled = Placing.identity(ndim), False
    for step in _flat(steps, node.where):
        kind = step.get("type")
        apply = APPLIED.get(str(kind))
        if kind is None or (apply and kind not in step and "path" not in step):
            continue
        if apply is None:
            raise DataError(
                f"{node.where}: its coordinate transformation {str(kind)[:40]!r} cannot be applied, only a scale and a "
                "translation per axis can; open the array inside, with axes"
            )
        found = found.then(apply(_values(step, str(kind), node), ndim, f"{node.where}: its {kind}"))
        scaled = scaled or kind != "translation"
    return found, scaled


def _flat(steps: Any, where: str, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield single transformations; those of a sequence one by one, identities not at all."""
    if depth > DEEPEST:
        raise DataError(f"{where}: its coordinate transformations are nested too deeply; open the array inside")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and step.get("type") == "sequence":
            yield from _flat(step.get("transformations"), where, depth + 1)
        elif isinstance(step, dict) and step.get("type") != "identity":
            yield step


def _values(step: Mapping[str, Any], kind: str, node: Node) -> Any:
    """Return the numbers of a transformation: in the metadata, or in an array that it names."""
    path = step.get("path")
    if kind in step or not isinstance(path, str):
        return step.get(kind)
    stored = read_node(below(node.where, path))
    if stored is None or not stored.is_array or math.prod(array_info(stored).shape) > MOST_NUMBERS:
        raise DataError(f"{node.where}: its {kind} should be in {path!r}, where there is no such array; copy it again")
    return np.asarray(open_array(stored)[...]).tolist()


def _numbers(values: Any, ndim: int, what: str) -> tuple[float, ...]:
    found = [number(v) for v in values] if isinstance(values, list) else []
    if len(found) != ndim or None in found:
        raise DataError(f"{what} {str(values)[:100]} does not fit {ndim} axes; open the array inside, with axes")
    return tuple(v for v in found if v is not None)


def _scale(values: Any, ndim: int, what: str) -> Placing:
    return Placing(_numbers(values, ndim, what), (0.0,) * ndim)


def _translation(values: Any, ndim: int, what: str) -> Placing:
    return Placing((1.0,) * ndim, _numbers(values, ndim, what))


def _matrix(values: Any, ndim: int, what: str) -> Placing:
    """Read a matrix without (rotation), or with a last column that is added (affine), if it mixes no axes."""
    rows = values if isinstance(values, list) else []
    width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    matrix = [_numbers(row, width, what) for row in rows[:ndim]]  # a homogeneous matrix has one row more
    if len(rows) not in (ndim, ndim + 1) or width not in (ndim, ndim + 1):
        raise DataError(f"{what} {str(values)[:100]} does not fit {ndim} axes; open the array inside, with axes")
    if any(row[k] for i, row in enumerate(matrix) for k in range(ndim) if k != i):
        raise DataError(f"{what} mixes axes and cannot be applied; resample the image, or open the array, with axes")
    moved = tuple(row[ndim] for row in matrix) if width > ndim else (0.0,) * ndim
    return Placing(tuple(row[i] for i, row in enumerate(matrix)), moved)


APPLIED: Mapping[str, Callable[[Any, int, str], Placing]] = {
    "scale": _scale,
    "translation": _translation,
    "affine": _matrix,
    "rotation": _matrix,
}


def coordinate_system(multiscale: Mapping[str, Any], dataset: Mapping[str, Any]) -> tuple[Any, tuple[str, ...] | None]:
    """Find the axes of a multiscale: its own, or those of the coordinate system that `dataset` is placed in (0.6).

    Returns
    -------
    (axes, notes)
        `notes` name the transformations to further coordinate systems, which are not applied; None before 0.6, where
        those of the multiscale belong to every dataset.
    """
    listed = multiscale.get("coordinateSystems")
    systems = [s for s in listed if isinstance(s, dict)] if isinstance(listed, list) else []
    if not systems:
        return multiscale.get("axes"), None
    steps = chain(dataset, ())
    name = _name(steps[-1].get("output")) if steps and isinstance(steps[-1], dict) else ""
    chosen = next((s for s in systems if s.get("name") == name), systems[0])
    further = multiscale.get("coordinateTransformations")
    here = _name(chosen)[:40]
    notes = [
        f"positions are of the coordinate system {here!r}; the {str(step.get('type'))[:40]} to "
        f"{_name(step.get('output'))[:40]!r} is not applied"
        for step in (further if isinstance(further, list) else ())
        if isinstance(step, dict) and step.get("type") not in (None, "identity")
    ]
    return chosen.get("axes", multiscale.get("axes")), tuple(notes)


def chain(dataset: Mapping[str, Any], beyond: tuple[str, ...] | None) -> list[Any]:
    """Return the transformations of a dataset that follow each other: of several into other systems, the first."""
    steps = dataset.get("coordinateTransformations")
    if not isinstance(steps, list):
        return []
    apart = [s for s in steps[1:] if isinstance(s, dict) and "input" in s]
    follow = all(a.get("output") == b.get("input") for a, b in zip(steps, apart, strict=False) if isinstance(a, dict))
    return steps[:1] if beyond is not None and apart and not follow else steps


def _name(system: Any) -> str:
    """Return the name of a coordinate system, which some writers put into an object."""
    return str(system.get("name", "") if isinstance(system, dict) else system or "")
