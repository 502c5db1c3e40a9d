"""What the viewer's readers of OME-Zarr show of a result."""

import warnings

import numpy as np
import pytest
import zarr
from napari_ome_zarr import napari_get_reader
from ome_zarr_models import open_ome_zarr

from helpers import FP32, image_of
from kinds import small
from napari_unet.arrays.stack import Stack
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.store.save import save_stack


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_other_readers_and_validators_accept_a_result(version, tmp_path):
    stack = Stack(data=image_of((24, 300, 280)), axes="zyx", scale=(2.0, 0.5, 0.5), units=("micrometer",) * 3)
    out = tmp_path / "a.ome.zarr"
    config = PredictConfig(ome_version=version, probabilities=True, **FP32)
    wait(predict(stack, small(3, depth=1), out, config))
    layers = napari_get_reader(str(out))(str(out))
    assert {kind for _, _, kind in layers} == {"image", "labels"}
    for data, meta, _ in layers:
        assert tuple(meta["scale"]) == stack.scale
        assert [level.shape for level in data] == [(24, 300, 280), (24, 150, 140)]
        assert set(meta["units"]) == {"micrometer"}
    for path in ("", "labels/semantic", "probabilities"):
        open_ome_zarr(zarr.open_group(out / path, mode="r"))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_added_to_a_consolidated_image_are_shown(version, tmp_path):
    stack = Stack(data=image_of((24, 300, 280)), axes="zyx", scale=(2.0, 0.5, 0.5), units=("micrometer",) * 3)
    image = tmp_path / "image.ome.zarr"
    wait(save_stack(stack, image, version=version))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr: consolidated metadata are no part of the format of version 3
        zarr.consolidate_metadata(str(image))
    labels = Stack(data=np.ones(stack.shape, "u2"), axes="zyx", scale=stack.scale, units=stack.units)
    wait(save_stack(labels, image, kind="labels", name="cells"))
    assert [kind for _, _, kind in napari_get_reader(str(image))(str(image))] == ["image", "labels"]
