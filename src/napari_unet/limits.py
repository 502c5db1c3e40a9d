"""How much memory this process may take: the machine's, or less where a container or a shell sets a limit."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

UNKNOWN = 16 * 2**30  # where a system does not say: what most machines have had for ten years
# Where Linux says which group of processes this one is in, and what the group may use.
OWN, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory() -> int:
    """Return the bytes that this process may take: the least of what machine, container and limits of a shell give."""
    return min([_physical(), *cgroup_limits(), *address_space()])


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return UNKNOWN


def address_space() -> Iterator[int]:
    """Yield the limit of ``ulimit -v``, where there is one."""
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit


def cgroup_limits(own: Path = OWN, mounted: Path = MOUNTED) -> Iterator[int]:
    """Yield the limits of the control groups around this process, as containers and batch systems set them.

    Parameters
    ----------
    own : Path
        Lists the groups of this process: ``0::/a/b`` in version 2, ``4:memory:/a/b`` in version 1.
    mounted : Path
        Where the groups are folders. In a container its own group may be the topmost.
    """
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds == "":
            top, name = mounted, "memory.max"
        elif "memory" in kinds.split(","):
            top, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for group in (inner, *inner.parents):
            limit = _text(top / group / name).strip()
            if limit.isdecimal():  # version 2 writes "max" for none, version 1 a number beyond any memory
                yield int(limit)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
