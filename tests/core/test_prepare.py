"""Image and models are made ready once, whatever is done with them, and without reading what need not be read."""

import dataclasses
import pickle
import threading

import numpy as np
import pytest

from helpers import FP32, image_of
from kinds import cascade as three
from kinds import finder, restorer, small
from kinds import restorer as restoring
from napari_unet import (
    Block,
    Opened,
    PredictConfig,
    open_stack,
    predict,
    predict_lazy,
    preflight,
    preview,
    run_batch,
    seam_check,
    wait,
)
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, ModelError, UsageError
from napari_unet.inference.encode import encode
from napari_unet.inference.engine import Engine
from napari_unet.inference.job import Job
from napari_unet.inference.outputs import result_of
from napari_unet.inference.prepare import prepare
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import Model
from napari_unet.store.save import save_stack
from napari_unet.task import Autoencode, SuperResolve

CONFIG = PredictConfig(**FP32, block=(32, 32))


class Unread:
    """An image that must not be read."""

    def __init__(self, shape):
        self.shape, self.ndim, self.dtype = shape, len(shape), np.dtype(np.uint16)

    def __getitem__(self, key):
        raise AssertionError(f"{key} was read")


@pytest.fixture
def measures(monkeypatch):
    """Which images were measured."""
    found = []
    measure = Normalisation.measure
    monkeypatch.setattr(
        Normalisation, "measure", lambda self, stack, **how: found.append(stack.name) or measure(self, stack, **how)
    )
    return found


@pytest.fixture
def networks(monkeypatch):
    """How many networks were built of a model's weights."""
    found = []
    network = Model.network
    monkeypatch.setattr(Model, "network", lambda self: found.append(self.sha256) or network(self))
    return found


def doing(name, stack, models, out):
    """Do one of the things that image and models are made ready for."""
    if name == "run":
        return wait(predict(stack, models, out / "a.ome.zarr", CONFIG))
    if name == "look":
        return np.asarray(predict_lazy(stack, models, CONFIG).data[:32, :32])
    if name == "preview":
        return next(preview(stack, models, CONFIG).blocks(np.s_[0:16, 0:16]))
    return seam_check(stack, models, CONFIG, size=(32, 32))


@pytest.mark.parametrize("name", ["run", "look", "preview", "seams"])
@pytest.mark.parametrize("count", [1, 3])
def test_each_model_measures_once_and_is_loaded_once(name, count, measures, networks, tmp_path):
    models = three()[3 - count :]
    doing(name, Stack(data=image_of((300, 180)), axes="yx"), models, tmp_path)
    assert len(measures) == sum(model.normalisation.measures for model in models) or len(measures) == count
    assert len(measures) == len(set(measures))
    assert len(networks) == len(set(networks))


def test_encoding_measures_once(measures, tmp_path):
    wait(encode(Stack(data=image_of((64, 64)), axes="yx"), restoring(Autoencode), tmp_path / "a.ome.zarr", CONFIG))
    assert len(measures) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("resample", [False, True])
def test_to_make_ready_and_to_foretell_read_nothing(count, resample, tmp_path):
    stack = Stack(data=Unread((2, 4000, 5000)), axes="tyx", scale=(1.0, 0.5, 0.5), units=(None, *["micrometer"] * 2))
    models = [dataclasses.replace(m, scale=(1.0, 1.0), units=("micrometer",) * 2) for m in three()[3 - count :]]
    config = dataclasses.replace(CONFIG, resample=resample)
    ahead = preflight(stack, models, tmp_path / "a.ome.zarr", config)
    assert ahead.state == "new" and ahead.blocks > 1
    ready = prepare(stack, models, config)
    assert not ready.is_measured
    assert ready.given is stack
    with pytest.raises(AssertionError, match="was read"):
        ready.measured()


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_known_before_anything_is_read_holds_after(count, resample):
    units = ("micrometer",) * 2
    stack = Stack(data=image_of((90, 75)), axes="yx", scale=(0.5, 0.25), units=units, translation=(3.0, 1.0))
    models = [dataclasses.replace(m, scale=(1.0, 1.0), units=units) for m in three()[3 - count :]]
    before = prepare(stack, models, dataclasses.replace(CONFIG, resample=resample))
    after = before.measured()
    for name in ("shape", "axes", "dtype", "scale", "units", "translation", "channel_names", "name", "source"):
        assert getattr(before.stack, name) == getattr(after.stack, name), name
    assert before.settings() == after.settings()
    assert before.job().outputs == after.job().outputs
    assert before.model is after.model


KINDS = [
    ("yx", (96, 80), small(), {}),
    ("yx", (96, 80), small(), {"probabilities": True, "uncertainty": True, "name": "mine"}),
    ("yx", (96, 80), finder(), {}),
    ("tyx", (2, 96, 80), finder(), {}),
    ("tcyx", (2, 2, 70, 60), restorer(SuperResolve, channels=2), {}),
    ("yx", (96, 80), three(), {}),
    ("zyx", (12, 40, 44), small(3, depth=1), {"block": (8, 32, 32)}),
]


@pytest.mark.parametrize(("axes", "shape", "models", "chosen"), KINDS)
def test_what_is_said_of_an_open_result_is_what_lies_there(axes, shape, models, chosen, tmp_path):
    stack = Stack(data=image_of(shape), axes=axes, scale=tuple(0.5 + i for i in range(len(axes))))
    config = dataclasses.replace(CONFIG, **chosen)
    events = list(predict(stack, models, tmp_path / "a.ome.zarr", config))
    (opened,) = (event for event in events if isinstance(event, Opened))
    blocks = [at for at, event in enumerate(events) if isinstance(event, Block)]
    assert events.index(opened) < blocks[0]
    assert (opened.done, opened.total, opened.stage) == (0, len(blocks), "predict")
    there = open_stack(opened.path)
    for name in ("shape", "axes", "dtype", "scale", "units", "translation"):
        assert getattr(opened.geometry, name) == getattr(there, name), name
    last = models[-1] if isinstance(models, tuple | list) else models
    assert (opened.kind, opened.attributes) == (last.task.result, last.task.attributes())
    assert opened.path.is_relative_to(tmp_path / "a.ome.zarr")


def test_where_a_result_lies_is_told_in_a_few_bytes_however_large_it_is():
    stack = Stack(data=np.broadcast_to(np.uint16(0), (900, 40_000, 50_000)), axes="zyx")
    place = result_of(stack, restorer(SuperResolve))
    assert place.shape == (900, 80_000, 100_000)
    again = pickle.loads(pickle.dumps(place))
    assert len(pickle.dumps(place)) < 2000
    assert (again.shape, again.dtype, again.scale) == (place.shape, place.dtype, place.scale)
    assert not again.read((slice(3, 4), slice(5, 9), slice(0, 7))).any()


def test_a_run_that_goes_on_says_how_much_is_done(tmp_path):
    stack, model = Stack(data=image_of((96, 80)), axes="yx"), small()
    run = predict(stack, model, tmp_path / "a.ome.zarr", CONFIG)
    first = next(event for event in run if isinstance(event, Block))
    run.close()
    again = next(e for e in predict(stack, model, tmp_path / "a.ome.zarr", CONFIG) if isinstance(e, Opened))
    assert again.done >= first.done > 0


def test_a_result_in_the_images_own_store_and_one_as_tiff_say_where_they_fill_in(tmp_path):
    wait(save_stack(Stack(data=image_of((64, 64)), axes="yx"), tmp_path / "i.ome.zarr"))
    stack, model = open_stack(tmp_path / "i.ome.zarr"), small()
    inside = [*predict(stack, model, tmp_path / "i.ome.zarr", dataclasses.replace(CONFIG, in_source=True))]
    beside = [*predict(stack, model, tmp_path / "r.tif", CONFIG)]
    (one,), (other,) = ([e for e in each if isinstance(e, Opened)] for each in (inside, beside))
    assert (one.path / "0").is_dir() and one.path.is_relative_to(tmp_path / "i.ome.zarr")
    assert other.path.is_relative_to(tmp_path / "r.tif.ome.zarr")


def test_a_batch_that_is_done_reads_no_image_again(measures, tmp_path):
    (tmp_path / "in").mkdir()
    wait(save_stack(Stack(data=image_of((64, 64)), axes="yx"), tmp_path / "in" / "i.ome.zarr"))
    wait(run_batch(tmp_path / "in", small(), tmp_path / "out", CONFIG))
    measures.clear()
    (row,) = wait(run_batch(tmp_path / "in", small(), tmp_path / "out", CONFIG))
    assert row.state == "skipped"
    assert not measures


@pytest.mark.parametrize(
    ("stack", "models", "chosen", "error", "words"),
    [
        (Stack(data=Unread((2, 64, 64)), axes="cyx"), small(), {}, ModelError, "has 2 channels"),
        (Stack(data=Unread((64, 64)), axes="yx"), [], {}, UsageError, "no model is given"),
        (Stack(data=Unread((64, 64)), axes="yx"), [small(), small()], {}, UsageError, "put it last"),
        (Stack(data=Unread((64, 64)), axes="yx"), small(3), {}, ModelError, "needs zyx"),
        (Stack(data=Unread((64, 64)), axes="yx"), small(), {"resample": True}, DataError, "its unit is"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(stack, models, chosen, error, words, tmp_path):
    config = dataclasses.replace(CONFIG, **chosen)
    for work in (
        lambda: prepare(stack, models, config),
        lambda: preflight(stack, models, tmp_path / "a.ome.zarr", config),
        lambda: wait(predict(stack, models, tmp_path / "a.ome.zarr", config)),
        lambda: predict_lazy(stack, models, config),
        lambda: preview(stack, models, config),
        lambda: seam_check(stack, models, config),
    ):
        with pytest.raises(error, match=words):
            work()
    assert not (tmp_path / "a.ome.zarr").exists()


@pytest.mark.parametrize("near", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_a_place_to_look_at_that_is_none_is_refused_before_anything_is_read(near, tmp_path):
    stack = Stack(data=Unread((64, 64)), axes="yx")
    with pytest.raises(UsageError, match="give one index"):
        wait(predict(stack, small(), tmp_path / "a.ome.zarr", CONFIG, near=near))


@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_the_network_is_made_ready_while_intensities_are_measured(kind, tmp_path, monkeypatch):
    model, built, seen = small(norm=kind), threading.Event(), []
    net, measure = Engine.whole_net, Normalisation.measure

    def building(engine, order=None):
        found = net(engine, order)
        built.set()
        return found

    def measuring(*given, **more):
        seen.append(built.wait(30))
        return measure(*given, **more)

    monkeypatch.setattr(Engine, "whole_net", building)
    monkeypatch.setattr(Normalisation, "measure", measuring)
    wait(predict(Stack(data=image_of((40, 40)), axes="yx"), model, tmp_path / "a.ome.zarr", CONFIG))
    assert seen == [True]


def test_a_network_that_cannot_be_made_ready_beside_is_reported_where_it_runs(tmp_path, monkeypatch):
    def fails(*_):
        raise ModelError("no network")

    monkeypatch.setattr(Engine, "whole_net", fails)
    with pytest.raises(ModelError, match="no network"):
        wait(predict(Stack(data=image_of((40, 40)), axes="yx"), small(), tmp_path / "a.ome.zarr", CONFIG))


def test_a_run_with_a_network_that_is_ready_is_laid_out_once(tmp_path, monkeypatch):
    model, stack = small(), Stack(data=image_of((40, 40)), axes="yx")
    plans, plan = [], Job.plan
    monkeypatch.setattr(Job, "plan", lambda *given: (plans.append(given), plan(*given))[1])
    for name in ("a", "b"):
        plans.clear()
        wait(predict(stack, model, tmp_path / f"{name}.ome.zarr", CONFIG))
    assert len(plans) == 1
