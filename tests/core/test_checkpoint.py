import errno
import hashlib
import os
import signal
import textwrap
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet import faults
from napari_unet.errors import DataError, IncompleteError, ResourceError
from napari_unet.training.checkpoint import Checkpoints, write_atomic
from warm import warm


def tensors(step, size=50):
    return {"a": torch.full((size,), float(step)), "b": torch.arange(3) * step}


def test_what_is_saved_comes_back_and_two_are_kept(tmp_path):
    store = Checkpoints(tmp_path)
    assert store.load() is None
    for step in (1, 20, 300):
        store.save(step, tensors(step), {"step": step, "rate": 0.1 * step})
    assert store.steps() == [300, 20]
    found = store.load()
    assert found.state == {"step": 300, "rate": 0.1 * 300}
    assert found.notes == ()
    assert all(torch.equal(found.tensors[k], v) for k, v in tensors(300).items())
    assert len(list(tmp_path.iterdir())) == 4


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_damaged_one_is_never_taken_for_whole(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("c")
    store = Checkpoints(folder)
    store.save(1, tensors(1), {"step": 1})
    store.save(2, tensors(2), {"step": 2})
    path = folder / "checkpoint-000000002.safetensors"
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
    else:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    found = store.load()
    assert found.state == {"step": 1}
    assert any("damaged" in note for note in found.notes)
    assert "step 1" in found.notes[-1]


def test_where_all_are_damaged_it_says_so(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(1, tensors(1), {})
    (tmp_path / "checkpoint-000000001.json").write_text("{")
    with pytest.raises(DataError, match="start a new run"):
        store.load()


def test_going_back_drops_what_is_newer(tmp_path):
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save(step, tensors(step), {"step": step})
    store.drop_after(1)
    store.save(2, tensors(7), {"step": 2})
    assert store.steps() == [2, 1]
    assert store.load().tensors["a"][0] == 7


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_kill_at_any_time_leaves_one_that_loads(tmp_path):
    code = """
        import sys, torch, pathlib
        from napari_unet.training.checkpoint import Checkpoints
        store = Checkpoints(pathlib.Path(sys.argv[1]))
        for step in range(1, 10**6):
            store.save(step, {"a": torch.full((100_000,), float(step))}, {"step": step})
            print(step, flush=True)
    """
    for attempt in range(4):
        process = warm(textwrap.dedent(code), tmp_path)
        process.stdout.readline()
        time.sleep(0.05 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = Checkpoints(tmp_path).load()
        assert found is not None
        assert found.notes == ()
        assert (found.tensors["a"] == found.state["step"]).all()
    Checkpoints(tmp_path).save(10**7, tensors(1), {})
    Checkpoints(tmp_path, kept=1).tidy()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_the_old_one(tmp_path):
    Checkpoints(tmp_path).save(1, tensors(1), {"step": 1})
    before = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()}
    code = """
        import resource, sys, torch, pathlib
        from napari_unet.errors import ResourceError
        from napari_unet.training.checkpoint import Checkpoints
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            Checkpoints(pathlib.Path(sys.argv[1])).save(2, {"a": torch.zeros(100_000)}, {"step": 2})
        except ResourceError as error:
            print(error)
            sys.exit(6)
    """
    process = warm(textwrap.dedent(code), tmp_path)
    text = process.stdout.read()
    assert process.wait() == 6, text
    assert "checkpoint-000000002" in text
    assert {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()} == before
    assert Checkpoints(tmp_path).load().state == {"step": 1}


def test_a_disk_that_goes_on_failing_can_be_gone_on_with_later(tmp_path, monkeypatch):
    def fails(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(faults, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(IncompleteError, match="failed 3 times"):
        write_atomic(tmp_path / "file", b"data")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_an_error_of_resources(tmp_path):
    with pytest.raises(ResourceError, match="cannot write"):
        write_atomic(tmp_path / "missing" / "file", b"data")
