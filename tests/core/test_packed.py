"""Arrays in one file come back as they were, each without the others, and what was damaged is seen."""

import io
import struct

import numpy as np
import pytest

from napari_unet.errors import UNUSABLE
from napari_unet.objects.packed import read_arrays, write_arrays

RNG = np.random.default_rng(0)
ARRAYS = {
    "size": RNG.integers(0, 2**62, 7),
    "plane": RNG.integers(0, 2**32, (1, 9, 5), np.uint32),
    "across": np.asfortranarray(RNG.normal(size=(4, 3))),
    "border": RNG.random(5) > 0.5,
    "none": np.zeros((0, 2), np.int64),
    "inside": np.array(3),
}


def written():
    file = io.BytesIO()
    write_arrays(file, ARRAYS)
    return file.getvalue()


def again(data, *names):
    return read_arrays(io.BufferedReader(io.BytesIO(data)), names, len(data))


@pytest.mark.parametrize("names", [tuple(ARRAYS), ("inside", "none", "across"), ()])
def test_arrays_come_back_as_they_were(names):
    for name, found in zip(names, again(written(), *names), strict=True):
        np.testing.assert_array_equal(found, ARRAYS[name], strict=True)


def test_a_byte_that_changed_is_seen():
    data = written()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 16
        with pytest.raises((*UNUSABLE, struct.error)):
            again(bytes(changed), *ARRAYS)


def test_a_file_that_was_cut_off_is_seen():
    data = written()
    for length in range(0, len(data), 7):
        with pytest.raises((*UNUSABLE, struct.error)):
            again(data[:length], *ARRAYS)
