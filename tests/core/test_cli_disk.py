"""What a disk refuses is one line and an exit code, whichever command and option it is."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from napari_unet.cli import app

SHELL = [sys.executable, "-c", "from napari_unet.cli import main; main()"]
LONG = "n" * 300
GRID = {"name": "regular", "configuration": {"chunk_shape": [4, 32, 32]}}
COMMANDS = [
    ["info", LONG],
    ["info", f"a.zarr/{LONG}"],
    ["predict", LONG, "--model", "nuclei-2d", "--out", "r.ome.zarr"],
    ["predict", "a.zarr", "--model", LONG, "--out", "r.ome.zarr"],
    ["predict", "a.zarr", "--model", "nuclei-2d", "--out", LONG],
    ["predict", "a.zarr", "--model", "nuclei-2d", "--out", f"x/{LONG}/r.ome.zarr"],
    ["batch", ".", "--model", "nuclei-2d", "--out", LONG],
    ["train", "--images", "a.zarr", "--labels", LONG, "--out", "m"],
    ["train", "--images", "a.zarr", "--labels", "a.zarr", "--out", LONG],
    ["evaluate", LONG, "a.zarr"],
    ["verify", LONG],
    ["finish", LONG],
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(32, 32), dtype="u1", dimension_names=["y", "x"])
    array[...] = np.arange(1024).reshape(32, 32) % 256
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_name_longer_than_a_disk_allows_is_wrong_usage(here: Path, arguments: list[str]) -> None:
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2, found.output
    assert "letters, more than the disk allows" in found.output
    assert [path.name for path in here.iterdir()] == ["a.zarr"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["info", "a.zarr"], ["--help"], ["info", "--help"], ["--version"]])
def test_an_output_that_cannot_be_written_is_said(here: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*SHELL, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=here
        )
    assert ended.returncode == 6, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "the output cannot be written (No space left on device)" in ended.stderr


@pytest.mark.parametrize("damage", [{"codecs": []}, {"shape": [-1, 4]}, {"data_type": "float8"}, {"fill_value": "x"}])
def test_a_damaged_array_is_bad_input_for_info_and_unnamed_axes_are_not(here: Path, damage: dict[str, object]) -> None:
    path = here / "a.zarr" / "zarr.json"
    values = json.loads(path.read_text())
    del values["dimension_names"]
    path.write_text(json.dumps({**values, "shape": [4, 32, 32], "chunk_grid": GRID}))
    found = CliRunner().invoke(app, ["info", "a.zarr"])
    assert found.exit_code == 0 and "axes  to be given" in found.output
    path.write_text(json.dumps({**values, **damage}))
    found = CliRunner().invoke(app, ["info", "a.zarr"])
    assert found.exit_code == 3 and "to be given" not in found.output, found.output


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "napari_unet model", "version": 0}'])
@pytest.mark.parametrize("name", ["a.model", "a.model/model.json"])
def test_info_says_what_is_wrong_with_the_card_of_a_model(here: Path, content: str, name: str) -> None:
    (here / "a.model").mkdir()
    (here / "a.model" / "model.json").write_text(content)
    found = CliRunner().invoke(app, ["info", name])
    assert found.exit_code == 3 and "model.json is damaged" in found.output, found.output
