"""Arrays of results made and read without zarr's event loop: the same files, the same values, the same refusals."""

import os

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec

from helpers import FP32, cells, tree
from kinds import finder
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.objects import InMemory
from napari_unet.sources.zarrays import open_own
from napari_unet.store.arrays import ZLIB, ZSTD_LEVEL, Layout, new_array
from napari_unet.store.chunks import read_box

FSYNCS = 18  # of one result with objects: 12 files of its store, and the folders whose entries have to last


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "f2", "f4", "f8"])
@pytest.mark.parametrize(("zarr_format", "shards"), [(3, None), (3, (2, 64, 96)), (2, None)])
def test_the_files_of_an_array_are_those_that_zarr_writes(tmp_path, dtype, zarr_format, shards):
    shape, chunks = (5, 70, 100), (1, 32, 48)
    made = new_array(tmp_path / "ours", Layout(shape, chunks, shards, np.dtype(dtype), "zyx", zarr_format))
    common = {"shape": shape, "chunks": chunks, "dtype": dtype, "fill_value": 0, "zarr_format": zarr_format}
    if zarr_format == 3:
        packing = ZstdCodec(level=ZSTD_LEVEL, checksum=True)
        zarr.create_array(tmp_path / "its", compressors=packing, shards=shards, dimension_names=list("zyx"), **common)
    else:
        keys = {"name": "v2", "separator": "/"}
        zarr.create_array(tmp_path / "its", compressors=ZLIB, chunk_key_encoding=keys, **common)
        (tmp_path / "its" / ".zattrs").unlink()
    assert tree(tmp_path / "ours") == tree(tmp_path / "its")
    opened = open_own(tmp_path / "ours", "r+")
    assert made.metadata == opened.metadata == zarr.open_array(tmp_path / "ours").metadata
    opened[:2] = 3
    assert (np.asarray(made[:]) == 3).sum() == 2 * 70 * 100


@settings(deadline=None, max_examples=25)
@given(st.data(), st.sampled_from([2, 3]))
def test_a_box_is_read_as_zarr_reads_it(tmp_path_factory, data, zarr_format):
    folder = tmp_path_factory.mktemp("a")
    shape = tuple(data.draw(st.integers(1, 40)) for _ in range(2))
    array = new_array(folder, Layout(shape, (16, 12), None, np.dtype("u2"), "yx", zarr_format))
    values = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint16)
    values[:16] = 0  # chunks that are not there
    array[:] = values
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    box = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(low, shape, strict=True))
    for each in (array, open_own(folder)):
        np.testing.assert_array_equal(read_box(each, box), values[box])


@pytest.mark.parametrize("damage", ["cut", "flipped", "another size", "unpacks without end"])
def test_a_damaged_chunk_is_refused(tmp_path, damage):
    array = new_array(tmp_path, Layout((32, 32), (32, 32), None, np.dtype("u2"), "yx", 3))
    array[:] = np.arange(32 * 32).reshape(32, 32)
    file = tmp_path / "c" / "0" / "0"
    raw = file.read_bytes()
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 16
    sizes = {"another size": 100, "unpacks without end": 2**26}
    new = {"cut": raw[:-9], "flipped": bytes(flipped)} | {k: Zstd().encode(bytes(n)) for k, n in sizes.items()}
    file.write_bytes(new[damage])
    with pytest.raises((ValueError, RuntimeError)):
        read_box(array, (slice(0, 32), slice(0, 32)))


def test_objects_of_a_small_image_are_found_in_memory_with_few_syncs(tmp_path, monkeypatch):
    synced, kept = [], []
    sync, keep = os.fsync, InMemory.save
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(number), sync(number)))
    monkeypatch.setattr(InMemory, "save", lambda self, *rest: (kept.append(rest[0]), keep(self, *rest)))
    stack = cells((48, 48))
    small = wait(predict(stack, finder(), tmp_path / "a", PredictConfig(**FP32))).data[...]
    assert kept == ["scan-0", "ids", "paint-0"]
    assert len(synced) <= FSYNCS
    kept.clear()
    cut = wait(predict(stack, finder(), tmp_path / "b", PredictConfig(**FP32, block=(16, 16)))).data[...]
    assert not kept
    assert small.max() > 1
    np.testing.assert_array_equal(small, cut)
