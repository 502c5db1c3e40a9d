"""Simulated labels: like those that were given, and the same however they are cut."""

import numpy as np
import pytest
from scipy import ndimage

from helpers import call
from napari_unet import examples
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, UsageError
from napari_unet.objects.labelling import pieces_of
from napari_unet.objects.simulate import forms_of, simulate_labels
from napari_unet.sources import open_labels


def balls(scale=(2.0, 1.0, 1.0)):
    """Balls of radius 4 in pixels of y and x, as they lie in voxels of another depth, far from each other."""
    found = np.zeros((30, 60, 60), np.uint8)
    offset = np.indices((5, 9, 9)) - np.reshape((2, 4, 4), (3, 1, 1, 1))
    ball = (np.square(offset * np.reshape(scale, (3, 1, 1, 1))).sum(0) <= 16) * 1
    for number, at in enumerate(np.ndindex(3, 4, 4), 1):
        z, y, x = np.array(at) * (10, 15, 15) + (3, 3, 3)
        found[z : z + 5, y : y + 9, x : x + 9] = ball * number
    return Stack(found, "zyx", scale=scale)


CASES = {
    "nuclei": (lambda: Stack(examples.nuclei()[1], "yx", scale=(0.5, 0.5)), (400, 700)),
    "balls": (balls, (40, 100, 90)),
}


@pytest.mark.parametrize("case", CASES)
def test_objects_are_as_many_as_large_and_as_long_as_those_given(case):
    given, shape = CASES[case]
    given = given()
    found = simulate_labels([given], shape, seed=3)
    assert found.shape == shape and found.axes == given.axes and found.scale == given.scale
    data = found.data[...]
    assert (data > 0).mean() == pytest.approx((np.asarray(given.data) > 0).mean(), rel=0.35)
    one, other = forms_of([given], given.data.ndim), forms_of([found], given.data.ndim)
    assert other.density == pytest.approx(one.density, rel=0.25)
    assert np.median(other.radii) == pytest.approx(np.median(one.radii), rel=0.15)
    length, other_length = (np.linalg.cond(each.axes) for each in (one, other))
    assert np.median(other_length) == pytest.approx(np.median(length), rel=0.25)
    values = np.unique(data)
    pieces = np.array(pieces_of(np.searchsorted(values, data)))
    assert (pieces > 1).mean() < 0.05  # a few are cut in two by another that lies across


@pytest.mark.parametrize("case", CASES)
def test_they_are_the_same_however_they_are_cut(case):
    given, shape = CASES[case]
    found, rng = simulate_labels([given()], shape, seed=1).data, np.random.default_rng(0)
    whole = found[...]
    for _ in range(12):
        cuts = np.sort([rng.choice(n + 1, 2, replace=False) for n in shape], axis=1)
        box = tuple(slice(int(a), int(b)) for a, b in cuts)
        assert (found[box] == whole[box]).all()
    assert (simulate_labels([given()], shape, seed=2).data[...] != whole).mean() > 0.05
    larger = simulate_labels([given()], tuple(2 * n for n in shape), seed=1).data[tuple(slice(0, n) for n in shape)]
    assert ((larger > 0) == (whole > 0)).all()  # an end more far away changes their numbers alone


def test_a_volume_without_end_is_drawn_where_it_is_read():
    field = simulate_labels([balls()], (10**6, 10**6, 10**6)).data
    part = field[5 * 10**5 : 5 * 10**5 + 20, 10**6 - 50 :, 7 * 10**5 : 7 * 10**5 + 40]
    assert field.dtype == np.uint64 and 3 < len(np.unique(part)) < 100
    assert ndimage.label(part > 0)[1] <= len(np.unique(part))


def test_what_cannot_be_measured_is_refused():
    two = np.zeros((40, 40), np.uint8)
    two[3:9, 3:9], two[20:28, 20:28] = 1, 2
    with pytest.raises(DataError, match="2 objects lie whole"):
        simulate_labels([Stack(two, "yx")], (64, 64))
    with pytest.raises(DataError, match="give labels"):
        simulate_labels([Stack(two.astype(np.float32), "yx")], (64, 64))
    with pytest.raises(DataError, match="labels with z"):
        simulate_labels([Stack(two, "yx")], (8, 64, 64))
    with pytest.raises(UsageError, match="two sizes"):
        simulate_labels([balls()], (64,))


def test_the_command_writes_labels_that_open_as_such(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", examples.nuclei()[1], metadata={"axes": "YX"})
    given = (tmp_path / "a.tif", "--shape", 200, 300, "--seed", 4, "--out", tmp_path / "l.ome.zarr")
    code, said = call("simulate", *given)
    assert code == 0, said
    found = open_labels(tmp_path / "l.ome.zarr")
    wanted = simulate_labels([Stack(examples.nuclei()[1], "yx")], (200, 300), 4)
    assert (np.asarray(found.data[...]) == wanted.data[...]).all()
    code, said = call("simulate", *given)
    assert code == 5 and "l.ome.zarr" in said and call("simulate", *given, "--overwrite")[0] == 0
