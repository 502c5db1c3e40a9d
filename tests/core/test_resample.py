"""Another pixel size: the same part of the world, the same values however it is cut up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.arrays import resample
from napari_unet.arrays.resample import resampled
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError

TYPES = ["u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", "?"]


def stack_of(shape, axes, dtype="f4", seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        data = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    else:
        data = (rng.normal(size=shape) * (1 if dtype.kind == "b" else 100)).astype(dtype)
    return Stack(data=data, axes=axes, translation=tuple(range(len(axes))))


def all_of(stack):
    return stack.read(tuple(slice(0, n) for n in stack.shape))


@settings(deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40)),
    ratios=st.tuples(*[st.floats(0.3, 7) | st.sampled_from([1.0, 1.5, 2.0, 3.0, 0.5])] * 3),
    dtype=st.sampled_from(TYPES),
    data=st.data(),
)
def test_a_region_does_not_depend_on_how_it_was_cut(sizes, ratios, dtype, data):
    source = stack_of(sizes, "zyx", dtype)
    stack = resampled(source, dict(zip("zyx", ratios, strict=True)))
    whole = all_of(stack)
    own = stack is source or np.dtype(dtype).kind != "f"
    assert whole.dtype == stack.dtype == (np.dtype(dtype) if own else np.float32)
    box = []
    for n in stack.shape:
        low = data.draw(st.integers(0, n - 1))
        box.append(slice(low, data.draw(st.integers(low, n))))
    assert np.array_equal(stack.data[tuple(box)], whole[tuple(box)])
    at = box[0].start
    assert np.array_equal(stack.data[at], whole[at])
    assert np.array_equal(stack.data[..., -1], whole[..., -1])


def test_large_regions_are_made_in_parts_and_come_out_the_same(monkeypatch):
    stack = resampled(stack_of((70, 90), "yx"), {"y": 3.3, "x": 0.7})
    whole = all_of(stack)
    monkeypatch.setattr(resample, "PART", 100)
    assert np.array_equal(all_of(stack), whole)


class Counted:
    """An array that remembers how much of it was read."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.chunks, self.read = data, data.shape, data.dtype, (8, 8), []

    def __getitem__(self, key):
        self.read.append(key)
        return self.data[key]


def test_only_what_a_region_needs_is_read():
    base = Counted(np.zeros((100, 100), np.uint8))
    stack = resampled(Stack(data=base, axes="yx"), {"y": 4.0, "x": 0.5})
    assert stack.chunks == (2, 16)
    stack.read(np.s_[5:10, 20:30])
    assert base.read == [np.s_[20:41, 9:16]] or base.read == [np.s_[20:40, 9:16]]
    stack.read(np.s_[5:5, 20:30])
    assert len(base.read) == 1


@settings(deadline=None)
@given(n=st.integers(8, 60), ratio=st.floats(0.3, 6), start=st.floats(-9, 9), own=st.floats(0.1, 5))
def test_a_ramp_stays_where_it_was_in_the_world(n, ratio, start, own):
    """Value = position: interpolated it is exact, the mean of whole and parts of elements is so to a quarter of one."""
    position = start + own * np.arange(n)
    stack = Stack(data=np.tile(position, (2, 1)), axes="yx", scale=(1.0, own), translation=(0.0, start))
    new = resampled(stack, {"x": own * ratio})
    assert new.scale[1] == own * ratio or new is stack
    got = all_of(new)[0]
    want = new.translation[1] + new.scale[1] * np.arange(new.shape[1])
    assert abs(new.shape[1] * new.scale[1] - n * own) <= 0.5 * max(new.scale[1], own) * (1 + 1e-9)
    reach = max(1.0, ratio) * own
    inside = (want >= position[0] + reach / 2) & (want <= position[-1] - reach / 2)
    off = 0.25 / ratio if ratio > 0.999 * resample.COARSE else 0
    assert np.allclose(got[inside], want[inside], atol=off * own + 1e-4)


@pytest.mark.parametrize("ratio", [0.4, 1.2, 2.0, 3.7])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_constant_stays_constant_at_the_limits_of_its_type(ratio, dtype):
    kind = np.dtype(dtype)
    for value in (np.iinfo(kind).min, np.iinfo(kind).max) if kind.kind in "iu" else (1,):
        stack = resampled(Stack(data=np.full((20, 20), value, kind), axes="yx"), {"x": ratio, "y": ratio})
        assert np.allclose(all_of(stack).astype(float), float(value), rtol=1e-6)


def test_halving_is_the_mean_of_pairs():
    stack = stack_of((6, 8), "yx", "u1")
    got = all_of(resampled(stack, {"y": 2.0, "x": 2.0}))
    assert (got == np.rint(stack.data.reshape(3, 2, 4, 2).mean((1, 3)))).all()


def test_a_fine_pattern_vanishes_instead_of_turning_into_a_coarse_one():
    stripes = np.tile(np.float32([0, 1]), (4, 500))
    got = all_of(resampled(Stack(data=stripes, axes="yx"), {"x": 10.0}))
    assert np.allclose(got, 0.5, atol=1e-6)


def test_other_axes_names_and_source_stay():
    stack = Stack(
        data=np.zeros((2, 3, 8, 8), np.uint8),
        axes="tcyx",
        units=("second", None, "micrometer", "micrometer"),
        channel_names=("a", "b", "c"),
        source="somewhere",
        name="n",
    )
    new = resampled(stack, {"x": 2.0, "y": 2.0})
    assert new.shape == (2, 3, 4, 4)
    assert (new.units, new.channel_names, new.source, new.name) == (stack.units, ("a", "b", "c"), "somewhere", "n")
    assert new.translation == (0, 0, 0.5, 0.5)
    assert new.select(c=1, y=slice(1, 3)).shape == (2, 2, 4)
    assert resampled(new, {"x": 2.0 * (1 + 1e-9)}) is new


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        ({"x": 0.0}, "pixel size 0.0 along x"),
        ({"y": -1.0}, "positive"),
        ({"x": float("nan")}, "positive"),
        ({"z": 1.0}, "along z.*one of its axes y, x"),
        ({"x": 1e-9, "y": 1e-9}, "more than 2"),
    ],
)
def test_sizes_that_cannot_be_are_refused(scale, says):
    with pytest.raises(DataError, match=says):
        resampled(stack_of((10, 10), "yx"), scale)
