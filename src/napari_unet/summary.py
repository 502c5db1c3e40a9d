"""The table of a batch: one row per file, whatever its name, and nothing in it that a spreadsheet would run."""

import csv
import dataclasses
import io
import itertools
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import OutputError
from .events import Progress
from .files import disk, replace
from .store.journal import FOLDER
from .store.layout import ledgers, read_group

SUMMARY = "summary.csv"
COLUMNS = ("file", "state", "seconds", "message", "result", "model")  # that every summary has; counts of classes follow
TEXT = ("file", "state", "message", "result", "model")  # columns that are not numbers
OF_PLATES = ("well", "field")  # columns of images in plates
VOXELS = "voxels_"
OBJECTS, FOREGROUND, BACKGROUND = "objects", "foreground", "background"  # counts: of objects, their voxels, all others
LONGEST = 2000  # letters of a message; readers of CSV refuse fields of 131,072
# What spreadsheets take for a formula; with the apostrophes before it, so that the rule can be undone.
FORMULA = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What happened to one file.

    Parameters
    ----------
    file : str
        Its path in the folder, as `printable` writes it.
    state : {"waiting", "done", "skipped", "failed"}
        Skipped is what an earlier run finished with the same model and settings.
    message : str
        Why it failed; otherwise what was decided on opening it.
    result : str
        Its result, in the folder of the results; the image itself where labels are written into that.
    model : str
        First characters of the model's SHA-256; of each model of a cascade.
    counts : mapping of str to int
        Voxels of each class, by its name; of objects their number, and voxels that lie in any.
    well, field : str
        Of an image in a plate: ``A1``, and the path of the image in its well.
    """

    file: str
    state: str
    seconds: float
    message: str = ""
    result: str = ""
    model: str = ""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    well: str = ""
    field: str = ""

    @property
    def found(self) -> int:
        """How many objects there are; else how many voxels are of any class but the background."""
        every = sum(count for name, count in self.counts.items() if name != BACKGROUND)
        return self.counts.get(OBJECTS, every)

    def to_csv(self) -> dict[str, str]:
        """Return its cells by column."""
        cells = {name: cell(getattr(self, name)) for name in (*TEXT, *(OF_PLATES if self.well else ()))}
        # A class may be called "objects" too: its voxels are counted, and the background.
        apart = FOREGROUND in self.counts and BACKGROUND not in self.counts
        counts = {
            (OBJECTS if apart and name == OBJECTS else VOXELS + printable(name)): str(n)
            for name, n in self.counts.items()
        }
        return cells | {"seconds": f"{self.seconds:.1f}"} | counts

    @classmethod
    def from_csv(cls, cells: Mapping[str, str]) -> "Row":
        """Build from the cells of a line."""
        # In older tables the number of objects is called "voxels_objects".
        columns = {k: v for k, v in cells.items() if (k == OBJECTS or k.startswith(VOXELS)) and v}
        counts = {k.removeprefix(VOXELS): int(v) for k, v in columns.items()}
        fixed: dict[str, Any] = {name: _text(cells[name]) for name in TEXT}
        fixed |= {name: _text(cells.get(name) or "") for name in OF_PLATES}
        return cls(**fixed | {"seconds": float(cells["seconds"]), "counts": counts})


def printable(text: str) -> str:
    r"""Return text that any terminal and file takes: bytes of a name that are not UTF-8 stand as ``\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode()


def cell(text: str) -> str:
    """Return text as it stands in the table: an apostrophe before whatever a spreadsheet would take for a formula."""
    text = printable(text)
    return f"'{text}" if FORMULA.match(text) else text


def _text(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


@dataclasses.dataclass(frozen=True, slots=True)
class Files(Progress):
    """How far a batch is.

    Parameters
    ----------
    rows : tuple of Row
        At the beginning one per file, all waiting; then that of the file that was tried.
    """

    rows: tuple[Row, ...] = ()


class Summary:
    """The rows of all files that batches into a folder have seen; written whole or not at all.

    A row is dropped before its result changes and put back after that is complete, so that at any moment each row
    that is there is true.

    Parameters
    ----------
    out : Path
        Folder of the results.

    Raises
    ------
    OutputError
        Where its ``summary.csv`` is not the table of a batch.
    """

    def __init__(self, out: Path) -> None:
        self._path, self._changing = out / SUMMARY, threading.Lock()
        self.rows = {row.file: row for row in check_summary(self._path) if _stands(out, row)}
        self._cells = {file: row.to_csv() for file, row in self.rows.items()}
        self._columns: tuple[str, ...] = ()
        self._lines: dict[str, str] = {}  # as they were written last, under these columns

    def put(self, row: Row) -> None:
        """Write it with the row of a file put in place."""
        with self._changing:
            self.rows[row.file], self._cells[row.file] = row, row.to_csv()
            self._lines.pop(row.file, None)
            self._write()

    def drop(self, file: str) -> None:
        """Write it without the row of a file, whose result is about to change."""
        with self._changing:
            if self.rows.pop(file, None) is not None:
                del self._cells[file]
                self._lines.pop(file, None)
                self._write()

    def _write(self) -> None:
        columns = tuple(dict.fromkeys(itertools.chain(COLUMNS, *self._cells.values())))
        if columns != self._columns:
            self._columns, self._lines = columns, {}
        self._lines.update({f: _line(cells, columns) for f, cells in self._cells.items() if f not in self._lines})
        text = _line(dict(zip(columns, columns, strict=True)), columns) + "".join(
            map(self._lines.__getitem__, self.rows)
        )
        with disk(self._path.parent):
            replace(self._path, text.encode(), self._path.parent / FOLDER)


def _line(cells: Mapping[str, str], columns: tuple[str, ...]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow([cells.get(column, "") for column in columns])
    return text.getvalue()


def _stands(out: Path, row: Row) -> bool:
    """Say whether a row still holds: a result that it calls complete is there, and is complete."""
    if row.state not in ("done", "skipped"):
        return True
    groups = (read_group(ledger.parent) for ledger in ledgers(out / row.result))
    return any(_state(attributes) == "complete" for _, attributes in filter(None, groups))


def _state(attributes: Mapping[str, Any]) -> object:
    ours = attributes.get(FOLDER.lstrip("."))
    return ours.get("state") if isinstance(ours, dict) else None


def check_summary(path: Path) -> list[Row]:
    """Read the table of earlier batches; refuse a file that is none.

    Raises
    ------
    OutputError
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OutputError(f"{path} is a link or a folder; choose another folder for the results")
    try:
        return list(_rows(path)) if path.exists() else []
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise OutputError(
            f"{path} exists and is not the table of a batch; move it away, or choose another folder for the results"
        ) from error


def _rows(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ())[: len(COLUMNS)] != COLUMNS:
            raise ValueError(f"columns are {table.fieldnames}")
        yield from map(Row.from_csv, table)
