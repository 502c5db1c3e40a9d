"""Cuts do not show where a network is tile-exact, and do where its norm takes statistics from the tile."""

import numpy as np
import pytest

from helpers import FP32, image_of
from kinds import model_of, small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, UsageError
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.diagnostics import seam_check
from napari_unet.network import UNetConfig

CASES = [
    ("yx", (120, 110), 2, (32, 32), None),
    ("tczyx", (2, 1, 3, 100, 90), 2, (32, 48), (1, 2, 99, 0)),
    ("zyx", (60, 56, 64), 3, (16, 16, 16), (0, 20, 60)),
    ("zyx", (6, 70, 64), 3, (6, 16, 16), None),
]


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("axes", "shape", "ndim", "size", "near"), CASES)
def test_without_statistics_of_the_tile_cuts_do_not_show(axes, shape, ndim, size, near, norm, padding):
    stack = Stack(data=image_of(shape), axes=axes)
    model = small(ndim, norm=norm, padding=padding)
    found = seam_check(stack, model, PredictConfig(**FP32), near, size)
    assert found.changed == 0
    assert found.largest <= 1e-5
    assert found.voxels == np.prod([b.stop - b.start for b in found.box])
    assert str(found).startswith(f"0 of {found.voxels:,} voxels")
    if near is not None:
        assert all(b.start <= p < b.stop for b, p in zip(found.box, near, strict=True))


@pytest.mark.parametrize("norm", ["instance", "group"])
@pytest.mark.parametrize(("axes", "shape", "ndim", "size", "near"), CASES)
def test_with_statistics_of_the_tile_cuts_show(axes, shape, ndim, size, near, norm):
    stack = Stack(data=image_of(shape), axes=axes)
    model = model_of(UNetConfig(ndim=ndim, depth=2, base_features=8, norm=norm))
    assert seam_check(stack, model, PredictConfig(**FP32), near, size).largest > 1e-4


def test_a_sample_of_its_own_choice_is_bounded():
    found = seam_check(Stack(data=image_of((80, 90, 100)), axes="zyx"), small(3, depth=1), PredictConfig(**FP32))
    assert 0 < found.voxels <= 2**20
    assert found.changed == 0


def test_the_sample_lies_where_somebody_looks_at_the_models_pixel_size_too():
    units = ("micrometer",) * 2
    stack = Stack(data=image_of((200, 240)), axes="yx", scale=(0.5, 0.5), units=units)
    model = small()
    coarse = type(model)(
        **{f: getattr(model, f) for f in ("config", "weights", "task", "normalisation", "axes")},
        scale=(1.0, 1.0),
        units=units,
    )
    found = seam_check(stack, coarse, PredictConfig(resample=True, **FP32), near=(199, 0), size=(16, 16))
    assert found.box == (slice(84, 100), slice(0, 16))


def test_an_image_that_every_tile_sees_whole_cannot_be_checked():
    with pytest.raises(DataError, match="so small, 24 x 24, that every tile sees all of it"):
        seam_check(Stack(data=image_of((24, 24)), axes="yx"), small(), PredictConfig(**FP32))


def test_a_sample_with_too_many_sizes_is_refused():
    with pytest.raises(UsageError, match="give one size per axis"):
        seam_check(Stack(data=image_of((99, 99)), axes="yx"), small(), PredictConfig(**FP32), size=(16, 16, 16))
