"""The shell: what it does, what it says, and its exit codes."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from helpers import FAST, call, example, image_of, tree
from kinds import small
from napari_unet.model import load_model
from napari_unet.training.checkpoint import Checkpoints
from napari_unet.training.run import training_folder
from warm import ended, warm

COMMAND = "from napari_unet.cli import main; main()"


def blobs(folder, count=3, size=64):
    """Images with bright discs, and their masks with the values 0 and 255."""
    rng = np.random.default_rng(0)
    (folder / "raw").mkdir(parents=True)
    (folder / "painted").mkdir()
    yy, xx = np.mgrid[:size, :size]
    for i in range(count):
        mask = np.zeros((size, size), bool)
        for y, x in rng.integers(8, size - 8, (5, 2)):
            mask |= (yy - y) ** 2 + (xx - x) ** 2 < 36
        image = np.clip(mask * 90 + rng.normal(60, 12, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "raw" / f"{i}.png")
        Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "painted" / f"{i}.png")
    return folder


@pytest.fixture
def model(tmp_path):
    small().save(tmp_path / "tiny.model")
    return tmp_path / "tiny.model"


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(image_of((64, 64)).astype(np.uint8)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.parametrize("name", ["train", "finish", "predict", "batch", "evaluate", "info", "verify", "demo"])
def test_every_command_has_help(name):
    code, said = call(name, "--help")
    assert code == 0
    assert "Usage" in said


def test_the_main_job(tmp_path):
    data = blobs(tmp_path / "data")
    model = tmp_path / "blobs.model"
    images, labels = sorted((data / "raw").iterdir()), sorted((data / "painted").iterdir())
    code, said = call(
        *["train", "--images", *images, "--labels", *labels, "--task", "semantic", "--out", model],
        *["--steps", 60, "--depth", 1, "--base-features", 8, "--patch", 32, 32, "--seed", 1, *FAST],
    )
    assert code == 0, said
    assert "background, foreground" in said
    result = tmp_path / "0.ome.zarr"
    assert call("predict", images[0], "--model", model, "--out", result, "--block", 32, 32, *FAST)[0] == 0
    code, said = call("evaluate", result, labels[0], "--json", tmp_path / "scores.json")
    assert code == 0, said
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["dice"] > 0.8
    assert all(isinstance(value, int | float) for value in scores.values())
    assert call("verify", result)[0] == 0
    code, said = call("batch", data / "raw", "--model", model, "--out", tmp_path / "all", "--pattern", "*.png", *FAST)
    assert code == 0, said
    assert len((tmp_path / "all" / "summary.csv").read_text().splitlines()) == 4
    assert "done" in said
    code, said = call("evaluate", tmp_path / "all", data / "painted", "--kind", "semantic")
    assert code == 0, said
    code, said = call("evaluate", result, labels[0], "--json", tmp_path / "new" / "scores.json")
    assert code == 0 and json.loads((tmp_path / "new" / "scores.json").read_text())
    code, said = call("evaluate", tmp_path / "all", data / "painted", "--layers", tmp_path / "layers.ome.zarr")
    assert code == 2 and "two images" in said and not (tmp_path / "layers.ome.zarr").exists()
    for more in (["--kind", "semantic"], ["--overwrite"]):
        code, said = call("evaluate", result, labels[0], "--layers", tmp_path / "layers.ome.zarr", *more)
        assert code == 0, said
    assert "semantic" in call("info", model)[1]
    assert "objects" in call("info", "nuclei-2d")[1]
    assert "64" in call("info", result)[1]


def test_a_model_that_would_run_code_is_refused(tmp_path, picture):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/PWNED",)

    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    before = tree(tmp_path)
    code, said = call("predict", picture, "--model", tmp_path / "evil.pt", "--out", tmp_path / "out.ome.zarr")
    assert code == 4
    assert "evil.pt" in said
    assert tree(tmp_path) == before


@pytest.mark.parametrize("damage", ["cut", "flip", "missing"])
def test_a_damaged_model_is_named(damage, tmp_path, picture, model):
    weights = model / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "missing":
        weights.unlink()
    else:
        data[-7] ^= 16
        weights.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    code, said = call("predict", picture, "--model", model, "--out", tmp_path / "out.ome.zarr")
    assert code == 3
    assert "tiny.model" in said
    assert not (tmp_path / "out.ome.zarr").exists()


def truncated_tiff(path):
    tifffile.imwrite(path, image_of((20, 64, 64)), imagej=True, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes()[: 64 * 64 * 2 * 6])


def no_axes(path):
    zarr.create_array(path, shape=(4, 64, 64), dtype="u1", chunks=(4, 64, 64))


def not_json(path):
    no_axes(path)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node')


def with_nan(path):
    image = image_of((64, 64)).astype(np.float32)
    image[5, 6] = np.nan
    tifffile.imwrite(path, image)


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("cut.tif", truncated_tiff, "declares 20 pages"),
        ("three.zarr", no_axes, "axes"),
        ("broken.zarr", not_json, "zarr.json"),
        ("nan.tif", with_nan, "1 NaN or infinite values, the first at yx = (5, 6)"),
        ("absent.tif", lambda path: None, "absent.tif"),
    ],
)
def test_bad_images_get_one_clear_line_and_nothing_is_written(name, make, says, tmp_path, model):
    make(tmp_path / name)
    before = tree(tmp_path)
    code, _, said = ended(COMMAND, "predict", tmp_path / name, "--model", model, "--out", tmp_path / "out.ome.zarr")
    assert code == 3, said
    assert says in said
    assert len([line for line in said.splitlines() if line.startswith("napari-unet:")]) == 1
    assert "Traceback" not in said
    assert tree(tmp_path) == before


def test_what_is_not_ours_is_never_replaced(tmp_path, picture, model):
    out = tmp_path / "out.ome.zarr"
    out.mkdir()
    (out / "thesis.docx").write_text("years of work")
    for extra in ([], ["--overwrite"]):
        code, said = call("predict", picture, "--model", model, "--out", out, *extra, *FAST)
        assert code == 5
        assert "thesis.docx" in said
    assert (out / "thesis.docx").read_text() == "years of work"


def test_a_finished_result_is_in_the_way_until_it_may_be_replaced(tmp_path, picture, model):
    out = tmp_path / "out.ome.zarr"
    assert call("predict", picture, "--model", model, "--out", out, *FAST)[0] == 0
    assert call("predict", picture, "--model", model, "--out", out, *FAST)[0] == 5
    assert call("predict", picture, "--model", model, "--out", out, "--overwrite", *FAST)[0] == 0


def test_a_flipped_bit_in_a_result_is_found(tmp_path, picture, model):
    out = tmp_path / "out.ome.zarr"
    assert call("predict", picture, "--model", model, "--out", out, *FAST)[0] == 0
    chunk = out / "0" / "c" / "0" / "0"  # the image beside the labels: never all background
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)
    code, said = call("verify", out)
    assert code == 3
    assert "c/0/0" in said


@pytest.mark.parametrize("name", ["../x", "a/b", "zarr.json", "CON", "x" * 300])
def test_names_that_could_leave_the_store_are_refused(name, tmp_path, picture, model):
    before = tree(tmp_path)
    code, said = call("predict", picture, "--model", model, "--out", tmp_path / "o.ome.zarr", "--name", name, *FAST)
    assert code == 2, said
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "args",
    [
        ["predict"],
        ["predict", "picture.png", "--model", "tiny.model"],
        ["predict", "picture.png", "--model", "tiny.model", "--out", "o", "--precision", "fp8"],
        ["predict", "picture.png", "--model", "tiny.model", "--out", "o", "--block", "0", "16"],
        ["train", "--images", "picture.png", "--labels", "picture.png", "--out", "m", "--steps", "0"],
        ["nothing"],
    ],
)
def test_wrong_usage_exits_with_2(args, tmp_path, picture, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert call(*args)[0] == 2
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.zeros((64, 60), np.uint8), "(64, 60)"),
        (np.zeros((64, 64), np.uint8), "label"),
        (np.full((64, 64), 7, np.uint8), "one class only (7: 4096 voxels)"),
    ],
)
def test_labels_that_do_not_fit_are_named_and_nothing_starts(labels, says, tmp_path, picture):
    Image.fromarray(labels).save(tmp_path / "labels.png")
    before = tree(tmp_path)
    code, said = call("train", "--images", picture, "--labels", tmp_path / "labels.png", "--out", tmp_path / "m")
    assert code == 3
    assert says in said
    assert tree(tmp_path) == before


@pytest.fixture
def running(tmp_path, model):
    """A prediction of 200 blocks in a process of its own, some of them done: (process, its arguments, result)."""
    source, out = tmp_path / "big.zarr", tmp_path / "out.ome.zarr"
    array = zarr.create_array(source, shape=(3200, 128), dtype="u2", chunks=(512, 128), dimension_names=["y", "x"])
    array[:] = image_of(array.shape)
    args = ["predict", str(source), "--model", str(model), "--out", str(out), "--block", "16", "128", *FAST]
    process = warm(COMMAND, *args)
    while process.poll() is None and not lines_of(out):
        time.sleep(0.01)
    yield process, args, out
    process.kill()
    process.wait()


def test_a_stopped_prediction_exits_with_130_and_goes_on(running):
    process, args, out = running
    process.send_signal(signal.SIGTERM)
    said = process.stderr.read()
    assert process.wait(60) == 130, said
    assert "run the same command again" in said
    assert 0 < len(lines_of(out)) < 200
    assert "unfinished" in call("info", out)[1]
    code, said = call("evaluate", out, out)
    assert code == 3
    assert "unfinished" in said
    assert call(*args)[0] == 0


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_exits_with_130_keeps_its_steps_and_goes_on_to_the_same_weights(number, tmp_path):
    image, labels = example()
    for name, stack in (("image", image), ("labels", labels)):
        tifffile.imwrite(tmp_path / f"{name}.tif", stack.data)
    sizes = ["--steps", "120", "--depth", "1", "--base-features", "4", "--patch", "16", "16", "--batch", "2", *FAST]
    args = ["train", "--images", tmp_path / "image.tif", "--labels", tmp_path / "labels.tif", *sizes, "--out"]
    process = warm(COMMAND, *args, tmp_path / "a.model")
    assert any("train " in line for line in process.stderr)
    process.send_signal(number)
    said = process.stderr.read()
    assert process.wait(60) == 130, said
    assert "add --resume" in said
    assert not (tmp_path / "a.model").exists()
    (step, *_) = Checkpoints(training_folder(tmp_path / "a.model")).steps()
    assert 0 < step < 120
    assert call(*args, tmp_path / "a.model", "--resume")[0] == call(*args, tmp_path / "b.model")[0] == 0
    assert load_model(tmp_path / "a.model").sha256 == load_model(tmp_path / "b.model").sha256


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_second_run_on_the_same_output_is_refused_and_the_first_is_unharmed(running):
    process, args, out = running
    process.send_signal(signal.SIGSTOP)  # else it may have come to its end
    code, said = call(*args)
    process.send_signal(signal.SIGCONT)
    assert code == 5
    assert str(process.pid) in said
    said = process.stderr.read()
    assert process.wait(60) == 0, said
    assert call("verify", out)[0] == 0


def lines_of(out):
    return [line for p in Path(out).rglob("done*.jsonl") for line in p.read_text().splitlines()]


def test_a_full_disk_is_named_and_can_be_mended(tmp_path, model):
    source = tmp_path / "noise.zarr"
    array = zarr.create_array(source, shape=(256, 256), dtype="u2", chunks=(256, 256), dimension_names=["y", "x"])
    array[:] = np.random.default_rng(0).integers(0, 2**16, array.shape, dtype=np.uint16)
    out = tmp_path / "out.ome.zarr"
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); from napari_unet.cli import main; main()"
    )
    args = ["predict", str(source), "--model", str(model), "--out", str(out), *FAST]
    code, _, said = ended(limited, *args)
    assert code in (6, 7), said
    assert "Traceback" not in said
    assert call(*args)[0] == 0


def test_channels_are_chosen_by_name_or_number(tmp_path, model):
    tifffile.imwrite(tmp_path / "two.tif", image_of((2, 64, 64)), imagej=True, metadata={"axes": "CYX"})
    args = ["predict", tmp_path / "two.tif", "--model", model, "--out", tmp_path / "out.ome.zarr", *FAST]
    code, said = call(*args)
    assert code == 3
    assert "--channel" in said
    assert call(*args, "--channel", 1)[0] == 0
