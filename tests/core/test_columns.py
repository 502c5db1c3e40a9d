import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.grid.columns import ColumnGrid
from napari_unet.grid.tiles import mirrored
from strategies import grids


@st.composite
def column_grids(draw):
    grid = draw(grids())
    flow = draw(st.integers(0, len(grid.shape) - 1))
    planes = grid.footprint.stride[flow] * draw(st.integers(1, 4))
    pending = draw(st.sets(st.integers(0, len(grid) - 1), min_size=1))
    return ColumnGrid(grid, flow, planes, draw(st.integers(0, flow))), pending


def points(grid):
    """Somewhere in the image, or nowhere."""
    return st.none() | st.tuples(*(st.floats(0, n - 1) for n in grid.shape))


@settings(deadline=None)
@given(column_grids(), st.data())
def test_each_pending_block_is_in_one_column(case, data):
    columns, pending = case
    near = data.draw(points(columns.grid))
    found = [number for column in columns.columns(pending, near) for number in column.blocks]
    assert sorted(found) == sorted(pending)


@settings(deadline=None)
@given(column_grids(), st.data())
def test_slabs_show_the_mirrored_image_without_a_gap(case, data):
    columns, pending = case
    grid, flow = columns.grid, columns.flow
    image = np.random.default_rng(0).integers(0, 1000, grid.shape)
    low, high = grid.extent(flow)
    expected = None
    for slab in columns.slabs(pending, data.draw(points(grid))):
        assert slab.first or slab.start == expected
        assert (slab.start - low) % columns.planes == 0
        seen = slab.mirror(image[slab.read])
        expected = slab.start + seen.shape[flow]
        assert slab.last == (expected == high)
        want = image.take(mirrored(slab.start, expected, grid.shape[flow]), flow)
        for axis, (read, (before, after)) in enumerate(zip(slab.read, slab.column.pad, strict=True)):
            if axis != flow:
                want = want.take(mirrored(read.start - before, read.stop + after, grid.shape[axis]), axis)
        assert (seen == want).all()


@settings(deadline=None)
@given(column_grids(), st.data())
def test_a_stream_begins_and_ends_beyond_what_its_blocks_depend_on(case, data):
    columns, pending = case
    grid, flow = columns.grid, columns.flow
    reach = grid.footprint.halo[flow] + grid.footprint.margin[flow]
    low, high = grid.extent(flow)
    slabs = list(columns.slabs(pending, data.draw(points(grid))))
    for _, of_a_column in itertools.groupby(slabs, key=lambda slab: id(slab.column)):
        group = list(of_a_column)
        spans = list(group[0].column.blocks.values())
        end = group[-1].start + len(group[-1].index)
        assert group[0].first
        assert group[0].start == low or group[0].start + columns.planes <= spans[0].start - reach
        assert end == high or end >= spans[-1].stop + reach


@settings(deadline=None)
@given(column_grids(), st.data())
def test_the_first_block_is_the_one_looked_at(case, data):
    columns, _ = case
    near = data.draw(st.tuples(*(st.integers(0, n - 1) for n in columns.grid.shape)))
    first = next(columns.columns(range(len(columns.grid)), near))
    place = tuple(p // c for p, c in zip(near, columns.grid.core, strict=True))
    box = (*first.write[: columns.flow], next(iter(first.blocks.values())), *first.write[columns.flow + 1 :])
    assert box == columns.grid.box(place)
