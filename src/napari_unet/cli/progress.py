"""Events on a terminal: a progress bar; plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from ..events import Epoch, Progress
from ..text import escaped

T = TypeVar("T")
EVERY = 10.0  # seconds between plain lines: a log of a night has some thousand


def show(events: Generator[Progress | Epoch, None, T] | Generator[Progress, None, T]) -> T:
    """Show events until the work is done; return its result."""
    console = Console(stderr=True)
    with _bars(console) if console.is_terminal else contextlib.nullcontext(_Lines()) as take:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                result: T = end.value
                return result
            take(event)


@contextlib.contextmanager
def _bars(console: Console) -> Iterator[Callable[[Progress | Epoch], None]]:
    """Give what draws an event: a bar for the stage at work, a line for each epoch and message."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task: dict[str, TaskID] = {}

        def take(event: Progress | Epoch) -> None:
            if isinstance(event, Epoch):
                console.print(Text(escaped(epoch_line(event))))
                return
            if event.message and event.stage != "train":
                console.print(Text(escaped(f"{event.stage}: {event.message}")))
            if event.stage not in task:
                for old in task.values():
                    bars.remove_task(old)
                task.clear()
                task[event.stage] = bars.add_task(event.stage, total=event.total or None)
            bars.update(task[event.stage], completed=event.done, total=event.total or None)

        yield take


class _Lines:
    """Writes an event as a plain line, but not more often than anybody wants to read."""

    def __init__(self) -> None:
        self._stage, self._message, self._said = "", "", 0.0

    def __call__(self, event: Progress | Epoch) -> None:
        now = time.monotonic()
        if isinstance(event, Epoch):
            line = epoch_line(event)
        elif event.stage != self._stage or now - self._said >= EVERY or self._is_news(event):
            self._stage, self._message = event.stage, event.message
            line = f"{event.stage} {event.done}/{event.total} {event.message}".rstrip()
        else:
            return
        self._said = now
        sys.stderr.write(f"{escaped(line)}\n")

    def _is_news(self, event: Progress) -> bool:
        return event.message not in ("", self._message) and event.stage != "train"


def epoch_line(event: Epoch) -> str:
    """Return one line about an epoch."""
    number = f"{event.number}/{event.total}" if event.total else str(event.number)
    validation = "" if event.validation_loss is None else f", validation {event.validation_loss:.4f}"
    scores = "".join(f", {name} {score:.3f}" for name, score in event.scores.items())
    best = ", best so far" if event.best else ""
    message = f" ({event.message})" if event.message else ""
    return f"epoch {number}: loss {event.train_loss:.4f}{validation}{scores}{best}{message}"
