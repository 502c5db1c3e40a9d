"""A TIFF holds what the stack does, opens in other readers, and is there whole or not at all."""

import itertools

import numpy as np
import pytest
import tifffile
import zarr

from helpers import FP32, image_of, stopped_after
from kinds import KINDS, small
from napari_unet import PredictConfig, Stack, open_labels, open_stack, predict, save_tiff, wait
from napari_unet.errors import DataError, OutputError, UnsafeError, UsageError
from napari_unet.store import tiff

SIZES = {"t": 2, "c": 3, "z": 5, "y": 33, "x": 47}
SCALE = {"t": 2.5, "c": 1.0, "z": 2.0, "y": 0.25, "x": 0.5}
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
AXES = [f"{t}{c}{z}yx" for t, c, z in itertools.product(("", "t"), ("", "c"), ("", "z"))]


def stack_of(axes, dtype="u2", top=200, **more):
    data = np.random.default_rng(0).integers(0, top, [SIZES[a] for a in axes]).astype(dtype)
    fields = {"scale": tuple(SCALE[a] for a in axes), "units": tuple(UNITS.get(a) for a in axes)} | more
    return Stack(data, axes, **fields)


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "f4", "i2", "u4", "f8", "?", "f2"])
def test_what_is_written_is_read_back(axes, dtype, name, tmp_path):
    stack = stack_of(axes, dtype, top=2 if dtype == "?" else 200)
    wait(save_tiff(stack, tmp_path / name))
    with tifffile.TiffFile(tmp_path / name) as file:
        assert file.is_imagej == (name == "a.tif" and dtype in ("u1", ">u2", "f4", "?", "f2"))
        assert file.is_ome != file.is_imagej
        assert file.series[0].axes.lower() == "".join(a for a in "tzcyx" if a in axes)
    found = open_stack(tmp_path / name)
    assert (found.axes, found.scale, found.units) == (axes, stack.scale, stack.units)
    assert np.array_equal(np.asarray(found.data[...]), stack.data)
    assert files_of(tmp_path) == [name]


@pytest.mark.parametrize(
    ("units", "scale", "word"),
    [
        (("micrometer", "nanometer", "nanometer"), (1.0, 100.0, 50.0), "nm"),
        (("angstrom",) * 3, (4.0, 2.0, 2.0), "angstrom"),
        (("millimeter",) * 3, (0.5, 0.125, 0.125), "mm"),
        ((None,) * 3, (2.0, 0.5, 0.5), "pixel"),
    ],
)
def test_imagej_is_told_the_pixel_size_in_one_unit(units, scale, word, tmp_path):
    wait(save_tiff(stack_of("zyx", units=units, scale=scale), tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        per_x, per_y = file.pages.first.resolution
        about = file.imagej_metadata
    factor = 1000 if units[0] == "micrometer" else 1
    assert about["unit"] == word
    assert (about["spacing"], 1 / per_y, 1 / per_x) == pytest.approx((scale[0] * factor, *scale[1:]))


def test_channels_keep_their_names(tmp_path):
    names = ("DAPI", "<GFP> & more", "\x1b[31m")
    for name in ("a.tif", "a.ome.tif"):
        wait(save_tiff(stack_of("czyx", channel_names=names), tmp_path / name))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.imagej_metadata["Labels"][:3] == ["DAPI", "<GFP> & more", "\\x1b[31m"]
    assert open_stack(tmp_path / "a.ome.tif").channel_names == ("DAPI", "<GFP> & more", "\\x1b[31m")


@pytest.mark.parametrize(
    ("top", "dtype", "written"), [(65535, "u4", "u2"), (65536, "u4", "u4"), (70_000, "i8", "u4"), (9, "u1", "u1")]
)
def test_labels_have_the_fewest_bits_that_hold_them(top, dtype, written, tmp_path):
    labels = np.zeros((5, 33, 47), dtype)
    labels[4, 32, 46] = top
    wait(save_tiff(Stack(labels, "zyx"), tmp_path / "a.tif", kind="labels"))
    found = open_labels(tmp_path / "a.tif")
    assert found.dtype == written and np.array_equal(np.asarray(found.data[...]), labels)


@pytest.mark.parametrize("axes", ["yx", "zyx", "tczyx"])
@pytest.mark.parametrize("kind", ["image", "labels"])
def test_however_it_is_cut_the_file_holds_the_same(axes, kind, tmp_path, monkeypatch):
    """Planes one at a time, planes in tiles, and offsets of 64 bits, as of large files."""
    axes = axes.replace("c", "") if kind == "labels" else axes
    array = zarr.create_array(tmp_path / "a.zarr", shape=[SIZES[a] for a in axes], dtype="u2", chunks=[4] * len(axes))
    array[...] = stack_of(axes).data
    monkeypatch.setattr(tiff, "TILE", 16)
    for name, limit in (("SLAB_BYTES", 1), ("PLANE_BYTES", 1000), ("CLASSIC_BYTES", 1000)):
        monkeypatch.setattr(tiff, name, limit)
        wait(save_tiff(open_stack(tmp_path / "a.zarr", axes), tmp_path / f"{name}.tif", kind=kind))
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as file:
            assert file.pages.first.is_tiled == (name != "SLAB_BYTES")
            assert file.is_bigtiff == (name == "CLASSIC_BYTES")
        assert np.array_equal(np.asarray(open_stack(tmp_path / f"{name}.tif").data[...]), array[...])


def test_a_write_that_stops_leaves_nothing_and_a_file_is_replaced_only_when_it_is_ours(tmp_path):
    path, stack = tmp_path / "a.tif", stack_of("zyx")
    work = save_tiff(stack, path)
    next(e for e in work if e.done == 3)
    work.close()
    assert files_of(tmp_path) == []
    wait(save_tiff(stack, path))
    with pytest.raises(OutputError, match="--overwrite"):
        wait(save_tiff(stack, path))
    wait(save_tiff(stack_of("yx"), path, overwrite=True))
    assert open_stack(path).axes == "yx"
    tifffile.imwrite(tmp_path / "mine.tif", np.zeros((4, 4)))
    (tmp_path / "text.tif").write_text("years of work")
    (tmp_path / "link.tif").symlink_to(path)
    (tmp_path / "folder.tif").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    for name in ("mine.tif", "text.tif", "link.tif", "folder.tif"):
        with pytest.raises((OutputError, UnsafeError), match=name):
            wait(save_tiff(stack, tmp_path / name, overwrite=True))
    with pytest.raises(OutputError, match="where the image"):
        wait(save_tiff(open_stack(path), path, overwrite=True))
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


@pytest.mark.parametrize(
    ("stack", "kind", "says"),
    [
        (stack_of("yx", "i8"), "image", "int64"),
        (stack_of("yx", "c8"), "image", "complex64"),
        (stack_of("yx", "f4"), "labels", "integers"),
        (Stack(np.full((4, 4), -1), "yx"), "labels", "label -1"),
        (Stack(np.full((4, 4), 2**33), "yx"), "labels", "OME-Zarr"),
    ],
)
def test_numbers_that_a_tiff_cannot_hold_are_refused(stack, kind, says, tmp_path):
    with pytest.raises(DataError, match=says):
        wait(save_tiff(stack, tmp_path / "a.tif", kind=kind))
    assert files_of(tmp_path) == []
    with pytest.raises(UsageError, match=r"\.tif"):
        wait(save_tiff(stack, tmp_path / "a.ome.zarr"))


@pytest.mark.parametrize(("kind", "ndim"), [*((kind, 2) for kind in KINDS), ("instances", 3)])
def test_a_prediction_is_written_as_tiff_wherever_it_was_stopped(kind, ndim, tmp_path):
    model, size = KINDS[kind](ndim), (60, 40, 40)[:ndim]
    stack = Stack(image_of(size), "zyx"[-ndim:], scale=(0.5,) * ndim, units=("micrometer",) * ndim)
    config = PredictConfig(block=(24, 24, 24)[:ndim], overview=False, **FP32)
    whole = wait(predict(stack, model, tmp_path / "whole.ome.zarr", config))
    path = tmp_path / "out" / "cut.tif"
    stopped_after(1, predict(stack, model, path, config))
    assert not path.exists()
    for stage in ("verify", "tiff"):
        work = predict(stack, model, path, config)
        assert any(event.stage == stage for event in work)
        work.close()
        assert not path.exists()
    found = wait(predict(stack, model, path, config))
    assert (found.axes, found.scale, found.units) == (whole.axes, whole.scale, whole.units)
    assert np.array_equal(np.asarray(found.data[...]), np.asarray(whole.data[...]))
    table = ["out/cut.objects.csv"] * (kind == "instances")
    assert [name for name in files_of(tmp_path) if name.startswith("out/")] == [*table, "out/cut.tif"]
    with pytest.raises(OutputError, match="--overwrite"):
        wait(predict(stack, model, path, config))
    wait(predict(stack, model, path, PredictConfig(block=(24, 24, 24)[:ndim], overwrite=True, **FP32)))


def test_a_prediction_leaves_what_is_not_its_own(tmp_path):
    stack = Stack(image_of((40, 40)), "yx")
    path, scratch = tmp_path / "a.tif", tmp_path / "a.tif.ome.zarr"
    config = PredictConfig(**FP32, overwrite=True)
    with pytest.raises(UsageError, match="probabilities"):
        wait(predict(stack, small(), path, PredictConfig(probabilities=True, **FP32)))
    for name in ("a.tif", "a.tif.ome.zarr"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match=name):
            wait(predict(stack, small(), path, config))
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    scratch.mkdir()
    (scratch / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        wait(predict(stack, small(), path, config))
    assert files_of(tmp_path) == ["a.tif.ome.zarr/notes.txt"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_store_that_was_left_beside_its_tiff_is_removed_and_that_of_a_later_run_is_not(finished, tmp_path):
    stack, config = Stack(image_of((40, 40)), "yx"), PredictConfig(overview=False, **FP32)
    path, scratch = tmp_path / "a.tif", tmp_path / "a.tif.ome.zarr"
    if not finished:
        wait(save_tiff(Stack(np.zeros((40, 40), np.uint8), "yx"), path, kind="labels"))
    result = wait(predict(stack, small(), scratch, config))
    if finished:
        wait(save_tiff(result, path, kind="labels"))
    with pytest.raises(OutputError, match="--overwrite"):
        wait(predict(stack, small(), path, config))
    assert scratch.exists() != finished


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.png", "a.jpeg"])
def test_a_store_has_no_name_of_a_picture(name, tmp_path):
    from napari_unet.store.save import save_stack

    with pytest.raises(UsageError, match=r"a\.ome\.zarr"):
        wait(save_stack(stack_of("yx"), tmp_path / name))
    assert files_of(tmp_path) == []
