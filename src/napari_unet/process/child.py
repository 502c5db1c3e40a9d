"""The process itself: it takes pieces of work, one after the other, does them, and says what happens.

Each message is a pickle, on its input and its output.

===================================  ========================================================
it hears                             it says
===================================  ========================================================
("start", work, goes_on)             ("hello", versions), once
("ask", what): sent into the work    ("refused", why): the work cannot be unpacked here
("cancel",): the work is closed      ("began",), then ("event", event) each
("leave",): it goes on alone         ("done", result), ("closed",) or ("failed", error, traceback)
("end",)
===================================  ========================================================
"""

import contextlib
import gc
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from ..device import versions
from ..events import Progress
from .memory import give_back
from .parcel import NotSentError, forget_copies, heard, say, unpack

NICE = 5  # the window goes first where both want the processor
EVERY = 0.1  # seconds between two events on the progress of a stage
SAID_ALWAYS = ("plan", "note")  # stages whose messages are all read
# What must be the same at both ends, as objects go between them.
SAME = ("napari-unet-stacks", "numpy", "zarr", "dask", "torch")
GONE: Any = ("gone",)  # what is received when the other end is gone


class CancelledError(Exception):
    """The work is not wanted any more."""


class Voice:
    """Says things to the other end; nothing once it is gone.

    Parameters
    ----------
    out : binary file
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._last = out, (float("-inf"), "")

    def say(self, *message: Any) -> None:
        """Say something; what cannot be pickled is raised."""
        with contextlib.suppress(OSError):
            say(self._out, *message)

    def report(self, event: Any) -> None:
        """Say an event; of plain progress the first and the last of a stage, and a few a second between."""
        if type(event) is Progress and event.stage not in SAID_ALWAYS:
            now = time.monotonic()
            if event.stage == self._last[1] and now - self._last[0] < EVERY and event.done != event.total:
                return
            self._last = now, event.stage
        self.say("event", event)


class Work:
    """One piece of work, and the requests that come meanwhile.

    Parameters
    ----------
    inbox : queue
        What is heard.
    goes_on : bool
        Whether it goes on when the other end is gone; else it is closed then.
    """

    def __init__(self, inbox: "queue.Queue[Any]", goes_on: bool) -> None:
        self._inbox, self._goes_on = inbox, goes_on
        self.alone = False

    def run(self, work: Generator[Any, Any, Any], voice: Voice) -> None:
        """Do it to its end, saying what happens."""
        with contextlib.closing(work):
            try:
                requests: list[Any] | None = None
                while True:
                    voice.report(work.send(requests))
                    requests = self._received() or None
            except StopIteration as end:
                voice.say("done", end.value)

    def _received(self) -> list[Any]:
        """Return the requests since the last event.

        Raises
        ------
        CancelledError
            Where the work is not wanted any more.
        """
        found: list[Any] = []
        while not self._inbox.empty():
            kind, *more = self._inbox.get()
            self.alone |= kind == "gone"
            self._goes_on |= kind == "leave"
            if kind == "cancel" or (self.alone and not self._goes_on):
                raise CancelledError
            found += more if kind == "ask" else []
        return found


def do(data: bytes, work: Work, voice: Voice) -> None:
    """Do a piece of work that was packed as (generator function, arguments)."""
    try:
        function, arguments = unpack(data)
        voice.say("began")
        work.run(function(*arguments), voice)
    except NotSentError as error:
        voice.say("refused", str(error))
    except (CancelledError, KeyboardInterrupt):
        voice.say("closed")
    except BaseException as error:  # noqa: BLE001 - the other end is told; all of it is in the traceback
        text = traceback.format_exc()
        try:
            voice.say("failed", error, text)
        except Exception:  # noqa: BLE001 - an exception of others that cannot be pickled
            voice.say("failed", RuntimeError(f"{type(error).__name__}: {error}"), text)
    finally:
        gc.collect()
        give_back()


def listen(inbox: "queue.Queue[Any]", where: IO[bytes]) -> None:
    """Take what is said, to the end of the input."""
    for message in heard(where):
        inbox.put(message)
    inbox.put(GONE)


def main() -> None:
    """Do what is sent until there is nothing to do for a while, or the other end is gone."""
    talk, said = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open() as nothing:  # what reads the input, or prints, must not break into the talk
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    if hasattr(os, "nice"):
        os.nice(NICE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    inbox: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=listen, args=(inbox, talk), daemon=True).start()
    voice = Voice(said)
    voice.say("hello", versions(*SAME))
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            kind, *more = inbox.get()
            if kind == "start":
                work = Work(inbox, more[1])
                do(more[0], work, voice)
                kind = "gone" if work.alone else kind
            if kind == "gone":  # who made the copies cannot take them away any more
                forget_copies()
            if kind in ("gone", "end"):
                break
