"""One run at a time: a lock file that says who writes a result, and whether that process still lives."""

import contextlib
import dataclasses
import datetime
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import OutputError

if sys.platform == "win32":
    import ctypes
else:
    import fcntl

LOCK = "lock"
HEARTBEAT = 5.0


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
            raise OutputError(f"{self.path.parent.parent}: another run has broken the lock, or this one was ended")


class Lock:
    """A file that says which run writes a result; held from `acquire` to `release`.

    A lock whose process is gone from this machine is taken over; `notice` then says so.
    """

    def __init__(self, path: Path, token: str, notice: str) -> None:
        self.notice, self.permit = notice, Permit(path.resolve(), token)
        self._beat = time.monotonic()

    @classmethod
    def acquire(cls, folder: Path, *, break_lock: bool = False) -> "Lock":
        """Take the lock of the ledger in `folder`.

        Raises
        ------
        OutputError
            Where another run holds it, or one on another machine may do so.
        """
        path, token = folder / LOCK, uuid.uuid4().hex
        with _guard(folder):
            notice = _displace(path, break_lock) if path.exists() else ""
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            mine = {"pid": os.getpid(), "started": _started(os.getpid()), "since": now, "run": token}
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps({"host": socket.gethostname(), "boot": _boot(), **mine}))
        return cls(path, token, notice)

    def beat(self) -> None:
        """Show that the run is alive, every few seconds.

        Raises
        ------
        OutputError
            Where another run has broken the lock.
        """
        if time.monotonic() - self._beat < HEARTBEAT:
            return
        self.permit.check()
        os.utime(self.permit.path)
        self._beat = time.monotonic()

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not ours any more."""
        if self.permit.holds:
            self.permit.path.unlink()


def _displace(path: Path, break_lock: bool) -> str:
    """Remove a lock whose run is gone: what to tell the user."""
    holder = _holder(path)
    pid, host = holder.get("pid", 0), holder.get("host", "an unknown machine")
    who = f"process {pid} on {host} since {holder.get('since', 'an unknown time')}"
    if holder and host == socket.gethostname():
        rebooted = holder.get("boot") != _boot()
        if not rebooted and _alive(pid) and holder.get("started") == _started(pid):
            raise OutputError(f"{path.parent.parent} is being written by {who}; wait for it, or stop it first")
    elif holder and not break_lock:
        age = max(time.time() - path.stat().st_mtime, 0)
        raise OutputError(
            f"{path.parent.parent} is locked by {who}, which last showed itself {age / 60:.0f} minutes ago; "
            "if that run is gone, start again with --break-lock"
        )
    path.unlink()
    return f"took over from {who}, which is gone" if holder else "took over from a run that was stopped"


def _holder(path: Path) -> dict[str, Any]:
    """Read who holds a lock; empty where nobody does, or it was torn while it was written."""
    try:
        holder = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Let one process at a time look at and replace a lock, where the system can."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
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
