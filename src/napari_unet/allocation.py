"""What becomes of memory that is freed: kept for the next tensor while a network runs, given back after."""

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # names of the C library's mallopt
KEPT = {TRIM_THRESHOLD: 2**31 - 1, MMAP_THRESHOLD: 2**31 - 1}
USUAL = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25}  # the highest that glibc takes by itself
TIDY_SECONDS, MOMENT = 30.0, 1.0  # seconds
PROBE = 3000  # bytes; more than a thread keeps for itself
NOT_MAIN = 4  # the bit of the size, which stands before each piece of memory, that says: not of the main arena
CANDIDATES = 512

_lock = threading.RLock()  # a run that nobody wants any more may be ended while it is held
_inside: set[object] = set()
_timer: threading.Timer | None = None


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[Callable[[], None]]:
    """Inside, large tensors take the memory of those that were freed, not pages that the system must clear first.

    Each convolution makes a tensor of tens of MiB; clearing its pages is up to a third of a network's time on
    the processor. A moment after the last of several such blocks, what is free goes back to the system: what follows
    at once, as the next image of a batch does, takes it again.

    Yields what a long run calls between two of its pieces: from time to time it gives back what is free, since the
    holes between what is in use become more with each thread that takes memory.

    Only where the C library is glibc, and fully in the main thread and where `main_memory` calls: the arenas of other
    threads hold 64 MiB at most.
    """
    global _timer  # noqa: PLW0603 - one for all runs
    library, one = _glibc(), object()
    if library is None:
        yield lambda: None
        return
    with _lock:
        _inside.add(one)
        _set(library, KEPT)
    began = time.monotonic()

    def tidy() -> None:
        nonlocal began
        if time.monotonic() - began > TIDY_SECONDS:
            library.malloc_trim(0)
            began = time.monotonic()

    try:
        yield tidy
    finally:
        with _lock:
            _inside.remove(one)
            if not _inside and (_timer is None or not _timer.is_alive()):
                _timer = _started(library)


def _started(library: Any) -> threading.Timer | None:
    """Start what gives memory back in a moment; it goes back now where no thread can be started."""
    timer = threading.Timer(MOMENT, _give_back, (library,))
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:
        _give_back(library)
        return None
    return timer


def _give_back(library: Any) -> None:
    """Give free memory back to the system unless it is wanted again."""
    global _timer  # noqa: PLW0603
    with _lock:
        _timer = None
        if not _inside:
            _set(library, USUAL)
            library.malloc_trim(0)


@contextlib.contextmanager
def main_memory() -> Iterator[Callable[..., Any]]:
    """Yield what calls a function so that it takes its memory where the main thread does: here, or in another thread.

    In other threads large tensors are pages that the system must clear each time: a network takes half as long again.
    glibc gives the arenas that there are to new threads in turn; those that get another wait until the main one came.
    Where it does not come, and with other C libraries, the function is called here.
    """
    library = _glibc()
    pool = None if library is None or _takes_main_memory(library) else _pool_of_main_memory(library)
    if pool is None:
        yield _call
        return
    with pool:
        yield lambda work, *values: pool.submit(work, *values).result()


def _pool_of_main_memory(library: Any) -> ThreadPoolExecutor | None:
    """Return one thread that takes memory from the main arena; None where none comes or can be started."""
    _set(library, {ARENA_MAX: 1})  # no new ones; where there were many before, up to 8 a processor come first
    with contextlib.ExitStack() as others, contextlib.suppress(RuntimeError):
        for _ in range(CANDIDATES):
            pool = ThreadPoolExecutor(1, "network")
            if pool.submit(_takes_main_memory, library).result():
                return pool
            others.enter_context(pool)
    return None


def _call(work: Callable[..., Any], *values: Any) -> Any:
    return work(*values)


def _takes_main_memory(library: Any) -> bool:
    """Say whether this thread takes memory from the main arena."""
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    place = library.malloc(ctypes.c_size_t(PROBE))
    size = ctypes.c_size_t.from_address(place - ctypes.sizeof(ctypes.c_size_t)).value
    library.free(place)
    return not size & NOT_MAIN


class _Symbol(ctypes.Structure):
    """Where a function lies, as dladdr says it."""

    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("at", ctypes.c_void_p),
    ]


def _glibc() -> Any:
    """Return the C library if it is glibc, and memory is taken from it, not from a library that was put before it."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        return None
    taken, known = _Symbol(), _Symbol()
    library.dladdr(library.malloc, ctypes.byref(taken))
    library.dladdr(library.gnu_get_libc_version, ctypes.byref(known))
    return library if taken.base == known.base else None


def _set(library: Any, options: dict[int, int]) -> None:
    for name, value in options.items():
        library.mallopt(name, value)
