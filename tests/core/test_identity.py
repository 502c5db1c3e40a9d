"""A source that changed between two runs is known: a stopped run is not finished of two images."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from helpers import tree
from kinds import model_of
from napari_unet.arrays.stack import Stack
from napari_unet.batch import run_batch
from napari_unet.errors import DataError, OutputError
from napari_unet.events import Block, wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.network import UNetConfig
from napari_unet.sources import open_stack
from napari_unet.sources.identity import stored
from napari_unet.store.journal import Plan
from napari_unet.store.save import save_stack

CONFIG = PredictConfig(precision="fp32", device="cpu", block=(32, 32))


def image(path: Path, seed: int = 0, shape: tuple[int, int] = (96, 96)) -> zarr.Array:
    data = np.random.default_rng(seed).integers(1, 255, shape, "u1")
    array = zarr.create_array(path, shape=shape, chunks=(32, 32), dtype="u1", dimension_names=["y", "x"])
    array[...] = data
    return array


def stopped(source: Path, out: Path, model: Any) -> None:
    work = predict(open_stack(source), model, out, CONFIG)
    for event in work:
        if isinstance(event, Block):
            break
    work.close()


def rewritten(path: Path) -> None:
    (path / "c/2/2").write_bytes((path / "c/2/2").read_bytes())
    os.utime(path / "c/2/2", (2e9, 2e9))


CHANGES = {
    "a chunk of other values": lambda path: image_chunk(path, 7),
    "a chunk that is gone": lambda path: (path / "c/2/2").unlink(),
    "a chunk more": lambda path: shutil.copy(path / "c/2/2", path / "c/2/3"),
    "a chunk written again": rewritten,
    "the time of its metadata": lambda path: os.utime(path / "zarr.json", (2e9, 2e9)),
}


def image_chunk(path: Path, value: int) -> None:
    before = (path / "zarr.json").stat()
    zarr.open_array(path, mode="r+")[64:, 64:] = value
    os.utime(path / "zarr.json", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", CHANGES)
def test_a_stopped_run_whose_source_changed_is_refused(tmp_path: Path, change: str) -> None:
    model = model_of(UNetConfig(ndim=2, depth=1, base_features=4))
    image(tmp_path / "a.zarr")
    stopped(tmp_path / "a.zarr", tmp_path / "out.ome.zarr", model)
    CHANGES[change](tmp_path / "a.zarr")
    with pytest.raises(OutputError, match=r"other settings: image\.(files|bytes|digest|modified) was"):
        wait(predict(open_stack(tmp_path / "a.zarr"), model, tmp_path / "out.ome.zarr", CONFIG))


def test_a_stopped_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    model = model_of(UNetConfig(ndim=2, depth=1, base_features=4))
    image(tmp_path / "a.zarr")
    out = tmp_path / "out.ome.zarr"
    stopped(tmp_path / "a.zarr", out, model)
    (ledger,) = out.rglob(".napari_unet")
    values = json.loads((ledger / "plan.json").read_text())
    for name in ("files", "bytes", "digest"):
        del values["settings"]["image"][name]
    del values["fingerprint"]
    fields = {k: v for k, v in values.items() if k != "napari_unet"}
    Plan(**fields).save(ledger)
    wait(predict(open_stack(tmp_path / "a.zarr"), model, out, CONFIG))


def test_batch_makes_anew_what_has_grown_and_skips_what_has_not(tmp_path: Path) -> None:
    model = model_of(UNetConfig(ndim=2, depth=1, base_features=4))
    (tmp_path / "in").mkdir()
    array = zarr.create_array(
        tmp_path / "in/a.zarr", shape=(96, 96), chunks=(32, 32), dtype="u1", dimension_names=["y", "x"], fill_value=0
    )
    array[:64] = np.random.default_rng(0).integers(1, 255, (64, 96), "u1")

    def states() -> list[str]:
        return [row.state for row in wait(run_batch(tmp_path / "in", model, tmp_path / "out", CONFIG))]

    assert states() == ["done"]
    assert states() == ["skipped"]
    array[64:] = 200
    assert states() == ["done"]
    assert states() == ["skipped"]


def test_what_is_made_of_an_image_is_not_part_of_it(tmp_path: Path) -> None:
    image(tmp_path / "a.zarr")
    before = stored(Stack(data=np.zeros((2, 2)), axes="yx", source=str(tmp_path / "a.zarr")))
    (tmp_path / "a.zarr/labels/x/0/c/0").mkdir(parents=True)
    (tmp_path / "a.zarr/labels/x/0/c/0/0").write_text("x")
    (tmp_path / "a.zarr/notes.txt").write_text("x")
    after = stored(Stack(data=np.zeros((2, 2)), axes="yx", source=str(tmp_path / "a.zarr")))
    assert before is not None and after is not None and before.to_json() == after.to_json()
    assert stored(Stack(data=np.zeros((2, 2)), axes="yx")) is None


def test_a_copy_of_an_image_that_grew_meanwhile_is_not_gone_on_with(tmp_path: Path) -> None:
    image(tmp_path / "a.zarr")
    run = save_stack(open_stack(tmp_path / "a.zarr"), tmp_path / "b.zarr")
    next(run)
    run.close()
    image_chunk(tmp_path / "a.zarr", 7)
    with pytest.raises(OutputError, match=r"other settings: image\.(files|bytes|digest) was"):
        wait(save_stack(open_stack(tmp_path / "a.zarr"), tmp_path / "b.zarr"))


PIXELS = 'DimensionOrder="XYZCT" Type="uint8" SizeX="64" SizeY="64" SizeZ="2" SizeC="1" SizeT="1"'


def two_files(folder: Path) -> Path:
    """Write an OME-TIFF of two planes, each in a file of its own."""
    places = "".join(
        f'<TiffData FirstZ="{z}" PlaneCount="1"><UUID FileName="{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(2)
    )
    for z in range(2):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}">'
            f'<Image ID="Image:0"><Pixels ID="P" {PIXELS}><Channel ID="C"/>{places}</Pixels></Image></OME>'
        )
        plane = np.random.default_rng(z).integers(1, 255, (64, 64), "u1")
        tifffile.imwrite(folder / f"{z}.ome.tif", plane, description=xml, metadata=None)
    return folder / "0.ome.tif"


def test_each_file_of_an_image_of_several_counts(tmp_path: Path) -> None:
    model = model_of(UNetConfig(ndim=2, depth=1, base_features=4))
    source = two_files(tmp_path)
    found = stored(open_stack(source))
    assert found is not None and found.files == len(found.marks) == 2
    stopped(source, tmp_path / "out.ome.zarr", model)
    other = tmp_path / "1.ome.tif"
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    os.utime(other, (2e9, 2e9))
    with pytest.raises(OutputError, match=r"other settings: image\.(files|bytes|digest) was"):
        wait(predict(open_stack(source), model, tmp_path / "out.ome.zarr", CONFIG))


def test_an_image_that_loses_chunks_while_it_is_run_gives_no_result(tmp_path: Path) -> None:
    model = model_of(UNetConfig(ndim=2, depth=1, base_features=4))
    source, out, whole = tmp_path / "a.zarr", tmp_path / "out.ome.zarr", tmp_path / "whole.ome.zarr"
    image(source)
    wait(predict(open_stack(source), model, whole, CONFIG))
    chunk = source / "c/2/2"
    shutil.copy2(chunk, tmp_path / "kept")
    work = predict(open_stack(source), model, out, CONFIG)
    with pytest.raises(DataError, match="lost 1 of its"):
        for event in work:
            if isinstance(event, Block):
                chunk.unlink(missing_ok=True)
    with pytest.raises(OutputError, match="--overwrite"):
        wait(predict(open_stack(source), model, out, CONFIG))
    shutil.copy2(tmp_path / "kept", chunk)
    wait(predict(open_stack(source), model, out, dataclasses.replace(CONFIG, overwrite=True)))
    of_times = {"zarr.json"}  # it records when the files were written
    assert {k: v for k, v in tree(out).items() if k not in of_times} == {
        k: v for k, v in tree(whole).items() if k not in of_times
    }


def test_an_image_that_is_written_to_while_it_is_run_is_said_to_be(tmp_path: Path) -> None:
    model = model_of(UNetConfig(ndim=2, depth=1, base_features=4))
    image(tmp_path / "a.zarr")
    said = []
    for event in predict(open_stack(tmp_path / "a.zarr"), model, tmp_path / "out.ome.zarr", CONFIG):
        said.append(event.message)
        if isinstance(event, Block):
            rewritten(tmp_path / "a.zarr")
    assert any("has changed while it was run" in message for message in said)
