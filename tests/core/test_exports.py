"""What is written for other programs holds the same objects, as their own libraries read it."""

import csv
import json
import math

import numpy as np
import pytest
import roifile
import shapely
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure
from typer.testing import CliRunner

from napari_unet.arrays.stack import Stack
from napari_unet.cli.shell import app
from napari_unet.errors import DataError, OutputError, UsageError
from napari_unet.events import wait
from napari_unet.exports import boxes, export
from napari_unet.exports.features import Ruler, shape_features
from napari_unet.exports.outlines import joined, outlines
from napari_unet.sources import open_labels

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7)))
UM = "micrometer"


def labels(shape=(40, 50), count=9):
    data = np.zeros(shape, np.uint16)
    rng = np.random.default_rng(0)
    for label in range(1, count + 1):
        data[tuple(slice(a := int(rng.integers(0, n - 3)), a + int(rng.integers(3, 9))) for n in shape)] = label
    if len(shape) == 2:
        data[20:30, 20:30], data[23:26, 23:26], data[2, 2], data[3, 3] = 77, 0, 78, 78
    return data


def stored(path, data, axes, chunks=8, **about):
    made = zarr.create_array(str(path), data=data, chunks=(chunks,) * data.ndim, dimension_names=list(axes))
    return Stack(made, axes, name="found", source=str(path), **about)


def inside(ring, shape):
    """Fill a ring by the even-odd rule at the centres of pixels, as ImageJ does."""
    y, x = (grid + 0.5 for grid in np.indices(shape))
    crossings = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
        if y0 != y1:
            at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            crossings += ((y0 > y) != (y1 > y)) & (x < at)
    return crossings % 2 == 1


@settings(deadline=None, max_examples=60)
@given(MASKS)
def test_outlines_filled_again_are_the_mask(mask):
    found = outlines(mask)
    y, x = (grid + 0.5 for grid in np.indices(mask.shape))
    filled = np.zeros(mask.shape, bool)
    for outer, *holes in found:
        polygon = shapely.Polygon(outer, holes)
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        filled |= shapely.contains_xy(polygon, x, y)
    assert (filled == mask).all()
    assert sum(shapely.Polygon(outer, holes).area for outer, *holes in found) == mask.sum()
    if found:
        assert (inside(joined(found), mask.shape) == mask).all()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3))
def test_boxes_do_not_depend_on_blocks(chunks):
    data = labels((6, 10, 12))
    made = zarr.create_array({}, data=data, chunks=tuple(chunks))
    found = boxes.boxes(Stack(made, "zyx"))
    assert list(found) == [(0, int(i)) for i in np.unique(data)[1:]]
    for (_, label), (first, last) in found.items():
        where = np.argwhere(data == label)
        assert (where.min(0) == first).all()
        assert (where.max(0) == last).all()


def test_rois_hold_the_pixels_of_each_object(tmp_path):
    data = labels()
    wait(export(stored(tmp_path / "a.zarr", data, "yx"), tmp_path / "a.zip"))
    found = np.zeros_like(data)
    for roi in roifile.roiread(tmp_path / "a.zip"):
        found[inside(np.add(roi.integer_coordinates, (roi.left, roi.top)), data.shape)] = int(
            roi.name.partition("-")[0]
        )
    assert (found == data).all()
    one = stored(tmp_path / "b.zarr", (data == 77).astype("u1"), "yx")
    wait(export(one, tmp_path / "one.roi"))
    assert roifile.roiread(tmp_path / "one.roi").name.startswith("000001")
    with pytest.raises(DataError, match="one outline"):
        wait(export(stored(tmp_path / "c.zarr", data, "yx"), tmp_path / "many.roi"))


def test_rois_and_features_lie_in_their_planes(tmp_path):
    data = np.stack([labels((5, 20, 24)), labels((5, 20, 24), 4)])
    stack = stored(tmp_path / "a.zarr", data, "tzyx")
    wait(export(stack, tmp_path / "a.zip"))
    wait(export(stack, tmp_path / "a.geojson"))
    planes = {(int(i), t, z) for t in range(2) for z in range(5) for i in np.unique(data[t, z]) if i}
    rois = roifile.roiread(tmp_path / "a.zip")
    assert {(int(r.name[:6]), r.t_position - 1, r.z_position - 1) for r in rois} == planes
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    placed = {
        (f["properties"]["measurements"]["id"], f["geometry"]["plane"]["t"], f["geometry"]["plane"]["z"])
        for f in features
    }
    assert placed == planes


def test_geojson_is_what_qupath_and_shapely_read(tmp_path):
    data = labels()
    wait(export(stored(tmp_path / "a.zarr", data, "yx"), tmp_path / "a.geojson"))
    collection = json.loads((tmp_path / "a.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    y, x = (grid + 0.5 for grid in np.indices(data.shape))
    found = np.zeros_like(data)
    for feature in collection["features"]:
        assert (feature["type"], feature["properties"]["objectType"]) == ("Feature", "detection")
        found[shapely.contains_xy(shapely.from_geojson(json.dumps(feature["geometry"])), x, y)] = int(
            feature["properties"]["name"]
        )
    assert (found == data).all()
    assert len({feature["id"] for feature in collection["features"]}) == len(collection["features"])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("axes", "scale"), [("yx", (0.5, 0.5)), ("zyx", (2.0, 0.5, 0.5))])
def test_shapes_are_those_of_scikit_image_in_micrometres(tmp_path, axes, scale):
    shape = (40, 50) if axes == "yx" else (12, 20, 24)
    data = labels(shape)
    stack = stored(tmp_path / "a.zarr", data, axes, scale=scale, units=(UM,) * len(axes))
    image = np.random.default_rng(1).integers(0, 99, (2, *shape)).astype("u2")
    bright = stored(tmp_path / "i.zarr", image, "c" + axes, channel_names=("DAPI", "GFP"))
    wait(export(stack, tmp_path / "a.csv", bright))
    found = {int(row["id"]): row for row in rows(tmp_path / "a.csv")}
    for region in measure.regionprops(data, np.moveaxis(image, 0, -1), spacing=scale):
        row = found[region.label]
        size = "area" if axes == "yx" else "volume"
        assert float(row[size]) == pytest.approx(region.area)
        assert row["unit"] == UM
        for name, value in zip(axes, region.centroid, strict=True):
            assert float(row[f"centroid_{name}"]) == pytest.approx(value)
        assert [float(row[f"mean_{c}"]) for c in ("DAPI", "GFP")] == pytest.approx(list(region.mean_intensity))
        if axes == "yx":
            for name in ("major", "minor"):  # scikit-image takes pixels for points
                points = getattr(region, f"axis_{name}_length")
                assert float(row[name]) == pytest.approx(math.hypot(points, 4 * scale[0] / math.sqrt(12)), rel=1e-6)
            assert float(row["perimeter"]) == pytest.approx(region.perimeter)
        assert float(row["solidity"]) == pytest.approx(region.solidity, rel=0.35)
        assert 0 < float(row["solidity"]) <= 1 + 1e-9


def test_a_ball_is_as_long_as_it_is_wide():
    grid = np.indices((31,) * 3) - 15
    ball = (grid**2).sum(0) <= 12**2
    found = shape_features(ball, Ruler((1.0,) * 3, "pixel"))
    assert all(
        math.isclose(found[name], 24, rel_tol=0.02) for name in ("major", "middle", "minor", "equivalent_diameter")
    )


def test_parquet_holds_what_csv_does(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    stack = stored(tmp_path / "a.zarr", labels(), "yx")
    wait(export(stack, tmp_path / "a.csv"))
    wait(export(stack, tmp_path / "a.parquet"))
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [{k: str(v) for k, v in row.items()} for row in table] == rows(tmp_path / "a.csv")


@pytest.mark.parametrize("tracks", [False, True])
def test_a_table_of_no_objects_has_the_columns_of_any_other(tmp_path, tracks):
    parquet = pytest.importorskip("pyarrow.parquet")
    data = np.stack([labels(), labels()])
    image = stored(tmp_path / "image.zarr", data, "tyx")
    columns = {}
    for name, values in {"some": data, "none": 0 * data}.items():
        stack = stored(tmp_path / f"{name}.zarr", values, "tyx")
        for ending in ("csv", "parquet"):
            wait(export(stack, tmp_path / f"{name}.{ending}", None if tracks else image, tracks=tracks))
        with (tmp_path / f"{name}.csv").open() as file:
            columns[name, "csv"] = file.readline().strip().split(",")
        table = parquet.read_table(tmp_path / f"{name}.parquet")
        columns[name, "parquet"] = table.column_names
        assert (len(table) > 0) == (name == "some")
    assert len(set(map(tuple, columns.values()))) == 1


def test_tracks_are_what_the_viewer_takes(tmp_path):
    data = np.stack([labels(), np.roll(labels(), 1, 0)])
    stack = stored(tmp_path / "a.zarr", data, "tyx")
    wait(export(stack, tmp_path / "a.csv", tracks=True))
    found = np.genfromtxt(tmp_path / "a.csv", delimiter=",", names=True)
    assert found.dtype.names == ("track_id", "t", "y", "x")
    for label in np.unique(data)[1:]:
        mine = found[found["track_id"] == label]
        assert mine["t"].tolist() == [0, 1]
        assert mine["y"][0] == pytest.approx(np.argwhere(data[0] == label)[:, 0].mean())
    with pytest.raises(DataError, match="no time points"):
        wait(export(stored(tmp_path / "b.zarr", data[0], "yx"), tmp_path / "b.csv", tracks=True))


def test_the_command_writes_each_kind_and_replaces_only_when_told(tmp_path):
    data = labels()
    stored(tmp_path / "a.zarr", data, "yx")
    for name in ("a.tif", "a.ome.tif", "a.zip", "a.geojson", "a.csv"):
        call = ["export", str(tmp_path / "a.zarr"), "--to", str(tmp_path / name)]
        assert CliRunner().invoke(app, call).exit_code == 0
        assert CliRunner().invoke(app, call).exit_code == OutputError.exit_code
        assert CliRunner().invoke(app, [*call, "--overwrite"]).exit_code == 0
    assert (tifffile.imread(tmp_path / "a.tif") == data).all()
    assert not list(tmp_path.glob("*.partial"))
    for name, error in (("a.png", UsageError), ("a.geojson/x.csv", OutputError)):
        assert CliRunner().invoke(app, ["export", str(tmp_path / "a.zarr"), "--to", str(tmp_path / name)]).exit_code, (
            error
        )


@pytest.mark.parametrize("name", ["a.csv", "a.ome.tif", "a.zip"])
def test_the_folder_of_a_file_is_made(tmp_path, name):
    stored(tmp_path / "a.zarr", labels(), "yx")
    wait(export(tmp_path / "a.zarr", tmp_path / "new" / "folder" / name))
    assert (tmp_path / "new" / "folder" / name).is_file()


def test_an_object_too_large_for_memory_is_named_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(boxes, "LARGEST", 60)
    said = [event.message for event in export(stored(tmp_path / "a.zarr", labels(), "yx"), tmp_path / "a.csv")]
    assert "left out: " in said[-1]
    assert "77" in said[-1]
    assert "77" not in {row["id"] for row in rows(tmp_path / "a.csv")}
    assert open_labels(tmp_path / "a.zarr").shape == (40, 50)
