"""Objects of what is viewed are those of the run, but for those that the edge of the view cuts, which are named."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers import FP32, cells
from kinds import finder
from napari_unet import PredictConfig, predict, predict_lazy, preview, wait
from napari_unet.arrays.stack import Stack
from napari_unet.inference import seen
from napari_unet.inference.seen import Edges, read_objects
from napari_unet.objects import ObjectConfig, objects_of, objects_of_part


def classes_of(seed, shape):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.7, 1.6))
    return np.digitize(smooth, np.quantile(smooth, [0.35, 0.55])).astype(np.uint8) * np.uint8(2) % np.uint8(3)


def same_objects(labels, cut, whole, box):
    """Every object of a part that is not said to be cut has just the voxels of one of the whole."""
    for number in np.setdiff1d(np.unique(labels[labels > 0]), cut):
        (found,) = np.unique(whole[box][labels == number])
        assert found > 0
        full = np.zeros(whole.shape, bool)
        full[box] = labels == number
        assert np.array_equal(full, whole == found)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(48, 44), (14, 16, 18)]),
    st.tuples(
        st.integers(0, 3), st.sampled_from([0, 5, 12]), st.sampled_from([0, 6, 30]), st.booleans(), st.booleans()
    ),
    st.tuples(st.floats(0, 0.4), st.floats(0.5, 1)),
)
@example(5003, (48, 44), (2, 5, 0, False, True), (0.0, 0.6875))  # one that the edge cuts is too small in the whole
def test_objects_that_are_not_cut_are_those_of_the_whole(seed, shape, how, part):
    grow, least, holes, nearest, cores = how
    config = ObjectConfig(least, holes, grow, 0.0, nearest, cores=cores)
    classes = classes_of(seed, shape)
    if cores:
        classes[(classes == 1) & ndimage.binary_erosion(classes == 1)] = 3
    box = tuple(slice(round(part[0] * n), round(part[1] * n)) for n in shape)
    ends = [(b.start > 0, b.stop < n) for b, n in zip(box, shape, strict=True)]
    whole = objects_of(classes, config)
    found = objects_of_part(classes[box], config, len(shape), ends)
    labels = found.labels
    same_objects(labels, found.cut, whole, box)
    unsure = np.isin(labels, found.cut) | found.open
    for axis, (low, high) in enumerate(ends):  # what grows from beyond
        unsure[(slice(None),) * axis + (slice(0, grow * low),)] = True
        unsure[(slice(None),) * axis + (slice(labels.shape[axis] - grow * high, None),)] = True
    assert ((labels > 0) == (whole[box] > 0))[~unsure].all()
    far = 2 * grow + 1
    inner = tuple(
        slice(b.start + far * before, b.stop - far * behind) for b, (before, behind) in zip(box, ends, strict=True)
    )
    outside = np.ones(shape, bool)
    outside[inner] = False
    safe = np.setdiff1d(np.unique(whole), np.unique(np.where(ndimage.binary_dilation(outside, iterations=2), whole, 0)))
    missing = [number for number in safe if number and not (labels[whole[box] == number] > 0).all()]
    assert not missing


def test_the_whole_is_cut_nowhere():
    classes, config = classes_of(3, (40, 40)), ObjectConfig(4, 9, 2, nearest=True)
    found = objects_of_part(classes, config, 2, [(False, False)] * 2)
    labels = found.labels
    assert np.array_equal(labels, objects_of(classes, config)) and not len(found.cut) and not found.open.any()
    both = objects_of_part(np.stack([classes, classes[::-1]]), config, 2, [(False, False)] * 2)
    planes = both.labels
    assert np.array_equal(planes[0], labels) and planes[1][planes[1] > 0].min() == labels.max() + 1
    assert (np.diff(both.first[1:]) > 0).all() and (
        planes.ravel()[both.first[1:]] == np.arange(1, len(both.first))
    ).all()


@pytest.mark.parametrize("scale", [1.0, 1.6, 0.7])
@pytest.mark.parametrize("nearest", [False, True])
def test_a_preview_shows_the_objects_of_the_run(scale, nearest, tmp_path):
    model = finder(nearest=nearest, min_size=9)
    model = dataclasses.replace(model, scale=(scale, scale), units=("micrometer",) * 2)
    stack = dataclasses.replace(cells((350, 370)), scale=(1.0, 1.0), units=("micrometer",) * 2)
    config = PredictConfig(resample=True, **FP32)
    run = np.asarray(wait(predict(stack, model, tmp_path / "a.ome.zarr", config)).data)
    view = preview(stack, model, config)
    *parts, edges = view.seen((slice(0, 90), slice(100, 140)))
    whole, part, labels = parts[-1]
    assert whole == part and isinstance(edges, Edges) and labels.shape == run[whole].shape
    assert labels.max() > 5 and 0 < len(edges.cut) < edges.count
    assert edges.story() == f"{edges.count} objects, {len(edges.cut)} of them cut by the edge of the preview"
    if scale == 1:
        same_objects(labels, edges.cut, run, whole)
    else:
        kept = ~np.isin(labels, [0, *edges.cut])
        assert kept.any() and (run[whole][kept] > 0).all()
    box = (slice(0, 90), slice(100, 140))
    assert np.array_equal(
        read_objects(view, box),
        labels[tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, whole, strict=True))],
    )


def in_a_row(labels):
    """Return ids as 1 ... N in the same order."""
    return np.searchsorted(np.unique(labels[labels > 0]), labels) + (labels > 0)


WAYS = {
    "nearest": dict(nearest=True, min_size=9, fill_holes=6),
    "step by step": dict(grow=3),
    "cores": dict(nearest=True, core_margin=0.02, grow=4, min_size=4),
    "not grown": dict(grow=0, fill_holes=40, min_size=3),
}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_a_lazy_result_has_the_objects_of_the_run_wherever_it_is_read(way, ndim, tmp_path):
    model, shape = finder(ndim, **WAYS[way]), {2: (56, 50), 3: (10, 24, 20)}[ndim]
    stack, core = cells(shape, seed=ndim), (8,) * ndim
    run = np.asarray(wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(**FP32))).data)
    lazy = predict_lazy(stack, model, PredictConfig(block=core, **FP32))
    labels = np.asarray(lazy.data)
    np.testing.assert_array_equal(in_a_row(labels), run)
    assert labels.dtype == np.uint32 and labels.max() < 2**31
    extents = [max(b.stop - b.start for b in box) for box in ndimage.find_objects(run)]
    assert len(extents) > 1 and max(extents) > core[0]  # some are larger than a block
    rng = np.random.default_rng(1)
    for _ in range(3):
        low = [int(rng.integers(0, n - 5)) for n in shape]
        box = tuple(slice(at, at + int(rng.integers(1, n - at))) for at, n in zip(low, shape, strict=True))
        again = predict_lazy(stack, model, PredictConfig(block=(16,) * ndim, **FP32))
        np.testing.assert_array_equal(np.asarray(again.data[box]), labels[box])


def test_lazy_objects_of_planes_at_another_pixel_size_are_those_of_the_run(tmp_path):
    model = dataclasses.replace(finder(nearest=True, min_size=4), scale=(0.7, 0.7), units=("micrometer",) * 2)
    stack = Stack(cells((3, 44, 40)).data, "zyx", (1.0, 1.0, 1.0), ("micrometer",) * 3)
    config = PredictConfig(resample=True, **FP32)
    run = np.asarray(wait(predict(stack, model, tmp_path / "a.ome.zarr", config)).data)
    lazy = predict_lazy(stack, model, dataclasses.replace(config, block=(1, 16, 16)))
    assert lazy.shape == run.shape and run.max() > 10
    np.testing.assert_array_equal(in_a_row(np.asarray(lazy.data)), run)


def test_an_object_that_is_too_large_to_be_found_whole_is_marked(tmp_path, monkeypatch):
    model, stack = finder(nearest=True), cells((90, 84), seed=2)
    run = np.asarray(wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(**FP32))).data)
    monkeypatch.setattr(seen, "MOST", 50**2)
    labels = np.asarray(predict_lazy(stack, model, PredictConfig(block=(16, 16), **FP32)).data)
    whole = (labels > 0) & (labels < 2**31)
    assert (labels >= 2**31).any() and len(np.unique(labels[whole])) > 3
    for number in np.unique(labels[whole]):
        (same,) = np.unique(run[labels == number])
        elsewhere = labels[(run == same) & (labels != number)]  # where it is looked at from another block
        assert (elsewhere >= 2**31).all()
