"""Programs of TorchScript: followed on the user's word alone, where they can compute and nothing else."""

import io
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from test_zoo_import import Small, changed, image, labels_of, package

from helpers import FP32, call
from napari_unet import PredictConfig, import_model, load_model, predict, wait
from napari_unet.errors import ModelError, UnsafeError
from napari_unet.network import GraphConfig
from napari_unet.zoo.confined import converted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are confined on Linux alone")


def program_of(net):
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(net.eval()), out)
    return out.getvalue()


def of_torchscript(folder):
    net = Small()
    package(folder, net)
    (folder / "net.pt").write_bytes(program_of(net))
    weights = {"torchscript": {"source": "net.pt", "pytorch_version": "2.0"}}
    return net, changed(folder, lambda d: d.update(weights=weights))


def test_a_program_is_followed_on_the_word_of_the_user_alone(tmp_path):
    net, folder = of_torchscript(tmp_path / "zoo")
    with pytest.raises(UnsafeError, match="--trust-torchscript"):
        wait(import_model(folder, tmp_path / "theirs.model"))
    assert not (tmp_path / "theirs.model").exists()
    code, said = call("import", folder, "--out", tmp_path / "theirs.model", "--trust-torchscript")
    model = load_model(tmp_path / "theirs.model")
    assert code == 0 and "its own test comes out" in said and isinstance(model.config, GraphConfig)
    stack = image()
    found = wait(predict(stack, model, tmp_path / "out.ome.zarr", PredictConfig(block=(64, 96), **FP32)))
    assert np.array_equal(np.asarray(found.data), labels_of(net, stack))


def exported_of(net, free=True):
    half = torch.export.Dim("half", max=500)
    sizes = ({2: 2 * half, 3: 2 * torch.export.Dim("other", max=500)},) if free else None
    out = io.BytesIO()
    torch.export.save(torch.export.export(net.eval(), (torch.rand(1, 1, 32, 48),), dynamic_shapes=sizes), out)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["torchscript", "pytorch_state_dict"])
def test_what_torch_exported_is_followed_as_the_weights_of_a_package(tmp_path, kind):
    net = Small()
    folder = package(tmp_path / "zoo", net)
    (folder / "net.pt2").write_bytes(exported_of(net))
    weights = {"source": "net.pt2", "pytorch_version": "2.6"}
    weights |= {"architecture": {"callable": "Small", "import_from": "theirs"}} if kind != "torchscript" else {}
    changed(folder, lambda d: d.update(weights={kind: weights}))
    with pytest.raises(UnsafeError, match="--trust-torchscript"):
        wait(import_model(folder, tmp_path / "theirs.model"))
    model = wait(import_model(folder, tmp_path / "theirs.model", trust_torchscript=True))
    stack = image()
    found = wait(predict(stack, model, tmp_path / "out.ome.zarr", PredictConfig(block=(64, 96), **FP32)))
    assert np.array_equal(np.asarray(found.data), labels_of(net, stack))


@pytest.mark.parametrize("free", [True, False])
def test_what_torch_exported_is_imported_alone_with_the_sizes_that_it_says(tmp_path, free):
    net, path, out = Small(), tmp_path / "net.pt2", tmp_path / "theirs.model"
    path.write_bytes(exported_of(net, free))
    code, said = call("import", path, "--out", out)
    assert code != 0 and "program of torch.export" in said and "--trust-torchscript" in said and not out.exists()
    about = {"intensities": "zscore", "classes": ["background", "cell"], "pixel_size": [0.5, 0.5], "unit": "micrometer"}
    said = [event.message for event in import_model(path, out, network=about, trust_torchscript=True)]
    assert any("followed" in each for each in said)
    model = load_model(out)
    assert model.task.class_names == ("background", "cell") and model.scale == (0.5, 0.5)
    assert (model.config.least, model.config.step) == (((4, 4), (2, 2)) if free else ((32, 48), (0, 0)))
    x = np.random.default_rng(0).normal(size=(1, 1, 32, 48)).astype(np.float32)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(x)).numpy()
    assert np.abs(model.imported().run(x) - wanted).max() < 1e-5
    stack = image()
    first, second = (
        np.asarray(wait(predict(stack, model, tmp_path / f"{n}.ome.zarr", PredictConfig(block=(n, n), **FP32))).data)
        for n in (64, 160)
    )
    assert np.array_equal(first, second) and first.any()


def test_a_pickle_in_what_torch_exported_changes_nothing(tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    forged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(exported_of(Small()))) as archive, zipfile.ZipFile(forged, "w") as other:
        for name in archive.namelist():
            data = archive.read(name)
            other.writestr(name, pickle.dumps(Touch()) if name.endswith("model.pt") else data)
    (tmp_path / "net.pt2").write_bytes(forged.getvalue())
    with pytest.raises(ModelError, match="cannot be converted"):
        wait(import_model(tmp_path / "net.pt2", tmp_path / "theirs.model", trust_torchscript=True))
    assert not (tmp_path / "touched").exists() and not (tmp_path / "theirs.model").exists()


def test_what_is_no_file_of_torch_export_is_refused(tmp_path):
    (tmp_path / "net.pt2").write_bytes(program_of(Small()))
    with pytest.raises(ModelError, match=r"not what torch\.export saves"):
        wait(import_model(tmp_path / "net.pt2", tmp_path / "theirs.model", trust_torchscript=True))


class Reading(torch.nn.Module):
    """A program that reads a file as soon as it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.values = path, torch.zeros(4)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        self.values = torch.from_file(state[0], False, 4, dtype=torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.values.sum()


def test_a_program_cannot_read_a_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(np.array([1, 2, 3, 4], np.float32).tobytes())
    program = program_of(Reading(str(secret)))
    assert float(torch.jit.load(io.BytesIO(program))(torch.zeros(1))) == 10  # it can, where it is not confined
    with pytest.raises(ModelError, match=r"cannot be converted.*unable to open file"):
        converted(program, {"shape": [1, 1, 8, 8], "free": {"in": [2, 3], "out": [2, 3]}}, "a.pt")


CONFINED = """
import os, socket, subprocess, sys, threading
import numpy as np
from napari_unet.zoo.confined import confine
running = threading.Event(); go = threading.Event(); seen = []
def before():
    running.set(); go.wait()
    try: open(sys.executable); seen.append("opened")
    except PermissionError: seen.append("refused")
thread = threading.Thread(target=before); thread.start(); running.wait()
confine()
go.set(); thread.join()
def refused(what):
    try: what()
    except PermissionError: return True
    return False
tries = {
    "read": lambda: open(sys.executable), "write": lambda: open("new", "w"), "list": lambda: os.listdir("/"),
    "remove": lambda: os.unlink(sys.argv[1]), "connect": lambda: socket.socket(), "fork": os.fork,
    "start": lambda: os.execv("/bin/true", ["true"]), "kill": lambda: os.kill(os.getppid(), 0),
    "link": lambda: os.symlink("a", "b"), "folder": lambda: os.mkdir("c"),
}
late = threading.Thread(target=lambda: seen.append(float((np.ones((200, 200)) @ np.ones((200, 200))).sum())))
late.start(); late.join()
print(seen, [name for name, what in tries.items() if not refused(what)])
"""


def test_what_is_confined_computes_and_nothing_else(tmp_path):
    """Threads that were there before are confined too, and new ones can be made."""
    kept = tmp_path / "kept"
    kept.write_text("kept")
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(kept)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == "['refused', 8000000.0] []", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
