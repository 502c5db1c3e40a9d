"""Work in another process: what is sent arrives the same, what happens there is heard here, and nothing is left."""

import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr

from helpers import collect
from napari_unet import open_stack
from napari_unet.errors import DataError, IncompleteError, ResourceError, UsageError
from napari_unet.events import Progress
from napari_unet.process import parcel, remote
from napari_unet.process.memory import environment, give_back, keep_freed
from napari_unet.process.parcel import NotSentError, pack, unpack
from napari_unet.process.remote import Remote

ROOM = 2**26
linux = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")


@pytest.fixture(autouse=True)
def copies(tmp_path, monkeypatch):
    """The folder of copies: empty at the end, when no array and no process is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    gc.collect()
    assert not list(tmp_path.glob("*.layer"))


# What the other process does: by these names it finds it


def echo(what):
    yield np.array(np.asarray(what))
    return os.getpid()


def count(n, seconds=0.0):
    sys.stdout.write("this must not break into the talk")
    for i in range(n):
        time.sleep(seconds)
        yield Progress(i + 1, n, "predict")
    return "counted"


def hear(times):
    heard = []
    while len(heard) < times:
        heard += (yield len(heard)) or ()
        time.sleep(0.01)
    return heard


def fail(error):
    yield "now"
    raise error


def end_by(number):
    yield "now"
    os.kill(os.getpid(), number)
    time.sleep(30)


def stubborn():
    try:
        yield os.getpid()
        time.sleep(60)
        yield "too late"
    finally:
        time.sleep(60)


def faults_in_a_thread():
    import threading

    def fill(times):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(times):
            np.empty(ROOM, np.uint8).fill(1)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    found = []
    for times in (1, 8):
        thread = threading.Thread(target=fill, args=(times,))
        thread.start()
        thread.join()
    yield found


class Odd:
    """What can be packed, and not unpacked."""

    def __reduce__(self):
        return int, ("no number",)


def done(work, *given, **more):
    """Return (events, result), without the moments in which nothing happened."""
    events, result = collect(Remote(work, *given, **more).events())
    return [event for event in events if event is not None], result


# What is sent


def mapped(folder, mode="r+"):
    data = np.memmap(folder / "mapped.dat", np.float32, "w+", shape=(40, 120, 130))
    data[:] = np.arange(data.size).reshape(data.shape)
    data.flush()
    return np.memmap(folder / "mapped.dat", np.float32, mode, shape=data.shape)


def changed(folder):
    data = mapped(folder, "c")
    data[3] = 7
    return data


CUBE = np.random.default_rng(0).integers(0, 2**16, (24, 300, 310)).astype(np.uint16)
ARRAYS = {
    "plain": lambda _: CUBE.copy(),
    "axes in another order": lambda _: CUBE.copy().transpose(2, 0, 1),
    "every second": lambda _: CUBE.copy()[:, ::2],
    "backwards": lambda _: CUBE.copy()[::-1, :, ::-1],
    "one plane": lambda _: CUBE.copy()[:1],
    "repeated": lambda _: np.broadcast_to(np.arange(2000.0), (700, 2000)),
    "planes repeated": lambda _: np.broadcast_to(CUBE.copy()[:13], (3, 13, 300, 310)),
    "big-endian": lambda _: CUBE.astype(">u2"),
    "booleans": lambda _: CUBE > 2**15,
    "not numbers": lambda _: np.where(CUBE > 2**15, np.nan, CUBE).astype(np.float32),
    "of a file": mapped,
    "part of a file": lambda folder: mapped(folder)[3:, 5:100, ::3],
    "of a file, changed in memory": changed,
    "dask": lambda _: da.from_array(CUBE.copy(), chunks=(5, 100, 100)) + 1,
    "zarr in memory": lambda _: zarr.array(CUBE, chunks=(24, 300, 310)),
    "small": lambda _: CUBE[0, :9, :9].copy(),
}

IN_FILES, SMALL = ("of a file", "part of a file"), ("one plane", "repeated", "small", "dask")  # that cuts blocks


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_arrives_as_it_is(kind, tmp_path):
    array = ARRAYS[kind](tmp_path)
    found = unpack(pack(array))
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(np.asarray(found[...]), np.asarray(array[...]))
    if isinstance(found, np.ndarray) and found.nbytes > parcel.LARGE:
        assert not found.flags.writeable
    assert len(list(tmp_path.glob("*.layer"))) == (kind not in IN_FILES and kind not in SMALL)


def test_a_copy_is_made_once_and_again_when_the_array_has_changed(copies):
    array = CUBE.copy()
    first, second = pack(open_stack(array, "zyx")), pack(open_stack(array, "zyx"))
    assert first == second
    assert len(list(copies.glob("*.layer"))) == 1
    array[5, 5, 5] ^= 1
    assert pack(open_stack(array, "zyx")) != first
    np.testing.assert_array_equal(unpack(pack(array)), array)
    assert len(list(copies.glob("*.layer"))) == 1
    del array
    gc.collect()
    assert not list(copies.glob("*.layer"))


def test_what_reads_no_image_is_sent_none(copies):
    stack = unpack(pack(open_stack(CUBE, "zyx"), hollow=True))
    assert (stack.shape, stack.dtype) == (CUBE.shape, CUBE.dtype)
    assert not list(copies.glob("*"))


def test_without_room_for_a_copy_it_is_not_sent(monkeypatch, copies):
    monkeypatch.setattr(parcel, "SPARE", 2**60)
    with pytest.raises(NotSentError, match=r"no room for a copy of 4\.26 MiB"):
        pack(CUBE)
    assert not list(copies.glob("*"))


@pytest.mark.parametrize("what", [lambda: 1, Odd(), open(os.devnull)])  # noqa: PTH123, SIM115
def test_what_cannot_be_sent_is_done_here_and_said(what, copies):
    events, result = done(type_of, (what, CUBE.copy()))
    assert "cannot be sent to a process of its own, so the work is done in this one" in events[0].message
    assert events[0].stage == "note"
    assert result == os.getpid()


def type_of(what):
    yield type(what[0]).__name__
    return os.getpid()


# What happens there


def test_events_and_the_result_arrive_and_the_process_is_kept_for_what_follows():
    events, result = done(count, 5)
    assert events == [Progress(n, 5, "predict") for n in (1, 5)]  # of progress in between a few a second
    assert result == "counted"
    (found,), first = done(echo, CUBE.copy())
    np.testing.assert_array_equal(found, CUBE)
    assert first != os.getpid()
    assert done(echo, 1)[1] == first


def test_it_is_asked_between_its_events():
    work = Remote(hear, 2)
    events, asked = work.events(), iter(("one", 2))
    with pytest.raises(StopIteration) as end:
        while True:
            if next(events) is not None and (what := next(asked, None)):
                work.ask(what)
    assert end.value.value == ["one", 2]


@pytest.mark.parametrize("error", [DataError("the stack is broken"), ZeroDivisionError("zero")])
def test_what_it_raises_is_raised_here_with_what_is_known_of_there(error):
    with pytest.raises(type(error), match=str(error)) as found:
        done(fail, error)
    assert "in fail" in "".join(traceback.format_exception(found.value))
    assert done(count, 1)[1] == "counted"


@pytest.mark.parametrize(
    ("number", "error", "what"),
    [
        (signal.SIGKILL, ResourceError, "memory ran out; what is done is kept"),
        (signal.SIGSEGV, RuntimeError, "exit code -11"),
        (signal.SIGTERM, IncompleteError, "what is done is kept"),
    ],
)
def test_a_process_that_is_ended_is_said_and_another_takes_its_place(number, error, what):
    with pytest.raises(error, match=what):
        done(end_by, number)
    assert done(count, 1)[1] == "counted"


def test_closed_it_ends_at_its_next_event_and_is_there_for_what_follows():
    pid = done(echo, 1)[1]
    events = Remote(count, 10**6, 0.02).events()
    next(event for event in events if event)
    events.close()
    assert done(echo, 1)[1] == pid


def test_closed_it_is_ended_where_it_does_not_end_itself():
    events = Remote(stubborn, patience=0.2).events()
    pid = next(event for event in events if event)
    began = time.monotonic()
    events.close()
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_other_versions_are_refused_and_their_process_ends(monkeypatch):
    done(echo, 1, keep=False)  # so that none is known already
    monkeypatch.setitem(remote.HERE, "numpy", "0.1")
    with pytest.raises(UsageError, match=r"numpy was 0\.1 when this program was started and is"):
        done(echo, 1)
    monkeypatch.undo()
    assert done(count, 1)[1] == "counted"


def test_one_that_is_idle_ends_and_takes_the_copies_with_it(monkeypatch, copies):
    monkeypatch.setattr(remote, "IDLE", 0.1)
    array = CUBE.copy()
    pid = done(echo, array)[1]
    end = time.monotonic() + 20
    while list(copies.glob("*.layer")):
        assert time.monotonic() < end, "the copy stayed"
        time.sleep(0.02)
    assert done(echo, array)[1] != pid


def test_a_copy_stays_while_work_is_sent_though_the_last_process_ends_and_is_made_again_where_it_was_cleared(copies):
    array = CUBE.copy()
    done(echo, array, keep=False)
    with remote.working():
        data = pack(array)
        with pytest.raises(ResourceError):
            done(end_by, signal.SIGKILL, keep=False)
        time.sleep(0.2)  # until its end is known
        np.testing.assert_array_equal(unpack(data), array)
        for path in copies.glob("*.layer"):
            path.unlink()
        np.testing.assert_array_equal(unpack(pack(array)), array)


@linux
def test_when_the_window_is_killed_its_process_ends_and_leaves_no_copy(copies):
    script = (
        "import os, sys, tempfile; import numpy as np; import test_process as t\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "work = t.Remote(t.slow_echo, t.CUBE).events()\n"
        "print(next(e for e in work if e), flush=True); os.kill(os.getpid(), 9)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run([sys.executable, "-c", script, copies], capture_output=True, text=True, env=env)
    pid = int(ended.stdout)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() or list(copies.glob("*.layer")):
        assert time.monotonic() < end, "it stayed"
        time.sleep(0.02)


def slow_echo(what):
    yield os.getpid()
    while True:
        time.sleep(0.05)
        yield int(what[0, 0, 0])


# Memory


@linux
def test_memory_that_is_freed_stays_with_the_process_whatever_thread_took_it():
    ((first, again),), _ = done(faults_in_a_thread)
    assert again < first / 4


@linux
def test_in_a_shell_it_stays_too_until_it_is_given_back():
    script = (
        "import resource, numpy as np\n"
        "from napari_unet.process.memory import environment, give_back, keep_freed\n"
        "def faults(times):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        f"    for _ in range(times): np.empty({ROOM}, np.uint8).fill(1)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "resident = lambda: int(open('/proc/self/statm').read().split()[1])\n"
        "keep_freed(); print(faults(1), faults(8), resident()); give_back(); print(resident())"
    )
    # numpy asks the kernel for pages of 2 MiB, which it has or has not: the counts of faults would follow from that
    env = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=env)
    first, again, kept, after = map(int, ended.stdout.split())
    assert again < first / 4
    assert (kept - after) * resource.getpagesize() > ROOM / 2


def test_elsewhere_memory_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    keep_freed()
    give_back()


def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    script = "import os, sys; sys.argv[1:] = ['--version']; from napari_unet.cli import main\n"
    script += "try: main()\nexcept SystemExit: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == f"{environment()['GOMP_SPINCOUNT']} False"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in environment()
