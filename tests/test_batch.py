import csv

import numpy as np
import pytest
import tifffile

from napari_unet.batch import run_batch
from napari_unet.errors import DataError, UsageError
from napari_unet.events import wait
from napari_unet.inference import PredictConfig
from test_predict import FP32, image_of, small, tree

CONFIG = PredictConfig(**FP32)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(3):
        tifffile.imwrite(tmp_path / "images" / f"{i}.tif", image_of((40, 44), seed=i))
    return tmp_path / "images"


def table(out):
    with (out / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_file_gets_a_result_and_a_row(folder, tmp_path):
    rows = wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert [(row.file, row.state) for row in rows] == [(f"{i}.tif", "done") for i in range(3)]
    for row, written in zip(rows, table(tmp_path / "out"), strict=True):
        assert (tmp_path / "out" / row.result).is_dir()
        assert sum(row.counts.values()) == 40 * 44
        assert written["file"] == row.file
        assert sum(int(n) for key, n in written.items() if key.startswith("voxels_") and n) == 40 * 44


def test_what_is_done_is_skipped_and_stays_as_it_is(folder, tmp_path):
    wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    before = {k: v for k, v in tree(tmp_path / "out").items() if k != "summary.csv"}
    tifffile.imwrite(folder / "3.tif", image_of((40, 44), seed=3))
    rows = wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert [row.state for row in rows] == ["skipped"] * 3 + ["done"]
    after = tree(tmp_path / "out")
    assert {k: after[k] for k in before} == before


def test_a_bad_file_is_named_and_does_not_stop_the_rest(folder, tmp_path):
    (folder / "1.tif").write_bytes(b"no image")
    rows = wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert [row.state for row in rows] == ["done", "failed", "done"]
    assert "1.tif" in rows[1].message
    assert table(tmp_path / "out")[1]["message"] == rows[1].message


def test_a_result_of_another_model_is_not_replaced_unasked(folder, tmp_path):
    wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    other = small(depth=1)
    rows = wait(run_batch(folder, other, tmp_path / "out", CONFIG))
    assert [row.state for row in rows] == ["failed"] * 3
    rows = wait(run_batch(folder, other, tmp_path / "out", PredictConfig(overwrite=True, **FP32)))
    assert [row.state for row in rows] == ["done"] * 3


@pytest.mark.parametrize("events", [1, 4, 8])
def test_a_closed_batch_goes_on_to_the_same_results(events, folder, tmp_path):
    config = PredictConfig(block=(16, 16), **FP32)
    wait(run_batch(folder, small(), tmp_path / "whole", config))
    run = run_batch(folder, small(), tmp_path / "cut", config)
    for _ in range(events):
        next(run)
    run.close()
    wait(run_batch(folder, small(), tmp_path / "cut", config))
    cut, whole = tree(tmp_path / "cut"), tree(tmp_path / "whole")
    del cut["summary.csv"], whole["summary.csv"]
    assert cut == whole


def test_patterns_choose(folder, tmp_path):
    assert [row.file for row in wait(run_batch(folder, small(), tmp_path / "out", CONFIG, "[01].tif"))] == [
        "0.tif",
        "1.tif",
    ]


def test_what_cannot_start_is_refused_and_nothing_is_written(folder, tmp_path):
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="among the images"):
        wait(run_batch(folder, small(), folder, CONFIG))
    with pytest.raises(DataError, match=r"holds no image that matches .*czi"):
        wait(run_batch(folder, small(), tmp_path / "out", CONFIG, "*.czi"))
    assert tree(tmp_path) == before
    tifffile.imwrite(folder / "1.tiff", np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError, match=r"1\.tif.*same result"):
        wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert not (tmp_path / "out").exists()


def test_images_the_model_cannot_take_fail_by_name(folder, tmp_path):
    rows = wait(run_batch(folder, small(3), tmp_path / "out", CONFIG))
    assert all("needs zyx" in row.message for row in rows)
