"""Several devices of one machine give the same bytes as one, and what fails on one of them ends the run."""

import pytest
import torch

from helpers import image_of, tree
from kinds import finder, small
from napari_unet import PredictConfig, predict, wait
from napari_unet.arrays.stack import Stack
from napari_unet.device import choose_device
from napari_unet.errors import UsageError
from napari_unet.inference.engine import Engine
from napari_unet.inference.flow import Streams
from napari_unet.inference.several import Devices


def config(device, **more):
    return PredictConfig(device=device, precision="fp32", block=(16, 16), **more)


def image(shape=(64, 80)):
    return Stack(data=image_of(shape), axes="tyx"[-len(shape) :])


@pytest.mark.parametrize("model", [small(), finder(), small(norm="instance")], ids=["streams", "objects", "tiles"])
@pytest.mark.parametrize("shape", [(64, 80), (3, 40, 16)], ids=["columns", "planes"])
def test_two_devices_give_the_bytes_of_one(tmp_path, monkeypatch, model, shape):
    used, on = [], Engine.on
    monkeypatch.setattr(Engine, "on", lambda self, name: (used.append(name), on(self, name))[1])
    for name, device in (("one", "cpu"), ("two", "cpu,cpu:0")):
        wait(predict(image(shape), model, tmp_path / name, config(device)))
    assert sorted(used) == ["cpu", "cpu:0"]
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_run_that_is_stopped_goes_on_with_other_devices(tmp_path):
    run = predict(image(), small(), tmp_path / "a", config("cpu,cpu"))
    blocks = sum(type(next(run)).__name__ == "Block" for _ in range(9))
    run.close()
    assert blocks
    wait(predict(image(), small(), tmp_path / "a", config("cpu")))
    wait(predict(image(), small(), tmp_path / "b", config("cpu")))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("fault", ["torch.OutOfMemoryError", "ValueError"])
def test_what_fails_on_a_device_ends_the_run_but_for_memory(tmp_path, monkeypatch, fault):
    compute, alone = Streams.compute, []

    def fails(self, *given):
        if self._decoder.engine.device.index == 0 and not alone:
            alone.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory") if "Memory" in fault else ValueError("no such number")
        return compute(self, *given)

    monkeypatch.setattr(Streams, "compute", fails)
    run = predict(image(), small(), tmp_path / "a", config("cpu,cpu:0"))
    if fault == "ValueError":
        with pytest.raises(ValueError, match="no such number"):
            wait(run)
        return
    messages = [event.message for event in run]
    assert any("going on with one" in message for message in messages)


@pytest.mark.parametrize("name", ["cpu,disk", "gpu", "", "cpu,"])
def test_a_device_that_is_none_is_refused(name):
    with pytest.raises(UsageError, match="choose"):
        PredictConfig(device=name)


@pytest.mark.parametrize("name", ["cpu:1", "cpu,cpu:7", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_on_this_machine_is_refused(name):
    with pytest.raises(UsageError, match="is not on this machine"):
        choose_device(name)


def test_one_device_needs_no_threads_of_its_own():
    assert Devices.of("cuda:1") is None
    assert Devices.of("cuda:0,cuda:1") == Devices(("cuda:0", "cuda:1"))
