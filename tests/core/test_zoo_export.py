"""Models as packages of the BioImage Model Zoo: its own library takes them, every format gives what the model gives."""

import dataclasses
import importlib.util
import io
import zipfile

import numpy as np
import pytest
import torch
import yaml

from helpers import call, image_of
from napari_unet import Credit, Model, UNetConfig, export_model, load_model, wait
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, OutputError, UsageError
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import weights_of
from napari_unet.network import UNet, steps
from napari_unet.task import Autoencode, Instances, Restore, Semantic, SuperResolve
from napari_unet.zoo import architecture
from napari_unet.zoo.describe import full_name
from napari_unet.zoo.export import _people

spec = pytest.importorskip("bioimageio.spec", reason="bioimageio.spec is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

CREDIT = Credit(["A. Name"], "CC-BY-4.0", ["A paper, doi 10.1234/abc.", "A page, https://example.com/page"])
SMALL = {"depth": 1, "base_features": 4}
TWO = Restore(("a", "b"), (3.0, 5.0), (2.0, 4.0))
KINDS = {
    "classes": (UNetConfig(**SMALL), Semantic((0, 1)), Normalisation()),
    "objects of two channels": (UNetConfig(in_channels=2, out_channels=3, **SMALL), Instances(), Normalisation()),
    "3-D": (
        UNetConfig(ndim=3, strides=((1, 2, 2),), kernels=((1, 3, 3), (3, 3, 3)), **SMALL),
        Semantic((0, 1)),
        Normalisation("zscore"),
    ),
    "valid": (UNetConfig(padding="valid", norm="none", **SMALL), Semantic((0, 1)), Normalisation("none")),
    "restored": (
        UNetConfig(in_channels=2, residual=True, upsample="interpolate", **SMALL),
        TWO,
        Normalisation("fixed", offset=(90.0, 400.0), scale=(40.0, 200.0)),
    ),
    "with a deviation": (
        UNetConfig(out_channels=2, **SMALL),
        Restore(predict_std=True, offset=(7.0,), scale=(3.0,)),
        Normalisation(),
    ),
    "finer": (
        UNetConfig(out_channels=1, upscale=(2, 2), residual=True, **SMALL),
        SuperResolve(dtype_name="uint16"),
        Normalisation(),
    ),
    "autoencoder": (UNetConfig(out_channels=1, skips=False, **SMALL), Autoencode(), Normalisation()),
    "norm of the tile": (UNetConfig(norm="instance", **SMALL), Semantic((0, 1)), Normalisation()),
}


def model_of(kind):
    config, task, normalisation = KINDS[kind]
    torch.manual_seed(0)
    net = UNet(config)
    for part in net.parameters():
        torch.nn.init.normal_(part, std=0.2)
    um = ("micrometer",) * config.ndim
    record = {"name": "cells", "scores": {"dice": 0.9}}
    return Model(
        config, weights_of(net), task, normalisation, "zyx"[-config.ndim :], (0.5,) * config.ndim, um, record=record
    )


def unpacked(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def module_of(source, tmp_path):
    (tmp_path / "unet_of_package.py").write_bytes(source)
    found = importlib.util.spec_from_file_location("unet_of_package", tmp_path / "unet_of_package.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_of_a_package_gives_what_the_network_gives(kind, tmp_path):
    model = model_of(kind)
    files = unpacked(wait(export_model(model, tmp_path / "cells.zip", credit=CREDIT)))
    described = yaml.safe_load(files["rdf.yaml"])
    given, wanted = (np.load(io.BytesIO(files[name])) for name in ("test_input.npy", "test_output.npy"))
    axes = "bc" + model.axes
    prepared = model.normalisation.measure(Stack(given[0], axes[1:])).apply(given[0])[None]
    net = model.network()
    with torch.inference_mode():
        out = net(torch.from_numpy(prepared)).numpy()
        if isinstance(model.task, Restore):
            out = np.stack([model.task.decode(torch.from_numpy(each)) for each in out])
            tolerance = 0.51 if model.task.dtype.kind == "u" else 1e-4  # a package gives no rounded intensities
        else:
            out, tolerance = np.stack([model.task.probabilities(torch.from_numpy(each)) for each in out]), 1e-4
        assert out.shape == wanted.shape
        assert np.abs(out.astype(np.float64) - wanted).max() <= tolerance * max(1, np.abs(wanted).max() / 100)

        weights = described["weights"]
        built = module_of(files["unet.py"], tmp_path).UNet(**weights["pytorch_state_dict"]["architecture"]["kwargs"])
        built.load_state_dict(torch.load(io.BytesIO(files["weights.pt"]), weights_only=True), strict=True)
        raw = built.eval()(torch.from_numpy(prepared)).numpy()
        script = torch.jit.load(io.BytesIO(files["weights.torchscript.pt"]))
        wide = np.concatenate([prepared, prepared], 3)  # of another size than the one it was written with
        graph = onnxruntime.InferenceSession(files["weights.onnx"])
        for x in (prepared, wide):
            raw = built(torch.from_numpy(x)).numpy()
            assert np.allclose(script(torch.from_numpy(x)).numpy(), raw, atol=1e-5)
            assert np.allclose(graph.run(None, {"input": x})[0], raw, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_of_the_specification_takes_a_package_and_finds_what_the_model_is(kind, tmp_path):
    model = model_of(kind)
    path = wait(export_model(model, tmp_path / "cells.zip", credit=CREDIT))
    found = spec.load_description(path, perform_io_checks=True)
    assert found.validation_summary.status == "valid-format"
    assert [a.name for a in found.authors] == ["A. Name"] and str(found.license) == "CC-BY-4.0"
    assert [(str(c.doi or ""), str(c.url or "")) for c in found.cite[:2]] == [
        ("10.1234/abc", ""),
        ("", "https://example.com/page"),
    ]
    (given,), (gives,) = found.inputs, found.outputs
    sized, factors = given.axes[2:], model.config.factors
    assert [str(a.id) for a in sized] == list(model.axes)
    assert {(a.scale, a.unit) for a in sized} == {(0.5, "micrometer")}
    assert [a.scale for a in gives.axes[2:]] == [0.5 / f for f in factors]
    net = model.network()
    for more in (0, 3):  # sizes that the description allows are ones the network takes, and gives what it says
        sizes = [a.size.min + more * a.size.step for a in sized]
        with torch.inference_mode():
            shape = net(torch.zeros(1, model.config.in_channels, *sizes)).shape[2:]
        said = [a.size.get_size(a, ref, more) for a, ref in zip(gives.axes[2:], sized, strict=True)]
        assert list(shape) == said
        halos = [getattr(a, "halo", 0) for a in gives.axes[2:]]
        assert all(n > 2 * h for n, h in zip(shape, halos, strict=True))


def test_the_shell_writes_a_package_with_all_that_the_model_is(tmp_path):
    model_of("classes").save(tmp_path / "cells.model")
    path = tmp_path / "cells.zip"
    code, said = call("export", tmp_path / "cells.model", "--to", path, "--author", "A. Name", "--licence", "MIT")
    assert code == 0 and "written to" in said
    described = yaml.safe_load(unpacked(path)["rdf.yaml"])
    assert described["license"] == "MIT" and described["name"] == "cells"
    assert described["config"]["napari_unet"]["task"]["values"] == [0, 1]
    code, said = call("export", tmp_path / "cells.model", "--to", tmp_path / "more.zip")
    assert code == 2 and "--author" in said


def test_a_model_that_ships_has_its_authors_and_licence():
    people = _people(load_model("membranes-em"), Credit())
    assert people["authors"] == ["napari-unet contributors"] and people["license"] == "BSD-3-Clause"


def test_the_network_alone_is_written_as_onnx(tmp_path):
    model = model_of("classes")
    path = wait(export_model(model, tmp_path / "cells.onnx"))
    x = np.random.default_rng(0).normal(size=(2, 1, 24, 40)).astype(np.float32)
    with torch.inference_mode():
        assert np.allclose(
            onnxruntime.InferenceSession(path).run(None, {"input": x})[0],
            model.network()(torch.from_numpy(x)).numpy(),
            atol=1e-4,
        )


def test_what_a_package_needs_is_said_before_anything_is_written(tmp_path):
    model = model_of("classes")
    with pytest.raises(UsageError, match="--author"):
        wait(export_model(model, tmp_path / "cells.zip"))
    with pytest.raises(UsageError, match="--licence"):
        wait(export_model(model, tmp_path / "cells.zip", credit=Credit(["A. Name"])))
    with pytest.raises(UsageError, match="no kind of file"):
        wait(export_model(model, tmp_path / "cells.pt", credit=CREDIT))
    with pytest.raises(DataError, match="too small"):
        wait(export_model(model, tmp_path / "cells.zip", Stack(image_of((20, 20)), "yx"), CREDIT))
    assert not list(tmp_path.iterdir())
    (tmp_path / "cells.zip").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        wait(export_model(model, tmp_path / "cells.zip", credit=CREDIT))
    assert (tmp_path / "cells.zip").read_bytes() == b"mine"


def test_the_image_to_test_with_is_cut_out_of_the_one_given(tmp_path):
    model = model_of("objects of two channels")
    stack = Stack(image_of((2, 5, 200, 210)), "czyx")
    files = unpacked(wait(export_model(model, tmp_path / "cells.zip", stack, CREDIT)))
    given = np.load(io.BytesIO(files["test_input.npy"]))
    sizes = given.shape[2:]
    box = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip((200, 210), sizes, strict=True))
    assert np.array_equal(given[0], stack.data[(slice(None), 2, *box)])


@pytest.mark.parametrize(
    ("name", "wanted"), [("em", "U-Net em"), ("ärzte/zellen", "rzte-zellen"), ("n" * 90, "n" * 64)]
)
def test_a_name_is_made_one_that_the_specification_takes(name, wanted):
    assert full_name(name) == wanted


def test_the_network_in_a_package_has_the_weights_of_ours():
    for config, *_ in KINDS.values():
        theirs = architecture.UNet(**dataclasses.asdict(config)).state_dict()
        assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in UNet(config).state_dict().items()}


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("scale_linear", {"gain": [2.0, 3.0], "offset": 1.0}, [[3.0, 5.0], [10.0, 13.0]]),
        ("clip", {"low": 1.5, "high": 3.5}, [[1.5, 2.0], [3.0, 3.5]]),
        ("binarize", {"threshold": 2.0}, [[0.0, 0.0], [1.0, 1.0]]),
        ("zero_mean_unit_variance", {"joint": "yx", "eps": 1e-9}, [[-1.0, 1.0], [-1.0, 1.0]]),
        ("scale_range", {"joint": "cyx", "eps": 1e-9}, [[0.0, 1 / 3], [2 / 3, 1.0]]),
        ("softmax", {}, [[1 / (1 + np.e**2)] * 2, [1 / (1 + np.e**-2)] * 2]),
    ],
)
def test_steps_of_the_specification_compute_what_it_says(name, values, wanted):
    x = np.array([1.0, 2.0, 3.0, 4.0], np.float32).reshape(1, 2, 1, 2)
    found = steps.Step(name, values).apply(x, "bcyx")
    assert np.allclose(found[0, :, 0], wanted, atol=1e-6)
