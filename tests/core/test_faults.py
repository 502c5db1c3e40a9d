"""Faults that pass are outlived, and what stays is named: never a traceback, never a run that hangs."""

import errno
import os
import sys
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler

import numpy as np
import pytest
import zarr

from helpers import FAST, FP32, call, image_of, tree
from kinds import finder, small
from napari_unet import faults
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, IncompleteError, ResourceError, UnreachableError
from napari_unet.events import wait
from napari_unet.faults import out_of_memory, passing, persist
from napari_unet.inference import PredictConfig
from napari_unet.inference.pipeline import Pipeline
from napari_unet.inference.predict import predict
from napari_unet.sources import open_stack

CONFIG = PredictConfig(block=(32, 32), **FP32)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(faults, "WAITS", (0.0, 0.0))


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "image.zarr"
    array = zarr.create_array(path, shape=(96, 64), dtype="u2", chunks=(32, 32), dimension_names=["y", "x"])
    array[...] = image_of((96, 64))
    return path


@pytest.mark.parametrize("times", range(5))
@pytest.mark.parametrize(
    "error", [*(OSError(getattr(errno, n), "x") for n in ("EIO", "ESTALE", "EMFILE", "EEXIST")), TimeoutError()]
)
def test_what_fails_is_done_three_times(error, times):
    left = [error] * times

    def work():
        if left:
            raise left.pop()
        return "done"

    if times < 3:
        assert persist(work) == "done"
    else:
        with pytest.raises(type(error)):
            persist(work)
        assert len(left) == times - 3


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "x"), OSError(errno.ENOSPC, "x"), ValueError(), DataError("damaged")]
)
def test_what_does_not_pass_is_not_tried_again(error):
    tries = []

    def work():
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        persist(work)
    assert len(tries) == 1
    assert not passing(error)


SAID = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("can't start new thread"),
    RuntimeError("could not create a primitive"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", SAID, ids=str)
@pytest.mark.parametrize("when", ["opening", "measuring", "computing"])
def test_memory_that_runs_out_is_said_wherever_it_does(when, error, tmp_path, monkeypatch):
    assert out_of_memory(error)
    stack, reads = Stack(data=image_of((64, 64)), axes="yx"), []

    def fails(self, box, *, again=True):
        reads.append(box)
        if when == "measuring" or len(reads) > 2:
            raise error
        return np.asarray(self.data[box])

    def refuses(*args):
        raise error

    monkeypatch.setattr(Stack, "read", fails)
    if when == "opening":
        monkeypatch.setattr("napari_unet.inference.prepare.check_fit", refuses)
    with pytest.raises(ResourceError, match="memory of this machine ran out"):
        wait(predict(stack, small(), tmp_path / "out.ome.zarr", CONFIG))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_run_whose_threads_do_not_start_ends(which, monkeypatch):
    start, begun = threading.Thread.start, []

    def refuses(thread):
        if thread.name in ("reader", "decoder", "writer"):
            begun.append(thread)
            if len(begun) > which:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuses)
    with pytest.raises(RuntimeError, match="can't start"):
        list(Pipeline(range(9), int, *[lambda job, got: got] * 3))
    assert not any(thread.is_alive() for thread in begun)


CHANGES = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir")


class Disk:
    """What is done below a folder, some of which fails; hooks of this kind cannot be removed, so there is one."""

    folder, first, last, opened = "none", 0, 0, 0

    def hear(self, event, args):
        if event in CHANGES and str(args[0]).startswith(self.folder):
            self.opened += 1
            if self.first < self.opened <= self.last:
                raise OSError(errno.EIO, os.strerror(errno.EIO), args[0])


@pytest.fixture(scope="session")
def one_disk():
    found = Disk()
    sys.addaudithook(found.hear)
    return found


@pytest.fixture
def disk(one_disk, tmp_path):
    one_disk.folder, one_disk.first, one_disk.last, one_disk.opened = str(tmp_path), 0, 0, 0
    yield one_disk
    one_disk.folder = "none"


@pytest.mark.parametrize(("times", "codes"), [(1, {0}), (10**9, {0, 3, 5, 6, 7})])
def test_a_disk_that_fails_once_costs_nothing_and_one_that_goes_on_is_named(times, codes, stored, tmp_path, disk):
    finder(2).save(tmp_path / "m.model")
    out = tmp_path / "r.ome.zarr"
    command = ["predict", stored, "--model", tmp_path / "m.model", "--out", out, "--block", 32, 32, *FAST]
    disk.opened = 0
    assert call(*command)[0] == 0
    expected, opened = tree(out), disk.opened
    failed = []
    for first in range(0, opened, max(1, opened // 9)):
        if out.exists():
            out.rename(tmp_path / f"old-{first}")
        disk.opened, disk.first, disk.last = 0, first, first + times
        code, said = call(*command)  # raises what is not an error of ours
        failed += [said[-300:]] if code not in codes else []
        disk.last = 0
        for lock in out.rglob("lock"):  # it could not be given back; a process that has ended does not hold it
            lock.unlink()
        call(*command)
        assert tree(out) == expected
    assert not failed


class Unsteady(SimpleHTTPRequestHandler):
    """A server whose first answers to requests of a chunk are errors."""

    status, times, seen = 200, 0, ()

    def do_GET(self):
        if "/c/1/" in self.path and self.seen.count(self.path) < self.times:
            self.seen.append(self.path)
            self.send_error(self.status)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    handler = type("Handler", (Unsteady,), {"seen": []})
    found = HTTPServer(("127.0.0.1", 0), lambda *args: handler(*args, directory=str(tmp_path)))
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_server_that_fails_once_costs_nothing_and_one_that_goes_on_ends_the_run_resumable(
    status, server, stored, tmp_path
):
    handler, address = server
    whole = wait(predict(open_stack(stored), small(), tmp_path / "a.ome.zarr", CONFIG))
    handler.status, handler.times = status, 2
    once = wait(predict(open_stack(f"{address}/image.zarr"), small(), tmp_path / "b.ome.zarr", CONFIG))
    assert np.array_equal(np.asarray(once.data), np.asarray(whole.data))
    handler.seen.clear()
    handler.times = 10**9
    with pytest.raises((IncompleteError, UnreachableError), match="again") as found:
        wait(predict(open_stack(f"{address}/image.zarr"), small(), tmp_path / "c.ome.zarr", CONFIG))
    assert found.value.exit_code == 7
