"""Intensities of large images: a specimen in a dark field is seen, however the image is stored."""

import json
import shutil

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr

from napari_unet.arrays.stack import Stack
from napari_unet.arrays.views import LazyBase, Zeros
from napari_unet.errors import DataError
from napari_unet.inference.preflight import _as_measured
from napari_unet.inference.prepare import _kept
from napari_unet.intensities import normalise, sampling
from napari_unet.intensities.normalise import Normalisation, Statistics
from napari_unet.sources import open_stack

SIDE = 1450  # a little over 2^21 elements


@pytest.fixture
def in_units(monkeypatch):
    """A slide counts as large, and is read in more than one unit."""
    monkeypatch.setattr(sampling, "UNIT", 2**21)
    monkeypatch.setattr(normalise, "WHOLE", 2**20)


def slide(side=SIDE, field=0, at=(750, 175), share=0.03, dtype=np.uint8, noise=0):
    """A dark field with one bright specimen, of `share` of its area."""
    rng = np.random.default_rng(1)
    data = np.full((side, side), field, dtype)
    if noise:
        data += rng.integers(0, noise, data.shape, dtype=np.uint8)
    edge = int(side * share**0.5)
    part = data[at[0] : at[0] + edge, at[1] : at[1] + edge]
    part[...] = rng.integers(field + 20, field + 200, part.shape).astype(dtype)
    return data


def as_zarr(data, path, chunks, **more):
    array = zarr.create_array(path, shape=data.shape, dtype=data.dtype, chunks=chunks, **more)
    array[...] = data
    return array


WAYS = {
    "numpy": lambda data, folder: data,
    "sparse zarr": lambda data, folder: open_stack(as_zarr(data, folder / "a.zarr", (128, 128)).store.root, "yx"),
    "dense zarr": lambda data, folder: as_zarr(
        data, folder / "b.zarr", (175, 225), config={"write_empty_chunks": True}
    ),
    "sharded": lambda data, folder: as_zarr(data, folder / "s.zarr", (50, 145), shards=(250, 725)),
    "dask": lambda data, folder: da.from_array(data, chunks=(250, 194)),
    "tiled tiff": lambda data, folder: _tiff(data, folder / "c.tif", tile=(64, 64), compression="zlib"),
    "strips": lambda data, folder: _tiff(data, folder / "d.tif", compression="zlib", rowsperstrip=16),
}


def _tiff(data, path, **how):
    tifffile.imwrite(path, data, **how)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_what_is_measured_depends_on_the_image_and_not_on_how_it_is_stored(way, tmp_path, in_units):
    data = slide()
    want = Normalisation().measure(Stack(data=data, axes="yx"))
    assert want.scale[0] > 150
    stack = open_stack(WAYS[way](data, tmp_path), axes="yx")
    assert Normalisation().measure(stack) == want
    assert Normalisation("zscore").measure(stack) == Normalisation("zscore").measure(Stack(data=data, axes="yx"))


@pytest.mark.parametrize("at", [(0, 0), (SIDE - 251, SIDE - 251), (17, 1000), (650, 650), (1175, 3)])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_specimen_in_a_noisy_field_is_seen_wherever_it_lies(at, dtype, in_units):
    data = slide(field=100, at=at, noise=9, dtype=dtype)
    found = Normalisation().measure(Stack(data=data, axes="yx"))
    low, high = np.percentile(data, (1, 99.8))
    assert found.offset[0] == pytest.approx(low, abs=1)
    assert found.offset[0] + found.scale[0] == pytest.approx(high, abs=4)


@pytest.mark.parametrize(
    ("axes", "shape", "chunks", "place"),
    [
        ("yx", (2**20, 2**20), (1024, 1024), (500_000, 900_000)),
        ("zyx", (4000, 30_000, 30_000), (64, 64, 64), (3000, 5, 29_000)),
        ("tyx", (500, 20_000, 20_000), (1, 1000, 1000), (444, 7, 19_000)),
        ("czyx", (2, 1000, 20_000, 20_000), (1, 16, 256, 256), (1, 900, 900, 12_345)),
        ("tczyx", (9, 2, 100, 20_000, 20_000), (1, 1, 10, 200, 300), (8, 0, 99, 10, 11_000)),
    ],
)
def test_of_a_sparse_store_the_stored_chunks_are_measured(axes, shape, chunks, place, tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=shape, chunks=chunks, dtype="u2", dimension_names=axes)
    rng = np.random.default_rng(0)
    size = [1 if a in "tc" else min(n - p, 70) for a, n, p in zip(axes, shape, place, strict=True)]
    array[tuple(slice(p, p + s) for p, s in zip(place, size, strict=True))] = rng.integers(500, 4000, size, "u2")
    found = Normalisation().measure(open_stack(tmp_path / "a.zarr"))
    channel = place[axes.index("c")] if "c" in axes else 0
    assert found.scale[channel] > 2000
    assert all(s == 0 for i, s in enumerate(found.scale) if i != channel)


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("kind", ["percentile", "zscore"])
def test_a_large_image_of_one_value_is_constant(value, kind, tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(2**17, 2**17), chunks=(999, 999), dtype="u2", fill_value=value)
    found = Normalisation(kind).measure(open_stack(tmp_path / "a.zarr", "yx"))
    assert (found.offset, found.scale) == ((float(value),), (0.0,))


def test_stored_chunks_of_one_value_beside_others_that_are_not_stored_are_not_constant(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2**15, 2**15), chunks=(512, 512), dtype="u1")
    array[512:1024, :512] = 9
    found = Normalisation().measure(open_stack(tmp_path / "a.zarr", "yx"))
    assert found.scale[0] > 8


def test_a_cut_of_a_sparse_store_is_measured_where_it_is_stored(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(3, 2**16, 2**16), chunks=(1, 512, 512), dtype="u2")
    array[0, :512, :512] = 9000
    array[2, 40_000:40_100, 50_000:50_200] = np.random.default_rng(0).integers(1, 100, (100, 200), "u2")
    stack = open_stack(tmp_path / "a.zarr", "zyx").select(z=2, x=slice(300, 60_001))
    assert 80 < Normalisation().measure(stack).scale[0] < 100


class Tiles(LazyBase):
    """A square tile many times beside itself."""

    def __init__(self, tile, times):
        self.base, self.times = tile, times

    @property
    def shape(self):
        return tuple(n * self.times for n in self.base.shape)

    @property
    def chunks(self):
        return self.base.shape

    def read(self, box):
        y, x = (np.arange(part.start, part.stop) % n for part, n in zip(box, self.base.shape, strict=True))
        return self.base[y[:, None], x]


def test_a_large_image_is_sampled_the_same_every_time_and_close_to_the_whole(tmp_path):
    rng = np.random.default_rng(3)
    tile = rng.gamma(2.0, 300.0, (2048, 2048)).astype(np.uint16)
    image = Tiles(tile, 16)
    found = [Normalisation().measure(Stack(data=image, axes="yx")) for _ in range(2)]
    assert found[0] == found[1]
    want = np.percentile(tile, (1, 99.8))
    assert found[0].offset[0] == pytest.approx(want[0], abs=0.01 * want[1])
    assert found[0].offset[0] + found[0].scale[0] == pytest.approx(want[1], rel=0.02)


@pytest.mark.parametrize(
    ("axes", "shape", "edge"),
    [
        ("yx", (32768, 32768), 5),
        ("yx", (20000, 70000), 6),
        ("zyx", (1024, 2048, 2048), 6),
        ("cyx", (3, 32768, 40000), 5),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_small_part_of_the_field_is_among_the_first_cells_wherever_it_lies(axes, shape, edge, seed):
    stack = Stack(data=Zeros(shape, np.dtype("u1")), axes=axes)
    size, seen = sampling.cell_of(stack), 0
    grid = np.zeros([-(-n // s) for n, s in zip(shape, size, strict=True)], bool)
    for boxes in sampling._rounds(stack, size, seed):
        for box in boxes:
            place = tuple(part.start // s for part, s in zip(box, size, strict=True))
            assert not grid[place]
            grid[place] = True
        seen += len(boxes)
        if seen >= sampling.ENOUGH:
            break
    grid = grid.any(0) if axes == "cyx" else grid
    windows = np.lib.stride_tricks.sliding_window_view(grid, (edge,) * grid.ndim)
    assert windows.any(tuple(range(grid.ndim, 2 * grid.ndim))).all()


@pytest.mark.parametrize(("cells", "kept"), [(0, True), (1, True), (2, False)])
def test_a_run_goes_on_with_what_a_former_version_measured_of_other_cells(cells, kept):
    earlier = Statistics((1.0,), (5.0,), cells=cells)
    now = Statistics((2.0,), (6.0,), cells=2)
    assert _kept(now, Statistics.from_json(earlier.to_json())).scale == ((5.0,) if kept else (6.0,))
    settings = {"intensities": earlier.to_json()}
    assert _as_measured(now, settings) == (earlier if kept else now).to_json()


def test_of_a_large_image_damaged_parts_are_left_out_and_one_all_damaged_is_refused(tmp_path, in_units):
    array = as_zarr(slide(share=0.2), tmp_path / "a.zarr", (512, 512))
    chunks = [p for p in (tmp_path / "a.zarr" / "c").rglob("*") if p.is_file()]
    chunks[0].write_bytes(b"torn")
    found = Normalisation().measure(open_stack(tmp_path / "a.zarr", "yx"))
    assert found.unreadable and found.scale[0] > 150
    for number in np.ndindex(array.cdata_shape):
        path = tmp_path / "a.zarr" / "c" / "/".join(map(str, number))
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"torn")
    with pytest.raises(DataError, match=r"a\.zarr"):
        Normalisation().measure(open_stack(tmp_path / "a.zarr", "yx"))


LEVELLED = (3, 512, 512)  # of cells of 32 x 32 there are 256 in a plane


def _levels(way, folder, data, chunks=(1, 32, 32), **how):
    """Write a pyramid of three levels: means, or every other pixel; what opens as it."""
    coarse = [data, data[:, ::2, ::2], data[:, ::4, ::4]]
    if way == "tiff":
        with tifffile.TiffWriter(folder / "a.ome.tif", bigtiff=True) as file:
            more = {"photometric": "minisblack", "tile": (32, 32), "compression": "zlib"}
            file.write(data, subifds=2, metadata={"axes": "ZYX"}, **more)
            for level in coarse[1:]:
                file.write(level, subfiletype=1, **more)
        return folder / "a.ome.tif"
    root = folder / "a.ome.zarr"
    for i, level in enumerate(coarse):
        where = f"{'scale' if way == 'inner' else ''}{i}{'/image' if way == 'inner' else ''}"
        as_zarr(level, root / where, chunks, config={"write_empty_chunks": True}, **how)
    paths = [f"scale{i}/image" if way == "inner" else str(i) for i in range(3)]
    steps = [[{"type": "scale", "scale": [1, 2**i, 2**i]}] for i in range(3)]
    datasets = [{"path": p, "coordinateTransformations": s} for p, s in zip(paths, steps, strict=True)]
    axes = [{"name": a, "type": "space"} for a in "zyx"]
    attributes = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}}
    (root / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    return root


PYRAMIDS = {
    "group": ("plain", {}, lambda stack: stack),
    "levels in groups of their own": ("inner", {}, lambda stack: stack),
    "shards": ("plain", {"chunks": (1, 32, 32), "shards": (3, 128, 128)}, lambda stack: stack),
    "tiff": ("tiff", {}, lambda stack: stack),
    "a part": ("plain", {}, lambda stack: stack.select(z=slice(1, 3), y=slice(37, 501), x=slice(5, 512))),
    "a plane": ("plain", {}, lambda stack: stack.select(z=2)),
    "a coarser level itself": ("plain", {}, None),
}


@pytest.mark.parametrize("kind", PYRAMIDS)
@pytest.mark.parametrize("at", [(2, 490, 130)])
def test_a_pyramid_shows_where_the_content_is(kind, at, tmp_path, monkeypatch):
    """Few cells of an image that is stored whole are read, and what is measured is as of all of them."""
    way, how, part = PYRAMIDS[kind]
    monkeypatch.setattr(sampling, "CELL", {2: (32, 32), 3: (1, 32, 32)})
    monkeypatch.setattr(sampling, "ALL_OF_IT", 2**14)
    monkeypatch.setattr(sampling, "ROUNDS_BESIDE", 1)
    data = np.full(LEVELLED, 7, "u1")
    z, y, x = at
    data[z, y : y + 8, x : x + 30] = np.random.default_rng(0).integers(50, 250, (8, 30), "u1")
    path = _levels(way, tmp_path, data, **how)
    stack = open_stack(path, level=1) if part is None else part(open_stack(path))
    read = []

    def reading(box):
        read.append(box)
        return iter([(box, stack.read(box))])

    def measured(of):
        return sampling.sample(of, lambda pool: tuple(pool.percentiles((1, 99.8))), reading).pools[0]

    found = measured(stack)
    few, all_of_it = len(read), np.asarray(stack.read(tuple(slice(0, n) for n in stack.shape)))
    read.clear()
    want = measured(Stack(data=all_of_it, axes=stack.axes))
    assert few <= 2 * sampling.FIRST < 100 < len(read)
    assert found.cells >= 1 and (found.counts == want.counts).all()


@pytest.mark.parametrize("lost", ["of one value", "of noise alone", "another number of axes", "damaged", "gone"])
def test_levels_that_show_nothing_change_nothing(lost, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CELL", {2: (32, 32), 3: (1, 32, 32)})
    monkeypatch.setattr(sampling, "ALL_OF_IT", 2**14)
    data = np.full((2, 256, 256), 7, "u1")
    data[1, 40:48, 200:230] = np.random.default_rng(0).integers(50, 250, (8, 30), "u1")
    root = _levels("plain", tmp_path, data)
    for i in (1, 2):
        if lost in ("damaged", "gone"):
            shutil.rmtree(root / f"{i}" / "c")
            (root / f"{i}" / "zarr.json").write_text("{") if lost == "damaged" else shutil.rmtree(root / str(i))
            continue
        shape = (128, 128) if lost.startswith("another") else (2, 256 >> i, 256 >> i)
        level = np.random.default_rng(0).integers(0, 9, shape, "u1") * ("noise" in lost)
        as_zarr(level, root / str(i), (64,) * len(shape), overwrite=True)
    found = Normalisation().measure(open_stack(root))
    assert found == Normalisation().measure(Stack(data=data, axes="zyx"))
