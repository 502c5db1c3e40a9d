import csv
import dataclasses
import json
import os
import shutil
import struct
import sys

import numpy as np
import pytest
import tifffile
import zarr

from helpers import FP32, image_of, tree
from kinds import restorer, small
from napari_unet import batch
from napari_unet.arrays.stack import Stack
from napari_unet.batch import run_batch
from napari_unet.errors import DataError, OutputError, UsageError
from napari_unet.events import wait
from napari_unet.exports.write import export
from napari_unet.inference import PredictConfig
from napari_unet.inference.events import Opened
from napari_unet.inference.predict import predict
from napari_unet.sources import open_labels, open_stack
from napari_unet.store.editable import editable_copy
from napari_unet.store.save import save_stack
from napari_unet.store.tiff import save_tiff
from napari_unet.summary import Row, Summary, check_summary, printable

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


COUNTED = {  # columns of the table: what was counted
    ("objects", "voxels_foreground"): {"objects": 3, "foreground": 40},
    ("voxels_objects", "voxels_background"): {"objects": 40, "background": 9},
    ("voxels_cell", "voxels_foreground"): {"cell": 40, "foreground": 9},
}


@pytest.mark.parametrize("columns", COUNTED)
def test_a_column_of_voxels_holds_voxels_and_that_of_objects_their_number(tmp_path, columns):
    (tmp_path / ".napari_unet").mkdir()
    row = Row("a.tif", "failed", 1.0, counts=COUNTED[columns])
    Summary(tmp_path).put(row)
    assert tuple(table(tmp_path)[0])[-2:] == columns
    assert check_summary(tmp_path / "summary.csv") == [row]


def test_tables_that_call_the_number_of_objects_voxels_are_read(tmp_path):
    (tmp_path / ".napari_unet").mkdir()
    row = Row("a.tif", "failed", 1.0, counts={"objects": 3, "foreground": 40})
    Summary(tmp_path).put(row)
    path = tmp_path / "summary.csv"
    path.write_text(path.read_text().replace(",objects,", ",voxels_objects,"))
    assert check_summary(path) == [row]


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


def test_images_that_are_run_beside_each_other_have_the_bytes_of_each_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "SMALL", 4000)
    (tmp_path / "images").mkdir()
    for i, shape in enumerate([(40, 44), (40, 44), (90, 80), (30, 100), (40, 44)]):  # the third is run alone
        tifffile.imwrite(tmp_path / "images" / f"{i}.tif", image_of(shape, seed=i))
    events = list(run_batch(tmp_path / "images", small(), tmp_path / "out", CONFIG))
    seen = [event.path.parts[-3][0] for event in events if isinstance(event, Opened)]
    assert seen == list("01234")  # what is said of one is not mixed with what is said of the next
    for i in range(5):
        wait(predict(open_stack(tmp_path / "images" / f"{i}.tif"), small(), tmp_path / f"{i}.ome.zarr", CONFIG))
        assert tree(tmp_path / "out" / f"{i}.ome.zarr") == tree(tmp_path / f"{i}.ome.zarr")


def cut_in_its_directory(path, bigtiff):
    tifffile.imwrite(path, image_of((40, 44)), bigtiff=bigtiff)
    data = bytearray(path.read_bytes())
    at = 8 if bigtiff else 4
    size = 8 if bigtiff else 4
    data[at : at + size] = (len(data) - 9).to_bytes(size, "little")  # where the first directory is said to begin
    path.write_bytes(data)


def a_zarr_of_odd_attributes(path):
    zarr.create_array(path, shape=(8, 8), dtype="u1", chunks=(4, 4))
    found = json.loads((path / "zarr.json").read_text())
    found["attributes"] = {"ome": 5, "napari_unet": [1], "_ARRAY_DIMENSIONS": 5, "multiscales": "many"}
    (path / "zarr.json").write_text(json.dumps(found))


def a_zarr_that_is_cut_off(path):
    zarr.create_array(path, shape=(8, 8), dtype="u1", chunks=(4, 4))
    (path / "zarr.json").write_bytes((path / "zarr.json").read_bytes()[:50])


ODD = {
    "cut.tif": lambda path: cut_in_its_directory(path, bigtiff=False),
    "big.tif": lambda path: cut_in_its_directory(path, bigtiff=True),
    "odd.zarr": a_zarr_of_odd_attributes,
    "torn.zarr": a_zarr_that_is_cut_off,
    "empty.tif": lambda path: path.write_bytes(b""),
    "dangling.zarr": lambda path: path.symlink_to(path.with_name("nowhere")),
    "folder.tif": lambda path: path.mkdir(),
}


def test_no_file_stops_the_others(folder, tmp_path):
    for name, make in ODD.items():
        make(folder / name)
    rows = {row.file: row for row in wait(run_batch(folder, small(), tmp_path / "out", CONFIG))}
    assert [rows[f"{i}.tif"].state for i in range(3)] == ["done"] * 3
    failed = [row for row in rows.values() if row.state == "failed"]
    assert {"cut.tif", "big.tif", "torn.zarr", "empty.tif"} <= {row.file for row in failed}
    assert all(row.file.partition(".")[0] in row.message for row in failed)


@pytest.mark.parametrize(
    "error", [MemoryError(), struct.error("unpack requires 8 bytes"), AssertionError(), KeyError(3)]
)
def test_what_nobody_thought_of_is_a_row_with_its_traceback_in_a_log(error, folder, tmp_path, monkeypatch):
    read = Stack.read

    def fails(stack, box, **more):
        if stack.name == "1":
            raise error
        return read(stack, box, **more)

    monkeypatch.setattr(Stack, "read", fails)
    rows = wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert [row.state for row in rows] == ["done", "failed", "done"]
    log = tmp_path / "out" / ".napari_unet" / "errors.log"
    if not isinstance(error, MemoryError):
        assert type(error).__name__ in rows[1].message and "1.tif" in rows[1].message and str(log) in rows[1].message
        assert "Traceback" in log.read_text() and "in fails" in log.read_text()


NAMES = [
    "=1+1.tif",
    "+a.tif",
    "-b.tif",
    "@sum.tif",
    "\ttab.tif",
    "\rcr.tif",
    "a\nb.tif",
    "q\"uo,te'.tif",
    "'=x.tif",
    os.fsdecode(b"\xff.tif"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_any_name_has_a_row_that_is_read_back_and_that_no_spreadsheet_runs(tmp_path):
    (tmp_path / "images").mkdir()
    for name in NAMES:
        tifffile.imwrite(tmp_path / "images" / "plain.tif", image_of((24, 24)))
        (tmp_path / "images" / "plain.tif").rename(tmp_path / "images" / name)
    for state in ("done", "skipped"):
        rows = wait(run_batch(tmp_path / "images", small(), tmp_path / "out", CONFIG))
        assert [row.state for row in rows] == [state] * len(NAMES)
        with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
            cells = list(csv.DictReader(file))
        assert {row.file for row in check_summary(tmp_path / "out" / "summary.csv")} == set(map(printable, NAMES))
        assert not [c for line in cells for c in line.values() if c[:1] in set("=+-@\t\r\n")]


@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_an_image_that_has_grown_is_done_anew_and_only_that(kind, folder, tmp_path):
    growing = folder / ("g.zarr" if kind == "zarr" else "g.tif")

    def written(planes):
        data = image_of((5, 40, 44))[:planes]
        if kind == "zarr":
            array = zarr.create_array(
                growing,
                shape=data.shape,
                dtype="u2",
                chunks=(1, 40, 44),
                overwrite=True,
                dimension_names=["z", "y", "x"],
            )
            array[...] = data
        else:
            tifffile.imwrite(growing, data, imagej=True, metadata={"axes": "ZYX"})

    def states():
        return {row.file: row.state for row in wait(run_batch(folder, small(), tmp_path / "out", CONFIG))}

    written(2)
    assert states()[growing.name] == "done"
    written(5)
    assert states() == {growing.name: "done", "0.tif": "skipped", "1.tif": "skipped", "2.tif": "skipped"}
    assert states()[growing.name] == "skipped"
    assert open_stack(tmp_path / "out" / "g.ome.zarr" / "labels" / "semantic").size("z") == 5


def test_labels_that_were_made_here_are_never_taken_for_images(folder, tmp_path):
    stack, result = open_stack(folder / "0.tif"), folder / "0 result.ome.zarr"
    wait(predict(stack, small(), result, CONFIG))
    labels = open_labels(result)
    wait(predict(stack, small(), folder / "0 result.tif", CONFIG))
    wait(export(labels, folder / "0 result exported.ome.tif"))
    wait(save_stack(labels, folder / "0 result saved.ome.zarr", kind="labels"))
    wait(editable_copy(labels, folder / "0 result edited.ome.zarr", "edited", {}))
    wait(save_stack(open_stack(folder / "1.tif"), folder / "saved.ome.zarr"))
    wait(save_tiff(open_stack(folder / "1.tif"), folder / "converted.tif"))
    first, *_ = run_batch(folder, small(), tmp_path / "out", CONFIG)
    assert [row.file for row in first.rows] == ["0.tif", "1.tif", "2.tif", "converted.tif", "saved.ome.zarr"]
    assert first.message.startswith("5 results were left out, such as 0 result")
    with pytest.raises(DataError, match="no image but labels that this program made, such as 0 result"):
        wait(run_batch(folder, small(), tmp_path / "out2", CONFIG, "*result ?*"))


def test_images_that_a_model_made_are_run_where_there_are_no_others(folder, tmp_path):
    restore = restorer()
    wait(predict(open_stack(folder / "0.tif"), restore, folder / "0 clean.ome.zarr", CONFIG))
    assert [row.file for row in next(run_batch(folder, small(), tmp_path / "out", CONFIG)).rows] == [
        f"{i}.tif" for i in range(3)
    ]
    rows = wait(run_batch(folder, small(), tmp_path / "out2", CONFIG, "*clean*"))
    assert [row.state for row in rows] == ["done"]


def test_the_table_holds_no_row_of_a_result_that_is_gone_or_begun_anew(folder, tmp_path):
    out = tmp_path / "out"
    wait(run_batch(folder, small(), out, CONFIG))
    shutil.rmtree(out / "0.ome.zarr")
    run = predict(
        open_stack(folder / "1.tif"), small(), out / "1.ome.zarr", dataclasses.replace(CONFIG, overwrite=True)
    )
    for event in run:
        if event.stage == "predict":
            break
    run.close()
    wait(run_batch(folder, small(), out, CONFIG, "2.tif"))
    assert [row["file"] for row in table(out)] == ["2.tif"]


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


def test_results_may_lie_above_the_images_and_below_them(folder, tmp_path):
    for out in (tmp_path, folder / "results"):
        assert [row.state for row in wait(run_batch(folder, small(), out, CONFIG))] == ["done"] * 3
        assert [row.state for row in wait(run_batch(folder, small(), out, CONFIG))] == ["skipped"] * 3
    with pytest.raises(UsageError, match="among the images"):
        wait(run_batch(folder / "1.tif", small(), folder, CONFIG))


def test_images_the_model_cannot_take_fail_by_name(folder, tmp_path):
    rows = wait(run_batch(folder, small(3), tmp_path / "out", CONFIG))
    assert all("needs zyx" in row.message for row in rows)


def test_an_image_that_changed_is_not_taken_for_done(folder, tmp_path):
    wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    os.utime(folder / "1.tif", (1, 1))
    rows = wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert [row.state for row in rows] == ["skipped", "failed", "skipped"]
    assert "image modified" in rows[1].message
    rows = wait(run_batch(folder, small(), tmp_path / "out", dataclasses.replace(CONFIG, overwrite=True)))
    assert [row.state for row in rows] == ["skipped", "done", "skipped"]


def test_another_channel_is_another_result(tmp_path):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", image_of((2, 40, 44)), imagej=True, metadata={"axes": "CYX"})
    folder, out = tmp_path / "images", tmp_path / "out"
    assert wait(run_batch(folder, small(), out, CONFIG, channel=0))[0].state == "done"
    assert wait(run_batch(folder, small(), out, CONFIG, channel=0))[0].state == "skipped"
    assert wait(run_batch(folder, small(), out, CONFIG, channel=1))[0].state == "failed"


def test_the_table_keeps_the_rows_of_other_files_and_the_counts_of_what_is_skipped(folder, tmp_path):
    first = wait(run_batch(folder, small(), tmp_path / "out", CONFIG, "[01].tif"))
    wait(run_batch(folder, small(), tmp_path / "out", CONFIG, "2.tif"))
    assert [row["file"] for row in table(tmp_path / "out")] == ["0.tif", "1.tif", "2.tif"]
    (tmp_path / "out" / "summary.csv").unlink()
    again = wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert [row.state for row in again] == ["skipped"] * 3
    assert [row.counts for row in again[:2]] == [row.counts for row in first]


def test_a_table_that_is_not_of_a_batch_is_left_alone(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.csv").write_text("patient,dose\n1,2\n")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="is not the table of a batch"):
        wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert tree(tmp_path) == before


def test_a_second_batch_into_the_same_folder_is_refused(folder, tmp_path):
    first = run_batch(folder, small(), tmp_path / "out", CONFIG)
    next(first)
    with pytest.raises(OutputError, match="is being written by process"):
        wait(run_batch(folder, small(), tmp_path / "out", CONFIG))
    assert [row.state for row in wait(first)] == ["done"] * 3


def test_labels_can_go_into_the_images_themselves(folder, tmp_path):
    stores = tmp_path / "stores"
    wait(run_batch(folder, small(), stores, CONFIG))
    config = dataclasses.replace(CONFIG, in_source=True, name="again")
    rows = wait(run_batch(stores, small(), tmp_path / "out", config))
    assert [row.state for row in rows] == ["done"] * 3
    assert all((stores / f"{i}.ome.zarr" / "labels" / "again").is_dir() for i in range(3))
    assert [row.state for row in wait(run_batch(stores, small(), tmp_path / "out", config))] == ["skipped"] * 3
