"""The lock: one run at a time; dead ones are taken over, others named."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import FP32, example, short, stopped_after
from kinds import small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import OutputError
from napari_unet.evaluation.compare import compare
from napari_unet.events import Epoch, wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.store import lock as room
from napari_unet.store.lock import LOCK, Lock
from napari_unet.store.plan import FOLDER
from napari_unet.store.save import save_stack
from napari_unet.training import train
from napari_unet.training.run import finishing, training_folder
from warm import warm

HOLD = """
import sys, time
from pathlib import Path
from napari_unet.store.lock import Lock
Lock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def holder(folder: Path, **other: Any) -> None:
    values = {
        "host": socket.gethostname(),
        "boot": "",
        "pid": os.getpid(),
        "started": "",
        "since": "2026-01-01",
        "run": "t",
    }
    (folder / LOCK).write_text(json.dumps({**values, **other}))


IMAGE = Stack(np.random.default_rng(0).integers(0, 99, (96, 96)).astype("u1"), "yx", name="a")
RUN = PredictConfig(block=(48, 48), **FP32)


def stopped_training(out: Path) -> None:
    with contextlib.closing(train([example()], out, short(steps=40))) as events:
        next(event for event in events if isinstance(event, Epoch) and event.number == 2)


# What goes on from, or replaces, what a run left that is gone: (what was there, what comes now).
TAKING = {
    "a run that goes on": (
        lambda out: stopped_after(1, predict(IMAGE, small(), out, RUN)),
        lambda out: predict(IMAGE, small(), out, RUN),
    ),
    "a run that begins anew": (
        lambda out: stopped_after(1, predict(IMAGE, small(), out, RUN)),
        lambda out: predict(IMAGE, small(), out, dataclasses.replace(RUN, overwrite=True)),
    ),
    "a run into a TIFF": (
        lambda out: stopped_after(1, predict(IMAGE, small(), out / "r.tif", RUN)),
        lambda out: predict(IMAGE, small(), out / "r.tif", RUN),
    ),
    "saved again": (
        lambda out: wait(save_stack(IMAGE, out)),
        lambda out: save_stack(IMAGE, out, overwrite=True),
    ),
    "compared again": (
        lambda out: wait(compare(IMAGE, IMAGE, out)),
        lambda out: compare(IMAGE, IMAGE, out, overwrite=True),
    ),
    "a training that is resumed": (
        stopped_training,
        lambda out: train([example()], out, short(steps=40, resume=True)),
    ),
    "a training that begins anew": (
        lambda out: (
            stopped_training(out),
            [file.unlink() for file in training_folder(out).iterdir() if file.is_file()],
        ),
        lambda out: train([example()], out, short()),
    ),
    "a training that is ended": (stopped_training, finishing),
}


@pytest.mark.parametrize("what", TAKING)
def test_whatever_takes_a_lock_over_says_so(tmp_path: Path, what: str) -> None:
    leave, take = TAKING[what]
    leave(tmp_path / "r")
    (ledger,) = {path for path in tmp_path.rglob(FOLDER) if path.is_dir()}
    holder(ledger, pid=2**22 + 1)
    with contextlib.closing(take(tmp_path / "r")) as events:
        said = next(event.message for event in events if getattr(event, "stage", "") == "note")
    assert said.startswith("took over from process 4194305 on ") and said.endswith(", which is gone")
    Lock.acquire(ledger if ledger.exists() else tmp_path).release()


FULL = """
import resource, sys
from pathlib import Path
from napari_unet.errors import ResourceError
from napari_unet.store.lock import Lock
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
try:
    Lock.acquire(Path(sys.argv[1]))
except ResourceError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_disk_without_room_for_a_lock_is_named(tmp_path: Path) -> None:
    said = warm(FULL, tmp_path).stdout.read()
    assert said.startswith(f"the disk of {tmp_path} is full"), said
    assert list(tmp_path.iterdir()) == []


def test_a_held_lock_names_process_machine_and_start_until_it_is_released(tmp_path: Path) -> None:
    lock = Lock.acquire(tmp_path)
    with pytest.raises(OutputError, match=rf"process {os.getpid()} on {socket.gethostname()} since 20\d\d-"):
        Lock.acquire(tmp_path)
    with pytest.raises(OutputError, match="is being written"):
        Lock.acquire(tmp_path, break_lock=True)
    lock.release()
    again = Lock.acquire(tmp_path)
    assert again.notice == ""
    lock.release()
    assert (tmp_path / LOCK).exists()
    again.release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over_with_a_notice(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as child:
        child.stdout.readline()
        with pytest.raises(OutputError, match=f"process {child.pid}"):
            Lock.acquire(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
        # Not waited for yet: the process is a zombie, whose number still exists.
        deadline = time.monotonic() + 20
        while room._started(child.pid) != "ended" and time.monotonic() < deadline:
            time.sleep(0.01)
        lock = Lock.acquire(tmp_path)
    assert f"took over from process {child.pid}" in lock.notice
    lock.release()


@pytest.mark.parametrize("gone", [{"boot": "another"}, {"started": "1"}, {"pid": 2**22 + 1}])
def test_a_lock_from_before_is_not_taken_for_a_living_process(tmp_path: Path, gone: dict[str, Any]) -> None:
    now = {"boot": room._boot(), "started": room._started(os.getpid())}
    if not now["started"]:
        pytest.skip("this system does not say when processes started")
    holder(tmp_path, **now)
    with pytest.raises(OutputError):
        Lock.acquire(tmp_path)
    holder(tmp_path, **{**now, **gone})
    assert "which is gone" in Lock.acquire(tmp_path).notice


def test_the_lock_of_another_machine_is_only_broken_when_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "SILENCE", 0.2)
    holder(tmp_path, host="elsewhere", pid=7)
    with pytest.raises(OutputError, match=r"process 7 on elsewhere.*--break-lock"):
        Lock.acquire(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"
    assert Lock.acquire(tmp_path, break_lock=True).notice


@pytest.mark.parametrize("beats", [True, False])
@pytest.mark.parametrize(
    "where", [{"space": "pid:[1]"}, {"space": "pid:[1]", "boot": "twin"}, {"space": "pid:[1]", "host": "renamed"}]
)
def test_what_cannot_be_seen_from_here_is_gone_when_it_beats_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: dict[str, Any], beats: bool
) -> None:
    monkeypatch.setattr(room, "SILENCE", 1.0)
    holder(tmp_path, **{"boot": room._boot(), "pid": 2**22 + 1, **where})
    ended = threading.Event()
    if beats:

        def beat() -> None:
            while not ended.wait(0.05):
                os.utime(tmp_path / LOCK)

        beating = threading.Thread(target=beat)
        beating.start()
        with pytest.raises(OutputError, match="is being written by process"):
            Lock.acquire(tmp_path, break_lock=True)
        ended.set()
        beating.join()
    else:
        long_ago = time.time() - 2 * room.SILENCE
        os.utime(tmp_path / LOCK, (long_ago, long_ago))
        Lock.acquire(tmp_path, break_lock=True).release()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("hours", [-24, 24])
@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_a_clock_that_is_wrong_neither_keeps_a_lock_nor_breaks_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, hours: int
) -> None:
    monkeypatch.setattr(room, "SILENCE", 0.6)
    skewed = time.time() + 3600 * hours
    ended = threading.Event()

    def beat() -> None:
        beats = 0
        while not ended.wait(0.05):
            beats += 1
            os.utime(tmp_path / LOCK, (skewed + beats, skewed + beats))

    holder(tmp_path, host=host, space="pid:[1]", boot="twin")
    os.utime(tmp_path / LOCK, (skewed, skewed))
    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(OutputError, match="is being written by process"):
            Lock.acquire(tmp_path, break_lock=True)
        with pytest.raises(OutputError, match="--break-lock" if host == "elsewhere" else "is being written"):
            Lock.acquire(tmp_path)
    finally:
        ended.set()
        beating.join()
    assert Lock.acquire(tmp_path, break_lock=True).notice


def test_the_lock_of_a_machine_that_has_another_name_now_is_known(tmp_path: Path) -> None:
    if not room._boot():
        pytest.skip("this system does not say when it was started")
    holder(tmp_path, host="renamed", boot=room._boot(), space=room._space(), pid=2**22 + 1)
    assert "which is gone" in Lock.acquire(tmp_path).notice


@pytest.mark.parametrize(
    "values", [{"pid": "x"}, {"pid": 10**30}, {"pid": -1}, {"pid": None}, {"since": {"a": 1}}, {"host": 7}, {"run": []}]
)
def test_a_lock_of_odd_values_is_one_sentence_or_taken_over(tmp_path: Path, values: dict[str, Any]) -> None:
    holder(tmp_path, **{"boot": room._boot(), "space": room._space(), "started": "1", **values})
    Lock.acquire(tmp_path, break_lock=True).release()


@pytest.mark.parametrize("torn", ["", "{", "[]"])
def test_a_torn_lock_is_taken_over(tmp_path: Path, torn: str) -> None:
    (tmp_path / LOCK).write_text(torn)
    assert Lock.acquire(tmp_path).notice


def test_a_run_whose_lock_was_broken_stops(tmp_path: Path) -> None:
    lock = Lock.acquire(tmp_path)
    lock._beat -= 2 * room.HEARTBEAT
    lock.beat()
    holder(tmp_path, run="another")
    lock.beat()
    lock._beat -= 2 * room.HEARTBEAT
    with pytest.raises(OutputError, match="broken the lock"):
        lock.beat()
    lock.release()
    assert json.loads((tmp_path / LOCK).read_text())["run"] == "another"


def test_of_many_that_try_at_once_one_gets_a_stale_lock(tmp_path: Path) -> None:
    for _ in range(20):
        holder(tmp_path, pid=2**22 + 1)
        got: list[Lock] = []
        barrier = threading.Barrier(8)

        def attempt(got: list[Lock] = got, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                got.append(Lock.acquire(tmp_path))
            except OutputError:
                return

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got[0].release()
