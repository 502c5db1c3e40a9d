"""What is made anew and under which name: every kind of result in the place of an earlier one."""

import contextlib
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from helpers import FP32, tree
from kinds import finder, small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import OutputError
from napari_unet.evaluation.compare import compare
from napari_unet.events import wait
from napari_unet.exports import export
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.sources import open_labels
from napari_unet.store.save import save_stack, storable_name
from napari_unet.store.tiff import save_tiff


def everything(stack: Stack) -> np.ndarray:
    return stack.read(tuple(slice(0, n) for n in stack.shape))


IMAGES = Stack(np.random.default_rng(0).integers(0, 99, (48, 64)).astype("u1"), "yx", name="a")
MASKS = [Stack((IMAGES.data > limit).astype("u1"), "yx") for limit in (30, 60)]
MAKERS = {
    "saved labels": (
        lambda out, again: save_stack(MASKS[0], out, kind="labels", name="cells", overwrite=again),
        ["labels/cells ("],
    ),
    "compared": (lambda out, again: compare(*MASKS, out, overwrite=again), ["labels/hits", "labels/false"]),
    "classes": (
        lambda out, again: predict(IMAGES, small(), out, PredictConfig(overwrite=again, overview=False, **FP32)),
        ["labels/"],
    ),
    "with the image": (
        lambda out, again: predict(IMAGES, small(), out, PredictConfig(overwrite=again, **FP32)),
        ["the image (", "labels/"],
    ),
    "probabilities": (
        lambda out, again: predict(IMAGES, small(), out, PredictConfig(overwrite=again, probabilities=True, **FP32)),
        ["probabilities ("],
    ),
}


@pytest.mark.parametrize("name", ["2024", "7", "zähler", "mein Modell (3)", "x" * 200, "CON", "a.b"])
def test_a_model_of_any_name_makes_a_result_that_opens(tmp_path: Path, name: str) -> None:
    model = dataclasses.replace(small(), record={"name": name})
    result = wait(predict(IMAGES, model, tmp_path / "r.ome.zarr", PredictConfig(**FP32)))
    assert np.array_equal(everything(open_labels(tmp_path / "r.ome.zarr")), everything(result))
    assert Path(result.source or "").name == (name if name in ("2024", "7", "a.b") else storable_name(name))


@pytest.mark.parametrize("kind", MAKERS)
def test_what_overwrite_removes_is_listed_while_it_is_there(tmp_path, kind):
    make, named = MAKERS[kind]
    out = tmp_path / "r.ome.zarr"
    wait(make(out, False))
    before, said = tree(out, ledger=True), []
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    with contextlib.closing(make(out, True)) as events:
        for event in events:
            if event.stage == "overwrite":
                assert tree(out, ledger=True) == before
                said.append(event.message)
    (line,) = said
    assert all(name in line for name in named)
    listed = re.findall(r"\(([\d.]+) (B|KiB)\)", line)
    assert sum(float(n) * {"B": 1, "KiB": 1024}[unit] for n, unit in listed) == pytest.approx(size, rel=0.02)


FILES = {
    "predicted": (
        "r.tif",
        lambda out, again: predict(IMAGES, small(), out, PredictConfig(overwrite=again, **FP32)),
        ["r.tif"],
    ),
    "predicted, of OME": (
        "r.ome.tif",
        lambda out, again: predict(IMAGES, small(), out, PredictConfig(overwrite=again, **FP32)),
        ["r.ome.tif"],
    ),
    "objects with a table": (
        "r.tif",
        lambda out, again: predict(IMAGES, finder(), out, PredictConfig(overwrite=again, **FP32)),
        ["r.tif", "r.objects.csv"],
    ),
    "saved": ("r.tiff", lambda out, again: save_tiff(MASKS[0], out, kind="labels", overwrite=again), ["r.tiff"]),
    "outlines": ("r.geojson", lambda out, again: export(MASKS[0], out, overwrite=again), ["r.geojson"]),
    "shapes": ("r.csv", lambda out, again: export(MASKS[0], out, overwrite=again), ["r.csv"]),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_overwrite_replaces_are_listed_once_and_before_anything_is_made(tmp_path, kind):
    name, make, replaced = FILES[kind]
    with contextlib.closing(make(tmp_path / name, False)) as events:
        assert not [event for event in events if event.stage == "overwrite"]
    before, said, made = tree(tmp_path), [], False
    with contextlib.closing(make(tmp_path / name, True)) as events:
        for event in events:
            made = made or tree(tmp_path) != before
            if event.stage == "overwrite":
                assert not made
                said.append(event.message)
    (line,) = said
    assert re.findall(r"(\S+) \(\d", line) == [str(tmp_path / each) for each in replaced]


def test_nothing_is_listed_where_nothing_goes(tmp_path):
    wait(save_stack(IMAGES, tmp_path / "saved.ome.zarr"))
    for place, refused in (("new", False), ("saved", True)):
        said = []
        with pytest.raises(OutputError) if refused else contextlib.nullcontext():
            said.extend(event.stage for event in MAKERS["with the image"][0](tmp_path / f"{place}.ome.zarr", True))
        assert "overwrite" not in said
