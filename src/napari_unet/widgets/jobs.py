"""Long work beside the window: what it says reaches the window's own thread."""

import atexit
import contextlib
import dataclasses
import datetime
import os
import queue
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer

from ..errors import UnetError
from ..text import without_secrets

EVERY = 50  # milliseconds between two looks at what came
NICE = 5  # below the window's own priority, which stays smooth so
JOIN = 10.0  # seconds: a block ends in less
Events = Generator[Any, None, Any]


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a piece of work ended.

    Parameters
    ----------
    result : object
        What it returned.
    error : str
        One line for the user, where it failed.
    cancelled : bool
        Whether the user stopped it.
    """

    result: Any = None
    error: str = ""
    cancelled: bool = False


class Worker:
    """A generator of events in a thread of its own; it is closed where the user cancels.

    Parameters
    ----------
    work : callable
        Returns the generator; called in the thread, so that it may load what it needs there. An event None is not
        handed on: it says that nothing has happened for a moment.
    on_events : callable
        Called in the window's thread with the list of what came since the last call.
    on_end : callable
        Called in the window's thread, once, with an `Ended`.
    """

    def __init__(
        self, work: Callable[[], Events], on_events: Callable[[list[Any]], None], on_end: Callable[[Ended], None]
    ) -> None:
        self._work, self._on_events, self._on_end = work, on_events, on_end
        self._stop = threading.Event()
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._timer = QTimer()
        self._timer.setInterval(EVERY)
        self._timer.timeout.connect(self._look)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.running = False

    def start(self) -> "Worker":
        """Begin."""
        self.running = True
        _alive.add(self)  # until it ends: a timer must not be collected in another thread
        self._thread.start()
        self._timer.start()
        return self

    def wait(self, seconds: float = JOIN) -> bool:
        """Wait in the window's thread for the end, and hand on all that was said; False where it has not ended."""
        self.join(seconds)
        if not self._thread.is_alive():
            self._look()
        return not self.running

    def join(self, seconds: float) -> None:
        """Wait for the end of its thread."""
        self._thread.join(seconds)

    def cancel(self) -> None:
        """Close the generator at its next event; what is done is kept."""
        self._stop.set()

    def abandon(self) -> None:
        """Ask it to stop, and listen no more."""
        if self.running:
            self.cancel()
            self.leave()

    def leave(self) -> None:
        """Listen no more, and let it go on."""
        self.running = False
        _alive.discard(self)
        self._timer.stop()
        self._timer.timeout.disconnect(self._look)
        self._timer.deleteLater()

    def _look(self) -> None:
        said = []
        while not self._said.empty():
            said.append(self._said.get())
        ended = said.pop() if said and isinstance(said[-1], Ended) else None
        if ended is not None:
            self.leave()
        if said:
            self._on_events(said)
        if ended is not None:
            self._on_end(ended)

    def _run(self) -> None:
        """Work, in the thread; the last thing that is said is an `Ended`."""
        _step_back()
        try:
            with contextlib.closing(self._work()) as events:
                while not self._stop.is_set():
                    event = next(events)
                    if event is not None:
                        self._said.put(event)
            self._said.put(Ended(cancelled=True))
        except StopIteration as end:
            self._said.put(Ended(end.value))
        except UnetError as error:
            self._said.put(Ended(error=" ".join(str(error).split())))
        except Exception as error:  # noqa: BLE001 - the window must go on; all of it is in the log
            what = without_secrets(f"{type(error).__name__}: {error}")
            self._said.put(Ended(error=f"{what} (details in {log(traceback.format_exc())})"))


_alive: set[Worker] = set()


def end_all(seconds: float = JOIN) -> None:
    """Stop what is running when Python ends: no timer and no thread may be left then; what is done is kept."""
    left = list(_alive)
    for worker in left:
        worker.abandon()
    until = time.monotonic() + seconds
    for worker in left:
        worker.join(max(0.0, until - time.monotonic()))


atexit.register(end_all)


def log(text: str) -> Path:
    """Keep the details of a failure in a file."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    number, name = tempfile.mkstemp(".log", f"napari-unet-{now}-")  # a new file, that others cannot read
    with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(without_secrets(text))
    return Path(name)


def _step_back() -> None:
    """Let the window go first where both want the processor; threads of the network inherit it."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def quiet(parent: Any, milliseconds: int, then: Callable[[], None]) -> QTimer:
    """Return a timer that, started again and again, does something once it was left alone for so long."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(then)
    return timer


class Clock:
    """Time left of a piece of work, from how fast it went lately.

    Units that were done before it began do not count.
    """

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def left(self, done: int, total: int) -> str:
        """Return the time left in words, nothing where it is not known yet."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        began, before = self._first
        if done <= before:
            return ""
        return duration((now - began) / (done - before) * (total - done))


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
