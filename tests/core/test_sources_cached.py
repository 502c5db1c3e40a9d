"""What is read through the cache is what is there, and each chunk is read once while it is kept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.arrays.cached import ChunkCache, Recent, cached, chunk_edges
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError
from napari_unet.sources import open_stack


class Counted:
    """A chunked array that counts how often each element is read."""

    def __init__(self, data, chunks):
        self.data_, self.chunks, self.hits = data, chunks, np.zeros(data.shape, int)
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim

    def __getitem__(self, key):
        self.hits[key] += 1
        return self.data_[key]


@st.composite
def cuts(draw):
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    chunks = [draw(st.integers(1, n)) for n in shape]
    boxes = []
    for _ in range(draw(st.integers(1, 5))):
        starts = [draw(st.integers(0, n - 1)) for n in shape]
        boxes.append(tuple(slice(a, draw(st.integers(a, n))) for a, n in zip(starts, shape, strict=True)))
    return shape, chunks, boxes


@settings(deadline=None)
@given(cuts())
def test_regions_are_those_of_the_array_and_chunks_are_read_once(drawn):
    shape, chunks, boxes = drawn
    data = np.arange(np.prod(shape)).reshape(shape)
    base = Counted(data, tuple(chunks))
    kept = ChunkCache(base, chunk_edges(base), data.nbytes)
    for box in boxes:
        np.testing.assert_array_equal(kept[box], data[box])
    assert base.hits.max() <= 1


def test_no_more_is_kept_than_the_limit():
    base = Counted(np.zeros((64, 64), np.uint8), (8, 8))
    kept = ChunkCache(base, chunk_edges(base), 8 * 8 * 4)
    _ = kept[0:64, 0:64], kept[56:64, 32:64]
    assert base.hits.max() == 1
    _ = kept[0:8, 0:8]
    assert base.hits.max() == 2
    assert len([*kept._kept]) <= 4


def test_large_chunks_are_read_a_few_at_a_time():
    """Frames of a camera under a column of an image are not all in memory at once."""
    read = []

    class Frames(Counted):
        def __getitem__(self, key):
            read.append(np.prod([part.stop - part.start for part in key]))
            return super().__getitem__(key)

    data = np.random.default_rng(0).integers(0, 255, (40, 16, 16)).astype(np.uint8)
    base = Frames(data, (1, 16, 16))
    kept = ChunkCache(base, chunk_edges(base), 8 * 256)
    np.testing.assert_array_equal(kept[0:40, 3:5, 7:9], data[:, 3:5, 7:9])
    assert max(read) <= 2 * 256 and base.hits.max() == 1


@pytest.mark.parametrize("kind", ["zarr", "dask", "irregular"])
def test_stacks_of_chunks_are_cached_below_their_view(kind):
    data = np.random.default_rng(0).integers(0, 99, (5, 6, 40, 50)).astype(np.uint16)
    if kind == "zarr":
        array = zarr.array(data, chunks=(2, 3, 16, 16))
    else:
        array = da.from_array(data, chunks=((2, 3), 6, (7, 33), 50) if kind == "irregular" else (2, 3, 16, 16))
    stack = open_stack(array, "zcyx")
    kept = cached(stack)
    assert kept.data is not stack.data
    np.testing.assert_array_equal(np.asarray(kept.data), data.swapaxes(0, 1))
    np.testing.assert_array_equal(kept.select(c=2).data[1:3, 5:9, 4], data[1:3, 2, 5:9, 4])


def test_what_is_in_memory_or_in_huge_chunks_stays_as_it_is():
    plain = Stack(np.zeros((8, 8)), "yx")
    assert cached(plain) is plain
    huge = Stack(da.zeros((8, 8), chunks=8), "yx")
    assert cached(huge, limit=64) is huge


def test_threads_read_side_by_side_and_no_chunk_twice():
    both, third = threading.Barrier(2, timeout=30), threading.Event()

    class Met(Counted):
        def __getitem__(self, key):
            both.wait()
            third.set()
            return super().__getitem__(key)

    data = np.arange(64).reshape(8, 8)
    base = Met(data, (4, 8))
    kept = ChunkCache(base, chunk_edges(base), data.nbytes)
    halves = [(slice(0, 4), slice(0, 8)), (slice(4, 8), slice(0, 8))]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(kept.__getitem__, halves)
        assert third.wait(30)
        np.testing.assert_array_equal(kept[0:8, 0:8], data)
        for box, values in zip(halves, found, strict=True):
            np.testing.assert_array_equal(values, data[box])
    assert base.hits.max() == 1


def test_an_error_of_the_array_is_not_kept():
    class Broken(Counted):
        def __getitem__(self, key):
            if self.hits.sum() == 0:
                self.hits += 1
                raise DataError("damaged")
            return self.data_[key]

    base = Broken(np.ones((4, 4)), (2, 2))
    kept = ChunkCache(base, chunk_edges(base), 1000)
    with pytest.raises(DataError, match="damaged"):
        _ = kept[0:2, 0:2]
    assert kept[0:2, 0:2].sum() == 4


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 60)), max_size=60))
def test_what_was_used_last_is_kept_up_to_the_limit(steps):
    recent, used = Recent(100, len), []  # used: what was put and not yet driven out, the last used at the end
    for put, key, size in steps:
        if put:
            recent.put(key, bytes(size))
            used = [*((k, n) for k, n in used if k != key), (key, size)]
            while sum(n for _, n in used) > 100:
                used.pop(0)
        else:
            found = recent.get(key)
            assert (None if found is None else len(found)) == dict(used).get(key)
            used.sort(key=lambda entry: entry[0] == key)
        assert list(recent) == [k for k, _ in used]
