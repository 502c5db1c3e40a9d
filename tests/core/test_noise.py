"""Noise by place: the published numbers, the same for every box, normal, and of its own for each seed and sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.arrays.noise import normal, philox

# Of Random123, the authors' own library: philox4x32, 10 rounds: counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "wanted"), KNOWN)
def test_the_words_are_those_that_were_published(counter, key, wanted):
    found = philox(tuple(np.array([w], np.uint64) for w in words(counter)), tuple(words(key)))
    assert [int(w[0]) for w in found] == words(wanted)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_box_of_it_is_a_part_of_the_whole(data):
    ndim = data.draw(st.integers(2, 4))
    shape = data.draw(st.tuples(*[st.integers(1, 17)] * ndim))
    corner = data.draw(st.tuples(*[st.integers(0, 2**31)] * ndim))
    whole = normal(tuple(slice(a, a + n) for a, n in zip(corner, shape, strict=True)), 7, 3, 1)
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)]
    part = tuple(slice(c + a, c + b) for c, a, b in zip(corner, low, high, strict=True))
    inner = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    assert np.array_equal(normal(part, 7, 3, 1), whole[inner])


def test_it_is_normal_and_independent():
    box = (slice(0, 4), slice(0, 8), slice(0, 128), slice(0, 130))
    x = normal(box, 1).astype(float)
    n = x.size
    assert x.dtype == float and abs(x.mean()) < 4 / n**0.5 and abs(x.std() - 1) < 4 / (2 * n) ** 0.5
    assert abs((x**3).mean()) < 4 * (15 / n) ** 0.5 and abs((x**4).mean() - 3) < 4 * (96 / n) ** 0.5
    for axis in range(4):
        for step in (1, 2, 3):
            ahead, behind = x.take(range(step, x.shape[axis]), axis), x.take(range(x.shape[axis] - step), axis)
            assert abs((ahead * behind).mean()) < 5 / ahead.size**0.5


def test_each_seed_sample_and_channel_has_its_own():
    box = (slice(0, 64), slice(0, 64))
    one = normal(box, 0)
    assert np.array_equal(one, normal(box, 0))
    for other in (normal(box, 1), normal(box, 0, 1), normal(box, 0, 0, 1), normal(box, 2**32 - 1, 2**16 - 1, 4095)):
        assert abs((one * other).mean()) < 4 / 64
