"""Hits, misses and false objects as labels, as the whole arrays would show them."""

import numpy as np
import pytest

from helpers import tree
from napari_unet.errors import DataError, OutputError
from napari_unet.evaluation.compare import compare
from napari_unet.events import wait
from napari_unet.sources import open_labels, open_stack
from napari_unet.store import verify
from napari_unet.store.save import save_stack


def sides():
    truth, result = np.zeros((40, 60), np.uint16), np.zeros((40, 60), np.uint32)
    truth[2:10, 2:10], result[2:10, 3:11] = 1, 11  # found
    truth[20:30, 2:22], result[20:30, 2:11], result[20:30, 13:22] = 2, 12, 13  # in two pieces
    truth[2:12, 30:40], truth[2:12, 41:51], result[2:12, 30:51] = 3, 4, 14  # two in one
    truth[32:36, 50:55] = 5  # missed
    result[20:26, 40:46] = 15  # made up
    return truth, result


def test_every_object_is_a_hit_a_miss_or_false(tmp_path):
    truth, result = sides()
    (found,) = wait(compare(result, truth, tmp_path / "a.ome.zarr", axes="yx"))
    assert found.hits.tolist() == [11]
    assert found.split.tolist() == [2]
    assert found.merged.tolist() == [14]
    assert found.misses.tolist() == [2, 3, 4, 5]
    assert found.false.tolist() == [12, 13, 14, 15]
    for kind, whole in (("hits", result), ("false", result), ("misses", truth)):
        layer = open_stack(tmp_path / "a.ome.zarr" / "labels" / kind).data[...]
        np.testing.assert_array_equal(layer, np.where(np.isin(whole, getattr(found, kind)), whole, 0))
    assert wait(verify(tmp_path / "a.ome.zarr")) == []


def test_time_points_are_compared_each_for_itself(tmp_path):
    truth, result = sides()
    empty = np.zeros_like(truth)
    first, second = wait(
        compare(np.stack([result, result]), np.stack([truth, empty]), tmp_path / "a.ome.zarr", axes="tyx")
    )
    assert first.hits.tolist() == [11]
    assert second.hits.tolist() == []
    assert second.false.tolist() == [11, 12, 13, 14, 15]
    hits = open_stack(tmp_path / "a.ome.zarr" / "labels" / "hits").data[...]
    assert set(np.unique(hits[0])) == {0, 11}
    assert not hits[1].any()


def test_sides_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    truth, result = sides()
    with pytest.raises(DataError):
        wait(compare(result[:20], truth, tmp_path / "a.ome.zarr", axes="yx"))
    assert not list(tmp_path.iterdir())


def test_what_is_compared_is_not_written_over(tmp_path):
    truth, result = sides()
    wait(save_stack(open_stack(result, "yx"), tmp_path / "image.ome.zarr"))
    wait(save_stack(open_labels(result, "yx"), tmp_path / "image.ome.zarr", kind="labels", name="found"))
    before = tree(tmp_path)
    for out in ("image.ome.zarr", "image.ome.zarr/labels/found", "image.ome.zarr/labels/found/more"):
        with pytest.raises(OutputError, match="it is compared"):
            wait(compare(tmp_path / "image.ome.zarr/labels/found", truth, tmp_path / out, overwrite=True))
    assert tree(tmp_path) == before
