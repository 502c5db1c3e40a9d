"""Where ``ulimit -v`` limits memory, a second process that says so when a native library ends the first.

Torch, OpenBLAS and C++ end their whole process where they get no memory ("terminate called", SIGABRT), and nothing is
left that could say a line of ours. So the command goes on in a child, which tells its parent through a pipe when it has
come to an end of its own; where it has not, the parent says what happened.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from ..errors import ResourceError
from ..limits import address_space
from .output import say

PASSED_ON = (signal.SIGINT, signal.SIGTERM)  # how a user and a batch system stop a command
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG in Linux' sys/prctl.h
ENDED = b"."  # what is told


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Do what is within in a child, where memory is limited; leave the parent as the child ended."""
    limit = min(address_space(), default=None)
    if limit is None or not hasattr(os, "fork"):
        yield
        return
    told, tell = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until the parent can pass them on
    parent, child = os.getpid(), os.fork()
    if child:
        os.close(tell)
        sys.exit(_wait(child, told, limit))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    os.close(told)
    os.setpgid(0, 0)  # what a terminal sends comes once, from the parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() == parent:  # else it was killed meanwhile
        try:
            yield
        finally:
            os.write(tell, ENDED)


def _wait(child: int, told: int, limit: int) -> int:
    """Return the exit code of a command, having said what its process could not."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if -code in PASSED_ON:  # before the command could take it as the wish to stop: the same happens here
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if os.read(told, 1) == ENDED:
        return code
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    error = ResourceError(
        f"a native library ended the command ({how}): the memory ran out under the limit of {limit >> 20} MiB that is "
        "set for this shell (ulimit -v); raise it and run the same command again; finished work is kept"
    )
    say(str(error))
    return error.exit_code
