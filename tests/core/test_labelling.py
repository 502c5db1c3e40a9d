"""What labels are, and what is said of those that a task cannot use."""

import dataclasses

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, UsageError
from napari_unet.events import wait
from napari_unet.metrics.contingency import Contingency
from napari_unet.metrics.objects import Overlaps, average_precision
from napari_unet.objects import objects_of
from napari_unet.objects.labelling import Labelling, label_rows, looks_like_labels
from napari_unet.task import Instances, read_task
from napari_unet.training import TrainConfig
from napari_unet.training.labels import Foreground, labels_of
from napari_unet.training.setup import outlook

CONFIG = {"steps": 2, "depth": 1, "base_features": 2, "device": "cpu"}


def squares(seed=0, shape=(64, 64), edge=6):
    """Squares that touch nothing, numbered."""
    rng, ids = np.random.default_rng(seed), np.zeros(shape, np.uint16)
    cells = [(y, x) for y in range(2, shape[0] - edge, edge + 4) for x in range(2, shape[1] - edge, edge + 4)]
    for number, at in enumerate(rng.permutation(len(cells))[: len(cells) // 2], 1):
        y, x = cells[at]
        ids[y : y + edge, x : x + edge] = number
    return ids


def rods(width, count=8, shape=(48, 64)):
    """Rods that lie side by side."""
    ids = np.zeros(shape, np.uint16)
    for number in range(count):
        ids[6:40, 3 + number * width : 3 + (number + 1) * width] = number + 1
    return ids


def balls(by_plane):
    z, y, x = np.indices((10, 40, 40))
    ids, number = np.zeros((10, 40, 40), np.uint16), 0
    for cy, cx in ((10, 10), (10, 30), (30, 10), (30, 30)):
        ball = (2 * (z - 5)) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= 64
        for plane in range(10):
            number += bool(by_plane and ball[plane].any()) or (not by_plane and plane == 0)
            ids[plane][ball[plane]] = number
    return ids


def soft(mask, steps, top=255):
    return np.rint(ndimage.uniform_filter(mask * float(top), steps)).astype(np.uint8)


def seen(labels, **config):
    own = {"working_pixel_size": 1.0} if config.get("task") == "instances" else {}  # labels as they are, not enlarged
    config = own | config
    axes = "tzyx"[-np.ndim(labels) :]
    image = Stack(np.random.default_rng(0).normal(size=labels.shape).astype(np.float32), axes)
    return wait(outlook([(image, Stack(labels, axes))], TrainConfig(**CONFIG, **config)))


MASKS = [
    lambda: (squares() > 0) * np.uint8(255),
    lambda: (squares(1) > 0).astype(np.uint8),
    lambda: squares(2) > 0,
    lambda: (squares(3, edge=3) > 0) * np.uint16(65535),
    lambda: (balls(False) > 0) * np.uint8(7),
    lambda: np.stack([squares() > 0, squares(1) > 0]) * np.uint8(9),
]


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_is_no_objects_until_its_pieces_are_numbered(mask):
    with pytest.raises(DataError, match=r"one id is in \d+ separate pieces: is it a mask\?.*--number-objects"):
        seen(mask(), task="instances")
    found = seen(mask(), task="instances", number_objects=True)
    assert not any("pieces" in line for line in found.lines())
    assert found.facts.diameters


@pytest.mark.parametrize("size", [1.0, 0.5, 0.4, None])
def test_planes_numbered_one_by_one_are_said_at_whatever_size_they_are_learnt(size):
    labels, numbered = np.repeat(np.repeat(balls(False), 2, 1), 2, 2), np.repeat(np.repeat(balls(True), 2, 1), 2, 2)
    for ids, said in ((labels, False), (numbered, True)):
        try:
            lines = seen(ids, task="instances", ndim=3, working_pixel_size=size).lines()
        except DataError as error:
            lines = [str(error)]
        assert any("plane to plane" in line for line in lines) is said


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.tuples(st.integers(0, 30), st.integers(0, 30)), st.sampled_from([1, 255]))
def test_numbered_pieces_are_the_components_of_what_is_read(seed, at, value):
    mask = (np.random.default_rng(seed).random((2, 40, 40)) < 0.5) * np.uint8(value)
    config = TrainConfig(task="instances", number_objects=True)
    image = Stack(np.zeros((2, 40, 40)), "tyx")
    ((_, labels),) = labels_of([(image, Stack(mask, "tyx"))], config)
    box = (slice(0, 2), slice(at[0], at[0] + 10), slice(at[1], at[1] + 10))
    for plane, part in zip(labels.read(box), mask[box], strict=True):
        np.testing.assert_array_equal(plane, ndimage.label(part)[0])


def test_of_sparse_labels_the_painted_background_stays():
    data = np.zeros((20, 20), np.uint8)
    data[:10], data[2:5, 2:5], data[2:5, 12:15] = 3, 9, 9
    read = Foreground(data, Stack(data, "yx"), above=0, apart=0, number=True, background=3)[...]
    assert set(np.unique(read)) == {0, 3, 4, 5}
    assert (read == 3).sum() == (data == 3).sum()


@pytest.mark.parametrize("steps", [3, 4])
@pytest.mark.parametrize("make", [squares, lambda: squares(edge=12), lambda: rods(9, 3)])
def test_soft_edges_are_no_classes_and_no_objects(make, steps):
    labels = soft(make() > 0, steps)
    found = [line for line in seen(labels).lines() if "between the two of a mask" in line]
    assert len(found) == 1 and "--binary --above 127" in found[0]
    with pytest.raises(DataError, match="--number-objects --above 127"):
        seen(labels, task="instances")
    for config in ({"binary": True}, {"task": "instances", "number_objects": True}):
        foreground = seen(labels, above=127, **config).facts.stacks[0].counts
        assert foreground[1] == (labels > 127).sum()


@pytest.mark.parametrize(
    "labels",
    [
        squares(edge=4),
        squares(1, (64, 96)),
        rods(8, 7),
        balls(False),
        np.kron(np.arange(25).reshape(5, 5), np.ones((9, 9), int)).astype(np.uint8),
    ],
)
def test_numbers_of_objects_given_as_classes_are_said(labels):
    labels = labels.astype(np.uint8)
    assert any("are they numbers of objects" in line for line in seen(labels).lines())
    assert not any("are they numbers of objects" in line for line in seen(labels, binary=True).lines())


def test_classes_are_classes():
    labels = (squares(edge=5) % 3 + (squares(edge=5) > 0)).astype(np.uint8)
    assert not any("numbers of objects" in line or "between" in line for line in seen(labels).lines())
    assert any("ids are in several pieces" in line for line in seen(labels, task="instances").lines())


@pytest.mark.parametrize("width", [2, 3, 4, 6, 9, 14])
def test_objects_of_any_width_keep_an_inside_and_come_back(width):
    labels = rods(width, 4)
    found = seen(labels, task="instances")
    assert not any("cannot be held" in line for line in found.lines())
    target = found.task.encode(labels)
    again = objects_of(target[0].astype(np.uint8), found.task.objects)
    assert average_precision(Overlaps.of(Contingency.of(labels, again)), 0.75 if width > 2 else 0.5) == 1
    assert read_task(found.task.to_json()) == found.task


def test_objects_that_cannot_be_held_are_counted_and_named():
    labels = rods(8, 5)
    labels[:4, 10:30] = np.arange(60, 80)  # one pixel wide, side by side
    labels[42:44, 3:6] = labels[42:44, 30:33] = labels[42:44, 50:53] = 9  # in three pieces
    found = Labelling.of([labels])
    assert "21 of 26 objects" in found.about_lost(2) and "(id 9, 60, " in found.about_lost(2)
    assert any("cannot be held" in line for line in seen(labels, task="instances").lines())
    lost = Labelling.of([rods(1, 40) * (np.arange(48) < 8)[:, None]]).lost_objects(2)
    assert lost.count == lost.objects == 40 and lost.empty >= 38


def test_planes_numbered_one_by_one_are_refused_in_3d_alone():
    with pytest.raises(DataError, match=r"ids change from plane to plane.*--number-objects.*cannot be held"):
        seen(balls(True), task="instances", ndim=3)
    for config in ({"ndim": 2}, {"ndim": 3, "number_objects": True}):
        assert not any("plane to plane" in line for line in seen(balls(True), task="instances", **config).lines())
    assert not any("plane to plane" in line for line in seen(balls(False), task="instances", ndim=3).lines())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.integers(1, 5))
def test_parts_are_added_and_objects_that_are_lost_are_those_that_do_not_come_back(seed, edge):
    rng, task = np.random.default_rng(seed), Instances(grow=3, nearest=True)
    parts = [np.kron(rng.integers(0, 9, (6, 6)), np.ones((edge, edge), int)) for _ in range(2)]
    found, lost = Labelling.of(parts), 0
    for part in parts:
        again = objects_of(task.encode(part)[0].astype(np.uint8), task.objects)
        lost += sum(
            all((own & (again == i)).sum() < 0.5 * (own | (again == i)).sum() for i in range(1, again.max() + 1))
            for own in (part == v for v in np.unique(part[part > 0]))
        )
    assert (found.lost[2].count, found.lost[2].objects) == (lost, found.ids)
    assert found.ids == sum(len(np.unique(p[p > 0])) for p in parts)


def test_what_looks_like_labels_is_described_and_an_image_is_not(tmp_path):
    for labels in (squares(), squares() > 0, balls(True), rods(2), soft(squares(edge=16) > 0, 3)):
        assert looks_like_labels(labels)
        axes = "zyx"[-labels.ndim :]
        assert label_rows(Stack(labels, axes))[0][0] == "labels"
    rng = np.random.default_rng(0)
    for image in (
        rng.poisson(9, (64, 64)),
        rng.integers(0, 255, (64, 64)),
        np.zeros((9, 9), int),
        np.indices((30, 30))[0],
    ):
        assert label_rows(Stack(image.astype(np.uint16), "yx")) == [] or image.max() == 29
    assert label_rows(Stack(rng.random((9, 9)), "yx")) == []


def test_the_same_image_twice_is_refused_and_blank_ones_are_not():
    labels = squares().astype(np.uint8)
    image = np.random.default_rng(0).normal(size=(64, 64))
    pairs = [
        (Stack(image.copy(), "yx", name=n), Stack((labels > k).astype(np.uint8), "yx")) for k, n in enumerate("ab")
    ]
    with pytest.raises(DataError, match="b is the same image as a"):
        wait(outlook(pairs, TrainConfig(**CONFIG)))
    other = dataclasses.replace(pairs[1][0], data=image + 1e-6)
    wait(outlook([pairs[0], (other, pairs[1][1])], TrainConfig(**CONFIG)))


@pytest.mark.parametrize(
    "task",
    [
        {"task": "restore"},
        {"task": "restore", "blind": True},
        {"task": "restore", "noise": 5.0},
        {"task": "super_resolve", "upscale": (2, 2)},
        {"task": "autoencode"},
    ],
)
def test_the_same_pair_of_images_twice_is_refused_and_one_image_with_other_targets_is_not(task):
    rng = np.random.default_rng(0)
    one, other = (Stack(rng.normal(9, 1, (64, 64)).astype("f4"), "yx", name=name) for name in ("a", "b"))
    again = dataclasses.replace(one, data=one.data.copy(), name="c")
    with pytest.raises(DataError, match="c is the same image as a"):
        wait(outlook([(one, one), (other, other), (again, again)], TrainConfig(**task)))
    if task == {"task": "restore"}:
        wait(outlook([(one, other), (one, again)], TrainConfig(**task)))


@pytest.mark.parametrize("wrong", [{"number_objects": True}, {"above": 3}, {"task": "instances", "above": 9}])
def test_options_for_masks_need_what_they_are_of(wrong):
    with pytest.raises(UsageError):
        TrainConfig(**wrong)


def test_info_says_what_labels_are(tmp_path, capsys, monkeypatch):
    from napari_unet.cli import main

    tifffile.imwrite(tmp_path / "mask.tif", (squares() > 0) * np.uint8(255))
    monkeypatch.setattr("sys.argv", ["napari-unet", "info", str(tmp_path / "mask.tif")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "is it a mask?" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("steps", [4, 9, 30])
@pytest.mark.parametrize("above", [None, 127])
def test_soft_edges_are_said_where_all_above_0_is_one_class_and_not_where_they_are_cut(steps, above):
    mask = np.zeros((96, 96), bool)
    mask[20:50, 20:50] = mask[60:90, 10:80] = True
    image = np.random.default_rng(0).normal(100, 10, mask.shape) + 60 * mask
    pair = Stack(data=image, axes="yx"), Stack(data=soft(mask, steps), axes="yx")
    lines = wait(outlook([pair], TrainConfig(binary=True, above=above))).lines()
    assert any("--binary --above 127" in line for line in lines) == (above is None)


MASKS = {  # the foreground of each of three masks, and whether that is to be said
    "0 and 1, and 0 and 255": ((1, 255, 1), True),
    "one of each and an empty one": ((1, 255, 0), True),
    "mostly 255": ((255, 255, 1), True),
    "all 255": ((255, 255, 255), False),
    "all 1": ((1, 1, 1), False),
    "classes 1 and 2": ((1, 2, 1), False),
    "classes 254 and 255": ((254, 255, 255), False),
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("binary", [False, True])
def test_masks_of_two_kinds_in_one_set_are_said(kind, binary):
    tops, is_said = MASKS[kind]
    rng = np.random.default_rng(0)
    masks = [squares(seed) > 0 for seed in range(3)]
    pairs = [
        (Stack(mask * 50 + rng.normal(20, 3, mask.shape), "yx", name=f"{i}"), Stack((mask * top).astype("u1"), "yx"))
        for i, (mask, top) in enumerate(zip(masks, tops, strict=True))
    ]
    lines = wait(outlook(pairs, TrainConfig(**CONFIG, binary=binary))).lines()
    assert any("each value is a class of its own" in line for line in lines) == (is_said and not binary)


DEPTHS = {  # what each of three images is multiplied by
    "8 bits and 0 to 1": ((255, 1, 255), True),
    "16 bits and 8": ((257, 257, 1), True),
    "12 bits and 0 to 1": ((1, 4095, 1), True),
    "three depths": ((1, 255, 65535), True),
    "negative": ((1, -400, 1), True),
    "exposures": ((1, 9, 3), False),
    "the same": ((5, 5, 5), False),
}


@pytest.mark.parametrize("kind", DEPTHS)
@pytest.mark.parametrize("side", ["images", "targets"])
def test_images_on_different_scales_are_said_where_one_range_is_learnt_for_all(kind, side):
    factors, is_said = DEPTHS[kind]
    pairs = []
    for i, factor in enumerate(factors):
        clean = np.random.default_rng(i).random((64, 64)).astype("f4")
        noisy = clean + 0.1 * np.random.default_rng(9 + i).normal(size=clean.shape).astype("f4")
        both = [noisy * (factor if side == "images" else 1), clean * (factor if side == "targets" else 1)]
        pairs.append([Stack(data, "yx", name=f"{name} {i}") for data, name in zip(both, ("raw", "good"), strict=True)])
    lines = [line for line in wait(outlook(pairs, TrainConfig(task="restore", **CONFIG))).lines() if "scale" in line]
    assert [line.startswith(f"the {side} are on different scales") for line in lines] == [True] * is_said
