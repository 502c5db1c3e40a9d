"""What somebody sees of a result is the result; it is computed once, the nearest first."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers import FP32, image_of
from kinds import small
from napari_unet.arrays.stack import Stack
from napari_unet.events import wait
from napari_unet.inference import lazy as view
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.engine import Engine
from napari_unet.inference.lazy import Preview
from napari_unet.inference.predict import predict


class Counting(Engine):
    """An engine that remembers which tiles it has run."""

    def logits(self, tile, data):
        ran.append(tile.write)
        return super().logits(tile, data)


ran: list = []


def looked_at(shape, axes="yx", ndim=2, **how):
    ran.clear()
    stack = Stack(data=image_of(shape), axes=axes)
    model = small(ndim, depth=1)
    statistics = model.normalisation.measure(stack)
    return stack, model, Preview(Counting(stack, model, statistics, "cpu", "fp32"), **how)


@pytest.mark.parametrize(
    ("axes", "shape", "ndim", "core", "box"),
    [
        ("yx", (90, 75), 2, (16, 16), np.s_[20:70, -5:40]),
        ("zyx", (4, 60, 50), 2, (1, 16, 16), np.s_[2:3, 20:70, 3:9]),
        ("tyx", (4, 60, 50), 2, None, np.s_[3:4, 0:60, 0:50]),
        ("czyx", (1, 3, 60, 50), 2, (1, 16, 32), np.s_[0:3, 30:31, 40:50]),
        ("zyx", (20, 60, 50), 3, (4, 16, 16), np.s_[9:10, 10:40, 20:50]),
        ("tczyx", (2, 1, 12, 30, 28), 3, None, np.s_[1:2, 5:6, 0:30, 0:28]),
    ],
)
def test_what_is_seen_is_what_a_run_gives_there(axes, shape, ndim, core, box, tmp_path):
    stack, model, preview = looked_at(shape, axes, ndim, core=core)
    whole = preview.box_of(box)
    got = np.full([b.stop - b.start for b in whole], 255, np.uint8)
    for part, labels in preview.blocks(whole):
        at = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True))
        assert (got[at] == 255).all()
        got[at] = labels
    result = wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    assert (got == result.data[whole]).all()
    for w, b, n in zip(whole, box, result.shape, strict=True):
        assert w.start <= max(b.start, 0)
        assert w.stop >= min(b.stop, n)


def test_what_was_seen_is_not_computed_again_and_panning_computes_what_is_new():
    _, _, preview = looked_at((96, 96), core=(16, 16))
    first = dict(map(keyed, preview.blocks(preview.box_of(np.s_[0:48, 0:48]))))
    assert len(ran) == len(first) == 9
    again = dict(map(keyed, preview.blocks(preview.box_of(np.s_[0:48, 0:48]))))
    assert len(ran) == 9
    assert all(again[key] is first[key] for key in first)
    moved = list(preview.blocks(preview.box_of(np.s_[0:48, 16:64])))
    assert len(ran) == 12
    assert {str(box) for box, _ in moved[:6]} < set(first)


def keyed(found):
    return str(found[0]), found[1]


def test_blocks_come_from_the_centre_outward_and_only_when_asked_for():
    _, _, preview = looked_at((112, 112), core=(16, 16))
    blocks = preview.blocks(preview.box_of(np.s_[0:112, 0:112]))
    box, _ = next(blocks)
    assert box == np.s_[48:64, 48:64]
    assert len(ran) == 1
    boxes = [box for box, _ in itertools.islice(blocks, 8)]
    assert all(32 <= b.start < b.stop <= 80 for box in boxes for b in box)
    blocks.close()
    assert len(ran) == 9


def test_of_more_than_the_limit_the_last_seen_is_kept():
    _, _, preview = looked_at((64, 64), core=(16, 16), limit=4 * 16 * 16)
    for top in (0, 16, 32):
        list(preview.blocks((slice(top, top + 16), slice(0, 64))))
    assert len(ran) == 12
    list(preview.blocks(np.s_[32:48, 0:64]))
    assert len(ran) == 12
    list(preview.blocks(np.s_[0:16, 0:64]))
    assert len(ran) == 16


def test_a_large_box_is_cut_to_whole_blocks_around_its_centre(monkeypatch):
    monkeypatch.setitem(view.MOST, 2, 64 * 64)
    _, _, preview = looked_at((4, 300, 200), "tyx", core=(1, 16, 16))
    whole = preview.box_of(np.s_[2:3, 0:300, 0:200])
    assert whole[0] == slice(2, 3)
    for b, centre in zip(whole[1:], (150, 100), strict=True):
        assert b.start % 16 == b.stop % 16 == 0
        assert b.stop - b.start == 64
        assert abs((b.start + b.stop) / 2 - centre) <= 16


@pytest.mark.parametrize("box", [np.s_[0:3, 500:600], np.s_[-90:-20, 0:9], np.s_[5:5, 64:70]])
def test_a_box_beside_the_image_gives_the_nearest_block(box):
    _, _, preview = looked_at((40, 70), core=(16, 16))
    whole = preview.box_of(box)
    assert all(0 <= b.start < b.stop <= n for b, n in zip(whole, (40, 70), strict=True))
    assert len(list(preview.blocks(whole))) == 1


def test_several_who_look_at_once_share_each_block():
    _, _, preview = looked_at((48, 48), core=(16, 16))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: dict(map(keyed, preview.blocks(np.s_[0:48, 0:48]))), range(4)))
    assert len(ran) == 9
    assert all(other[key] is labels for other in found for key, labels in found[0].items())
