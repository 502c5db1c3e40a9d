"""Long work beside the window: in a thread or a process; what it says reaches the window's own thread."""

import contextlib
import dataclasses
import datetime
import json
import os
import queue
import subprocess
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
NICE = 5
JOIN = 10.0
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


class Work:
    """Something that runs beside the window and says things; made by `Worker` and `Process`.

    Parameters
    ----------
    on_events : callable
        Called in the window's thread with the list of what came since the last call.
    on_end : callable
        Called in the window's thread, once, with an `Ended`.
    """

    def __init__(self, on_events: Callable[[list[Any]], None], on_end: Callable[[Ended], None]) -> None:
        self._on_events, self._on_end = on_events, on_end
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._timer = QTimer()
        self._timer.setInterval(EVERY)
        self._timer.timeout.connect(self._look)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._alive: Work | None = None
        self.running = False

    def start(self) -> "Work":
        """Begin."""
        self.running = True
        self._alive = self  # until it ends: a timer must not be collected in another thread
        self._thread.start()
        self._timer.start()
        return self

    def wait(self, seconds: float = JOIN) -> bool:
        """Wait in the window's thread for the end, and hand on all that was said; False where it has not ended."""
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self._look()
        return not self.running

    def cancel(self) -> None:
        """Ask it to stop; what is done is kept."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Ask it to stop, and listen no more."""
        if self.running:
            self.cancel()
            self._rest()

    def _run(self) -> None:
        """Work, in the thread; the last thing that is said is an `Ended`."""
        raise NotImplementedError

    def _rest(self) -> None:
        """Listen no more."""
        self.running, self._alive = False, None
        self._timer.stop()
        self._timer.timeout.disconnect(self._look)
        self._timer.deleteLater()

    def _look(self) -> None:
        said = []
        while not self._said.empty():
            said.append(self._said.get())
        ended = said.pop() if said and isinstance(said[-1], Ended) else None
        if ended is not None:
            self._rest()
        if said:
            self._on_events(said)
        if ended is not None:
            self._on_end(ended)


class Worker(Work):
    """A generator of events in a thread of its own; it is closed where the user cancels.

    Parameters
    ----------
    work : callable
        Returns the generator; called in the thread, so that it may load what it needs there.
    on_events, on_end : callable
        As `Work` takes them.
    """

    def __init__(
        self, work: Callable[[], Events], on_events: Callable[[list[Any]], None], on_end: Callable[[Ended], None]
    ) -> None:
        super().__init__(on_events, on_end)
        self._work, self._stop = work, threading.Event()

    def cancel(self) -> None:
        """Close the generator at its next event."""
        self._stop.set()

    def _run(self) -> None:
        _step_back()
        try:
            with contextlib.closing(self._work()) as events:
                while not self._stop.is_set():
                    self._said.put(next(events))
            self._said.put(Ended(cancelled=True))
        except StopIteration as end:
            self._said.put(Ended(end.value))
        except UnetError as error:
            self._said.put(Ended(error=" ".join(str(error).split())))
        except Exception as error:  # noqa: BLE001 - the window must go on; all of it is in the log
            what = without_secrets(f"{type(error).__name__}: {error}")
            self._said.put(Ended(error=f"{what} (details in {log(traceback.format_exc())})"))


class Process(Work):
    """A command that says one JSON object per line, and takes one per line.

    Parameters
    ----------
    command : list of str
    on_events, on_end : callable
        As `Work` takes them. The command's events "done", "stopped" and "error" become the `Ended`.
    """

    def __init__(
        self, command: list[str], on_events: Callable[[list[Any]], None], on_end: Callable[[Ended], None]
    ) -> None:
        super().__init__(on_events, on_end)
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> "Work":
        """Begin."""
        how: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        how["creationflags"] = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # no console beside the window
        self._process = subprocess.Popen(self._command, text=True, encoding="utf-8", **how)  # noqa: S603
        return super().start()

    def cancel(self) -> None:
        """Ask it to stop and keep its state."""
        self.ask(ask="pause")

    def ask(self, **what: Any) -> None:
        """Say something to it; nothing happens where it has ended."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.write(json.dumps(what) + "\n")
                self._process.stdin.flush()

    def leave(self) -> None:
        """Let it go on by itself; nothing is heard of it any more."""
        self._rest()

    def _run(self) -> None:
        process = self._process
        if process is None or process.stdout is None or process.stderr is None:
            return
        stderr: list[str] = []
        reader = threading.Thread(target=lambda: stderr.extend(process.stderr or ()), daemon=True)
        reader.start()
        ended = None
        for line in process.stdout:
            event = json.loads(line)
            ended = _ended(event) or ended
            self._said.put(event)
        process.wait()
        reader.join(JOIN)
        self._said.put(ended or Ended(error=f"the process ended unexpectedly (details in {log(''.join(stderr))})"))


def _ended(event: dict[str, Any]) -> Ended | None:
    """Return how a process ended, where an event says so."""
    if event["event"] == "done":
        return Ended(event)
    if event["event"] == "stopped":
        return Ended(event, cancelled=True)
    if event["event"] != "error":
        return None
    unexpected = f" (details in {log(event['traceback'])})" if event.get("traceback") else ""
    return Ended(error=event["message"] + unexpected)


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
