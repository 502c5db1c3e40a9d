"""What becomes of memory that is freed: kept for the next tensor while a network runs, given back after."""

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of the C library's mallopt
KEPT = {TRIM_THRESHOLD: 2**31 - 1, MMAP_THRESHOLD: 2**31 - 1}
USUAL = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25}  # the highest that glibc takes by itself

_lock = threading.Lock()
_inside: set[object] = set()


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, large tensors take the memory of those that were freed, not pages that the system must clear first.

    Each convolution makes a tensor of tens of MiB; clearing its pages is up to a third of a network's time on
    the processor. At the end of the last of several such blocks, what is free goes back to the system.

    Only where the C library is glibc, and fully in the main thread alone: arenas of other threads hold 64 MiB at most.
    """
    library, one = _glibc(), object()
    if library is None:
        yield
        return
    with _lock:
        _inside.add(one)
        _set(library, KEPT)
    try:
        yield
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
