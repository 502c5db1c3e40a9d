"""Passing faults of disks, networks and memory: told from damage, tried again, and named when they stay.

A disk or a server that fails once has usually recovered a moment later, so that what `persist` does is done up to three
times. What fails three times, and memory that runs out, become errors of ours that say how to go on.
"""

import contextlib
import errno
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from .errors import GoneError, IncompleteError, ResourceError, UnetError, UnreachableError

Done = TypeVar("Done")
WAITS = (0.2, 1.0)  # seconds before the second and the third try: a server's hiccup, a network disk that is remounted
NAMES = (
    *("EIO", "ESTALE", "EMFILE", "ENFILE", "EAGAIN", "EINTR", "EBUSY", "EEXIST", "EREMOTEIO", "ENOTCONN"),
    *("ETIMEDOUT", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
    *("EHOSTDOWN", "EHOSTUNREACH"),
)
PASSING = {getattr(errno, name) for name in NAMES if hasattr(errno, name)}  # Windows has not all of them
STATUSES = {403, 408, 425, 429, *range(500, 600)}  # 403 is what storage services say for a moment, too, when busy
# What libraries raise for the network that is not an OSError, where they are loaded.
NETWORK = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
# Of these, a connection that breaks off or does not come about, which holds no status of HTTP.
BROKEN = (
    ("aiohttp", "ClientConnectionError"),
    ("aiohttp", "ClientPayloadError"),
    ("botocore.exceptions", "ConnectionError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("google.auth.exceptions", "TransportError"),
)
# How libraries say that there is no memory, for data or for the stack of a thread, in errors that are not MemoryError.
NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "cannot allocate memory",
    "can't allocate memory",
    "defaultcpuallocator",
    "could not create a primitive",
    "could not create a memory object",
    "can't start new thread",
    "bad_alloc",
    "unable to mmap",
    "failed to map segment",
)


FAULTS: tuple[type[Exception], ...] = (MemoryError, OSError, RuntimeError, ValueError, ImportError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def passing(error: BaseException) -> bool:
    """Say whether an error is of a kind that is often gone a moment later."""
    return any(_passes(each) for each in _chain(error))


def _passes(error: BaseException) -> bool:
    if isinstance(error, UnetError):
        return isinstance(error, UnreachableError)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in PASSING
    broken: tuple[type[Exception], ...] = (TimeoutError, ConnectionError, *_loaded(BROKEN))
    return isinstance(error, broken) or _status(error) in STATUSES


def _status(error: BaseException) -> Any:
    """Return the HTTP status that an error of a client of the network holds, None where there is none."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return next((v for name in ("status", "code") if isinstance(v := getattr(error, name, None), int)), None)


def network_errors() -> tuple[type[Exception], ...]:
    """Return the classes of what clients of the network raise that is not an OSError."""
    return _loaded(NETWORK)


def _loaded(names: Sequence[tuple[str, str]]) -> tuple[type[Exception], ...]:
    """Return the classes whose modules are loaded: what is not loaded has raised nothing."""
    found = [getattr(sys.modules.get(module), name, None) for module, name in names]
    return tuple(each for each in found if each is not None)


def persist(work: Callable[[], Done]) -> Done:
    """Do something that may be done twice; where a passing fault stops it, again after a moment, three times in all."""
    for wait in WAITS:
        try:
            return work()
        except FAULTS + network_errors() as error:
            if not passing(error) or isinstance(error, UnreachableError | GoneError):  # these were tried again
                raise
        time.sleep(wait)
    return work()


def out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out: libraries have many words for it, torch an error for accelerators only."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError | ImportError) and any(words in text for words in NO_MEMORY)


def named(error: BaseException, less: str = "") -> UnetError | None:
    """Return the error of ours that a fault is, None for what is not a fault of memory, disk or network.

    `less` names the options with which what failed can be given less memory.
    """
    if isinstance(error, UnetError):
        return None
    if out_of_memory(error):
        helps = f"or give less to each step with {less}, " if less and not isinstance(error, ImportError) else ""
        return ResourceError(
            f"the memory of this machine ran out ({type(error).__name__} {error}); close other programs, "
            f"raise the limit that is set for this one, {helps}and run the same command again; finished work is kept"
        )
    if passing(error):
        return IncompleteError(
            f"a disk or the network failed {len(WAITS) + 1} times ({error}); finished work is kept: "
            "run the same command again"
        )
    return None


@contextlib.contextmanager
def named_faults(less: str = "") -> Iterator[None]:
    """Turn faults of memory, disk and network into errors of ours; `less` as for `named`.

    Raises
    ------
    ResourceError
        Where memory ran out.
    IncompleteError
        Where a disk or the network goes on failing.
    """
    try:
        yield
    except FAULTS + network_errors() as error:
        found = named(error, less)
        if found is None:
            raise
        raise found from error
