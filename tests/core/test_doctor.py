"""The doctor: what is wrong with an installation is said with its remedy, and the speed is measured on real runs."""

import importlib.metadata
import importlib.util
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_unet import doctor as module
from napari_unet import wait
from napari_unet.cli import app
from napari_unet.cli.shell import FAILED


def versions(monkeypatch, **changed):
    true = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: changed.get(name) or true(name))


def without(monkeypatch, *names):
    true = importlib.util.find_spec
    found = {
        "napari": True,
        "PyQt6": True,
        **dict.fromkeys(names),
    }  # tests of the library find neither
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found[name] if name in found else true(name))


def test_a_whole_installation_has_no_problem():
    found = wait(module.doctor(speed=False))
    assert found.problems == ()
    rows = dict(found.rows)
    assert rows["zarr"] == importlib.metadata.version("zarr")
    assert str(Path(module.__file__).parent) in rows["napari-unet-stacks"]
    assert "HDF5" in rows["formats"]
    assert "nuclei-2d" not in rows


@pytest.mark.parametrize(
    ("name", "version", "wanted"),
    [("zarr", "2.18.7", ">=3.1.3"), ("napari", "0.6.6", ">=0.7"), ("torch", "2.1", ">=2.11")],
)
def test_a_package_that_is_too_old_is_named(monkeypatch, name, version, wanted):
    versions(monkeypatch, **{name: version})
    assert wait(module.doctor(speed=False)).problems == (
        f"{name} is {version}, wanted is {wanted}: pip install -U 'napari-unet-stacks[all]'",
    )


def test_a_viewer_without_qt_is_named(monkeypatch):
    without(monkeypatch, *module.BINDINGS)
    assert "pip install 'napari[all]'" in "".join(wait(module.doctor(speed=False)).problems)


def test_a_plugin_that_the_viewer_does_not_find_is_named(monkeypatch):
    without(monkeypatch)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    assert "napari does not find this plugin" in "".join(wait(module.doctor(speed=False)).problems)


def test_without_a_viewer_nothing_is_said_of_it(monkeypatch):
    without(monkeypatch, "napari", *module.BINDINGS)
    assert wait(module.doctor(speed=False)).problems == ()


def test_formats_that_nothing_opens_come_with_their_extras(monkeypatch):
    without(monkeypatch, "h5py", "nd2")
    told = dict(wait(module.doctor(speed=False)).rows)["formats"]
    opened, missing = told.split("; not installed: ")
    assert {"hdf5", "nd2"} <= {*missing.removeprefix("'napari-unet-stacks[").removesuffix("]'").split(",")}
    assert "ND2" not in opened
    assert "NRRD" in opened


def test_little_memory_is_said(monkeypatch):
    monkeypatch.setattr(module, "memory", lambda: 2**30)
    assert "only 1.0 GiB of memory" in wait(module.doctor(speed=False)).problems[0]


def test_speed_is_that_of_runs_and_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "MEASURED", {"nuclei-2d": (32, 32)})
    monkeypatch.setattr(module, "SECONDS", 0.0)
    told = dict(wait(module.doctor()).rows)["nuclei-2d"]
    rate, whole = float(told.split()[0]), float(told.split()[-2])
    unit = {"minutes": 60, "hours": 3600}[told.split()[-1]]
    assert rate * whole * unit == pytest.approx(1000, rel=0.1)  # million voxels: both are told with two digits
    assert list(tmp_path.iterdir()) == []


def test_the_shell_fails_where_something_is_wrong(monkeypatch):
    whole = CliRunner().invoke(app, ["doctor", "--no-speed"])
    assert whole.exit_code == 0
    assert "nothing is wrong with it" in whole.stdout
    versions(monkeypatch, zarr="2.0")
    damaged = CliRunner().invoke(app, ["doctor", "--no-speed"])
    assert damaged.exit_code == FAILED
    assert "zarr is 2.0" in damaged.stderr
