"""What becomes of memory that is freed: it stays with a process that is there for the network alone.

Each convolution makes a tensor of tens of MiB. Where its memory is given back when it is freed, the system clears pages
for the next one, which is up to a third of a network's time on the processor. So the C library is told to keep it,
where that is glibc: in the shell, and in processes that the window starts. A program that only uses this package is
left as it is.

The same processes let threads of the network that wait for each other sleep soon. By default they try for a millisecond
and more at the end of each convolution, which on a machine that does something else too takes that from it, and from
themselves: five times the processor time of a small image's network, three times as long.
"""

import ctypes
import os
import sys
from typing import Any

MOST = 2**31 - 1  # bytes, the largest that is taken: nothing goes back, and nothing lies outside of what is kept
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of mallopt
# One arena: other threads share what the network's has freed, and large tensors of any thread are kept.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(MOST),
    "MALLOC_MMAP_THRESHOLD_": str(MOST),
}
# Times that a thread of GNU's OpenMP looks again before it sleeps: some 40 us, as from one operation to the next.
PATIENCE = {"GOMP_SPINCOUNT": "3000"}
OWN = ("OMP_WAIT_POLICY", *PATIENCE)  # what a user may have set instead


def environment() -> dict[str, str]:
    """Return the environment of a process that is there for the network."""
    return {**patient(), **os.environ, **ENVIRONMENT}


def patient() -> dict[str, str]:
    """Return what lets threads that wait sleep soon, to be set before torch is imported; nothing where that is set."""
    return {} if any(name in os.environ for name in OWN) else PATIENCE


def keep_freed() -> None:
    """Keep what is freed, from now on; in the main thread, as other threads have memory of their own."""
    library = _glibc()
    if library is not None:
        for name in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            library.mallopt(name, MOST)


def give_back() -> None:
    """Give what lies free back to the system, and to the graphics card."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _glibc() -> Any:
    """Return the C library if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None
