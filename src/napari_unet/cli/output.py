"""What commands print: names and messages as they are, with nothing in them that a terminal would obey."""

import sys
from collections.abc import Iterable, Sequence

from ..text import escaped


def tell(line: object) -> None:
    """Print one line, as long as it is."""
    sys.stdout.write(f"{escaped(line)}\n")


def tell_lines(text: str) -> None:
    """Print several lines, whose parts hold no line ends of their own."""
    for line in text.split("\n"):
        tell(line)


def say(line: str, before: str = "napari-unet: ") -> None:
    """Write one line for the user beside the output."""
    sys.stderr.write(f"{before}{escaped(line)}\n")


def tell_rows(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values, aligned."""
    listed = [(escaped(name), value) for name, value in rows]
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        tell(f"{name:{width}}  {value}")


def tell_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with a head; cells are text, not rich's markup."""
    from rich.console import Console  # not at the top: most commands print no table
    from rich.table import Table
    from rich.text import Text

    table = Table(*head)
    for row in rows:
        table.add_row(*(Text(escaped(cell)) for cell in row))
    Console().print(table)
