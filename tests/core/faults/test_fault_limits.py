"""Limits of memory and of open files: kept to where they are known, and named, with advice that helps, where not."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from helpers import FAST, call, example
from kinds import small
from napari_unet import limits, open_stack
from napari_unet.arrays.stack import Stack
from napari_unet.cli import shell
from napari_unet.faults import named
from napari_unet.inference import layout
from napari_unet.limits import cgroup_limits
from napari_unet.training import TrainConfig, checkpoint, room
from rig import store_image
from warm import warm

GIB = 2**30
V1, V2 = "memory/{}/memory.limit_in_bytes", "{}/memory.max"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {V2.format("a/b"): GIB, V2.format("a"): 2 * GIB}, GIB),
        ("0::/a/b\n", {V2.format("a/b"): "max", V2.format("a"): 2 * GIB}, 2 * GIB),
        ("0::/of/the/host\n", {V2.format("."): 3 * GIB}, 3 * GIB),
        ("0::/\n", {V2.format("."): "max"}, None),
        ("5:cpu,memory:/job\n4:pids:/job\n0::/\n", {V1.format("job"): GIB}, GIB),
        ("4:memory:/docker/0123\n", {V1.format("."): 5 * GIB}, 5 * GIB),
        ("4:memory:/job\n", {V1.format("job"): 2**63 - 4096}, 2**63 - 4096),
        ("4:memory:/a:b\n", {V1.format("a:b"): GIB}, GIB),
        ("no groups at all", {}, None),
        ("", {}, None),
    ],
)
def test_limits_of_containers_are_read(own, files, expected, tmp_path):
    (tmp_path / "own").write_text(own)
    for name, value in files.items():
        path = tmp_path / "mounted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    assert min(cgroup_limits(tmp_path / "own", tmp_path / "mounted"), default=None) == expected
    assert not list(cgroup_limits(tmp_path / "none", tmp_path / "nothing"))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no ulimit")
def test_a_limit_of_the_shell_counts():
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    far = 2**50  # allows everything
    resource.setrlimit(resource.RLIMIT_AS, (far, before[1]))
    try:
        assert list(limits.address_space()) == [far]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert 0 < limits.memory() < far


def test_runs_and_plans_keep_to_what_the_process_may_take(monkeypatch):
    cpu = torch.device("cpu")
    assert layout.device_memory(cpu, 0.25) == 0.25 * GIB
    for module in (layout, room):
        monkeypatch.setattr(module, "memory", lambda: GIB)
    assert layout.device_memory(cpu, 2.0) == layout.NETWORK_PART * GIB
    assert layout.device_memory(cpu, 0.25) == 0.25 * GIB
    assert room.Room(TrainConfig(), "cpu", 2).memory == GIB // 4
    assert room.Room(TrainConfig(memory=3.0), "cpu", 2).memory == 3 * GIB


def test_advice_names_options_that_the_command_has(tmp_path, monkeypatch):
    assert "--" not in str(named(MemoryError()))
    assert "--" not in str(named(ImportError("cannot allocate memory in static TLS block"), "--memory"))
    assert "with --memory and --block" in str(named(MemoryError(), "--memory and --block"))
    store_image(tmp_path / "image.zarr")
    small().save(tmp_path / "m.model")

    def fails(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(Stack, "read", fails)
    options = ("--model", tmp_path / "m.model", "--out", tmp_path / "r.ome.zarr", *FAST)
    for command, has in (
        (("predict", tmp_path / "image.zarr", *options), True),
        (("evaluate", tmp_path / "image.zarr", tmp_path / "image.zarr", "--kind", "intensity"), False),
    ):
        code, said = call(*command)
        assert (code, "--memory" in said) == (6, has), said


def test_weights_for_which_python_has_no_memory_are_memory_that_ran_out(monkeypatch, tmp_path):
    panic = type("PanicException", (BaseException,), {})  # as safetensors raises it, and none that can be imported

    def no_bytes(tensors):
        raise panic("PyObject pointer is null")

    monkeypatch.setattr(checkpoint.safetensors.torch, "save", no_bytes)
    with pytest.raises(MemoryError, match="pointer is null"):
        checkpoint._packed({})
    monkeypatch.setattr(checkpoint.safetensors.torch, "save", lambda tensors: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoint._packed({})


def open_below(folder):
    """Files of this process that are open below a folder."""
    found = []
    for opened in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(opened.readlink())
    return [path for path in found if folder in path.parents]


@pytest.mark.skipif(sys.platform != "linux", reason="open files are listed in /proc")
@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"tile": (32, 32)}, {"bigtiff": True}, {"imagej": True}])
def test_files_of_tiffs_are_open_while_they_are_read_and_no_longer(how, tmp_path):
    data = np.random.default_rng(0).integers(0, 9, (4, 64, 64)).astype(np.uint16)
    gc.disable()  # what a cycle holds is closed at no time that one can count on
    try:
        for i in range(20):
            tifffile.imwrite(tmp_path / f"{i}.tif", data + i, photometric="minisblack", **how)
        stacks = [open_stack(tmp_path / f"{i}.tif", "zyx") for i in range(20)]
        with ThreadPoolExecutor(4) as readers:
            for i, stack in enumerate(stacks):
                parts = readers.map(lambda z, s=stack: np.asarray(s.data[z]), range(4))
                assert np.array_equal(np.stack(list(parts)), data + i)
        assert not open_below(tmp_path)
        assert np.array_equal(np.asarray(stacks[3].data[1:3]), data[1:3] + 3)
    finally:
        gc.enable()


WATCHED = """
import os, signal, sys, time
from napari_unet.cli.watch import watched
exec(sys.argv[2])
with watched():
    print(os.getpid(), flush=True)
    exec(sys.argv[1])
"""


def under_a_limit(work, limit=2**40, first=""):
    """Start a process that may take so many bytes, and does what it is given to, and something before that."""
    import resource

    return subprocess.Popen(
        [sys.executable, "-c", WATCHED, work, first],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)) if limit else None,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are kept by Linux")
@pytest.mark.parametrize(
    ("work", "code", "says"),
    [
        (
            "os.abort()",
            6,
            "ended the command (SIGABRT): the memory ran out under the limit of 1048576 MiB",
        ),
        ("os.kill(os.getpid(), 11)", 6, "(SIGSEGV)"),
        ("os._exit(1)", 6, "(exit code 1)"),  # as OpenBLAS and libgomp do
        ("sys.exit(5)", 5, ""),
        ("pass", 0, ""),
        ("raise KeyError(3)", 1, "KeyError"),
    ],
)
def test_where_native_code_ends_a_limited_command_that_is_said(work, code, says):
    out, said = under_a_limit(work).communicate()
    assert says in said.decode()
    assert "native" not in said.decode() or code == 6
    with under_a_limit(work) as process:
        seen = int(process.stdout.readline())
        assert process.wait() == code
        assert seen != process.pid
    assert len(out.split()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are kept by Linux")
def test_a_limited_command_is_stopped_as_any_other_and_an_unlimited_one_has_no_second_process():
    waits = "signal.signal(15, lambda *a: sys.exit(130)); print('set', flush=True); time.sleep(60)"
    with under_a_limit(waits) as process:
        assert process.stdout.readline() and process.stdout.readline()
        process.terminate()
        assert process.wait() == 130
    slow = "real = signal.signal; signal.signal = lambda *a: time.sleep(0.2) or real(*a)"  # the parent listens late
    with under_a_limit(waits, first=slow) as process:
        assert process.stdout.readline() and process.stdout.readline()
        process.terminate()
        assert process.wait() == 130
    with under_a_limit("time.sleep(60)") as process:  # and does nothing of its own about it
        assert process.stdout.readline()
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        assert not process.stderr.read()
    with under_a_limit(waits) as process:
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with under_a_limit("pass", 0) as process:
        assert int(process.stdout.readline()) == process.pid


def test_where_there_is_no_memory_for_the_line_that_says_so_a_shorter_one_does(monkeypatch, capfd):
    def out_of_memory(*_):
        raise MemoryError

    monkeypatch.setattr(shell, "app", out_of_memory)
    monkeypatch.setattr(shell, "say", out_of_memory)
    monkeypatch.setattr(shell, "_end_output", lambda: None)
    with pytest.raises(SystemExit, match="6"):
        shell.run()
    assert capfd.readouterr().err.encode() == shell.NO_ROOM


LIMITED = """
import resource, sys
from pathlib import Path
held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize:"))
most = (int(held.split()[1]) << 10) + (int(sys.argv.pop(1)) << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
from napari_unet.cli import main
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are kept by Linux")
@pytest.mark.parametrize("mib", [1, 20, 60])  # beside what importing torch has taken: nothing, libraries, some steps
def test_a_training_under_any_limit_comes_to_its_end_or_says_that_memory_ran_out(mib, tmp_path):
    for name, stack in zip(("image", "labels"), example(), strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", stack.data)
    sizes = ["--steps", 4, "--depth", 1, "--base-features", 16, "--patch", 32, 32, "--batch", 4, *FAST]
    given = ["--images", tmp_path / "image.tif", "--labels", tmp_path / "labels.tif", "--out", tmp_path / "m.model"]
    process = warm(LIMITED, mib, "train", *given, *sizes)
    said = process.stderr.read()
    assert process.wait(100) in (0, 6), said
    assert "Traceback" not in said
    assert process.returncode == 0 or "memory" in said.strip().splitlines()[-1]
