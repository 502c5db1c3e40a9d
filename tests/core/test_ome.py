"""What other programs make of our results: two readers' view, and two validators'."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_unet.errors import UsageError
from napari_unet.events import wait
from napari_unet.store import ResultStore
from napari_unet.store.ome import Output

SCALE = {"t": 1.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.25}
UNITS = {"t": "second", "c": None, "z": "micrometer", "y": "micrometer", "x": "micrometer"}
SIZES = {"t": 2, "c": 3, "z": 4, "y": 300, "x": 270}
CLASSES = {
    "colors": [{"label-value": 1, "rgba": [255, 0, 0, 255]}, {"label-value": 2, "rgba": [0, 0, 255, 255]}],
    "properties": [{"label-value": 1, "class": "pore"}, {"label-value": 2, "class": "quartz"}],
}


def output(path: str, axes: str, **other: Any) -> Output:
    return Output(
        path,
        "labels" if path.startswith("labels") else "image",
        axes,
        tuple(SIZES[a] for a in axes),
        scale=tuple(SCALE[a] for a in axes),
        units=tuple(UNITS[a] for a in axes),
        chunks=tuple(1 if a in "tc" else 64 for a in axes),
        **other,
    )


def write(root: Path, axes: str, version: str) -> None:
    names = ("red", "green", "blue") if "c" in axes else ()
    labels = output("labels/phases", axes.replace("c", ""), dtype=np.dtype("u1"), attributes=CLASSES)
    image = output("", axes, dtype=np.dtype("u2"), channel_names=names)
    spatial = axes.replace("c", "")
    at = int("t" in axes)
    likely = output(
        "probabilities", f"{spatial[:at]}c{spatial[at:]}", dtype=np.dtype("f2"), channel_names=("a", "b", "c")
    )
    rng = np.random.default_rng(0)
    with ResultStore.create(
        root, [labels, likely, image], blocks=1, settings={}, provenance={}, version=version
    ) as store:
        box = {o.path: tuple(slice(0, n) for n in o.shape) for o in (labels, likely, image)}
        data = {o.path: rng.integers(0, 3, o.shape).astype(o.dtype) for o in (labels, likely, image)}
        store.write(0, {path: (box[path], data[path]) for path in box})
        wait(store.finish())


@pytest.fixture(params=[(v, a) for v in ("0.5", "0.4") for a in ("yx", "zyx", "tczyx")], ids=str)
def result(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, str]:
    version, axes = request.param
    write(tmp_path / "r.ome.zarr", axes, version)
    return tmp_path / "r.ome.zarr", version, axes


def test_the_napari_plugin_shows_image_and_labels_with_scale_and_units(result: tuple[Path, str, str]) -> None:
    reader = pytest.importorskip("napari_ome_zarr._reader")
    root, _, axes = result
    spatial = axes.replace("c", "")
    (image, shown, kind), (labels, label_shown, label_kind) = reader.napari_get_reader(str(root))(str(root))
    assert (kind, label_kind) == ("image", "labels")
    assert image[0].shape == tuple(SIZES[a] for a in axes)
    assert labels[0].shape == tuple(SIZES[a] for a in spatial)
    for found in (shown, label_shown):
        assert found["scale"] == [SCALE[a] for a in spatial]
        assert found["units"] == tuple(UNITS[a] for a in spatial)
        assert found["axis_labels"] == tuple(spatial)
        np.testing.assert_array_equal(found["affine"].translate, 0)
    assert label_shown["properties"] == {"index": [1, 2], "class": ["pore", "quartz"]}
    assert label_shown["colormap"][2] == [0, 0, 1, 1]
    if "c" in axes:
        assert shown["name"] == [f"image: {name}" for name in ("red", "green", "blue")]
        assert [c.name for c in shown["colormap"]] == ["red", "green", "blue"]
    likely = reader.napari_get_reader(str(root / "probabilities"))(str(root / "probabilities"))
    assert likely[0][1]["name"] == [f"probabilities: {name}" for name in "abc"]


def test_two_validators_accept_every_group(result: tuple[Path, str, str]) -> None:
    yaozarrs, models = pytest.importorskip("yaozarrs"), pytest.importorskip("ome_zarr_models")
    root, version, _ = result
    wanted = {"": "Image", "labels/phases": "ImageLabel", "probabilities": "Image", "labels": "Labels"}
    for path, name in wanted.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "Object at .napari_unet", category=UserWarning)
            found = models.open_ome_zarr(zarr.open_group(root / path, mode="r"))
            # Nothing in a labels listing of 0.4 says which version it is.
            if (path, version) != ("labels", "0.4"):
                yaozarrs.validate_zarr_store(str(root / path))
        assert type(found).__name__ == name
        assert f"v{version.replace('.', '')}" in type(found).__module__


def test_pixels_are_no_unit(tmp_path: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    given = Output("", "image", "yx", (8, 8), np.dtype("u1"), units=("pixel", "pixel"))
    with ResultStore.create(tmp_path / "r", [given], blocks=1, settings={}, provenance={}) as store:
        store.write(0, {"": ((slice(0, 8),) * 2, np.zeros((8, 8), "u1"))})
        wait(store.finish())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yaozarrs.validate_zarr_store(str(tmp_path / "r"))
    axes = zarr.open_group(tmp_path / "r", mode="r").attrs["ome"]["multiscales"][0]["axes"]
    assert axes == [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]


def test_a_given_window_is_shown_and_a_measured_one_holds_most_of_the_image(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(1000, 50, (200, 200)).clip(0, 65535).astype("u2")
    data[0, 0] = 60000
    for path, attributes in (("", {}), ("shown", {"window": (0, 255)})):
        given = Output(path, "image", "yx", (200, 200), np.dtype("u2"), attributes=attributes)
        with ResultStore.create(tmp_path / f"r{path}", [given], blocks=1, settings={}, provenance={}) as store:
            store.write(0, {path: ((slice(0, 200),) * 2, data)})
            wait(store.finish())
        window = zarr.open_group(tmp_path / f"r{path}/{path}", mode="r").attrs["ome"]["omero"]["channels"][0]["window"]
        if attributes:
            assert (window["start"], window["end"]) == (0, 255)
        else:
            assert 700 < window["start"] < 900
            assert 1100 < window["end"] < 1300
            assert (window["min"], window["max"]) == (0, 65535)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"path": "cells"}, "labels lie in labels/NAME"),
        ({"kind": "image"}, "images in NAME"),
        ({"kind": "mesh"}, "choose labels or image"),
        ({"dtype": np.dtype("f4")}, "cannot be stored as labels"),
        ({"dtype": np.dtype(bool)}, "cannot be stored as labels"),
        ({"dtype": np.dtype(">u2")}, "native"),
        ({"scale": (1.0,)}, "one per axis"),
        ({"scale": (0.0, 1.0)}, "positive"),
        ({"scale": (float("nan"), 1.0)}, "positive"),
        ({"chunks": (0, 8)}, "positive"),
        ({"chunks": (8, 8), "shards": (12, 16)}, "multiples of the chunks"),
        ({"channel_names": ("a", "b")}, "2 channel names for 1"),
    ],
)
def test_an_output_that_cannot_be_is_refused(changed: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {
        "path": "labels/a",
        "kind": "labels",
        "axes": "yx",
        "shape": (16, 16),
        "dtype": np.dtype("u1"),
    }
    assert Output(**given).chunks == (16, 16)
    with pytest.raises(UsageError, match=said):
        Output(**{**given, **changed})
