"""A piece of work in another process, as an iterator of its events: heard, sent requests, closed, and left alone."""

import collections
import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from ..device import versions
from ..errors import IncompleteError, ResourceError, UsageError
from ..events import Progress
from .child import SAME
from .memory import environment
from .parcel import NotSentError, forget_copies, heard, pack, say

BEAT = 0.2  # seconds without an event after which the listener gets an empty one
PATIENCE = 1.0  # seconds in which a piece of work that is closed must end; then its process is ended
BRIEF = 5.0  # seconds that are waited for a process which does something brief, before another is started
BEGIN = 60.0  # seconds in which a process must say hello: Python and numpy may come from a slow network
KILLED = 9  # the signal
LAST_LINES = 200  # of what it writes as errors
IDLE = 180.0  # seconds without work after which it ends: torch alone holds 300 MiB
ENDS = ("done", "closed", "failed", "refused", "gone")
HERE_INSTEAD = "the image cannot be sent to a process of its own, so the work is done in this one, which may be slow"
ENDED = (
    "the system ended the process of this work, most likely because memory ran out; what is done is kept; close other "
    "programs, or choose less with --memory, and go on"
)
HERE = versions(*SAME)  # as they are now: they may be replaced on the disk while the window is open
Events = Generator[Any, Any, Any]


class Child:
    """A process that waits for work; what it says is heard in a thread."""

    def __init__(self) -> None:
        folders = [path or str(Path.cwd()) for path in sys.path]
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", __package__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment() | {"PYTHONPATH": os.pathsep.join(folders)},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # no console beside the window
        )
        self._to: Any = self.process.stdin
        self._from: Any = self.process.stdout
        self._heard: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._speaking = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._errors = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        self._errors.start()

    def _read(self) -> None:
        for message in heard(self._from):
            self._heard.put(message)
        self._heard.put(("gone",))
        self.process.wait()
        _children.lost(self)
        self._errors.join()
        for pipe in (self._to, self._from):
            with self._speaking, contextlib.suppress(OSError):  # what was not read any more
                pipe.close()

    def _read_errors(self) -> None:
        lines: Any = self.process.stderr
        with lines:
            self._lines.extend(line.decode("utf-8", "replace") for line in lines)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def say(self, *message: Any) -> None:
        """Say something to it; nothing happens where it has ended."""
        with self._speaking, contextlib.suppress(OSError, ValueError):
            say(self._to, *message)

    def hear(self, seconds: float) -> tuple[Any, ...]:
        """Return what it says next; nothing where it says nothing for so long, ("gone",) where it has ended."""
        with contextlib.suppress(queue.Empty):
            return self._heard.get(timeout=seconds)
        return ()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        """Return what it wrote as errors, and how it ended."""
        self.process.wait()
        self._errors.join(PATIENCE)
        return f"{''.join(self._lines)}\nexit code {self.process.returncode}"


class _Children:
    """The processes there are, of which one at most waits for work, and not for long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: set[Child] = set()
        self._idle: dict[Child, threading.Timer] = {}
        self._brief = self._working = 0

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Keep what is copied for a piece of work, until it has ended."""
        with self._changed:
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._forget()

    def _forget(self) -> None:
        """Take away the copies that nobody has, and nobody is sent."""
        if not self._all and not self._working:
            forget_copies()

    def take(self, brief: bool) -> Child:
        """Return one that waits for work, or will in a moment; else a new one."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or not self._brief, BRIEF)
            child = next((child for child in self._idle if child.alive), None)
            if child is None:
                child = Child()
                self._all.add(child)
            else:
                self._idle.pop(child).cancel()
            self._brief += brief
            return child

    def put(self, child: Child, brief: bool, keep: bool) -> None:
        """Take one back that has done its work."""
        with self._changed:
            self._brief -= brief
            if keep and child.alive and not self._idle:
                self._idle[child] = timer = threading.Timer(IDLE, self._end, (child,))
                timer.daemon = True
                timer.start()
            else:
                child.say("end")
            self._changed.notify_all()

    def _end(self, child: Child) -> None:
        """End a process that was not used."""
        with self._changed:
            if self._idle.pop(child, None) is not None:
                child.say("end")

    def lost(self, child: Child) -> None:
        """Note that one has ended; with the last go the copies of what lies in memory."""
        with self._changed:
            self._all.discard(child)
            self._idle.pop(child, None)
            self._forget()


_children = _Children()
working = _children.working


class Remote:
    """A piece of work in another process.

    Parameters
    ----------
    work : generator function
        By its name in a module. It is sent None, or the list of requests since its last event.
    *arguments
        Its own.
    brief : bool
        Whether it takes a moment, so that other work waits for its process and no other one is started.
    patience : float
        Seconds in which it must end when it is closed; then its process is ended.
    goes_on : bool
        Whether it does when this process is gone; else it is closed then.
    keep : bool
        Whether its process is kept for other work.
    hollow : bool
        Whether images go as zeros of their shape, as `pack` says.
    """

    def __init__(
        self,
        work: Callable[..., Events],
        *arguments: Any,
        brief: bool = False,
        patience: float = PATIENCE,
        goes_on: bool = False,
        keep: bool = True,
        hollow: bool = False,
    ) -> None:
        self._work, self._arguments = work, arguments
        self._brief, self._patience, self._hollow = brief, patience, hollow
        self._goes_on, self._keep = goes_on, keep
        self.child: Child | None = None

    def ask(self, what: Any) -> bool:
        """Send a request to the work; False, and nothing happens, where it has ended or not begun."""
        child = self.child
        if child is not None:
            child.say("ask", what)
        return child is not None

    def leave(self) -> None:
        """Let the work go on when this process is gone."""
        if self.child is not None:
            self.child.say("leave")

    def events(self) -> Events:
        """Yield what the work does, and None where it does nothing for a moment; closing it closes the work.

        Where the work cannot be sent, it is done here.

        Returns
        -------
        what the work returns

        Raises
        ------
        ResourceError
            Where the system ends its process, as it does when memory runs out.
        IncompleteError
            Where another process tells it to end.
        UsageError
            Where other versions are installed by now.
        """
        with working():
            try:
                return (yield from self._away(pack((self._work, self._arguments), hollow=self._hollow)))
            except NotSentError as error:
                why = str(error)
        yield Progress(0, 0, "note", f"{HERE_INSTEAD}: {why}")
        return (yield from self._work(*self._arguments))

    def _away(self, data: bytes) -> Events:
        try:
            child = _children.take(self._brief)
        except OSError as error:
            raise NotSentError(f"none can be started: {error}") from error
        ended = False
        try:
            child.say("start", data, self._goes_on)
            self.child = child
            while True:
                kind, *more = child.hear(BEAT) or ("event", None)
                if kind == "event":
                    yield more[0]
                elif kind == "hello":
                    _check(child, more[0])
                elif kind in ENDS:
                    ended = True
                    return _result(child, kind, *more)
        finally:
            self.child = None
            if not ended:
                self._close(child)
            _children.put(child, self._brief, self._keep)

    def _close(self, child: Child) -> None:
        """Ask the work to end, and wait; end its process where it does not."""
        child.say("cancel")
        until = time.monotonic() + self._patience
        while (left := until - time.monotonic()) > 0:
            if (child.hear(left) or ("",))[0] in ENDS:
                return
        child.kill()


def _check(child: Child, there: dict[str, str]) -> None:
    """Refuse a process of other versions."""
    for name, version in HERE.items():
        if there.get(name) != version:
            child.kill()
            raise UsageError(
                f"{name} was {version} when this program was started and is {there.get(name)} now; start it again"
            )


def _result(child: Child, kind: str, *more: Any) -> Any:
    """Return what a piece of work came to, or raise what it raised."""
    if kind == "refused":
        raise NotSentError(more[0])
    if kind == "failed":
        error, text = more
        error.__cause__ = _ThereError(text)
        raise error
    if kind == "gone":
        words = child.last_words()
        if child.process.returncode == -KILLED:
            raise ResourceError(ENDED)
        raise _ThereError(words)
    if kind == "closed":
        raise IncompleteError("the process of this work was told to end by another one; what is done is kept: go on")
    return more[0]


class _ThereError(RuntimeError):
    """What happened in the other process, in its own words."""
