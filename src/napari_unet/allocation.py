"""What becomes of memory that is freed: kept for the next tensor while a network runs, given back after."""

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of the C library's mallopt
KEPT = {TRIM_THRESHOLD: 2**31 - 1, MMAP_THRESHOLD: 2**31 - 1}
USUAL = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25}  # the highest that glibc takes by itself
TIDY_SECONDS = 30.0

_lock = threading.Lock()
_inside: set[object] = set()


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[Callable[[], None]]:
    """Inside, large tensors take the memory of those that were freed, not pages that the system must clear first.

    Each convolution makes a tensor of tens of MiB; clearing its pages is up to a third of a network's time on
    the processor. At the end of the last of several such blocks, what is free goes back to the system.

    Yields what a long run calls between two of its pieces: from time to time it gives back what is free, since the
    holes between what is in use become more with each thread that takes memory.

    Only where the C library is glibc, and fully in the main thread alone: arenas of other threads hold 64 MiB at most.
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
                library.malloc_trim(0)


def _glibc() -> Any:
    """Return the C library if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None


def _set(library: Any, options: dict[int, int]) -> None:
    for name, value in options.items():
        library.mallopt(name, value)
