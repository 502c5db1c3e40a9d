import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.arrays.stack import Stack
from napari_unet.arrays.views import View
from napari_unet.errors import DataError

AXES = ["yx", "zyx", "cyx", "tyx", "czyx", "tzyx", "tcyx", "tczyx"]


@settings(deadline=None)
@given(st.permutations(range(4)), st.data())
def test_a_view_reads_what_numpy_reads(order, data):
    base = np.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6)
    view, want = View.of(base).transpose(order), base.transpose(order)
    for _ in range(2):
        key = []
        for n in want.shape:
            start = data.draw(st.integers(0, n - 1))
            stop = data.draw(st.integers(start + 1, n))
            key.append(data.draw(st.sampled_from([slice(None), slice(start, stop), start, start - n])))
        view, want = view.cut(key), want[tuple(key)]
        assert view.shape == want.shape
        assert (view[...] == want).all()
        if not want.ndim:
            return


def test_a_cut_reads_only_its_part():
    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, key):
            out = super().__getitem__(key)
            Counting.read += np.asarray(out).size
            return out

    data = np.zeros((100, 100), np.uint8).view(Counting)
    stack = Stack(data=data, axes="yx").select(y=slice(10, 20))
    assert stack.shape == (10, 100)
    assert Counting.read == 0
    stack.read((slice(0, 2), slice(0, 3)))
    assert Counting.read == 6


@pytest.mark.parametrize("axes", AXES)
def test_selecting_keeps_place_and_scale(axes):
    shape = tuple(range(3, 3 + len(axes)))
    stack = Stack(data=np.zeros(shape), axes=axes, scale=tuple(0.5 + i for i in range(len(axes))))
    cut = stack.select(y=slice(2, 4), x=slice(1, 3))
    assert cut.values_along("yx", "translation") == (2 * stack.scale_along("y")[0], stack.scale_along("x")[0])
    assert cut.scale == stack.scale
    if len(axes) > 2:
        assert stack.select(**{axes[0]: 0}).axes == axes[1:]


def test_channel_names_follow_the_channels():
    stack = Stack(data=np.zeros((3, 4, 4)), axes="cyx", channel_names=("a", "b", "c"))
    assert stack.select(c=slice(1, 3)).channel_names == ("b", "c")
    assert stack.select(c=1).channel_names == ()


@pytest.mark.parametrize(
    ("axes", "shape", "says"),
    [
        ("xy", (3, 4), "in that order"),
        ("zy", (3, 4), "ending in 'yx'"),
        ("qyx", (3, 4, 5), "subset of 'tczyx'"),
        ("yx", (3, 4, 5), "one letter per dimension"),
        ("zyx", (0, 4, 5), "axis z has size 0"),
        ("yyx", (2, 4, 5), "subset"),
    ],
)
def test_axes_that_do_not_fit_are_refused(axes, shape, says):
    with pytest.raises(DataError, match=says):
        Stack(data=np.zeros(shape), axes=axes)


def test_scales_that_cannot_be_are_refused():
    with pytest.raises(DataError, match="positive"):
        Stack(data=np.zeros((3, 3)), axes="yx", scale=(0.0, 1.0))
    with pytest.raises(DataError, match="one per axis"):
        Stack(data=np.zeros((3, 3)), axes="yx", scale=(1.0,))
