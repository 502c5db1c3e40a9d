"""What an evaluation says: scores by name, and what was decided on the way."""

import math
from collections.abc import Iterable, Mapping, Sequence

PLAIN = ""
FEW = 6


class Evaluation(dict[str, float]):
    """Scores by the field's names, as one flat dict; a class or a file adds a suffix: ``dice_255``, ``dice_cell``.

    What is not defined for the images, or infinite, is left out and named in the notes.

    Parameters
    ----------
    rows : mapping of suffix to scores by name
        The suffix "" is for the scores of everything.
    kind : "semantic", "instances" or "intensity"
    notes : iterable of str
        What was decided and the user should see; repetitions are dropped.
    """

    def __init__(self, rows: Mapping[str, Mapping[str, float]], kind: str, notes: Iterable[str] = ()) -> None:
        self.kind = kind
        self._rows = {suffix: {n: v for n, v in row.items() if math.isfinite(v)} for suffix, row in rows.items()}
        super().__init__({_key(n, suffix): float(v) for suffix, row in self._rows.items() for n, v in row.items()})
        missing = [_key(n, suffix) for suffix, row in rows.items() for n, v in row.items() if not math.isfinite(v)]
        left_out = [f"left out, being infinite or not defined here: {_listed(missing)}"] if missing else []
        self.notes = tuple(dict.fromkeys([*notes, *left_out]))

    def to_json(self) -> dict[str, float]:
        """Return the scores as plain values for a JSON file."""
        return dict(self)

    def table(self) -> str:
        """Return the scores as aligned text: a column for everything and for each class or file, or rows of many."""
        names = list(dict.fromkeys(name for row in self._rows.values() for name in row))
        heads = [suffix or "all" for suffix in self._rows]
        cells = [[_cell(name, row.get(name)) for name in names] for row in self._rows.values()]
        if len(heads) > FEW:
            return _aligned([["", *names], *([head, *row] for head, row in zip(heads, cells, strict=True))])
        lines = [[name, *(row[i] for row in cells)] for i, name in enumerate(names)]
        return _aligned(lines if len(heads) == 1 else [["", *heads], *lines])


def file_suffix(stem: str) -> str:
    """Return the suffix of a file's scores, which is never that of a class: its stem, or ``file_18`` for "18"."""
    return f"file_{stem}" if stem[:1].isdigit() or stem.startswith("file_") else stem


def _key(name: str, suffix: str) -> str:
    return f"{name}_{suffix}" if suffix else name


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if name.startswith("objects") else f"{value:.4f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = (
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))] for line in lines
    )
    return "\n".join("  ".join(row).rstrip() for row in rows)
