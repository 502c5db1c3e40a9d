"""The table of objects: where earlier versions had it it goes on being read, and no reader of zarr warns of it now."""

import os
import shutil
import warnings

import numpy as np
import pytest
import zarr

from helpers import FP32, cells, tree
from kinds import finder
from napari_unet import PredictConfig, predict
from napari_unet.errors import OutputError, UnsafeError
from napari_unet.evaluation.evaluate import evaluate
from napari_unet.events import wait
from napari_unet.store import verify
from napari_unet.store.journal import Journal, Plan
from napari_unet.store.table import read_table, table_of, table_region


def run(stack, model, out, **config):
    return wait(predict(stack, model, out, PredictConfig(**FP32, **config))).data[...]


def as_before(out):
    """Put the table where earlier versions wrote it."""
    group = out / "labels" / "instances"
    shutil.move(group / "table" / "objects.csv", group / "objects.csv")
    shutil.rmtree(group / "table")
    (ledger,) = out.rglob(".napari_unet")
    journal = Journal.of(ledger, Plan.load(ledger))
    journal.forget(["objects.csv", "finished"])
    name = "labels/instances/objects.csv"
    journal.append("objects.csv", [table_region(out / name, name)])
    journal.append("finished")
    return journal


def test_tables_of_an_earlier_version_are_read_verified_and_gone_on_with(tmp_path):
    stack, model, out = cells((40, 36)), finder(min_size=2), tmp_path / "a.ome.zarr"
    labels = run(stack, model, out, block=(16, 16))
    run(stack, model, tmp_path / "whole.ome.zarr", block=(16, 16))
    journal = as_before(out)
    assert wait(verify(out)) == []
    assert len(read_table(table_of(out / "labels" / "instances"))["index"]) == labels.max() + 1
    assert "a model of objects made the result" in " ".join(evaluate(out, out).notes)
    journal.forget(["finished"])  # stopped before it said so
    np.testing.assert_array_equal(run(stack, model, out, block=(16, 16)), labels)
    assert wait(verify(out)) == []
    assert (out / "labels/instances/objects.csv").is_file()
    journal = Journal(journal.folder)
    journal.forget([0, "objects.csv", "finished"])
    np.testing.assert_array_equal(run(stack, model, out, block=(16, 16)), labels)
    assert tree(out) == tree(tmp_path / "whole.ome.zarr")


def test_a_table_of_an_earlier_version_is_held_against_its_checksum(tmp_path):
    out = tmp_path / "a.ome.zarr"
    run(cells((40, 36)), finder(min_size=2), out)
    as_before(out)
    (path,) = out.rglob("objects.csv")
    path.write_bytes(path.read_bytes()[:-3])
    (problem,) = wait(verify(out))
    assert "labels/instances/objects.csv is not what was written" in problem


@pytest.mark.parametrize("before", [False, True])
def test_overwriting_takes_the_table_away_and_nothing_beside_it(tmp_path, before):
    stack, out = cells((40, 36)), tmp_path / "a.ome.zarr"
    run(stack, finder(min_size=2), out)
    if before:
        as_before(out)
    run(stack, finder(min_size=3), out, overwrite=True)
    run(stack, finder(min_size=3), tmp_path / "b.ome.zarr")
    assert tree(out) == tree(tmp_path / "b.ome.zarr")
    (out / "labels/instances/table/mine.csv").write_text("five years")
    with pytest.raises(OutputError, match=r"table/mine\.csv"):
        run(stack, finder(min_size=2), out, overwrite=True)
    assert wait(verify(out)) == []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("before", [False, True])
def test_readers_of_zarr_warn_of_a_table_of_an_earlier_version_alone(tmp_path, version, before):
    out = tmp_path / "a.ome.zarr"
    run(cells((40, 36)), finder(min_size=2), out, ome_version=version)
    if before:
        as_before(out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        members = dict(zarr.open_group(str(out), mode="r").members(max_depth=None))
        zarr.open_group(str(out), mode="r").tree()
    assert bool([w for w in caught if "not recognized" in str(w.message)]) == before
    assert "labels/instances/0" in members


@pytest.mark.skipif(os.name != "posix", reason="needs links of POSIX")
@pytest.mark.parametrize("link", ["table", "table/objects.csv"])
def test_a_table_is_not_written_or_read_through_a_link(tmp_path, link):
    stack, model, out = cells((40, 36)), finder(min_size=2), tmp_path / "a.ome.zarr"
    run(stack, model, out)
    place = out / "labels" / "instances" / link
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    file = tmp_path / "elsewhere" / ("objects.csv" if link == "table" else "")
    data = file.read_bytes()
    try:
        assert "objects.csv" in " ".join(wait(verify(out)))
    except UnsafeError as error:
        assert "link" in str(error)
    for overwrite in (False, True):
        with pytest.raises((UnsafeError, OutputError)):
            run(stack, finder(min_size=3), out, overwrite=overwrite)
    assert file.read_bytes() == data
