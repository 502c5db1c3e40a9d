import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import UsageError
from napari_unet.grid.tiles import Footprint, TileGrid, mirrored, remoteness
from strategies import grids


@settings(deadline=None)
@given(grids())
def test_cores_cover_every_element_once(grid):
    hits = np.zeros(grid.shape, int)
    for tile in grid:
        hits[tile.write] += 1
    assert (hits == 1).all()


@given(st.integers(1, 9), st.integers(-40, 0), st.integers(1, 40))
def test_the_mirror_image_is_that_of_numpy(size, low, high):
    data = np.arange(size)
    before, after = -low, max(high - size, 0)
    assert (mirrored(low, max(high, size), size) == np.pad(data, (before, after), mode="reflect")).all()


@settings(deadline=None, max_examples=100)
@given(grids())
def test_a_tile_sees_what_the_mirrored_image_has_there(grid):
    image = np.arange(math.prod(grid.shape)).reshape(grid.shape)
    for tile in grid:
        seen = tile.mirror(image[tile.read])
        assert seen.shape == tile.shape
        want = image
        for axis, (read, (low, high)) in enumerate(zip(tile.read, tile.pad, strict=True)):
            index = mirrored(read.start - low, read.stop + high, grid.shape[axis])
            want = want.take(index, axis)
        assert (seen == want).all()


@settings(deadline=None)
@given(grids())
def test_origins_lie_on_the_grid_and_the_halo_is_there_or_the_border(grid):
    for tile in grid:
        for axis, (read, pad, crop, write) in enumerate(zip(tile.read, tile.pad, tile.crop, tile.write, strict=True)):
            stride, halo = grid.footprint.stride[axis], grid.footprint.halo[axis]
            margin = grid.footprint.margin[axis]
            low, high = read.start - pad[0], read.stop + pad[1]
            assert (low + margin) % stride == 0
            assert crop.start == write.start - low - margin
            assert crop.stop - crop.start == write.stop - write.start
            if margin:
                assert crop.start >= 0
                assert (high - low - 2 * margin - grid.footprint.remainder[axis]) % stride == 0
                assert crop.stop <= high - low - 2 * margin
            else:
                end = math.ceil(grid.shape[axis] / stride) * stride
                assert low == 0 or write.start - low >= halo
                assert high == end or high - write.stop >= halo
                assert low >= 0
                assert high <= end


@given(grids())
def test_a_tile_is_the_same_by_number_and_in_order(grid):
    assert [grid[i] for i in range(len(grid))] == list(grid)


def test_sizes_that_do_not_fit_are_named():
    footprint = Footprint((4, 4), (8, 8), (0, 0), (0, 0))
    with pytest.raises(UsageError, match=r"2 tiled axes.*\(8,\)"):
        TileGrid((20, 20), (8,), footprint)
    with pytest.raises(UsageError, match="at least 1"):
        TileGrid((20, 20), (8, 0), footprint)


@settings(deadline=None)
@given(grids(), st.data())
def test_a_core_that_is_none_of_the_grid_sees_the_mirrored_image_too(grid, data):
    box = []
    for n, s in zip(grid.shape, grid.footprint.stride, strict=True):
        edges = [*range(0, n, s), n]
        low = data.draw(st.integers(0, len(edges) - 2))
        box.append(slice(edges[low], edges[data.draw(st.integers(low + 1, len(edges) - 1))]))
    tile = grid.tile_of(tuple(box))
    assert tile.write == tuple(box)
    image = np.arange(math.prod(grid.shape)).reshape(grid.shape)
    want = image
    for axis, (read, (low, high)) in enumerate(zip(tile.read, tile.pad, strict=True)):
        want = want.take(mirrored(read.start - low, read.stop + high, grid.shape[axis]), axis)
    assert (tile.mirror(image[tile.read]) == want).all()
    if not any(grid.footprint.margin):
        assert (want[tile.crop] == image[tile.write]).all()


@given(grids())
def test_the_tile_of_a_core_of_the_grid_is_the_grids_own(grid):
    assert [grid.tile_of(tile.write) for tile in grid] == list(grid)


@pytest.mark.parametrize("part", [slice(2, 8), slice(4, 10), slice(-4, 8), slice(8, 8), slice(8, 32)])
def test_a_core_off_the_grid_is_refused(part):
    grid = TileGrid((30,), (8,), Footprint((4,), (8,), (0,), (0,)))
    with pytest.raises(UsageError, match="multiples of 4 or at the image's end"):
        grid.tile_of((part,))


def test_boxes_that_hold_the_plane_looked_at_come_first_then_those_around_the_point():
    boxes = [(slice(z, z + 2), slice(y, y + 10)) for z in (0, 2, 4) for y in (0, 10, 20)]
    found = sorted(boxes, key=lambda box: remoteness(box, (3, 14.0), batch=1))
    assert [box[0].start for box in found] == [2, 2, 2, 4, 4, 4, 0, 0, 0]
    assert found[0][1].start == 10
