"""Layers of labels and of their image on the same pixels: brought there, or refused, by where the viewer shows them."""

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_unet.errors import DataError
from napari_unet.sources import open_labels, open_stack
from napari_unet.sources.position import brought_together


def numbers():
    return np.arange(1, 1601).reshape(40, 40)


LAYERS = [
    ({"translate": (20, 20)}, (20, 20)),
    ({"translate": (-3, 0)}, (37, 40)),
    ({"rotate": 90}, None),
    ({"rotate": 2}, None),
    ({"shear": [0.5]}, None),
    ({"affine": np.array([[1, 0, 7], [0, 1, 0], [0, 0, 1.0]])}, None),
    ({"affine": np.diag([2.0, 1, 1])}, None),
    ({"translate": (0, 4.5)}, None),
    ({"translate": (80, 0)}, None),
    ({}, (40, 40)),
]


@pytest.mark.parametrize("size", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("placed", "shape"), LAYERS)
def test_layers_that_lie_elsewhere_in_the_viewer_are_cut_or_refused(placed, shape, size):
    placed = dict(placed)
    if "translate" in placed:
        placed["translate"] = [n * size for n in placed["translate"]]
    image = open_stack(Image(numbers(), scale=(size, size)), "yx")
    labels = open_labels(Labels(numbers(), scale=(size, size), **placed), "yx")
    if shape is None:
        with pytest.raises(DataError, match=r"turned, sheared or moved|no whole number|do not overlap"):
            brought_together(image, labels)
        return
    one, other = brought_together(image, labels)
    assert one.shape == other.shape == (shape if placed.get("translate", [0])[0] < 0 or not placed else (20, 20))


@pytest.mark.parametrize(
    "both", [{"rotate": 30}, {"shear": [0.2]}, {"affine": np.diag([2.0, 3, 1])}, {"translate": (5, 5)}]
)
def test_layers_that_are_moved_together_stay_together(both):
    image, labels = (open_stack(kind(numbers(), **both), "yx") for kind in (Image, Labels))
    assert brought_together(image, labels) == (image, labels)


def test_a_layer_without_a_scale_on_one_with_is_said():
    image, labels = open_stack(Image(numbers(), scale=(0.5, 0.5)), "yx"), open_labels(Labels(numbers()), "yx")
    assert "although they do not in the viewer" in brought_together(image, labels)[1].notes[0]
