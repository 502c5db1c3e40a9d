"""One run at a time: a lock file that says who writes a result, and a heartbeat that shows that it lives.

Lock files of libraries (filelock's `SoftFileLock`) know a holder by process number and host name, and have no
heartbeat; in a container another process has that number under the same name, and workers need the run's token.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import socket
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ..errors import OutputError, UnetError
from ..events import Progress
from ..faults import persist
from ..files import create, disk, read, refuse_link, remove, write_new

if sys.platform == "win32":
    import ctypes
else:
    import fcntl

LOCK = "lock"
HEARTBEAT = 5.0  # seconds
SILENCE = 3 * HEARTBEAT  # without a beat, after which a run that cannot be seen counts as gone
MOST_BYTES = 2**16  # of a lock


@dataclasses.dataclass(frozen=True, slots=True)
class Permit:
    """Says, in any process that reaches the ledger, whether a run still holds its lock.

    Parameters
    ----------
    path : Path
        Of the lock.
    token : str
        Of the run.
    """

    path: Path
    token: str

    @property
    def holds(self) -> bool:
        """Whether the lock is still this run's."""
        return bool(_holder(self.path).get("run") == self.token)

    def check(self) -> None:
        """Refuse what a run would do that was ended, or whose place another has taken.

        Raises
        ------
        OutputError
        """
        if not self.holds:
            raise OutputError(
                f"{self.path.parent.parent}: another run has broken the lock, or this one was ended; "
                "run the same command again when no other writes there"
            )


class Lock:
    """A file that says which run writes a result; held from `acquire` to `release`, and touched all the while.

    A lock whose process is gone is taken over; `notice` then says so.
    """

    def __init__(self, path: Path, token: str, notice: str) -> None:
        self.notice, self.permit = notice, Permit(path.resolve(), token)
        self._beat = time.monotonic()
        ended = threading.Event()
        self._end = weakref.finalize(self, ended.set)
        threading.Thread(target=_beat_until, args=(ended, self.permit), name="heartbeat", daemon=True).start()

    @classmethod
    def acquire(cls, folder: Path, *, break_lock: bool = False) -> "Lock":
        """Take the lock of the ledger in `folder`.

        Parameters
        ----------
        break_lock : bool
            Take that of a run on another machine too, where it shows no life.

        Raises
        ------
        OutputError
            Where another run holds it, or one on another machine may do so.
        UnsafeError
            Where the folder, or what is in it, is a link.
        ResourceError
            Where the disk is full, or may not be written.
        """
        path, token = folder / LOCK, uuid.uuid4().hex
        refuse_link(folder)
        with disk(folder), _guard(folder):
            for item in folder.iterdir():
                refuse_link(item)
            notice = _displace(path, break_lock) if path.exists() else ""
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            mine = {"pid": os.getpid(), "started": _started(os.getpid()), "since": now, "run": token}
            here = {"host": socket.gethostname(), "boot": _boot(), "space": _space()}
            write_new(path, json.dumps(here | mine).encode())
        return cls(path, token, notice)

    def beat(self) -> None:
        """Look every few seconds whether the run may go on.

        Raises
        ------
        OutputError
            Where another run has broken the lock.
        """
        if time.monotonic() - self._beat < HEARTBEAT:
            return
        persist(self.permit.check)
        self._beat = time.monotonic()

    def notices(self) -> Iterator[Progress]:
        """Say from which run it was taken over, where it was."""
        if self.notice:
            yield Progress(0, 0, "note", self.notice)

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not ours any more."""
        self._end()
        if self.permit.holds:
            remove(self.permit.path)


def _beat_until(ended: threading.Event, permit: Permit) -> None:
    """Touch a lock every few seconds, also while a block takes minutes."""
    while not ended.wait(HEARTBEAT):
        with contextlib.suppress(OSError, UnetError):
            if not permit.holds:
                return
            os.utime(permit.path)


def _displace(path: Path, break_lock: bool) -> str:
    """Remove a lock whose run is gone: what to tell the user."""
    holder = _holder(path)
    who = f"process {holder.get('pid', 0)} on {holder.get('host', 'an unknown machine')}"
    who = f"{who} since {holder.get('since', 'an unknown time')}"[:200]
    near = not holder or _is_near(holder)
    if not near and holder.get("host") != socket.gethostname() and not break_lock:
        age = max(time.time() - path.stat().st_mtime, 0)
        raise OutputError(
            f"{path.parent.parent} is locked by {who}, which last showed itself {age / 60:.0f} minutes ago; "
            f"if that run is gone, start again with --break-lock, or remove {path}"
        )
    if holder and (_lives(holder) if near else _beats(path)):
        raise OutputError(f"{path.parent.parent} is being written by {who}; wait for it, or stop it first")
    remove(path)
    return f"took over from {who}, which is gone" if holder else "took over from a run that was stopped"


def _is_near(holder: dict[str, Any]) -> bool:
    """Say whether a holder's process, if it lives, can be seen from here, whatever the host is called."""
    here = holder.get("host") == socket.gethostname()
    if "space" not in holder:  # of an earlier version, which did not say
        return here
    kernel = _boot()
    return holder.get("space") == _space() and holder.get("boot") == kernel and (here or bool(kernel))


def _lives(holder: dict[str, Any]) -> bool:
    """Say whether the process of a near holder is there, and the same since before."""
    pid = holder.get("pid")
    same = isinstance(pid, int) and 0 < pid < 2**31 and holder.get("boot") == _boot()
    return same and _alive(cast("int", pid)) and holder.get("started") == _started(cast("int", pid))


def _beats(path: Path) -> bool:
    """Watch whether the holder of a lock is alive: for three heartbeats, for half as long where it was not for longer.

    Times are compared as the disk has them; some disks write those of the holder's machine, whose clock may be wrong,
    so that at least one beat is waited for in any case.
    """
    seen = _touched(path)
    probe = path.with_name(f".{uuid.uuid4().hex}.partial")
    with create(probe):
        now = _touched(probe)
    remove(probe)
    until = time.monotonic() + max(SILENCE - max(now - seen, 0.0), SILENCE / 2)
    while time.monotonic() < until:
        time.sleep(min(HEARTBEAT / 5, SILENCE / 4))
        if _touched(path) != seen:
            return True
    return False


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return -1.0


def _holder(path: Path) -> dict[str, Any]:
    """Read who holds a lock; empty where no process does, or it was torn while it was written."""
    try:
        holder = json.loads(read(path, MOST_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Let one process at a time look at and replace a lock, where the system can."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    if sys.platform == "win32":
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)
        ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str:
    """Start time of a process, so that a number used again is not taken for it; empty where unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else fields[19]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    except OSError:
        return ""


def _space() -> str:
    """Name of the process numbers that are seen from here: containers have their own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
