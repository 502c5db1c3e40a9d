"""Packages of others: read as data, run tile by tile like the whole, refused where they are not what they say."""

import dataclasses
import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from test_zoo_export import CREDIT, model_of
from torch import nn

from helpers import FP32, call, example, image_of
from napari_unet import (
    Credit,
    PredictConfig,
    TrainConfig,
    export_model,
    import_model,
    load_model,
    predict,
    predict_lazy,
    train,
    wait,
)
from napari_unet.arrays.stack import Stack
from napari_unet.errors import ModelError, UnsafeError, UsageError
from napari_unet.network import GraphConfig, build, windows
from napari_unet.network.steps import Step, applied
from napari_unet.sources import open_stack
from napari_unet.zoo.known import WINDOW, known
from napari_unet.zoo.measure import look

pytest.importorskip("bioimageio.spec", reason="bioimageio.spec is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")

SIZE = 64  # of windows: some halos wide


class Small(nn.Module):
    """A network of another kind: strided convolutions, ceiling on both sides, looks 13 pixels far on a grid of 2."""

    def __init__(self, channels=1, out=1, whole=False):
        super().__init__()
        torch.manual_seed(3)
        self.down = nn.Conv2d(channels, 6, 3, stride=2, padding=1)
        self.inside = nn.Conv2d(6, 6, 5, padding=2)
        self.up = nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.last = nn.Conv2d(6 + channels, out, 3, padding=1)
        self.whole = whole

    def forward(self, x):
        y = torch.relu(self.inside(torch.relu(self.down(x))))
        y = y * torch.sigmoid(y.mean((2, 3), keepdim=True)) if self.whole else y
        return self.last(torch.cat([x, self.up(y)], 1))


def written(net, shape, free=(2, 3)):
    out = io.BytesIO()
    axes = {name: {i: f"n{i}" for i in free} for name in ("raw", "out")} if free else None
    names = {"input_names": ["raw"], "output_names": ["out"]}
    torch.onnx.export(
        net.eval(), (torch.zeros(shape),), out, dynamo=False, opset_version=17, dynamic_axes=axes, **names
    )
    return out.getvalue()


def npy(data):
    out = io.BytesIO()
    np.save(out, data)
    return out.getvalue()


def description(axes, size, channels, post, pre):
    """A package's description in the words of version 0.5."""

    def of(tensor, halo):
        found = []
        for letter in axes:
            if letter == "b":
                found.append({"type": "batch"})
            elif letter == "c":
                found.append({"type": "channel", "channel_names": channels[tensor]})
            else:
                ref = {"tensor_id": "raw", "axis_id": letter}
                here = size if tensor == "raw" else ref
                found.append({"type": "space", "id": letter, "size": here} | ({"halo": 4} if halo else {}))
        return found

    about = {"authors": [{"name": "B. Name"}], "cite": [{"text": "A paper", "doi": "10.1234/abc"}], "license": "MIT"}
    return about | {
        "format_version": "0.5.4",
        "type": "model",
        "name": "of another",
        "description": "a network of another",
        "timestamp": "2024-01-01T00:00:00+00:00",
        "documentation": "README.md",
        "covers": [],
        "inputs": [{"id": "raw", "axes": of("raw", False), "test_tensor": {"source": "in.npy"}, "preprocessing": pre}],
        "outputs": [
            {"id": "out", "axes": of("out", True), "test_tensor": {"source": "out.npy"}, "postprocessing": post}
        ],
        "weights": {"onnx": {"source": "net.onnx", "opset_version": 17}},
    }


ZSCORE = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}]
SIGMOID = [{"id": "sigmoid"}]


def package(folder, net=None, *, fixed=False, axes="bcyx", post=None, pre=None, out=1, channels=1):
    """Write a package with a test that comes out."""
    net, post, pre = net or Small(channels, out), SIGMOID if post is None else post, ZSCORE if pre is None else pre
    size = SIZE if fixed else {"min": 32, "step": 2}
    names = {"raw": [f"in_{i}" for i in range(channels)], "out": [f"class_{i}" for i in range(out)]}
    data = written(net, (1, channels, SIZE, SIZE), free=() if fixed else (2, 3))
    given = image_of((1, channels, SIZE, SIZE)).astype(np.float32)
    prepared = (given - given.mean((2, 3), keepdims=True)) / given.std((2, 3), keepdims=True)
    with torch.inference_mode():
        found = net(torch.from_numpy(prepared)).numpy()
    steps = [Step(each["id"]) for each in post]
    wanted = applied(steps, found, "bcyx")
    folder.mkdir(parents=True, exist_ok=True)
    files = {"net.onnx": data, "in.npy": npy(given), "out.npy": npy(wanted), "README.md": b"# a network\n"}
    described = description(axes, size, names, post, pre)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "rdf.yaml").write_text(json.dumps(described))
    return folder


def changed(folder, change):
    """Change the description of a package."""
    described = json.loads((folder / "rdf.yaml").read_text())
    change(described)
    (folder / "rdf.yaml").write_text(json.dumps(described))
    return folder


def image(shape=(150, 170)):
    return Stack(image_of(shape, 5), "yx", name="image")


def labels_of(net, stack):
    """What a network gives on the whole image at once, above 0."""
    x = stack.data.astype(np.float32)
    x = ((x - x.mean(dtype=np.float64)) / x.std(dtype=np.float64)).astype(np.float32)[None, None]
    with torch.inference_mode():
        return (net(torch.from_numpy(x))[0, 0].numpy() > 0).astype(np.uint8)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_package_runs_tile_by_tile_as_on_the_whole_image(fixed, tmp_path):
    net = Small().eval()
    model = wait(import_model(package(tmp_path / "zoo", net, fixed=fixed), tmp_path / "theirs.model"))
    config = model.config
    assert config.tile_exact and config.stride == (2, 2)
    assert model.task.name == "semantic" and model.normalisation.kind == "zscore"
    stack, model = image(), load_model(tmp_path / "theirs.model")
    wanted = labels_of(net, stack)
    assert 0.1 < wanted.mean() < 0.9
    for block in ((150, 170), (32, 64), (16, 170)):
        out = tmp_path / f"{block[0]}.ome.zarr"
        found = np.asarray(wait(predict(stack, model, out, PredictConfig(block=block, **FP32))).data)
        assert np.array_equal(found, wanted)
    assert np.array_equal(np.asarray(predict_lazy(stack, model, PredictConfig(**FP32)).data), wanted)
    small = image((20, 150))  # smaller along y than what the network takes: it sees the image mirrored
    both = [
        np.asarray(
            wait(predict(small, model, tmp_path / f"s{n}.ome.zarr", PredictConfig(block=(n, 3 * n), **FP32))).data
        )
        for n in (50, 10)
    ]
    assert np.array_equal(*both)


def test_how_far_a_network_looks_is_measured_to_the_pixel():
    net = Small().eval()

    def run(x):
        with torch.inference_mode():
            return net(torch.from_numpy(x)).numpy()

    radius, strides = zip(*(look(run, (1, 1, 64, 64), axis, 1) for axis in (0, 1)), strict=True)
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    far = 0
    for at in (32, 33):
        (grad,) = torch.autograd.grad(Small().double()(x + torch.randn_like(x))[0, 0, at, 32], x)
        rows = np.flatnonzero(grad[0, 0].abs().sum(1).numpy())
        far = max(far, at - rows[0], rows[-1] - at)
    assert strides == (2, 2)
    assert max(radius) in (far, far - 1)  # a cut is made on the grid of 2 alone


@pytest.mark.parametrize("fixed", [True, False])
def test_a_network_that_looks_at_all_gives_the_same_for_every_tiling(tmp_path, monkeypatch, fixed):
    monkeypatch.setitem(WINDOW, 2, SIZE)
    monkeypatch.setattr(windows, "WHOLE", 0)
    events = import_model(package(tmp_path / "zoo", Small(whole=True), fixed=fixed), tmp_path / "theirs.model")
    said = [event.message for event in events]
    assert any(f"windows of {SIZE} x {SIZE} at fixed places" in each for each in said)
    model = load_model(tmp_path / "theirs.model")
    assert model.config.whole and model.config.window == (SIZE, SIZE)
    code, told = call("info", tmp_path / "theirs.model")
    assert code == 0 and f"windows of {SIZE} x {SIZE} at fixed places, as it looks further" in told

    def run(name, **settings):
        config = PredictConfig(**FP32, probabilities=True, **settings)
        wait(predict(image(), model, tmp_path / name, config))
        return open_stack(tmp_path / name / "probabilities")

    whole = run("whole.ome.zarr", block=(256, 256))
    assert np.ptp(whole.data[...]) > 0.1
    assert (np.asarray(run("cut.ome.zarr", block=(32, 32)).data) == np.asarray(whole.data)).all()
    part = np.asarray(run("part.ome.zarr", region="30:90,50:170").data)
    assert (part == np.asarray(whole.data)[..., 30:90, 50:170]).all()


def test_a_network_that_was_imported_without_windows_is_said_to_have_seams(tmp_path):
    wait(import_model(package(tmp_path / "zoo", Small(whole=True), fixed=True), tmp_path / "theirs.model"))
    model = load_model(tmp_path / "theirs.model")
    former = dataclasses.replace(model, config=dataclasses.replace(model.config, window=()))
    assert "window" not in former.config.to_json() and not former.config.tile_exact
    former.save(tmp_path / "former.model")
    code, told = call("info", tmp_path / "former.model")
    assert code == 0 and "expect seams" in told
    found = wait(predict(image(), former, tmp_path / "out.ome.zarr", PredictConfig(block=(64, 64), **FP32)))
    assert found.shape == (150, 170)


def test_several_classes_and_an_image_are_taken_as_what_they_are(tmp_path):
    post = [{"id": "softmax", "kwargs": {"axis": "channel"}}]
    folder = package(tmp_path / "zoo", out=3, channels=2, post=post)
    model = wait(import_model(folder, tmp_path / "classes.model"))
    assert model.task.name == "semantic" and model.task.class_names == ("class_0", "class_1", "class_2")
    assert model.channel_names == ("in_0", "in_1")
    stack = Stack(image_of((2, 70, 80)), "cyx")
    found = wait(predict(stack, model, tmp_path / "out.ome.zarr", PredictConfig(**FP32)))
    assert set(np.unique(np.asarray(found.data))) <= {0, 1, 2}
    model = wait(import_model(folder, tmp_path / "image.model", gives="image"))
    assert model.task.name == "restore"
    found = np.asarray(wait(predict(stack, model, tmp_path / "image.ome.zarr", PredictConfig(**FP32))).data)
    assert found.shape == (3, 70, 80) and np.allclose(found.sum(0), 1, atol=1e-5)


def test_a_package_of_the_former_specification_is_read(tmp_path):
    folder = package(tmp_path / "zoo")
    former = {
        "format_version": "0.4.10",
        "type": "model",
        "name": "former",
        "description": "of 0.4",
        "authors": [{"name": "B. Name"}],
        "cite": [{"text": "A paper", "doi": "10.1234/abc"}],
        "license": "MIT",
        "timestamp": "2022-01-01T00:00:00",
        "documentation": "README.md",
        "tags": ["nuclei"],
        "covers": [],
        "git_repo": "https://example.com/repo",
        "inputs": [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"min": [1, 1, 32, 32], "step": [0, 0, 2, 2]},
                "preprocessing": [{"name": "zero_mean_unit_variance", "kwargs": {"mode": "per_sample", "axes": "yx"}}],
            }
        ],
        "outputs": [
            {
                "name": "out",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"reference_tensor": "raw", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]},
                "halo": [0, 0, 4, 4],
                "postprocessing": [{"name": "sigmoid"}],
            }
        ],
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
        "weights": {"onnx": {"source": "net.onnx", "opset_version": 17}},
    }
    (folder / "rdf.yaml").write_text(json.dumps(former))
    model = wait(import_model(folder, tmp_path / "theirs.model"))
    assert model.config.least == (32, 32) and model.normalisation.kind == "zscore"
    assert model.task.name == "semantic" and model.config.tile_exact


def test_a_package_that_was_packed_with_its_folder_is_imported_and_two_are_named(tmp_path):
    folder = package(tmp_path / "zoo")
    for name, folders in {"one": ["zoo-main"], "two": ["a", "b"]}.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for each in folder.iterdir():
                for inside in folders:
                    archive.write(each, f"{inside}/{each.name}")
            archive.writestr("__MACOSX/zoo-main/._rdf.yaml", b"\0")
    model = wait(import_model(tmp_path / "one.zip", tmp_path / "one.model"))
    assert model.sha256 == wait(import_model(folder, tmp_path / "zoo.model")).sha256
    with pytest.raises(ModelError, match="several packages"):
        wait(import_model(tmp_path / "two.zip", tmp_path / "two.model"))


@pytest.mark.parametrize("kind", ["classes", "objects of two channels", "3-D", "valid", "restored", "finer"])
def test_a_model_of_ours_comes_back_as_it_was(kind, tmp_path):
    model = model_of(kind)
    path = wait(export_model(model, tmp_path / "cells.zip", credit=CREDIT))
    again = wait(import_model(path, tmp_path / "again.model"))
    assert again.sha256 == model.sha256 == load_model(tmp_path / "again.model").sha256
    assert again.record["name"] == "cells" and again.record["scores"] == {"dice": 0.9}


def test_a_model_of_ours_with_onnx_alone_gives_the_same_labels(tmp_path):
    model = model_of("classes")
    path = wait(export_model(model, tmp_path / "cells.zip", credit=CREDIT))
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(archive.read(name))
    text = (folder / "rdf.yaml").read_text()
    start, end = text.index("  pytorch_state_dict:\n"), text.index("  torchscript:\n")
    (folder / "rdf.yaml").write_text((text[:start] + text[end:]).replace("    parent: pytorch_state_dict\n", ""))
    theirs = wait(import_model(folder, tmp_path / "theirs.model"))
    assert isinstance(theirs.config, GraphConfig) and theirs.scale == model.scale and theirs.units == model.units
    stack = image()
    results = [
        np.asarray(wait(predict(stack, each, tmp_path / f"{i}.ome.zarr", PredictConfig(**FP32))).data)
        for i, each in enumerate((model, theirs))
    ]
    assert np.array_equal(*results)


SETTINGS = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4, 4, 8, 8, 8, 4], "act": "relu"}


def of_monai(folder, norm):
    """A package with a state dict of MONAI's BasicUNet, under the names that MONAI gives its weights."""
    torch.manual_seed(1)
    net = build(known("monai.networks.nets", "BasicUNet", SETTINGS | {"norm": norm})).eval().requires_grad_(False)
    for part in net.parameters():
        nn.init.normal_(part, std=0.3)
    folder = package(folder, net, post=[{"id": "softmax", "kwargs": {"axis": "channel"}}], out=2)
    torch.save(net.state_dict(), folder / "weights.pt")
    architecture = {"callable": "BasicUNet", "import_from": "monai.networks.nets", "kwargs": SETTINGS | {"norm": norm}}
    weights = {"source": "weights.pt", "pytorch_version": "2.0", "architecture": architecture}
    return net, changed(folder, lambda d: d.update(weights={"pytorch_state_dict": weights}))


@pytest.mark.parametrize(("norm", "exact"), [("batch", True), ("instance", False)])
def test_a_state_dict_of_a_network_that_is_known_is_taken(norm, exact, tmp_path):
    net, folder = of_monai(tmp_path / "zoo", norm)
    model = wait(import_model(folder, tmp_path / "theirs.model"))
    assert bool(model.config.window) != exact and model.task.class_names == ("class_0", "class_1")
    if exact:
        assert model.config.stride == (16, 16)
        x, size = image((96, 112)).data.astype(np.float32), PredictConfig(block=(32, 48), **FP32)
        x = ((x - x.mean(dtype=np.float64)) / x.std(dtype=np.float64)).astype(np.float32)[None, None]
        wanted = net(torch.from_numpy(x))[0].argmax(0).numpy()
        found = wait(predict(image((96, 112)), model, tmp_path / "out.ome.zarr", size))
        assert np.array_equal(np.asarray(found.data), wanted)


def test_names_of_weights_are_those_of_monai():
    names = set(build(known("monai.networks.nets", "BasicUNet", SETTINGS | {"norm": "batch"})).state_dict())
    assert {"conv_0.conv_0.conv.weight", "conv_0.conv_1.adn.N.running_mean", "down_1.convs.conv_0.conv.bias"} < names
    assert {"upcat_4.upsample.deconv.weight", "upcat_1.convs.conv_1.adn.N.weight", "final_conv.bias"} < names


def test_a_network_that_is_not_known_is_refused(tmp_path):
    _, folder = of_monai(tmp_path / "zoo", "batch")

    def other(described, **values):
        described["weights"]["pytorch_state_dict"]["architecture"].update(values)

    with pytest.raises(UnsafeError, match="pytorch_state_dict"):
        wait(import_model(changed(folder, lambda d: other(d, import_from="their.code")), tmp_path / "theirs.model"))
    wrong = {"import_from": "monai.networks.nets", "kwargs": SETTINGS | {"features": [4, 4, 8, 8, 16, 4]}}
    with pytest.raises(ModelError, match="do not fit"):
        wait(import_model(changed(folder, lambda d: other(d, **wrong)), tmp_path / "theirs.model"))


def node(op, domain=""):
    """A graph of one operator."""
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 1, SIZE, SIZE]) for n in ("raw", "out")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ["raw"], ["out"], domain=domain)], "g", value[:1], value[1:]
    )
    sets = [onnx.helper.make_opsetid("", 17)] + ([onnx.helper.make_opsetid(domain, 1)] if domain else [])
    return onnx.helper.make_model(graph, opset_imports=sets)


def outside():
    """A graph with weights in another file."""
    found = onnx.load_model_from_string(written(Small(), (1, 1, SIZE, SIZE)))
    tensor = found.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")
    return found


@pytest.mark.parametrize(
    ("graph", "error", "said"),
    [
        (node("Danger", "com.example").SerializeToString(), UnsafeError, "com.example.Danger"),
        (outside().SerializeToString(), UnsafeError, "other files"),
        (b"no graph", ModelError, "damaged"),
    ],
)
def test_graphs_that_ask_for_more_than_they_hold_are_refused(graph, error, said, tmp_path):
    folder = package(tmp_path / "zoo")
    (folder / "net.onnx").write_bytes(graph)
    with pytest.raises(error, match=said):
        wait(import_model(folder, tmp_path / "theirs.model"))
    assert not (tmp_path / "theirs.model").exists()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda d: d["weights"]["onnx"].update(source="../net.onnx"), UnsafeError, "not inside"),
        (lambda d: d["weights"]["onnx"].update(source="https://example.com/net.onnx"), ModelError, "not in it"),
        (lambda d: d["weights"]["onnx"].update(sha256="0" * 64), ModelError, "sha256"),
        (lambda d: d["weights"]["onnx"].update(source="none.onnx"), ModelError, "cannot be read"),
        (
            lambda d: d["weights"].update(
                {"torchscript": {"source": "net.pt", "pytorch_version": "2.0"}} | {"onnx": None}
            ),
            UnsafeError,
            "torchscript",
        ),
        (lambda d: d["outputs"][0].update(postprocessing=[]), ModelError, "does not come out"),
        (lambda d: d["inputs"][0].pop("test_tensor"), ModelError, "test"),
        (lambda d: d.update(inputs=[]), ModelError, "specification"),
        (
            lambda d: d["inputs"][0]["preprocessing"].insert(0, {"id": "clip", "kwargs": {"min": 0.0, "max": 9.0}}),
            ModelError,
            "after it changed",
        ),
    ],
)
def test_packages_that_are_not_what_they_say_are_refused(change, error, said, tmp_path):
    folder = changed(package(tmp_path / "zoo"), change)
    with pytest.raises(error, match=said):
        wait(import_model(folder, tmp_path / "theirs.model"))
    assert not (tmp_path / "theirs.model").exists()


def test_weights_with_more_than_tensors_are_not_read(tmp_path):
    path = wait(export_model(model_of("classes"), tmp_path / "cells.zip", credit=CREDIT))
    out = io.BytesIO()
    torch.save({"head.weight": Credit()}, out)
    changed_path = tmp_path / "changed.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed_path, "w") as new:
        for name in old.namelist():
            data = out.getvalue() if name == "weights.pt" else old.read(name)
            if name == "rdf.yaml":
                sha = hashlib.sha256(old.read("weights.pt")).hexdigest()
                data = data.replace(sha.encode(), hashlib.sha256(out.getvalue()).hexdigest().encode())
            new.writestr(name, data)
    with pytest.raises(UnsafeError, match="more than tensors"):
        wait(import_model(changed_path, tmp_path / "theirs.model"))


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("../out.txt", b"x", UnsafeError, "leaves the folder"),
        ("/out.txt", b"x", UnsafeError, "absolute"),
        ("zeros", bytes(2**27), UnsafeError, "bomb"),
        ("rdf.yaml", b"a: !!python/object/apply:os.mkdir [x]", UnsafeError, "objects of Python"),
        ("rdf.yaml", b"a: &a [1]\nb: [*a, *a]\n", UnsafeError, "aliases"),
        ("rdf.yaml", b"a: [", ModelError, "cannot be read"),
        ("other.txt", b"x", ModelError, "no package"),
    ],
)
def test_zips_that_would_leave_their_folder_or_hold_more_than_data_are_refused(name, content, error, said, tmp_path):
    path = tmp_path / "zoo.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    with pytest.raises(error, match=said):
        wait(import_model(path, tmp_path / "theirs.model"))


def test_links_in_a_folder_are_not_followed(tmp_path):
    folder = package(tmp_path / "zoo")
    (folder / "net.onnx").rename(tmp_path / "net.onnx")
    (folder / "net.onnx").symlink_to(tmp_path / "net.onnx")
    with pytest.raises(UnsafeError, match="link"):
        wait(import_model(folder, tmp_path / "theirs.model"))


def test_the_shell_imports_and_an_imported_network_is_not_trained_on(tmp_path):
    code, said = call("import", package(tmp_path / "zoo"), "--out", tmp_path / "theirs.model")
    assert code == 0 and "ONNX network" in said
    with pytest.raises(ModelError, match="imported ONNX"):
        load_model(tmp_path / "theirs.model").network()
    with pytest.raises(UsageError, match="gives"):
        wait(import_model(tmp_path / "zoo", tmp_path / "more.model", gives="all"))
    pairs, config = [example((48, 48), seed=i) for i in range(2)], TrainConfig(steps=2, **FP32)
    with pytest.raises(ModelError, match="ONNX network, which is a finished program and cannot learn"):
        wait(train(pairs, tmp_path / "tuned.model", config, init=tmp_path / "theirs.model"))
    assert not list(tmp_path.glob("tuned*"))
