"""Uncertainty, and where to annotate next."""

import numpy as np
import pytest
import torch

from helpers import FP32, image_of, tree
from kinds import small, whole_logits
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.diagnostics import annotate_next
from napari_unet.inference.outputs import entropy
from napari_unet.inference.predict import predict
from napari_unet.sources import open_stack


def test_entropy_is_0_where_one_is_certain_and_1_where_all_are_as_likely():
    probabilities = np.array([[1.0, 1 / 3, 0.5], [0.0, 1 / 3, 0.5], [0.0, 1 / 3, 0.0]], np.float32)
    np.testing.assert_allclose(entropy(probabilities), [0, 1, np.log(2) / np.log(3)], atol=1e-6)


def uncertain(stack, model, out, **config):
    wait(predict(stack, model, out, PredictConfig(uncertainty=True, **FP32, **config)))
    return open_stack(out / "uncertainty")


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_uncertainty_is_that_of_the_whole_image_for_all_blocks(ndim, tmp_path):
    model, image = small(ndim, out_channels=3), image_of((40, 44, 52)[-ndim:])
    stack = Stack(data=image, axes=model.axes)
    found = uncertain(stack, model, tmp_path / "a.ome.zarr", block=(16,) * ndim)
    other = uncertain(stack, model, tmp_path / "b.ome.zarr", block=(24,) * ndim)
    whole = entropy(torch.from_numpy(whole_logits(model, image[None])).softmax(0).numpy())
    assert np.abs(found.data[...] / 255 - whole).max() <= 0.5 / 255 + 1e-4
    assert np.abs(found.data[...].astype(int) - other.data[...]).max() <= 1
    assert found.axes == model.axes
    assert tree(tmp_path / "a.ome.zarr")


@pytest.mark.parametrize(("shape", "patch"), [((70, 50), 16), ((65, 31), 16), ((3, 40, 48), 16), ((20, 24, 28), 8)])
def test_the_least_certain_patches_come_first(shape, patch, tmp_path):
    axes = "zyx"[-len(shape) :]
    model = small(2 if shape[0] == 3 or len(shape) == 2 else 3)
    stack = Stack(data=image_of(shape), axes=axes)
    values = uncertain(stack, model, tmp_path / "a.ome.zarr").data[...].astype(float) / 255
    found = annotate_next(tmp_path / "a.ome.zarr", 4, patch)
    edges = [min(patch, n) for n in shape]
    counts = [round(n / e) for n, e in zip(shape, edges, strict=True)]
    ends = [[n * i // k for i in range(k + 1)] for n, k in zip(shape, counts, strict=True)]
    boxes = [tuple(slice(e[i], e[i + 1]) for i, e in zip(at, ends, strict=True)) for at in np.ndindex(*counts)]
    assert min(b.stop - b.start for box in boxes for b in box) > 0.7 * min(edges)  # no slivers at a border
    assert sum(values[box].size for box in boxes) == values.size
    means = sorted((values[box].mean() for box in boxes), reverse=True)
    np.testing.assert_allclose([mean for _, mean in found], means[:4], rtol=1e-6)
    for centre, mean in found:
        (box,) = [b for b in boxes if all(s.start - 0.5 < c < s.stop - 0.5 for s, c in zip(b, centre, strict=True))]
        assert all(c == (s.start + s.stop - 1) / 2 for s, c in zip(box, centre, strict=True))
        assert values[box].mean() == pytest.approx(mean)


def test_a_result_without_uncertainty_is_named(tmp_path):
    stack = Stack(data=image_of((30, 30)), axes="yx")
    wait(predict(stack, small(2), tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    with pytest.raises(DataError, match="--uncertainty"):
        annotate_next(tmp_path / "a.ome.zarr")
