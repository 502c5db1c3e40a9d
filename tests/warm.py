"""Processes that a test stops or kills, forked from one that has imported torch and this package already.

Importing costs a process of Python about three seconds; a fork of the warm one starts in some hundredths. The warm one
has begun no thread, and only its forks do anything.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.connection import Connection

MODULES = [
    "scipy.ndimage",
    "torch._dynamo",
    "distributed.nanny",
    *(f"napari_unet.{n}" for n in ("cli.shell", "inference.predict", "inference.cluster", "training.fit")),
]


def warm(code, *arguments):
    """Start code with pipes for text, as `python -c`; on Windows, which cannot fork, it is not warm."""
    if os.name == "posix":
        return Fork(code, *map(str, arguments))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE))


def ended(code, *arguments):
    """Run code to its end, as `subprocess.run` does: (exit code, what it wrote, what it wrote as errors)."""
    process = warm(code, *arguments)
    process.stdin.close()
    with process.stdout, process.stderr, ThreadPoolExecutor(1) as other:
        wrong = other.submit(process.stderr.read)
        said = process.stdout.read()
        return process.wait(60), said, wrong.result()


def ready():
    """Start the warm process, where there can be one; return the way in which more of them are started."""
    if os.name != "posix":
        return "spawn"
    multiprocessing.get_context("forkserver").set_forkserver_preload(MODULES)
    forkserver.ensure_running()
    return "forkserver"


class Fork:
    """What the tests use of `subprocess.Popen`, of a fork of the warm process."""

    def __init__(self, code, *arguments):
        (theirs, stdin), (stdout, said), (stderr, wrong) = os.pipe(), os.pipe(), os.pipe()
        ends = [Connection(theirs, writable=False), Connection(said, readable=False), Connection(wrong, readable=False)]
        self._process = multiprocessing.get_context(ready()).Process(target=_run, args=(code, arguments, ends))
        self._process.start()
        for end in ends:
            end.close()
        self.pid = self._process.pid
        self.stdin, self.stdout, self.stderr = os.fdopen(stdin, "w"), os.fdopen(stdout), os.fdopen(stderr)

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout=None):
        self._process.join(timeout)
        assert self.returncode is not None, f"the process did not end in {timeout} s"
        return self.returncode


def _run(code, arguments, ends):
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        with contextlib.suppress(OSError):  # nobody may read it any more
            sys.stdout.flush()
        sys.stdout = None
