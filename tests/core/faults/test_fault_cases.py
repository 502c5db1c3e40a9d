"""Cases of the fault suite that no other module holds: through the real command, with its exit codes."""

import contextlib
import errno
import json
import os
import select
import socket
import sys
import threading
import time
import tomllib
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import psutil
import pytest
import tifffile
import torch

from helpers import FAST, call, stopped_after, tree
from kinds import small
from napari_unet import PredictConfig, open_stack
from napari_unet.device import choose_precision
from napari_unet.errors import IncompleteError, UsageError
from napari_unet.events import wait
from napari_unet.inference.predict import predict
from napari_unet.store import lock
from rig import store_image
from warm import warm

TOP = Path(__file__).parents[3]
CONFIG = PredictConfig(precision="fp32", device="cpu", block=(32, 32))
CODE = "name: x\ntype: model\nweights:\n  pytorch_state_dict:\n    architecture: model.py:Net\n"
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def image(tmp_path):
    return store_image(tmp_path / "image.zarr")


@pytest.fixture
def model(tmp_path):
    small().save(tmp_path / "m.model")
    return tmp_path / "m.model"


def zipped(path, members, **more):
    with zipfile.ZipFile(path, "w", **more) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def packed(data):
    return {"compression": zipfile.ZIP_DEFLATED} if data else {}


FOREIGN = {
    "A8 a deflated .pt": lambda p: zipped(p / "big.pt", [("big/data.pkl", bytes(2**26))], **packed(1)),
    "A8 the same by another name": lambda p: zipped(p / "big.zip", [("big/data.pkl", bytes(2**26))], **packed(1)),
    "A10 a bomb": lambda p: zipped(p / "bomb.zip", [("weights.bin", bytes(2**26))], **packed(1)),
    "A10 nested": lambda p: zipped(p / "b.zip", [("in.zip", zipped(p / "a.zip", [("x", "y")]).read_bytes())]),
    "A10 many members": lambda p: zipped(p / "many.zip", ((f"{i}", "") for i in range(10_001))),
    "A11 code of the author": lambda p: written(p / "zoo", "rdf.yaml", CODE),
    "A12 an object of Python": lambda p: written(p / "zoo", "rdf.yaml", "a: !!python/object/apply:os.mkdir [PWNED]"),
    "A12 aliases": lambda p: written(p / "zoo", "rdf.yaml", ALIASES),
    "A12 long": lambda p: written(p / "zoo", "rdf.yaml", "a: b\n" * 2**20),
}


def written(folder, name, text):
    folder.mkdir()
    (folder / name).write_text(text)
    (folder / "model.py").write_text("open('PWNED', 'w')")
    return folder


@pytest.mark.parametrize("case", FOREIGN)
def test_models_of_others_are_refused_unopened_by_every_command(case, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = FOREIGN[case](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    held = psutil.Process().memory_info().rss
    for command in (("predict", image, "--model", given, "--out", "r.ome.zarr"), ("info", given)):
        code, said = call(*command)
        assert code in (3, 4), said
        assert given.name in said
    assert sorted(tmp_path.rglob("*")) == before
    assert psutil.Process().memory_info().rss - held < 300e6


def test_an_image_of_an_absurd_shape_is_refused_by_predict(model, tmp_path):
    meta = {"zarr_format": 2, "shape": [10**6] * 3, "chunks": [64] * 3, "dtype": "<u2", "compressor": None}
    (tmp_path / "huge.zarr").mkdir()
    text = json.dumps({**meta, "filters": None, "order": "C", "fill_value": 0})
    (tmp_path / "huge.zarr" / ".zarray").write_text(text)
    options = ("--axes", "zyx", "--model", model, "--out", tmp_path / "r.ome.zarr", *FAST)
    code, said = call("predict", tmp_path / "huge.zarr", *options)
    assert code in (3, 6), said
    assert not (tmp_path / "r.ome.zarr").exists()


def test_verify_does_not_unpack_a_chunk_that_holds_more_than_a_chunk(image, model, tmp_path):
    out = tmp_path / "r.ome.zarr"
    assert call("predict", image, "--model", model, "--out", out, "--block", 32, 32, *FAST)[0] == 0
    largest = max((p for p in out.rglob("*") if "c" in p.relative_to(out).parts and p.is_file()), key=os.path.getsize)
    largest.write_bytes(numcodecs.Zstd(1).encode(bytes(2**28)))
    held = psutil.Process().memory_info().rss
    code, said = call("verify", out)
    assert code == 3
    assert largest.relative_to(out).parts[0] in said
    assert psutil.Process().memory_info().rss - held < 200e6


@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("how", [{"bigtiff": True}, {"bigtiff": True, "compression": "zlib"}])
def test_a_bigtiff_that_was_cut_is_refused(part, how, tmp_path):
    data = np.random.default_rng(0).integers(0, 999, (20, 32, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", **how)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(part * len(whole))])
    code, said = call("info", tmp_path / "a.tif")
    assert code == 3, said
    assert "a.tif" in said


WITHOUT_RIGHTS = """
import ctypes, os
if os.geteuid() == 0:  # else root may write anywhere: all capabilities go, by the call and the version of Linux
    assert not ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
from napari_unet.cli import main
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="who runs the tests may be root, whose rights only Linux takes")
@pytest.mark.parametrize("begun", [False, True])
def test_a_store_that_may_only_be_read_is_refused_before_anything_is_computed(begun, image, model, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    out = store / "r.ome.zarr"
    if begun:
        stopped_after(2, predict(open_stack(image), small(), out, CONFIG))
    before = tree(store, ledger=True)
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    process = warm(WITHOUT_RIGHTS, "predict", image, "--model", model, "--out", out, "--block", 32, 32, *FAST)
    said = process.stderr.read()
    assert process.wait(60) == 6, said
    for folder in folders:
        folder.chmod(0o755)
    assert "cannot be written" in said
    assert "predict " not in said
    assert tree(store, ledger=True) == before


@pytest.mark.skipif(os.name != "posix", reason="Windows has no fcntl, and locks no file in this way")
def test_where_no_file_can_be_locked_runs_are_the_same(image, tmp_path, monkeypatch):
    def refuses(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    wait(predict(open_stack(image), small(), tmp_path / "a.ome.zarr", CONFIG))
    monkeypatch.setattr(lock.fcntl, "flock", refuses)
    run = predict(open_stack(image), small(), tmp_path / "b.ome.zarr", CONFIG)
    for event in run:
        if event.stage == "predict" and event.done:
            break
    with pytest.raises(OSError, match="being written by process"):
        wait(predict(open_stack(image), small(), tmp_path / "b.ome.zarr", CONFIG))
    wait(run)
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


def test_no_precision_overflows_where_float32_does_not():
    with pytest.raises(UsageError, match="precision"):
        choose_precision("fp16", torch.device("cpu"))
    net = small().network().eval()
    image = torch.rand(1, 1, 32, 32) * 1e5
    with torch.no_grad():
        for kind, finite in ((torch.float32, True), (torch.bfloat16, True), (torch.float16, False)):
            found = net.to(kind)(image.to(kind))
            assert bool(torch.isfinite(found).all()) is finite, kind


def test_a_run_listens_nowhere(image, tmp_path):
    seen = set()
    for _ in predict(open_stack(image), small(), tmp_path / "r.ome.zarr", CONFIG):
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                seen |= {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert not seen


def test_nothing_is_downloaded(image, tmp_path):
    words = ("urlopen", "urlretrieve", "requests", "load_state_dict_from_url", "hf_hub", "pooch", "httpx")
    sources = [path.read_text("utf-8") for path in (TOP / "src").rglob("*.py")]
    assert sources
    assert not [word for word in words for text in sources if word in text.split("import ")[-1] and f"{word}(" in text]
    for address in ("https://127.0.0.1:1/m.model", "http://127.0.0.1:1/m.safetensors", "file:///m.model"):
        code, said = call("predict", image, "--model", address, "--out", tmp_path / "r.ome.zarr")
        assert code == 2, said


def test_what_looks_for_weaknesses_is_run():
    rules = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in rules["select"]  # the rules of bandit
    assert not [rule for rule in rules["ignore"] if rule.startswith("S")]
    text = (TOP / "CONTRIBUTING.md").read_text("utf-8")
    assert "bandit" in text
    assert "pip-audit" in text


class Way:
    """A way to a server, that can stop passing bytes without being closed, as a network that drops packets."""

    def __init__(self, port):
        self.port, self.open = port, True
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.socket.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.port))
                threading.Thread(target=self.carry, args=(near, far), daemon=True).start()

    def carry(self, near, far):
        with near, far, contextlib.suppress(OSError):
            while True:
                time.sleep(0 if self.open else 0.1)
                for one in select.select([near, far], [], [], 0.1)[0] if self.open else []:
                    data = one.recv(2**16)
                    if not data:
                        return
                    (far if one is near else near).sendall(data)


@pytest.mark.timeout(120)
def test_a_network_that_drops_ends_the_run_resumable(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    from napari_unet.inference import cluster, scheduler

    monkeypatch.setattr(scheduler, "PATIENCE", 2)
    monkeypatch.setattr(cluster, "TIMEOUT", 5)
    stack, net = open_stack(store_image(tmp_path / "far.zarr", (192, 192))), small()
    where = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "protocol": "tcp://"}
    with distributed.LocalCluster(**where, host="127.0.0.1") as own:
        way = Way(int(own.scheduler_address.rpartition(":")[2]))
        config = PredictConfig(precision="fp32", device="cpu", block=(32, 32), scheduler=way.address, allow_tcp=True)
        began = None
        with pytest.raises(IncompleteError, match=r"does not answer|was lost") as error:
            for event in predict(stack, net, tmp_path / "a.ome.zarr", config):
                if event.stage == "predict" and event.done >= 2:
                    way.open = False
                    began = began or time.monotonic()
        assert error.value.exit_code == 7
        assert time.monotonic() - began < 60
        way.socket.close()
    wait(predict(stack, net, tmp_path / "a.ome.zarr", CONFIG))
    wait(predict(stack, net, tmp_path / "b.ome.zarr", CONFIG))
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")
