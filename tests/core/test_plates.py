"""Plates: every field of every well is run, into a twin or into the plate, and named in the table and in scores."""

import csv
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from typer.testing import CliRunner

import plates
from helpers import FP32
from kinds import small
from napari_unet.batch import run_batch
from napari_unet.cli.shell import app
from napari_unet.errors import OutputError
from napari_unet.events import wait
from napari_unet.inference import PredictConfig
from napari_unet.sources import list_images, open_labels, open_stack

FIELDS = ("A/1/0", "A/1/1", "B/2/0", "B/2/1")
CONFIG = PredictConfig(**FP32)


@pytest.fixture(params=["0.4", "0.5"])
def plate(tmp_path, request):
    images = {place: np.random.default_rng(i).random((20, 24)).astype("f4") for i, place in enumerate(FIELDS)}
    return plates.plate(tmp_path / "far" / "screen.zarr", images, request.param)


def table(out):
    with (out / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_plate_is_run_field_by_field_into_a_twin_and_goes_on_where_it_was_stopped(plate, tmp_path):
    out = tmp_path / "out"
    run = run_batch(plate, small(), out, CONFIG)
    for event in run:
        if getattr(event, "rows", ()) and event.rows[0].state == "done":
            run.close()
            break
    assert [row["state"] for row in table(out)] == ["done"]
    rows = wait(run_batch(plate, small(), out, CONFIG))
    assert [row.state for row in rows] == ["skipped", "done", "done", "done"]
    assert [(row["well"], row["field"]) for row in table(out)] == [("A1", "0"), ("A1", "1"), ("B2", "0"), ("B2", "1")]
    twin = out / "screen.ome.zarr"
    yaozarrs.validate_zarr_store(str(twin))
    assert [path.relative_to(twin).as_posix() for path in list_images(twin)] == list(FIELDS)
    for place in FIELDS:
        assert open_labels(twin / place).shape == (20, 24)
        alone = wait(run_batch(plate / place, small(), tmp_path / "alone" / place, CONFIG))[0]
        found = open_labels(tmp_path / "alone" / place / alone.result).read((slice(0, 20), slice(0, 24)))
        assert (found == open_labels(twin / place).read((slice(0, 20), slice(0, 24)))).all()


def test_labels_go_into_the_plate_itself_and_are_scored_by_field(plate, tmp_path):
    wait(run_batch(plate, small(), tmp_path / "out", PredictConfig(**FP32, in_source=True)))
    assert not (tmp_path / "out" / "screen.ome.zarr").exists()
    wait(run_batch(plate, small(), tmp_path / "twin", CONFIG))
    found = CliRunner().invoke(app, ["evaluate", str(tmp_path / "twin" / "screen.ome.zarr"), str(plate)])
    assert found.exit_code == 0, found.output
    assert "screen.ome.zarr/B/2/0 with screen.zarr/B/2/0" in found.output
    assert "mean" in found.output


def test_a_part_of_a_plate_is_chosen_by_a_pattern(plate, tmp_path):
    rows = wait(run_batch(plate, small(), tmp_path / "out", CONFIG, "*/0"))
    assert [row.file for row in rows] == ["screen.zarr/A/1/0", "screen.zarr/B/2/0"]


def test_a_plate_at_an_address_gives_the_same(plate, tmp_path):
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(plate.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/screen.zarr"
    small().save(tmp_path / "m.model")
    try:
        options = ["--model", tmp_path / "m.model", "--out", tmp_path / "far.out", "--precision", "fp32"]
        said = CliRunner().invoke(app, list(map(str, ["batch", address, *options])))
    finally:
        server.shutdown()
        server.server_close()
    assert said.exit_code == 0, said.output
    assert all(f"screen.zarr/{place} " in said.output for place in FIELDS)
    wait(run_batch(plate, small(), tmp_path / "near", CONFIG))
    whole = (slice(0, 20), slice(0, 24))
    for place in FIELDS:
        far, near = (open_labels(tmp_path / out / "screen.ome.zarr" / place) for out in ("far.out", "near"))
        assert (far.read(whole) == near.read(whole)).all()


def test_what_lies_where_a_twin_should_be_is_left_alone(plate, tmp_path):
    (tmp_path / "out").mkdir()
    zarr.create_array(str(tmp_path / "out" / "screen.ome.zarr"), shape=(4, 4), dtype="u1")
    with pytest.raises(OutputError, match="no plate"):
        wait(run_batch(plate, small(), tmp_path / "out", CONFIG))
    assert open_stack(tmp_path / "out" / "screen.ome.zarr", "yx").shape == (4, 4)
    assert Path(plate).is_dir()
