from concurrent.futures import ThreadPoolExecutor

import dask.array
import numpy as np
import pytest

from napari_unet.arrays.stack import Stack
from napari_unet.events import wait
from napari_unet.grid.tiles import mirrored
from napari_unet.task import Instances, Semantic
from napari_unet.training.annotation import ObjectLabels
from napari_unet.training.fingerprint import fingerprint
from napari_unet.training.split import samples
from napari_unet.training.targets import Targets

COUNTED = []


class Counting(Instances):
    """Objects, of which it is known how often they were encoded."""

    __slots__ = ()

    def encode(self, labels):
        COUNTED.append(labels.shape)
        return super().encode(labels)


def touching_squares(planes=1, lazy=False):
    """Squares of 20 x 20 that touch, 11 of 12 places in each plane, and an image of noise."""
    one = np.kron(np.arange(12).reshape(3, 4), np.ones((20, 20), int))
    ids = np.stack([np.where(one, one + 11 * z, 0) for z in range(planes)]).astype(np.uint16)
    image = np.random.default_rng(0).normal(size=ids.shape).astype(np.float32)
    pairs = [(Stack(image, "zyx"), Stack(dask.array.from_array(ids, ids.shape) if lazy else ids, "zyx"))]
    return ids, samples(pairs, wait(fingerprint(pairs, objects=ObjectLabels())), "yx")


@pytest.mark.parametrize("start", [(3, 5), (-8, -3), (45, 70)])
def test_the_target_of_a_patch_is_that_of_the_whole_image(start):
    ids, every = touching_squares(planes=2)
    task = Instances(w0=10.0, nearest=True)
    _, found = Targets(task, every).read(every[0], (1,), start, (24, 24))
    index = [mirrored(a, a + 24, n) for a, n in zip(start, ids.shape[1:], strict=True)]
    np.testing.assert_array_equal(found, task.encode(ids[1])[(slice(None), *np.ix_(*index))])


def test_an_object_that_a_patch_cuts_has_the_border_it_has_elsewhere():
    _, every = touching_squares()
    task = Instances(w0=10.0, nearest=True)
    sliver = (0, 36), (12, 5)  # the last 4 columns of a square that is 20 wide, and the first of the next one
    _, found = Targets(task, every).read(every[0], (0,), *sliver)
    alone = task.encode(every[0].read((0,), *sliver)[1])
    assert (found[0] == 2).sum() > (alone[0] == 2).sum()


def test_an_image_in_memory_is_encoded_once_whatever_is_drawn_at_once():
    COUNTED.clear()
    _, every = touching_squares(planes=3)
    targets = Targets(Counting(w0=10.0, nearest=True), every)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: targets.read(every[0], (n % 3,), (n, n), (16, 16)), range(30)))
    assert COUNTED == [(60, 80)] * 3


def test_labels_on_a_disk_are_encoded_patch_by_patch():
    COUNTED.clear()
    ids, every = touching_squares(lazy=True)
    task = Counting(w0=10.0, nearest=True)
    _, found = Targets(task, every).read(every[0], (0,), (10, 10), (16, 16))
    np.testing.assert_array_equal(found, task.encode(ids[0, 10:26, 10:26]))
    assert COUNTED[0] == (16, 16)


def test_image_and_classes_of_a_patch_are_those_of_the_sample():
    _, every = touching_squares()
    image, target = Targets(Semantic(tuple(range(12))), every).read(every[0], (0,), (-4, 2), (16, 16))
    wanted, labels = every[0].read((0,), (-4, 2), (16, 16))
    np.testing.assert_array_equal(image, wanted)
    np.testing.assert_array_equal(target, labels)
