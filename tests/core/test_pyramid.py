"""Pyramids: every element stands for those under it, at the right place, and no label is new."""

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.store.ome import Output
from napari_unet.store.pyramid import above, levels_of, parts, reduce


def output(kind: str, axes: str, shape: tuple[int, ...], scale: tuple[float, ...] = ()) -> Output:
    path = "labels/a" if kind == "labels" else ""
    return Output(path, kind, axes, shape, np.dtype("u2"), scale, translation=tuple(range(len(shape))))


SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 1500), st.integers(1, 1500))
STEPS = st.floats(0.05, 20)


@settings(deadline=None, max_examples=100)
@given(SHAPES, STEPS, STEPS, st.sampled_from(["labels", "image"]))
def test_levels_cover_the_same_space_at_the_same_place(shape: tuple[int, ...], z: float, xy: float, kind: str) -> None:
    levels = levels_of(output(kind, "czyx", shape, (1, z, xy, xy)))
    assert max(levels[-1].shape[-2:]) <= 256
    for fine, coarse in itertools.pairwise(levels):
        assert max(fine.shape[-2:]) > 256
        assert coarse.factors[0] == 1
        for axis, f in enumerate(coarse.factors):
            assert coarse.shape[axis] == math.ceil(fine.shape[axis] / f)
            assert coarse.scale[axis] == f * fine.scale[axis]
            # The centre of element 0 is the mean position of the elements it stands for, or the first of them.
            members = [fine.translation[axis] + i * fine.scale[axis] for i in range(f)]
            wanted = members[0] if kind == "labels" else float(np.mean(members))
            assert math.isclose(coarse.translation[axis], wanted, rel_tol=1e-12, abs_tol=1e-12)
        assert (coarse.factors[1] == 2) == (fine.scale[1] <= 2 * min(fine.scale[2:]) and fine.shape[1] > 1)


def test_units_decide_how_coarse_z_is() -> None:
    given = {"axes": "zyx", "shape": (64, 512, 512), "dtype": np.dtype("u1")}
    same = Output("", "image", **given, scale=(0.5, 500, 500), units=("micrometer", "nanometer", "nanometer"))
    far = Output("", "image", **given, scale=(5, 500, 500), units=("micrometer", "nanometer", "nanometer"))
    assert levels_of(same)[1].shape == (32, 256, 256)
    assert levels_of(far)[1].shape == (64, 256, 256)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 2])), min_size=1, max_size=4),
    st.sampled_from(["B", "H", "I", "b", "d", "e", "f", "Q", "q"]),
)
def test_images_take_the_mean_and_labels_the_first(axes: list[tuple[int, int]], code: str) -> None:
    shape, factors = tuple(n for n, _ in axes), [f for _, f in axes]
    dtype = np.dtype(code)
    data = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    mean = reduce(data, factors, "image")
    first = reduce(data, factors, "labels")
    assert mean.dtype == first.dtype == dtype
    for at in np.ndindex(mean.shape):
        box = data[tuple(slice(i * f, (i + 1) * f) for i, f in zip(at, factors, strict=True))]
        wanted = box.astype(float).mean()
        assert mean[at] == (np.rint(wanted) if dtype.kind in "iu" else dtype.type(wanted))
        assert first[at] == box.flat[0]
    assert set(np.unique(first)) <= set(np.unique(data))


def test_the_mean_of_the_largest_values_does_not_wrap() -> None:
    for code in "BHILbhilefd":
        dtype = np.dtype(code)
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        for value in (limits.max, limits.min):
            np.testing.assert_array_equal(
                reduce(np.full((3, 3), value, dtype), (2, 2), "image"), np.full((2, 2), value, dtype)
            )


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 700), st.integers(257, 700)),
    st.integers(1, 300),
    st.sampled_from(["labels", "image"]),
)
def test_a_level_made_in_parts_equals_one_made_at_once(shape: tuple[int, ...], unit: int, kind: str) -> None:
    levels = levels_of(output(kind, "zyx", shape))
    data = np.random.default_rng(1).integers(0, 9, shape).astype("u2")
    whole = reduce(data, levels[1].factors, kind)
    assert whole.shape == levels[1].shape
    cut = np.full_like(whole, 99)
    grid = parts(levels[1], (1, unit, unit), 2**15)
    for box in map(grid.block, range(len(grid))):
        assert all(
            b.start % u == 0 and (b.stop % u == 0 or b.stop == n)
            for b, u, n in zip(box, (1, unit, unit), whole.shape, strict=True)
        )
        assert (cut[box] == 99).all()
        cut[box] = reduce(data[above(box, levels[1], shape)], levels[1].factors, kind)
    np.testing.assert_array_equal(cut, whole)
