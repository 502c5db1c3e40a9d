"""Labels and their image on the same pixels: brought there, or refused, by where both say that they lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError
from napari_unet.sources.position import brought_together

UM = {"scale": (0.5, 0.25), "units": ("micrometer",) * 2}
NM = {"scale": (500.0, 250.0), "units": ("nanometer",) * 2}


def numbers(shape=(40, 40)):
    return np.arange(1, 1 + np.prod(shape)).reshape(shape)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    st.tuples(st.integers(5, 40), st.integers(5, 40)),
    st.sampled_from([UM, NM]),
    st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    st.floats(-0.04, 0.04),
)
def test_what_both_show_is_the_same_pixels(shift, shape, units, at, rounding):
    """Every pixel holds its place in one large field; cut, both hold the same."""
    field = numbers((100, 100))
    image = Stack(field[30:70, 30:70], "yx", translation=at, **UM)
    part = field[30 + shift[0] : 30 + shift[0] + shape[0], 30 + shift[1] : 30 + shift[1] + shape[1]]
    many = units["scale"][0] / UM["scale"][0]
    place = [(a + s * (n + rounding)) * many for a, s, n in zip(at, UM["scale"], shift, strict=True)]
    labels = Stack(part, "yx", translation=place, **units)
    apart = any(n >= 40 or n + size <= 0 for n, size in zip(shift, shape, strict=True))
    if apart:
        with pytest.raises(DataError, match="do not overlap"):
            brought_together(image, labels)
        return
    one, other = brought_together(image, labels)
    if shift == (0, 0):
        assert (one.shape, other.shape) == (image.shape, labels.shape)
        return
    np.testing.assert_array_equal(one.data[...], other.data[...])
    assert "only what both show is taken" in other.notes[0]
    assert brought_together(one, other)[1].notes == other.notes


@pytest.mark.parametrize("offset", [1.3, 7.5, -20.2, 100.5, 2.2])
def test_parts_of_a_pixel_are_refused_naming_both_places(offset):
    labels = Stack(numbers(), "yx", translation=(0.0, offset * 0.25), **UM)
    with pytest.raises(
        DataError, match=r"lies at yx \(0 um, .* um\), .* at \(0 um, 0 um\), .*no whole number of pixels"
    ):
        brought_together(Stack(numbers(), "yx", **UM), labels)


@pytest.mark.parametrize("offset", [0.2, -0.5, 0.9])
def test_less_than_a_pixel_is_no_other_place(offset):
    labels = Stack(numbers(), "yx", translation=(0.0, offset * 0.25), **UM)
    assert brought_together(Stack(numbers(), "yx", **UM), labels)[1] is labels


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ({"translation": (50.0, 0.0), "source": "a.ome.zarr", **UM}, {}),
        ({"translation": (50.0, 0.0), **UM}, {"source": "a.tif", **UM}),
        ({"translation": (50.0, 0.0), "source": "a.ome.zarr", **UM}, {"source": "b.ome.zarr", **UM}),
        ({"source": "a.png"}, {"translation": (50.0, 0.0), **UM}),
        ({}, {"translation": (50.0, 0.0), **UM}),
    ],
)
def test_where_one_says_no_position_they_lie_on_each_other_and_it_is_said(image, labels):
    one, other = brought_together(Stack(numbers(), "yx", **image), Stack(numbers(), "yx", **labels))
    assert one.shape == other.shape == (40, 40)
    assert "has no position of its own" in other.notes[0]
