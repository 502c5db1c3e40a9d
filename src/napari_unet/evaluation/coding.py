"""Which label value is which class, where a result and the truth write them differently."""

import dataclasses
from collections.abc import Mapping, Sequence

from ..errors import DataError

MANY = 20
MAX_CLASSES = 256
SHOWN = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a result and the truth.

    Parameters
    ----------
    values : tuple of int
        Label value of each class, rising; the truth's own where it has one.
    result, truth : mapping of label value to class number
    note : str
        How values were taken as classes, where they are not written alike; or nothing.
    """

    values: tuple[int, ...]
    result: Mapping[int, int]
    truth: Mapping[int, int]
    note: str = ""


def decide_kind(result: set[int], truth: set[int]) -> tuple[str, str]:
    """Decide from the label values that occur whether they are classes or objects.

    Objects where there are more than 20 values on either side, unless the other has just one besides 0.

    Returns
    -------
    kind : "semantic" or "instances"
    note : str
    """
    many = max(len(result), len(truth)) > MANY
    if many and not (_is_mask(result) or _is_mask(truth)):
        return "instances", f"taken as objects: {len(result)} label values in the result, {len(truth)} in the truth"
    count = len(result | truth)
    return "semantic", f"taken as classes: {count} label values; give kind instances where they are object numbers"


def match_classes(result: set[int], truth: set[int]) -> Classes:
    """Say which label values are which class.

    Values are classes as they are where all of one side's occur on the other. Where they are written differently,
    they are classes in order of value: 0 and 1 are 0 and 255. Object numbers against one value are one class.

    Parameters
    ----------
    result, truth : set of int
        The label values that occur.

    Raises
    ------
    DataError
        Where values do not correspond, or are too many.
    """
    if _is_mask(result) or _is_mask(truth):
        return _match_masks(result, truth) or _match_many(result, truth)
    return _match_many(result, truth)


def _match_masks(result: set[int], truth: set[int]) -> Classes | None:
    """Match 0 and one other value; None where one side has several classes."""
    both = _is_mask(result) and _is_mask(truth)
    if not both and max(len(result), len(truth)) <= MANY:
        return None
    one, other = (max(v) if _is_mask(v) else 1 for v in (result, truth))
    values = (0, other or one) if one or other else (0,)
    sides = [{v: int(v > 0) for v in side} for side in (result, truth)]
    note = ""
    if not both:
        which, count = ("truth", len(truth)) if _is_mask(result) else ("result", len(result))
        note = f"the {count} label values of the {which} are taken as one class, everything but 0"
    elif one and other and one != other:
        note = _in_order((0, one), (0, other))
    return Classes(values, *sides, note)


def _match_many(result: set[int], truth: set[int]) -> Classes:
    if max(len(result), len(truth)) > MAX_CLASSES:
        raise DataError(
            f"{len(result)} label values in the result and {len(truth)} in the truth cannot be classes (at most "
            f"{MAX_CLASSES}); give kind instances where they are object numbers"
        )
    found, true = sorted(result), sorted(truth)
    if result <= truth or truth <= result:
        return _by_value(result, truth)
    shared = result & truth
    runs = _is_run(found) and _is_run(true)
    if len(found) == len(true) > 1 and (shared <= {0} or runs):
        return _by_order(true, found, true, _in_order(found, true))
    if shared <= {0} and result <= set(range(len(true))):
        return _by_order(true, range(len(true)), true, _in_order(found, true))
    if shared <= {0} and truth <= set(range(len(found))):
        return _by_order(found, found, range(len(found)), _in_order(found, true))
    if shared - {0}:
        alone = (
            f"{_listed(sorted(result - truth))} only in the result, {_listed(sorted(truth - result))} only in the truth"
        )
        return dataclasses.replace(_by_value(result, truth), note=f"label values are classes as they are; {alone}")
    raise DataError(
        f"the result has the label values {_listed(found)}, the truth {_listed(true)}: which is which class cannot be "
        "told; write both with the same values"
    )


def _by_value(result: set[int], truth: set[int]) -> Classes:
    values = tuple(sorted(result | truth))
    number = {v: i for i, v in enumerate(values)}
    return Classes(values, number, number)


def _by_order(values: Sequence[int], found: Sequence[int], true: Sequence[int], note: str) -> Classes:
    sides = ({v: i for i, v in enumerate(side)} for side in (found, true))
    return Classes(tuple(values), *sides, note)


def _in_order(found: Sequence[int], true: Sequence[int]) -> str:
    return f"{_listed(found)} in the result and {_listed(true)} in the truth are taken as classes in order of value"


def _is_mask(values: set[int]) -> bool:
    return len(values - {0}) <= 1


def _is_run(values: Sequence[int]) -> bool:
    return values[-1] - values[0] == len(values) - 1


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")
