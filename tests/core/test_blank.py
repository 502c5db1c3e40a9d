"""A blank image among others is left out of a training and named; where all are blank nothing is learnt."""

import numpy as np
import pytest

from helpers import collect, example, same
from helpers import short as small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError
from napari_unet.events import wait
from napari_unet.training import train
from napari_unet.training.setup import outlook


def blank(name, value=0, labels=None, shape=(48, 48)):
    labels = np.zeros(shape, np.uint8) if labels is None else labels
    return Stack(np.full(shape, value, np.float32), "yx", name=name), Stack(labels, "yx", name=f"{name} labels")


GOOD = [example(seed=i, name=f"good {i}") for i in range(3)]


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("value", [0, 7])
def test_a_blank_image_is_left_out_and_named(at, value, tmp_path):
    pairs = [*GOOD[:at], blank("empty one", value), *GOOD[at:]]
    events, model = collect(train(pairs, tmp_path / "a.model", small(steps=4)))
    assert any("left out" in e.message and "empty one" in e.message for e in events if hasattr(e, "message"))
    assert same(model, wait(train(GOOD, tmp_path / "b.model", small(steps=4))))
    assert any("empty one" in line for line in wait(outlook(pairs, small())).lines())


def test_blank_images_of_a_validation_are_left_out_too(tmp_path):
    events, _ = collect(train(GOOD, tmp_path / "a.model", small(steps=4), validation=[blank("void"), example(seed=9)]))
    assert any("left out" in e.message and "void" in e.message for e in events if hasattr(e, "message"))


@pytest.mark.parametrize("task", ["semantic", "instances", "restore"])
def test_where_all_are_blank_it_is_refused_and_nothing_is_written(task, tmp_path):
    pairs = [blank("a"), blank("b", 3)]
    with pytest.raises(DataError, match=r"a, b: constant.*nothing to learn"):
        wait(train(pairs, tmp_path / "a.model", small(task=task)))
    assert not list(tmp_path.iterdir())


def test_a_blank_pair_of_images_is_left_out(tmp_path):
    rng = np.random.default_rng(0)
    clean = [rng.normal(100, 20, (48, 48)).astype(np.float32) for _ in range(3)]
    pairs = [(Stack(c + rng.normal(0, 5, c.shape), "yx", name=f"n{i}"), Stack(c, "yx")) for i, c in enumerate(clean)]
    flat = Stack(np.zeros((48, 48), np.float32), "yx", name="flat")
    for extra in ((flat, Stack(clean[0], "yx")), (Stack(clean[0], "yx", name="flat"), flat)):
        events, _ = collect(
            train([extra, *pairs], tmp_path / f"{len(list(tmp_path.iterdir()))}.model", small(task="restore", steps=4))
        )
        assert any("left out" in e.message and "flat" in e.message for e in events if hasattr(e, "message"))
