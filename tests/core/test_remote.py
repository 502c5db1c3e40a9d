"""Images at addresses: what is followed, and how much of it travels at the same time."""

import contextlib
import hashlib
import json
import os
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import fsspec
import numpy as np
import pytest
import zarr

from helpers import FP32
from kinds import small
from napari_unet.arrays.cached import cached
from napari_unet.batch import run_batch
from napari_unet.errors import DataError, GoneError, IncompleteError, OutputError, UnreachableError, UnsafeError
from napari_unet.events import wait
from napari_unet.faults import FAULTS, network_errors, passing
from napari_unet.inference import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.sources import open_stack, remote
from napari_unet.summary import check_summary
from plates import plate


class Far(SimpleHTTPRequestHandler):
    """A server that takes its time, counts what it answers at once, may be gone, and may send elsewhere."""

    protocol_version = "HTTP/1.1"

    def parse_request(self):
        """Hang up without an answer, where the server is broken."""
        understood = super().parse_request()
        self.close_connection = self.close_connection or self.server.broken
        return understood and not self.server.broken

    def do_GET(self):
        if self.as_google() or self.as_listing():
            return
        if self.server.elsewhere and not self.path.startswith("/x/"):
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.last and self.path.endswith(self.server.last):
            self.server.gone = True
        if self.server.hush and self.server.hush in self.path:
            self.server.silent.set()
        if self.server.gone:
            self.server.refused.append(self.path)
            self.send_error(503)
            return
        if self.path == self.server.ill:
            self.send_error(500)
            return
        if self.server.silent.is_set():
            self.server.refused.append(self.path)
            self.server.ended.wait()
            return
        with self.server.counting:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        time.sleep(self.server.latency)
        with self.server.counting:
            self.server.now -= 1
        super().do_GET()

    def as_google(self):
        """Take the address of an object in a bucket of Google's for that of its file; say what is known of it."""
        about = self.path.startswith("/storage/v1/b/")
        if not about and not self.path.startswith("/download/storage/v1/b/"):
            return False
        bucket, _, key = self.path.partition("/v1/b/")[2].partition("?")[0].partition("/o/")
        self.path = f"/{bucket}/{unquote(key)}"
        file = Path(self.translate_path(self.path))
        if not about or not file.is_file() or self.server.gone:
            return False
        said = {
            "name": unquote(key),
            "bucket": bucket,
            "size": str(file.stat().st_size),
            "updated": "2020-01-01T00:00:00.000Z",
        }
        self.answer(json.dumps(said), "application/json")
        return True

    def as_listing(self):
        """List no object: what is asked for by its name is there, or it is not."""
        if "list-type=" not in self.path or self.server.gone:
            return False
        self.answer("<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>", "application/xml")
        return True

    def answer(self, text, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_HEAD(self):
        if self.server.gone:
            self.server.refused.append(self.path)
            self.send_error(503)
            return
        if self.server.dumb:
            self.send_error(405)
            return
        super().do_HEAD()

    def end_headers(self):
        file = Path(self.translate_path(self.path))
        if self.server.tags and file.is_file():
            self.send_header("ETag", f'{self.server.tags}"{hashlib.md5(file.read_bytes()).hexdigest()}"')
        super().end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    (tmp_path / "far").mkdir()
    made = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Far(*args, directory=str(tmp_path / "far")))
    made.daemon_threads, made.counting = True, threading.Lock()
    made.now = made.most = 0
    made.gone, made.elsewhere, made.latency, made.dumb, made.tags = False, "", 0.0, False, ""
    made.ill = made.last = made.hush = ""
    made.broken, made.refused, made.silent, made.ended = False, [], threading.Event(), threading.Event()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.ended.set()
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for name, seconds in {"PATIENCE": 1.0, "PAUSE": 0.1, "SILENT": 2.0}.items():
        monkeypatch.setattr(remote, name, seconds)
    remote._gone.clear()
    fsspec.get_filesystem_class("http").clear_instance_cache()  # the clients of others know other seconds


def store(server, tmp_path, side=8):
    data = np.random.default_rng(0).random((side * 16, side * 16)).astype("f4")
    zarr.create_array(str(tmp_path / "far" / "a.zarr"), data=data, chunks=(16, 16), dimension_names=["y", "x"])
    return f"http://127.0.0.1:{server.server_port}/a.zarr", data


def test_chunks_travel_at_the_same_time(server, tmp_path):
    address, data = store(server, tmp_path)
    stack = open_stack(address)
    server.most, server.latency = 0, 0.5  # seconds: long beside what it takes to send so many requests
    assert (stack.read(tuple(slice(0, n) for n in stack.shape)) == data).all()
    assert server.most > 16  # zarr's own number is 10


@pytest.fixture(params=["http", "s3", "gs"])
def place(request, server, tmp_path, monkeypatch):
    """Return how an address begins that the server answers, by the libraries' own settings; nobody is logged in."""
    at = f"http://127.0.0.1:{server.server_port}"
    if request.param == "http":
        return at
    pytest.importorskip({"s3": "s3fs", "gs": "gcsfs"}[request.param])
    (tmp_path / "far" / "bucket").symlink_to(tmp_path / "far")
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    settings = {"AWS_ENDPOINT_URL": at, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"}
    settings |= {"STORAGE_EMULATOR_HOST": at, "NO_GCE_CHECK": "true"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for files in ("s3", "gs"):
        with contextlib.suppress(ImportError):
            fsspec.get_filesystem_class(files).clear_instance_cache()
    return f"{request.param}://bucket"


def test_an_image_at_any_kind_of_address_is_read_without_logging_in(server, tmp_path, place):
    _, data = store(server, tmp_path)
    stack = open_stack(f"{place}/a.zarr")
    assert (stack.read(tuple(slice(0, n) for n in stack.shape)) == data).all()
    with pytest.raises(DataError, match="no zarr group or array"):
        open_stack(f"{place}/none.zarr")


def test_a_server_that_breaks_off_is_a_fault_that_passes(server, tmp_path, place):
    store(server, tmp_path)
    stack = open_stack(f"{place}/a.zarr")
    server.broken = True
    with pytest.raises(FAULTS + network_errors()) as found:
        stack.read((slice(0, 40), slice(0, 40)))
    assert passing(found.value)


def test_a_server_that_was_gone_for_a_while_costs_no_byte(server, tmp_path, place):
    store(server, tmp_path, 4)
    address = f"{place}/a.zarr"
    config = PredictConfig(**FP32, block=(16, 16))
    run = predict(open_stack(address), small(), tmp_path / "a.ome.zarr", config)
    for event in run:
        server.gone = server.gone or type(event).__name__ == "Block"
        if server.gone:
            break
    run.close()
    with pytest.raises((IncompleteError, UnreachableError)):
        wait(predict(open_stack(address), small(), tmp_path / "a.ome.zarr", config))
    server.gone = False
    far = wait(predict(open_stack(address), small(), tmp_path / "a.ome.zarr", config))
    near = wait(predict(open_stack(tmp_path / "far" / "a.zarr"), small(), tmp_path / "b.ome.zarr", config))
    assert (np.asarray(far.data) == np.asarray(near.data)).all()


def _ran(address, out, then=lambda: None):
    """Run an image with blocks of one chunk; do something after the first block."""
    config = PredictConfig(**FP32, block=(16, 16))
    with contextlib.closing(predict(open_stack(address), small(), out, config)) as run:
        while True:
            try:
                event = next(run)
            except StopIteration as end:
                return np.asarray(end.value.data)
            if type(event).__name__ == "Block":
                then()
                then = bool


GONE = {  # ways in which a server is gone
    "it refuses": lambda server: setattr(server, "gone", True),
    "it is silent": lambda server: server.silent.set(),
    "it breaks off": lambda server: setattr(server, "broken", True),
}


@pytest.mark.parametrize("way", GONE)
def test_a_server_that_stays_gone_ends_a_run_and_is_not_asked_for_each_block(server, tmp_path, place, way, monkeypatch):
    store(server, tmp_path)
    monkeypatch.setattr(cached, "__defaults__", (2**12,))  # bytes: 4 of 64 chunks
    with pytest.raises(GoneError, match=r"has not answered for .*run the same command again"):
        _ran(f"{place}/a.zarr", tmp_path / "a.ome.zarr", lambda: GONE[way](server))
    assert len(set(server.refused)) < 32  # what is read at once, and its parts


def test_a_run_waits_for_a_server_that_starts_again(server, tmp_path, place, monkeypatch):
    store(server, tmp_path)
    monkeypatch.setattr(cached, "__defaults__", (2**12,))
    monkeypatch.setattr(remote, "PATIENCE", 60.0)

    def restart():
        server.gone = True
        threading.Thread(target=later, daemon=True).start()

    def later():
        while not server.refused:
            time.sleep(0.05)
        time.sleep(2)  # seconds: longer than a disk is waited for
        server.gone = False

    far = _ran(f"{place}/a.zarr", tmp_path / "a.ome.zarr", restart)
    assert server.refused
    assert (far == _ran(tmp_path / "far" / "a.zarr", tmp_path / "b.ome.zarr")).all()


def test_a_chunk_that_a_server_cannot_give_costs_no_block_that_does_not_need_it(server, tmp_path):
    address, _ = store(server, tmp_path, 4)
    server.ill = "/a.zarr/c/3/3"
    with pytest.raises(IncompleteError, match=r"of 16 blocks could not be done .*500") as found:
        _ran(address, tmp_path / "a.ome.zarr")
    assert not isinstance(found.value, GoneError)


def test_a_batch_ends_where_the_server_of_its_images_stays_gone(server, tmp_path):
    image = np.random.default_rng(0).random((32, 32)).astype("f4")
    plate(tmp_path / "far" / "screen.zarr", {f"A/{column}/0": image for column in range(1, 9)})
    address, out = f"http://127.0.0.1:{server.server_port}/screen.zarr", tmp_path / "out"
    server.last = "/A/3/0/0/c/0/0"
    with pytest.raises(GoneError, match="has not answered"):
        wait(run_batch(address, small(), out, PredictConfig(**FP32)))
    assert [row.state for row in check_summary(out / "summary.csv")] == ["done"] * 2
    assert not any("/A/6/" in path for path in server.refused)
    server.gone, server.last = False, ""
    rows = wait(run_batch(address, small(), out, PredictConfig(**FP32)))
    assert [row.state for row in rows] == ["skipped"] * 2 + ["done"] * 6


def test_a_batch_waits_once_for_a_server_that_is_silent_when_its_images_are_opened(server, tmp_path, monkeypatch):
    image = np.random.default_rng(0).random((32, 32)).astype("f4")
    plate(tmp_path / "far" / "screen.zarr", {f"A/{column}/0": image for column in range(1, 9)})
    address, out = f"http://127.0.0.1:{server.server_port}/screen.zarr", tmp_path / "out"
    monkeypatch.setattr(remote, "METADATA_SECONDS", 0.4)
    server.hush = "/A/2/0/"  # from this image on nothing is answered
    with pytest.raises(GoneError, match="has not answered"):
        wait(run_batch(address, small(), out, PredictConfig(**FP32)))
    states = [row.state for row in check_summary(out / "summary.csv")]
    assert states[0] == "done" and 1 <= states.count("failed") == len(states) - 1 < 5  # until it is known to be gone
    assert not any("/A/7/0/" in path for path in server.refused)  # asked for how many there are, it was silent before
    server.silent.clear()
    server.ended.set()


@pytest.mark.parametrize("where", ["http://localhost:1", "http://10.0.0.1", "https://other.example"])
def test_a_server_does_not_send_to_another_one(server, tmp_path, where):
    address, _ = store(server, tmp_path)
    stack = open_stack(address)
    server.elsewhere = where
    with pytest.raises(UnsafeError, match="another server"):
        open_stack(address)
    with pytest.raises(UnsafeError, match="another server"):
        stack.read((slice(0, 1), slice(0, 1)))


def test_a_redirect_on_the_same_server_is_followed(server, tmp_path):
    address, data = store(server, tmp_path)
    (tmp_path / "far" / "x").symlink_to(tmp_path / "far")
    server.elsewhere = f"http://127.0.0.1:{server.server_port}/x"
    stack = open_stack(address)
    assert (stack.read(tuple(slice(0, n) for n in stack.shape)) == data).all()


def _rewritten(path, when=None):
    """Other bytes of the same length."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, when or (before.st_atime, before.st_mtime))


LAST = "c/3/3"
CHANGED = {  # of an image at an address, between two runs: what is done to its folder, whether the server has checksums
    "a chunk of other values": (lambda far: _rewritten(far / LAST, (2e9, 2e9)), False),
    "a chunk of other values and the same time": (lambda far: _rewritten(far / LAST), True),
    "a chunk that is shorter": (lambda far: os.truncate(far / LAST, 9), False),
    "a chunk that is gone": (lambda far: (far / LAST).unlink(), False),
    "a chunk that was not there": (lambda far: (far / "c/0/0.x").rename(far / "c/0/0"), False),
    "its metadata": (lambda far: os.utime(far / "zarr.json", (2e9, 2e9)), False),
    "the checksum of its metadata": (
        lambda far: (far / "zarr.json").write_text((far / "zarr.json").read_text() + " "),
        True,
    ),
}


def _stopped(address, out, config):
    with contextlib.closing(predict(open_stack(address), small(), out, config)) as run:
        next(event for event in run if type(event).__name__ == "Block")


@pytest.mark.parametrize("change", CHANGED)
def test_a_stopped_run_of_an_image_at_an_address_that_changed_is_refused(server, tmp_path, change):
    address, _ = store(server, tmp_path, 4)
    far, config = tmp_path / "far/a.zarr", PredictConfig(**FP32, block=(16, 16))
    if change == "a chunk that was not there":
        (far / "c/0/0").rename(far / "c/0/0.x")
    change, with_checksums = CHANGED[change]
    server.tags = "W/" if with_checksums else ""
    _stopped(address, tmp_path / "a.ome.zarr", config)
    change(far)
    with pytest.raises(OutputError, match=r"other settings: image\.(files|bytes|digest) was"):
        wait(predict(open_stack(address), small(), tmp_path / "a.ome.zarr", config))


SAME = {  # what changes nothing of an image
    "nothing": lambda server: None,
    "a server that says nothing": lambda server: setattr(server, "dumb", True),
    "checksums, weak and strong": lambda server: setattr(server, "tags", "W/"),
    "times where checksums count": lambda server: setattr(server, "tags", " "),
    "it has moved": lambda server: setattr(server, "elsewhere", f"http://127.0.0.1:{server.server_port}/x"),
}


@pytest.mark.parametrize("what", SAME)
def test_a_stopped_run_of_an_image_at_an_address_that_is_the_same_goes_on(server, tmp_path, what):
    address, _ = store(server, tmp_path, 4)
    (tmp_path / "far" / "x").symlink_to(tmp_path / "far")
    config = PredictConfig(**FP32, block=(16, 16))
    SAME[what](server)
    _stopped(address, tmp_path / "a.ome.zarr", config)
    server.tags = server.tags and " "
    if what.startswith("times"):
        os.utime(tmp_path / "far/a.zarr" / LAST, (2e9, 2e9))
    wait(predict(open_stack(address), small(), tmp_path / "a.ome.zarr", config))


def test_a_server_that_is_gone_is_named_before_anything_is_written(server, tmp_path):
    address, _ = store(server, tmp_path, 4)
    stack = open_stack(address)
    server.shutdown()
    server.server_close()
    with pytest.raises((UnreachableError, GoneError), match=r"cannot be (reached|read)"):
        wait(predict(stack, small(), tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    assert not (tmp_path / "a.ome.zarr").exists()
