import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, ModelError
from napari_unet.intensities.normalise import WHOLE, Normalisation
from napari_unet.sources import open_stack


def stack_of(data, axes="yx"):
    return Stack(data=data, axes=axes, name="image")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float16", "float32", "float64", ">u2", "bool"])
def test_every_real_type_gives_what_float32_gives(dtype):
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (20, 30)).astype(dtype)
    native = values.astype(np.float32)
    want = Normalisation().measure(stack_of(native)).apply(native[None])
    got = Normalisation().measure(stack_of(values)).apply(values[None])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_percentiles_map_to_zero_and_one():
    data = np.random.default_rng(0).normal(1000, 50, (100, 100)).astype(np.float32)
    out = Normalisation(low=10, high=90).measure(stack_of(data)).apply(data[None])
    np.testing.assert_allclose(np.percentile(out, [10, 90]), [0, 1], atol=1e-4)


def test_zscore_has_mean_zero_and_deviation_one():
    data = np.random.default_rng(0).integers(0, 60000, (2, 50, 50)).astype(np.uint16)
    out = Normalisation("zscore").measure(stack_of(data, "cyx")).apply(data)
    np.testing.assert_allclose(out.mean((1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(out.std((1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize("kind", ["percentile", "zscore"])
@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_becomes_zero(kind, value):
    data = np.full((8, 8), value, np.uint8)
    assert (Normalisation(kind).measure(stack_of(data)).apply(data[None]) == 0).all()


def test_a_constant_block_takes_the_statistics_of_the_whole():
    data = np.zeros((64, 64), np.uint16)
    data[32:] = np.random.default_rng(0).integers(0, 1000, (32, 64))
    statistics = Normalisation().measure(stack_of(data))
    out = statistics.apply(data[None])
    assert (statistics.apply(data[None, :32]) == out[:, :32]).all()
    assert np.isfinite(out).all()


def test_a_few_bright_pixels_on_a_constant_image_are_seen():
    data = np.zeros((200, 200), np.uint8)
    data[0, :3] = 200
    assert Normalisation().measure(stack_of(data)).apply(data[None]).max() == 1


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_normalising_a_cut_is_the_cut_of_the_normalised(start, seed):
    data = np.random.default_rng(seed).integers(0, 255, (1, 12, 12)).astype(np.uint8)
    statistics = Normalisation().measure(stack_of(data[0]))
    assert (statistics.apply(data[:, start:]) == statistics.apply(data)[:, start:]).all()


def test_statistics_of_a_large_stack_do_not_depend_on_its_chunks(tmp_path):
    side = int((WHOLE * 1.5) ** 0.5)
    data = np.random.default_rng(0).integers(0, 200, (side, side)).astype(np.uint8)
    found = set()
    for chunk in (500, 777):
        array = zarr.create_array(tmp_path / f"{chunk}.zarr", shape=data.shape, dtype=data.dtype, chunks=(chunk, chunk))
        array[:] = data
        found.add(Normalisation().measure(stack_of(array)))
    assert len(found) == 1
    assert found == {Normalisation().measure(stack_of(data))}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_number_and_place(bad):
    data = np.zeros((6, 7), np.float32)
    data[2, 3] = data[4, 4] = bad
    with pytest.raises(DataError, match=r"2 NaN or infinite.*yx = \(2, 3\).*--nan"):
        Normalisation().measure(stack_of(data))
    assert Normalisation().measure(stack_of(data), fill=0).scale == (0.0,)


def test_a_damaged_part_is_left_out_and_counted(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(64, 64), dtype="u2", chunks=(16, 16), dimension_names=["y", "x"]
    )
    array[:] = np.arange(64 * 64).reshape(64, 64)
    (tmp_path / "a.zarr" / "c" / "3" / "3").write_bytes(b"torn")
    found = Normalisation(low=0, high=100).measure(open_stack(tmp_path / "a.zarr"))
    assert found.unreadable == 1
    assert found.offset == (0.0,)
    assert found.scale[0] == 63 * 64 + 47
    for chunk in (tmp_path / "a.zarr" / "c").rglob("*/*"):
        chunk.write_bytes(b"torn")
    with pytest.raises(DataError, match=r"a\.zarr"):
        Normalisation().measure(open_stack(tmp_path / "a.zarr"))


def test_an_unknown_kind_is_named():
    with pytest.raises(ModelError, match="quantile"):
        Normalisation("quantile")
