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
TIDY_SECONDS = 30.0
PROBE = 3000  # bytes; more than a thread keeps for itself
NOT_MAIN = 4  # the bit of the size, which stands before each piece of memory, that says: not of the main arena
CANDIDATES = 512

_lock = threading.Lock()
_inside: set[object] = set()


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[Callable[[], None]]:
    """Inside, large tensors take the memory of those that were freed, not pages that the system must clear first.

    Each convolution makes a tensor of tens of MiB; clearing its pages is up to a third of a network's time on
    the processor. At the end of the last of several such blocks, what is free goes back to the system, beside what
    comes next.

    Yields what a long run calls between two of its pieces: from time to time it gives back what is free, since the
    holes between what is in use become more with each thread that takes memory.

    Only where the C library is glibc, and fully in the main thread and where `main_memory` calls: the arenas of other
    threads hold 64 MiB at most.
    """
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
            if not _inside:
                _set(library, USUAL)
                _give_back(library)


def _give_back(library: Any) -> None:
    """Give free memory back to the system in a thread; here where none can be started."""
    try:
        threading.Thread(target=library.malloc_trim, args=(0,), name="memory", daemon=True).start()
    except RuntimeError:
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
