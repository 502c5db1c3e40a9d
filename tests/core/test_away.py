"""What another process does for the window, done here: without napari, and nothing twice."""

import numpy as np
import pytest

from helpers import FP32, collect, image_of
from kinds import small
from napari_unet import PredictConfig, open_stack, predict, wait
from napari_unet.inference.engine import Engine
from napari_unet.network.stream import Stream
from napari_unet.process.parcel import pack
from napari_unet.widgets import away


@pytest.fixture
def run(tmp_path):
    """A run on an image in memory."""
    small(2).save(tmp_path / "flat.model")
    config = PredictConfig(block=(32, 32), **FP32)
    return away.Run(open_stack(image_of((150, 340))), (tmp_path / "flat.model",), tmp_path / "a.ome.zarr", config)


def counted(monkeypatch, of, name):
    """Count the calls of a method."""
    calls, method = [], getattr(of, name)
    monkeypatch.setattr(of, name, lambda *given: calls.append(given) or method(*given))
    return calls


def drawn(parts):
    """Put parts together, by their whole box."""
    whole = parts[-1][0]
    canvas = np.zeros([b.stop - b.start for b in whole], np.uint8)
    for _, part, values in parts:
        canvas[tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True))] = values
    return whole, canvas


def test_only_what_was_not_seen_is_computed_and_the_run_takes_it(run, monkeypatch):
    networks = counted(monkeypatch, Engine, "logits")
    sent = pack(run)
    (looked, *parts), _ = collect(away.look(sent, np.s_[0:150, 0:100]))
    whole, canvas = drawn(parts)
    assert looked.kind == "labels"
    assert len(networks) == len(parts) > 0
    networks.clear()
    collect(away.look(sent, np.s_[0:150, 0:100]))
    assert not networks
    collect(away.look(sent, np.s_[0:150, 0:340]))
    assert len(networks) == 1
    pushed = counted(monkeypatch, Stream, "push")
    result = np.asarray(wait(away.segment(run)).result.data)
    assert not pushed
    np.testing.assert_array_equal(result[whole], canvas)
    plain = wait(predict(run.stack, run.load(), run.out.with_name("b.ome.zarr"), run.config))
    np.testing.assert_array_equal(result, np.asarray(plain.data))


def test_of_another_image_nothing_is_taken(run, monkeypatch):
    collect(away.look(run, np.s_[0:150, 0:340]))
    run.stack.data[70, 70] ^= 1
    pushed = counted(monkeypatch, Stream, "push")
    result = np.asarray(wait(away.segment(run)).result.data)
    assert pushed
    plain = wait(predict(run.stack, run.load(), run.out.with_name("b.ome.zarr"), run.config))
    np.testing.assert_array_equal(result, np.asarray(plain.data))
