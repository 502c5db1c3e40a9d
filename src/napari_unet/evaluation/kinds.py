"""Scores of the classes of objects: what is found of each class, and how often an object that is found has its own."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np

from ..metrics.contingency import Contingency
from ..metrics.objects import Overlaps

Kinds = Mapping[int, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Tally:
    """How many objects of each class are there, and found; those of several images add up.

    Parameters
    ----------
    right, known : int
        Of the true objects whose class is known and that are found, by an IoU of 0.5: those with the right class, and
        all.
    found, truth, result : mapping of str to int
        By class: objects that are found with their class, true ones, and those of the result, but for such that lie on
        a true object whose class is not known.
    """

    right: int
    known: int
    found: Mapping[str, int]
    truth: Mapping[str, int]
    result: Mapping[str, int]

    @classmethod
    def of(cls, table: Contingency, truth: Kinds, result: Kinds) -> Self:
        """Count the objects of a table of all elements, of one time point."""
        there, seen = (np.unique(ids[ids > 0]).tolist() for ids in (table.truth, table.result))
        pairs = Overlaps.of(table).matches()[:2]
        matched = [(truth.get(there[a]), result.get(seen[b])) for a, b in zip(*pairs, strict=True)]
        unknown = {seen[b] for a, b in zip(*pairs, strict=True) if truth.get(there[a]) is None}
        known = [(one, other) for one, other in matched if one is not None]
        return cls(
            sum(one == other for one, other in known),
            len(known),
            _count(one for one, other in known if one == other),
            _count(truth.get(i) for i in there),
            _count(result.get(i) for i in seen if i not in unknown),
        )

    def __add__(self, other: "Tally") -> "Tally":
        """Return both together."""
        sides = [
            {name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}}
            for a, b in ((self.found, other.found), (self.truth, other.truth), (self.result, other.result))
        ]
        return Tally(self.right + other.right, self.known + other.known, *sides)

    def scores(self) -> dict[str, float]:
        """Return ``class_accuracy``, and of each class ``ap_50``, ``f1_50`` and how many objects there are."""
        scores = {"class_accuracy": self.right / self.known} if self.known else {}
        for name in sorted({**self.truth, **self.result}):
            tp, n_truth, n_result = (side.get(name, 0) for side in (self.found, self.truth, self.result))
            scores |= {
                f"ap_50_{name}": tp / (n_truth + n_result - tp),
                f"f1_50_{name}": 2 * tp / (n_truth + n_result),
                f"n_truth_{name}": float(n_truth),
                f"n_result_{name}": float(n_result),
            }
        return scores


def _count(names: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(name for name in names if name is not None))
