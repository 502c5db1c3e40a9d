import dataclasses
import itertools
import json
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError
from napari_unet.events import wait
from napari_unet.grid.tiles import mirrored
from napari_unet.intensities.normalise import Normalisation
from napari_unet.network import UNet, UNetConfig
from napari_unet.task import Semantic
from napari_unet.training import TrainingPlan
from napari_unet.training.fingerprint import fingerprint
from napari_unet.training.holdout import Division, former_division, hold_out, kinds_of
from napari_unet.training.sampling import Sampler, ahead
from napari_unet.training.split import samples
from napari_unet.training.validate import Validation


class Recorder:
    """An array that remembers which of its elements were read."""

    def __init__(self, data):
        self.data, self.shape, self.dtype = data, data.shape, data.dtype
        self.read = np.zeros(data.shape, bool)

    def __getitem__(self, key):
        self.read[key] = True
        return self.data[key]


def plan_of(ndim, patch, batch=2, **network):
    config = UNetConfig(ndim=ndim, depth=1, base_features=2, **network)
    spacing, units = (1.0,) * ndim, (None,) * ndim
    return TrainingPlan(
        network=config,
        axes="zyx"[-ndim:],
        patch=patch,
        batch=batch,
        normalisation=Normalisation(),
        spacing=spacing,
        units=units,
        preset="default",
        optimiser="adamw",
        learning_rate=1e-3,
        memory=0,
    )


def labelled(shape, seed=0, rare=0.1, axes=None, channels=0):
    """An image whose labels are scattered voxels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) < rare).astype(np.uint8)
    labels.flat[0], labels.flat[-1] = 0, 1
    image = rng.integers(0, 1000, ((channels, *shape) if channels else shape)).astype(np.uint16)
    axes = axes or "tzyx"[-len(shape) :]
    return Stack(image, "c" * bool(channels) + axes), Stack(labels, axes)


def divided(pairs, axes, seed=0, sparse=False):
    every = samples(pairs, wait(fingerprint(pairs, sparse)), axes)
    return hold_out(every, seed).divide(every)


def squares(shape, at, value=1, seed=0):
    labels = np.zeros(shape, np.uint8)
    for y, x in at:
        labels[..., y : y + 4, x : x + 4] = value
    axes = "tzyx"[-len(shape) :]
    return Stack(np.random.default_rng(seed).normal(size=shape).astype(np.float32), axes), Stack(labels, axes)


SPREAD = [(2, 2), (2, 30), (20, 10), (30, 30), (33, 2), (12, 24)]


@pytest.mark.parametrize("shape", [(40, 40), (1, 40, 40), (6, 40, 40), (2, 40, 40), (40, 64)])
@pytest.mark.parametrize("negatives", [1, 2, 5, 11])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_only_image_with_objects_is_in_both_parts(shape, negatives, seed):
    pairs = [squares(shape, SPREAD)] + [squares(shape, [], seed=i + 1) for i in range(negatives)]
    for part in divided(pairs[seed % len(pairs) :] + pairs[: seed % len(pairs)], "yx", seed):
        assert any(len(sample.places.get(1, ())) for sample in part)
        assert all(sample.labels.shape[-1] > 1 for sample in part)


@pytest.mark.parametrize("rare", [2, 5, 9])
@pytest.mark.parametrize("where", [0, 2, 4])
def test_a_class_of_one_image_is_in_both_parts(rare, where):
    pairs = [squares((40, 40), SPREAD, seed=i) for i in range(5)]
    pairs[where][1].data[2:6, 20:24] = pairs[where][1].data[22:26, 22:26] = pairs[where][1].data[34:38, 20:24] = rare
    training, held_out = divided(pairs, "yx")
    for part in (training, held_out):
        assert {v for sample in part for v, at in sample.places.items() if len(at)} == {0, 1, rare}
    assert sum(s.image.shape[0] * s.image.shape[1] for s in training + held_out) == 5 * 40 * 40


def test_a_class_too_small_to_divide_stays_in_training():
    pairs = [squares((40, 40), SPREAD, seed=i) for i in range(5)]
    pairs[3][1].data[10, 30] = 2
    training, held_out = divided(pairs, "yx")
    assert any(len(sample.places.get(2, ())) for sample in training)
    assert not any(len(sample.places.get(2, ())) for sample in held_out)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(9, 30), st.integers(9, 30)), min_size=1, max_size=4),
    st.sampled_from([2, 3]),
    st.sampled_from(["same", "valid"]),
    st.integers(0, 99),
)
def test_training_never_reads_what_validation_reads(shapes, ndim, padding, seed):
    pairs = [labelled(shape, seed + i, rare=0.5) for i, shape in enumerate(shapes)]
    training, held_out = divided(pairs, "zyx"[-ndim:], seed)
    patch = (6, 6, 6)[-ndim:] if padding == "same" else (4, 4, 4)[-ndim:]
    plan = plan_of(ndim, patch, padding=padding)
    records = [(Recorder(image.data), Recorder(labels.data)) for image, labels in pairs]

    def recorded(sample):
        own = next(i for i, (image, _) in enumerate(pairs) if base(sample.image) is image.data)
        swap = [
            dataclasses.replace(stack, data=swapped(stack.data, record))
            for stack, record in zip((sample.image, sample.labels), records[own], strict=True)
        ]
        return dataclasses.replace(sample, image=swap[0], labels=swap[1])

    sampler = Sampler([recorded(s) for s in training], plan, seed)
    for step in range(6):
        sampler.batch(step)
    read = [(image.read.copy(), labels.read.copy()) for image, labels in records]
    for image, labels in records:
        image.read[:] = labels.read[:] = False
    validation = Validation([recorded(s) for s in held_out], plan, Semantic((0, 1)), seed)
    for index, at, tile in validation.tiles:
        low = [r.start - p for r, (p, _) in zip(tile.read, tile.pad, strict=True)]
        validation.samples[index].read(at, low, tile.shape)
    assert any(image.any() for image, _ in read)
    assert any(image.read.any() for image, _ in records)
    for (image, labels), (image_then, labels_then) in zip(read, records, strict=True):
        assert not (image & image_then.read).any()
        assert not (labels & labels_then.read).any()


def base(stack):
    return getattr(stack.data, "base", None) if not isinstance(stack.data, np.ndarray) else stack.data


def swapped(data, record):
    return record if isinstance(data, np.ndarray) else dataclasses.replace(data, base=record)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(-60, 60), st.integers(1, 50))
def test_reflection_is_numpys(size, start, length):
    data = np.arange(size)
    padded = np.pad(data, (200, 200), mode="reflect")
    assert (data[mirrored(start, start + length, size)] == padded[200 + start :][:length]).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.integers(0, 2**20), st.sampled_from([2, 3]))
def test_a_batch_is_a_function_of_seed_and_step_alone(seed, step, ndim):
    pairs = [labelled((5, 12, 14), channels=2), labelled((3, 9, 20), 1, channels=2)]
    every = samples(pairs, wait(fingerprint(pairs)), "zyx"[-ndim:])
    plan = plan_of(ndim, (4, 8, 8)[-ndim:])
    first, second = Sampler(every, plan, seed), Sampler([s.cached() for s in every], plan, seed)
    first.batch(step + 7)
    images, labels = first.batch(step)
    again, labels_again = second.batch(step)
    assert images.shape == (2, 2, *plan.patch)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert not np.array_equal(images, second.batch(step + 1)[0])


def test_a_rare_class_is_drawn_as_often_as_asked():
    image, labels = labelled((200, 200), rare=0)
    pairs = [(image, labels)]  # a single voxel, in the last corner
    every = samples(pairs, wait(fingerprint(pairs)), "yx")
    plan = plan_of(2, (16, 16), batch=50)

    def share(balance):
        found = Sampler(every, plan, 0, balance)
        return np.mean([labels.any() for step in range(20) for labels in found.batch(step)[1]])

    assert share(1.0) == pytest.approx(0.5, abs=0.06)
    assert share(0.5) == pytest.approx(0.25, abs=0.06)
    assert share(0.0) < 0.05


def test_sparse_patches_all_hold_something_annotated():
    image, labels = labelled((300, 300), rare=0.0)
    labels.data[100:103, 40:60], labels.data[250, 250] = 2, 3
    pairs = [(image, labels)]
    every = samples(pairs, wait(fingerprint(pairs, sparse=True)), "yx")
    sampler = Sampler(every, plan_of(2, (16, 16)), 0, 0.5, sparse=True)
    assert all(part.any() for step in range(100) for part in sampler.batch(step)[1])


def test_image_and_labels_of_a_patch_lie_on_each_other():
    labels = np.random.default_rng(0).integers(0, 2, (2, 3, 30, 30)).astype(np.uint8)
    image = np.stack([labels, 1 - labels], 1).astype(np.float32)
    pairs = [(Stack(image, "tczyx"), Stack(labels, "tzyx"))]
    every = samples(pairs, wait(fingerprint(pairs)), "yx")
    plan = plan_of(2, (4, 4), batch=8, padding="valid", in_channels=2)
    images, parts = Sampler(every, plan, 0).batch(3)
    np.testing.assert_allclose(images[:, 0], np.stack(parts), atol=1e-6)
    np.testing.assert_allclose(images[:, 1], 1 - np.stack(parts), atol=1e-6)
    assert UNet(plan.network)(torch.from_numpy(images)).shape[2:] == plan.patch


@pytest.mark.parametrize(
    ("shape", "axes", "cut"), [((10, 40, 20), "yx", 0), ((10, 40, 20), "zyx", 1), ((3, 40, 20), "yx", 1)]
)
def test_one_image_gives_up_a_fifth_at_one_end(shape, axes, cut):
    (training,), (held_out,) = divided([labelled(shape, rare=0.5)], axes)
    assert training.labels.shape[cut] + held_out.labels.shape[cut] == shape[cut]
    assert held_out.labels.shape[cut] == pytest.approx(0.2 * shape[cut], abs=2)


def test_several_images_give_up_whole_ones_but_no_class():
    pairs = [labelled((20, 20), i, rare=0.0) for i in range(10)]
    for _, labels in pairs:
        labels.data[-1, -1] = 0
    pairs[4][1].data[5, 5] = 1
    training, held_out = divided(pairs, "yx")
    assert [s.image.shape for s in held_out].count((20, 20)) == 2
    assert any(1 in s.places for s in training)


def whole(pairs):
    return samples(pairs, wait(fingerprint(pairs)), "yx")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_kind_of_image_is_held_out(seed):
    dim, bright, tissue = ([squares(shape, SPREAD, seed=i) for i in range(n)] for shape, n in KINDS)
    for image, _ in bright:
        image.data[:] = image.data * 50
    pairs = [*dim, *bright, *tissue]
    every = whole(pairs)
    assert sorted(map(sorted, kinds_of(every))) == [list(range(10)), list(range(10, 20)), [20, 21, 22, 23]]
    found = hold_out(every, seed)
    assert [sum(n in found.whole for n in part) for part in (range(10), range(10, 20), range(20, 24))] == [2, 2, 0]
    assert sorted(number for number, *_ in found.regions) == [20, 21, 22, 23]
    assert found.story(24) == (
        "held out for validation: 4 of 24 images and a region of 4 others; 3 kinds by shape, intensity and size of "
        "objects, some of each"
    )
    assert Division.from_json(json.loads(json.dumps(found.to_json()))) == found


KINDS = [((40, 40), 10), ((40, 40), 10), ((60, 120), 4)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_few_images_a_region_of_each_is_held_out(count):
    pairs = [squares((40, 40), SPREAD, seed=i) for i in range(count)]
    training, held_out = divided(pairs, "yx")
    assert len(training) == len(held_out) == count
    assert all(len(sample.places.get(1, ())) for sample in (*training, *held_out))


def test_large_and_small_objects_are_two_kinds_and_sizes_in_between_are_one():
    small = [squares((90, 90), SPREAD, seed=i) for i in range(7)]
    large = [squares((90, 90), [], seed=i + 7) for i in range(7)]
    for _, labels in large:
        labels.data[20:60, 30:70] = 1
    assert sorted(map(len, kinds_of(whole([*small, *large])))) == [7, 7]
    between = []
    for size in range(4, 20):
        labels = np.zeros((90, 90), np.uint8)
        labels[20 : 20 + size, 30 : 30 + size] = 1
        between.append((squares((90, 90), [], seed=size)[0], Stack(labels, "yx")))
    assert list(map(len, kinds_of(whole(between)))) == [16]


def test_trainings_without_a_record_go_on_with_what_was_held_out_then():
    ten = whole([squares((40, 40), SPREAD[: 1 + i % 6], seed=i) for i in range(10)])
    assert [former_division(ten, seed) for seed in (0, 3)] == [Division((1, 4)), Division((6, 7))]
    four = [squares((40, 40), SPREAD, seed=i) for i in range(4)]
    data = four[0][1].data
    data[2:6, 20:24] = data[34:38, 20:24] = 5
    data[2:6, 12:16] = data[34:38, 12:16] = 6
    assert former_division(whole(four), 0) == Division((2,), ((0, 0, 4, False),))


def test_an_image_too_small_to_divide_is_refused():
    with pytest.raises(DataError, match="too small"):
        divided([labelled((5, 5), rare=0.5)], "yx")


def test_sparse_annotation_is_in_both_parts():
    image, labels = labelled((200, 100), rare=0.0)
    labels.data[:] = 0
    labels.data[90:100, 10:90], labels.data[100:110, 10:90] = 1, 2
    (training,), (held_out,) = divided([(image, labels)], "yx", sparse=True)
    assert {1, 2} <= {v for v, at in training.places.items() if len(at)}
    assert any(len(at) for at in held_out.places.values())


@pytest.mark.parametrize("workers", [1, 4])
def test_prefetched_items_come_in_order_and_errors_come_through(workers):
    made = ahead(lambda n: time.sleep(0.01 * (n % 3)) or 10 // (13 - n), first=3, workers=workers)
    assert list(itertools.islice(made, 10)) == [10 // (13 - n) for n in range(3, 13)]
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_what_prefetches_computes_with_one_thread_and_ends_when_it_is_closed():
    before = torch.get_num_threads()
    endless = ahead(lambda n: torch.get_num_threads(), 0, workers=3)
    assert list(itertools.islice(endless, 5)) == [1] * 5
    assert torch.get_num_threads() == before
    assert any(thread.name.startswith("parts") for thread in threading.enumerate())
    endless.close()
    assert not any(thread.name.startswith("parts") for thread in threading.enumerate())
