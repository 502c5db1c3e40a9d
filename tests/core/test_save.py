"""A stack that is saved is the stack that was saved: values, axes, positions; each chunk read about once."""

import itertools
import json
import shutil
from collections import Counter

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_unet import open_stack, wait
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, OutputError, UsageError
from napari_unet.sources import open_labels
from napari_unet.sources.omezarr import labels_inside
from napari_unet.sources.zarrmeta import read_node
from napari_unet.store import verify
from napari_unet.store.save import BLOCK_BYTES, layout_of, save_stack, storable_name

SIZES = {"t": 2, "c": 3, "z": 5, "y": 33, "x": 47}
COMBINATIONS = ["".join(a for a in p if a) + "yx" for p in itertools.product(("t", ""), ("c", ""), ("z", ""))]


def numbers(shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def whole(stack):
    return stack.read(tuple(slice(0, n) for n in stack.shape))


def made(axes, dtype=np.uint16):
    place = {"t": (1.0, "second", 0.0), "c": (1.0, None, 0.0), "z": (2.0, "micrometer", 10.0)}
    place |= {"y": (0.5, "micrometer", 3.0), "x": (0.25, "micrometer", -4.0)}
    scale, units, translation = zip(*(place[a] for a in axes), strict=True)
    names = ("red", "green", "blue") if "c" in axes else ()
    data = numbers([SIZES[a] for a in axes], dtype)
    return Stack(data, axes, scale, units, translation, name="made", channel_names=names)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", COMBINATIONS)
def test_an_image_comes_back_as_it_was(tmp_path, axes, version):
    stack = made(axes)
    assert wait(save_stack(stack, tmp_path / "a.ome.zarr", version=version)) == tmp_path / "a.ome.zarr"
    again = open_stack(tmp_path / "a.ome.zarr")
    assert np.array_equal(whole(again), stack.data)
    for field in ("axes", "scale", "units", "translation", "channel_names", "dtype"):
        assert getattr(again, field) == getattr(stack, field)
    assert wait(verify(tmp_path / "a.ome.zarr")) == []


@pytest.mark.parametrize("dtype", ["bool", "int16", "uint32", "float32", "float64", ">u2"])
def test_values_of_every_type_come_back(tmp_path, dtype):
    stack = made("zyx", dtype)
    wait(save_stack(stack, tmp_path / "a.zarr"))
    again = open_stack(tmp_path / "a.zarr")
    assert np.array_equal(whole(again), stack.data)
    assert again.dtype == (np.uint8 if dtype == "bool" else np.dtype(dtype).newbyteorder("="))


def test_another_reader_finds_the_same_pixels_scale_and_position(tmp_path):
    reader = pytest.importorskip("napari_ome_zarr")
    stack = made("zyx")
    root = wait(save_stack(stack, tmp_path / "a.ome.zarr"))
    wait(save_stack(made("zyx"), root, kind="labels", name="cells"))
    (image, about, *_), (labels, *_) = reader.napari_get_reader(str(root))(str(root))
    image, labels = (d[0] if isinstance(d, list) else d for d in (image, labels))
    assert np.array_equal(np.asarray(image), stack.data)
    assert np.array_equal(np.asarray(labels), stack.data)
    assert tuple(about["scale"]) == stack.scale


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_go_into_an_image_and_nothing_else_changes(tmp_path, version):
    root = wait(save_stack(made("czyx"), tmp_path / "a.ome.zarr", version=version))
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    labels = made("zyx", np.int64)
    look = {"colors": [{"label-value": 1, "rgba": [255, 0, 0, 255]}]}
    group = wait(save_stack(labels, root, kind="labels", name="cells", attributes=look))
    assert group == root / "labels" / "cells"
    assert all(p.read_bytes() == content for p, content in before.items())
    again = open_labels(root)
    assert again.dtype == np.uint64
    assert np.array_equal(whole(again), labels.data)
    assert again.translation == labels.translation
    assert labels_inside(read_node(str(root))) == ["labels/cells"]
    assert (read_node(str(group)).format == 3) == (version == "0.5")


def test_labels_go_into_images_of_other_programs(tmp_path, shared_data):
    for source in sorted((shared_data / "omezarr_real").glob("*.zarr")):
        root = tmp_path / source.name
        shutil.copytree(source, root)
        image, known = open_stack(root), labels_inside(read_node(str(root)))
        geometry = {field: image.values_along(image.spatial, field) for field in ("scale", "units", "translation")}
        labels = Stack(numbers(image.values_along(image.spatial, "shape"), np.uint8), image.spatial, **geometry)
        wait(save_stack(labels, root, kind="labels", name="new cells"))
        assert labels_inside(read_node(str(root))) == [*known, "labels/new cells"]
        assert np.array_equal(whole(open_labels(root / "labels" / "new cells")), labels.data)
        assert open_stack(root).shape == image.shape


def test_labels_without_an_image_make_a_group_of_their_own(tmp_path):
    labels = made("yx", bool)
    group = wait(save_stack(labels, tmp_path / "a.zarr", kind="labels"))
    assert group == tmp_path / "a.zarr" / "labels" / "made"
    assert whole(open_labels(tmp_path / "a.zarr")).dtype == np.uint8
    assert np.array_equal(whole(open_labels(group)), labels.data)


def test_labels_that_are_none_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match=r"labels are integers; convert it with astype"):
        wait(save_stack(made("yx", np.float32), tmp_path / "a.zarr", kind="labels"))
    negative = made("yx", np.int16)
    negative.data[3, 4] = -7
    with pytest.raises(DataError, match="has the label -7; labels begin at 0"):
        wait(save_stack(negative, tmp_path / "a.zarr", kind="labels"))
    with pytest.raises(UsageError, match="choose labels or image"):
        wait(save_stack(made("yx"), tmp_path / "a.zarr", kind="mask"))
    assert not (tmp_path / "a.zarr").exists()


def test_negative_labels_of_a_lazy_stack_are_refused_on_the_way(tmp_path):
    data = da.from_array(np.full((64, 64), -1, np.int16), chunks=32)
    with pytest.raises(DataError, match="has the label -1"):
        wait(save_stack(Stack(data, "yx"), tmp_path / "a.zarr", kind="labels"))


def test_what_is_there_is_kept(tmp_path):
    wait(save_stack(made("yx"), tmp_path / "a.zarr"))
    with pytest.raises(OutputError, match="finished already"):
        wait(save_stack(made("yx"), tmp_path / "a.zarr"))
    wait(save_stack(made("zyx"), tmp_path / "a.zarr", overwrite=True))
    assert open_stack(tmp_path / "a.zarr").axes == "zyx"


class Counting:
    """An array in chunks that counts how often each was read."""

    def __init__(self, data, chunks):
        self.data, self.chunks, self.reads = data, chunks, Counter()
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim

    def __getitem__(self, box):
        for place in itertools.product(
            *(range(b.start // c, -(-b.stop // c)) for b, c in zip(box, self.chunks, strict=True))
        ):
            self.reads[place] += 1
        return self.data[box]


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((40, 300, 500), (1, 300, 500)),
        ((40, 300, 500), (16, 64, 64)),
        ((40, 300, 500), (7, 90, 130)),
        ((1, 1500, 3000), (1, 1, 3000)),
        ((130, 130, 130), (130, 130, 1)),
        ((200, 200, 200), (200, 200, 200)),
    ],
)
def test_each_chunk_of_the_source_is_read_about_once(tmp_path, shape, chunks):
    source = Counting(numbers(shape), chunks)
    stack = Stack(source, "zyx", source="counted")
    wait(save_stack(stack, tmp_path / "a.zarr"))
    assert len(source.reads) == np.prod([-(-n // c) for n, c in zip(shape, chunks, strict=True)])
    assert max(source.reads.values()) <= 2
    assert np.mean(list(source.reads.values())) <= 1.1
    assert np.array_equal(whole(open_stack(tmp_path / "a.zarr")), source.data)


class Shaped:
    """What a source says of itself, without data."""

    def __init__(self, shape, chunks, dtype="u2"):
        self.shape, self.chunks, self.dtype, self.ndim = shape, chunks, np.dtype(dtype), len(shape)

    def __getitem__(self, box):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("axes", "shape", "chunks"),
    [
        ("zyx", (2000, 4000, 4000), (1, 4000, 4000)),
        ("zyx", (2000, 4000, 4000), (64, 64, 64)),
        ("tczyx", (50, 4, 100, 2048, 2048), (1, 1, 1, 2048, 2048)),
        ("cyx", (3, 50_000, 60_000), (3, 512, 512)),
        ("yx", (100_000, 100_000), (1, 100_000)),
    ],
)
def test_blocks_hold_whole_chunks_of_both_and_stay_small(axes, shape, chunks):
    written, block = layout_of(Stack(Shaped(shape, chunks), axes))
    for b, w, n, source in zip(block, written, shape, chunks, strict=True):
        assert b == n or (b % w == 0 and b >= source)
    assert np.prod(block, dtype=float) * 2 <= max(BLOCK_BYTES, 8 * np.prod(chunks) * 2)
    assert np.prod(written) * 2 >= 2**14


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path):
    data = da.from_array(numbers((6, 1024, 2048), np.float32), chunks=(2, 1024, 1024))
    stack = Stack(data, "zyx", source="somewhere")
    run = save_stack(stack, tmp_path / "a.zarr")
    done = [next(run).done for _ in range(2)]
    run.close()
    with pytest.raises(DataError, match="unfinished"):
        open_stack(tmp_path / "a.zarr")
    again = save_stack(stack, tmp_path / "a.zarr")
    assert next(again).done == done[-1] == 1
    wait(again)
    wait(save_stack(stack, tmp_path / "b.zarr"))
    files = [{p.relative_to(r): p.read_bytes() for p in r.rglob("c/**/*") if p.is_file()} for r in tmp_path.iterdir()]
    assert files[0] == files[1]
    assert len(files[0]) > 4


def test_a_stopped_run_is_not_gone_on_with_from_other_values(tmp_path):
    first, other = made("yx"), made("yx")
    other.data[0, 0] += 1
    run = save_stack(first, tmp_path / "a.zarr")
    next(run)
    run.close()
    with pytest.raises(OutputError, match="other settings"):
        wait(save_stack(other, tmp_path / "a.zarr"))
    wait(save_stack(other, tmp_path / "a.zarr", overwrite=True))
    assert np.array_equal(whole(open_stack(tmp_path / "a.zarr")), other.data)


def test_the_pyramid_and_the_window_are_written(tmp_path):
    stack = Stack(numbers((600, 700)), "yx", scale=(0.5, 0.5), units=("micrometer",) * 2)
    root = wait(save_stack(stack, tmp_path / "a.zarr", attributes={"window": (5, 99)}))
    omero = json.loads((root / "zarr.json").read_text())["attributes"]["ome"]["omero"]
    assert (omero["channels"][0]["window"]["start"], omero["channels"][0]["window"]["end"]) == (5, 99)
    assert open_stack(root, level=1).shape == (300, 350)
    assert zarr.open_array(root / "2", mode="r").shape == (150, 175)


@pytest.mark.parametrize("name", ["cells", "my cells [1]", "../x", "7", "labels", "", "...", "CON", "ünï", "a" * 300])
def test_any_name_becomes_one_that_can_be_stored(tmp_path, name):
    group = wait(save_stack(made("yx"), tmp_path / "a.zarr", kind="labels", name=storable_name(name)))
    assert group.parent == tmp_path / "a.zarr" / "labels"
    assert storable_name("my cells") == "my cells"
