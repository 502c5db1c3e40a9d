"""On a cluster: the same bytes as here, whatever happens to the workers."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import pickle
import signal
import time
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile
import zarr

from helpers import FP32, image_of, stopped_after, tree
from kinds import cascade, finder, finder_of_classes, sampler, small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import IncompleteError, OutputError, UsageError
from napari_unet.events import Block, wait
from napari_unet.inference import cluster, scheduler
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.inference.prepare import prepare
from napari_unet.inference.shares import part_length
from napari_unet.sources import open_stack
from napari_unet.store.journal import Region
from warm import ready, warm

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.timeout(120)
POISON = 40


def started(workers=2):
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, protocol="tcp://", host="127.0.0.1"
    )


@pytest.fixture(scope="module", autouse=True)
def warm_workers():
    """Workers are forked from a process that has imported all they need."""
    with dask.config.set({"distributed.worker.multiprocessing-method": ready()}):
        yield


@pytest.fixture(scope="module")
def workers(warm_workers):
    with started() as found:
        yield found


def on(workers, **more):
    return PredictConfig(scheduler=workers.scheduler_address, allow_tcp=True, **FP32, **more)


def stored(folder, shape, axes="zyx"):
    path = folder / "image.zarr"
    array = zarr.create_array(path, shape=shape, dtype="u2", chunks=(16,) * len(shape), dimension_names=list(axes))
    array[...] = image_of(shape)
    return open_stack(path)


@pytest.mark.parametrize(
    ("model", "shape", "block"),
    [
        (small(3), (120, 40, 40), (16, 40, 40)),
        (small(3), (40, 40, 40), (16, 16, 16)),
        (small(2), (3, 64, 80), (16, 32)),
        (small(2, norm="instance"), (2, 64, 64), (32, 32)),
        (finder(2, min_size=2, nearest=True, grow=4, core_margin=0.03), (3, 64, 80), (16, 32)),
        (finder_of_classes((64, 80), min_size=2), (3, 64, 80), (16, 32)),
        (dataclasses.replace(finder(2, min_size=2), shrink=(2.0, 2.0)), (2, 64, 80), (16, 32)),
    ],
    ids=["one column", "many columns", "planes", "tiles", "objects", "objects with classes", "other pixels"],
)
def test_the_bytes_are_those_of_a_run_here(model, shape, block, tmp_path, workers):
    stack = stored(tmp_path, shape)
    here, there = tmp_path / "here.ome.zarr", tmp_path / "there.ome.zarr"
    wait(predict(stack, model, here, PredictConfig(block=block, **FP32)))
    events = list(predict(stack, model, there, on(workers, block=block)))
    assert any("2 workers" in event.message for event in events)
    assert tree(here) == tree(there)


@pytest.mark.parametrize("samples", [1, 3])
def test_samples_are_those_of_a_run_here(samples, tmp_path, workers):
    stack, model = stored(tmp_path, (60, 72), "yx"), sampler(depth=1)
    wishes = {"block": (16, 24), "steps": 3, "samples": samples, "seed": 4}
    here, there = tmp_path / "here.ome.zarr", tmp_path / "there.ome.zarr"
    wait(predict(stack, model, here, PredictConfig(**wishes, **FP32)))
    events = list(predict(stack, model, there, on(workers, **wishes)))
    assert any("2 workers" in event.message for event in events)
    assert tree(here) == tree(there)


def test_samples_stopped_killed_and_gone_on_with_anywhere_are_those_of_the_whole_at_once(tmp_path):
    stack, model = stored(tmp_path, (96, 72), "yx"), sampler(depth=1)
    wishes = {"block": (16, 24), "steps": 3, "samples": 2, "seed": 4, "each_sample": True}
    at_once = PredictConfig(**wishes | {"block": (96, 72)}, **FP32)
    wait(predict(stack, model, tmp_path / "whole.ome.zarr", at_once))
    wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(**wishes, **FP32)))
    stopped_after(3, predict(stack, model, tmp_path / "b.ome.zarr", PredictConfig(**wishes, **FP32)))
    with started() as own:
        for number, _ in enumerate(predict(stack, model, tmp_path / "b.ome.zarr", on(own, **wishes))):
            if number == 6:
                os.kill(next(iter(own.workers.values())).pid, 9)
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")
    for path in ("", "uncertainty", "samples"):
        sides = (open_stack(tmp_path / name / path) for name in ("whole.ome.zarr", "b.ome.zarr"))
        wanted, found = (np.asarray(side.data[...]) for side in sides)
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_stopped_and_gone_on_with_anywhere_it_ends_with_the_same_bytes(tmp_path, workers):
    stack, model, block = stored(tmp_path, (64, 64, 64)), small(3), (16, 32, 32)
    whole, parts = tmp_path / "a.ome.zarr", tmp_path / "b.ome.zarr"
    wait(predict(stack, model, whole, PredictConfig(block=block, **FP32)))
    for config in (on(workers, block=block), PredictConfig(block=block, **FP32)):
        run = predict(stack, model, parts, config)
        for event in run:
            if event.stage == "predict" and event.done >= 3:
                break
        run.close()
    wait(predict(stack, model, parts, on(workers, block=block)))
    assert tree(whole) == tree(parts)


def test_workers_that_are_killed_are_made_up_for(tmp_path):
    stack, model, block = stored(tmp_path, (96, 64, 64)), small(3), (16, 32, 32)
    wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(block=block, **FP32)))
    with started() as own:
        for number, _ in enumerate(predict(stack, model, tmp_path / "b.ome.zarr", on(own, block=block))):
            if number in (3, 6):
                os.kill(next(iter(own.workers.values())).pid, 9)
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


class Planes:
    """An array that is opened where it is read."""

    def __init__(self, path):
        self.path = path
        self.base = zarr.open_array(path, mode="r")
        self.shape, self.dtype, self.chunks, self.ndim = self.base.shape, self.base.dtype, (1, 32, 32), 3

    def __reduce__(self):
        return type(self), (self.path,)


class Slow(Planes):
    """A quarter of a second for each part that a worker reads."""

    def __getitem__(self, key):
        time.sleep(0.25 * _on_worker())
        return self.base[key]


class Poisoned(Planes):
    """One plane of it kills whoever reads it."""

    def __getitem__(self, key):
        planes = key[0]
        if planes.start <= POISON < planes.stop and self.path.with_suffix(".armed").exists():
            os._exit(137)
        return self.base[key]


def test_a_block_that_kills_its_workers_is_named_and_the_others_are_done(tmp_path):
    path = Path(stored(tmp_path, (48, 32, 32)).source)
    stack, model = Stack(data=Poisoned(path), axes="zyx", source=str(path)), small(2)
    config = {"block": (1, 32, 32)}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), started() as own:  # each death takes seconds
        run = predict(stack, model, tmp_path / "a.ome.zarr", on(own, **config))
        with pytest.raises(IncompleteError, match=f"1 of 48 blocks could not be done .block {POISON}: every worker"):
            for event in run:
                if event.stage == "predict":
                    path.with_suffix(".armed").touch()
    path.with_suffix(".armed").unlink()
    result = wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(**config, **FP32)))
    assert result.shape == stack.shape


def test_a_scheduler_that_is_lost_ends_the_run_and_nothing_that_is_done_is(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT", 2)
    stack, model, block = stored(tmp_path, (96, 64, 64)), small(3), (16, 32, 32)
    own = started()
    run = predict(stack, model, tmp_path / "a.ome.zarr", on(own, block=block))
    for event in run:
        if event.stage == "predict" and event.done >= 2:
            break
    began = time.monotonic()
    own.close()
    with pytest.raises(IncompleteError, match=r"scheduler .* was lost; [0-9]+ of 24 blocks are done"):
        list(run)
    assert time.monotonic() - began < 60
    first = next(
        event
        for event in predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(block=block, **FP32))
        if event.stage == "predict"
    )
    assert first.done >= 2


SERVED = """
import asyncio, sys
from distributed import Scheduler, Worker
async def serve():
    kind, *at = sys.argv[1:]
    given = {"protocol": "tcp://", "host": "127.0.0.1", "port": 0, "dashboard": False}
    async with Worker(*at, nthreads=1) if kind == "worker" else Scheduler(**given) as found:
        print(found.address, flush=True)
        await found.finished()
asyncio.run(serve())
"""


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_scheduler_that_freezes_ends_the_run_resumable(when, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "PATIENCE", 2)
    monkeypatch.setattr(cluster, "TIMEOUT", 2)
    stack, model = stored(tmp_path, (96, 64, 64)), small(3)
    frozen = warm(SERVED, "scheduler")
    address = frozen.stdout.readline().strip()
    worker = warm(SERVED, "worker", address)
    worker.stdout.readline()
    config = PredictConfig(scheduler=address, allow_tcp=True, block=(16, 32, 32), **FP32)
    began = time.monotonic()
    try:
        run = predict(stack, model, tmp_path / "a.ome.zarr", config)
        if when == "before":
            frozen.send_signal(signal.SIGSTOP)
        with pytest.raises((IncompleteError, UsageError), match=r"does not answer|cannot be reached|was lost"):
            for event in run:
                if event.stage == "predict" and event.done >= 2:
                    frozen.send_signal(signal.SIGSTOP)
    finally:
        worker.kill()
        frozen.kill()
    assert time.monotonic() - began < 60


def test_a_worker_that_is_stopped_is_said_and_others_do_its_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SILENT", 3)
    stack, model, block = stored(tmp_path, (96, 64, 64)), small(3), (16, 32, 32)
    wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(block=block, **FP32)))
    said, stopped = [], 0
    with started() as own:
        try:
            for event in predict(stack, model, tmp_path / "b.ome.zarr", on(own, block=block)):
                said.append(event.message)
                if event.stage == "predict" and event.done >= 1 and not stopped:
                    stopped = next(iter(own.workers.values())).pid
                    os.kill(stopped, signal.SIGSTOP)
        finally:
            os.kill(stopped, signal.SIGCONT)
    assert any("showed no sign of life" in message for message in said)
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_workers_with_folders_of_their_own_find_relative_paths(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if kind == "zarr":
        stored(Path(), (64, 32, 32))
    else:
        tifffile.imwrite("image.tif", image_of((64, 32, 32)))
    stack, model, block = open_stack("image.zarr" if kind == "zarr" else "image.tif", "zyx"), small(3), (16, 32, 32)
    wait(predict(stack, model, Path("a.ome.zarr"), PredictConfig(block=block, **FP32)))
    with started() as own, distributed.Client(own) as client:
        client.run(os.chdir, "/")
        wait(predict(stack, model, Path("b.ome.zarr"), on(own, block=block)))
    assert tree("a.ome.zarr") == tree("b.ome.zarr")


def unreadable():
    raise RuntimeError("no such package")


class Unreadable:
    """An array that can be sent, and not received."""

    def __init__(self, base):
        self.base, self.shape, self.dtype, self.ndim = base, base.shape, base.dtype, base.ndim

    def __getitem__(self, key):
        return self.base[key]

    def __reduce__(self):
        return unreadable, ()


def test_a_scheduler_that_takes_no_task_ends_the_run(tmp_path, workers):
    found = stored(tmp_path, (64, 32, 32))
    stack = Stack(data=Unreadable(found.data), axes="zyx", source=found.source)
    with pytest.raises(IncompleteError, match=r"cancelled a task \d+ times .*look at its log"):
        wait(predict(stack, small(3), tmp_path / "a.ome.zarr", on(workers, block=(16, 32, 32))))


def _on_worker():
    return multiprocessing.parent_process() is not None


def _only_here(theirs, *packages):
    """Versions of a machine beside which each worker has others, or no package of ours at all."""
    if _on_worker() and theirs is None:
        raise ModuleNotFoundError("no such package")
    return dict.fromkeys(packages, theirs if _on_worker() else "0.0.1")


def _dies_when_asked(alive, answer, *args):
    """Answer; the first worker that is asked dies of it."""
    if _on_worker() and alive.exists():
        alive.unlink()
        os._exit(137)
    return answer(*args)


def test_workers_that_die_when_they_are_asked_are_asked_again(tmp_path, monkeypatch):
    stack, model, block = stored(tmp_path, (32, 32, 32)), small(3), (16, 32, 32)
    wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(block=block, **FP32)))
    names = ("versions", "_reaches")
    for name in names:
        (tmp_path / name).touch()
        monkeypatch.setattr(cluster, name, partial(_dies_when_asked, tmp_path / name, getattr(cluster, name)))
    with started(1) as own:
        said = [event.message for event in predict(stack, model, tmp_path / "b.ome.zarr", on(own, block=block))]
    assert any("waiting" in message for message in said)
    assert not any((tmp_path / name).exists() for name in names)
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


def test_what_workers_could_not_do_is_refused(tmp_path, workers, monkeypatch):
    stack, model, out = stored(tmp_path, (32, 32, 32)), small(3), tmp_path / "a.ome.zarr"
    with pytest.raises(UsageError, match="lies in this machine's memory"):
        wait(predict(Stack(data=image_of((32, 32, 32)), axes="zyx"), model, tmp_path / "b.ome.zarr", on(workers)))
    monkeypatch.setattr(cluster, "versions", partial(_only_here, "9"))
    with pytest.raises(UsageError, match="napari-unet-stacks 9 instead of"):
        wait(predict(stack, model, out, on(workers)))
    monkeypatch.setattr(cluster, "versions", partial(_only_here, None))
    with pytest.raises(UsageError, match=r"cannot run a task \(ModuleNotFoundError: no such package"):
        wait(predict(stack, model, out, on(workers)))
    assert [path.name for path in tmp_path.iterdir()] == ["image.zarr"]


def test_addresses_are_checked():
    with pytest.raises(UsageError, match="anyone who reaches"):
        PredictConfig(scheduler="tcp://10.0.0.1:8786")
    with pytest.raises(UsageError, match="tls://host"):
        PredictConfig(scheduler="10.0.0.1:8786")


def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT", 2)
    config = PredictConfig(scheduler="tcp://127.0.0.1:9", allow_tcp=True, **FP32)
    stack = stored(tmp_path, (32, 32, 32))
    with pytest.raises(UsageError, match="cannot be reached"):
        wait(predict(stack, small(3), tmp_path / "a.ome.zarr", config))
    with pytest.raises(UsageError, match="name the certificates"):
        wait(predict(stack, small(3), tmp_path / "a.ome.zarr", PredictConfig(scheduler="tls://127.0.0.1:9", **FP32)))
    assert [path.name for path in tmp_path.iterdir()] == ["image.zarr"]  # nothing was begun


def test_without_workers_a_run_waits_and_says_so(tmp_path):
    stack, model = stored(tmp_path, (32, 32, 32)), small(3)
    wait(predict(stack, model, tmp_path / "here.ome.zarr", PredictConfig(**FP32)))
    with started(0) as empty:
        said = []
        for event in predict(stack, model, tmp_path / "a.ome.zarr", on(empty)):
            if "no workers" in event.message and event.message not in said:
                empty.scale(1)
            said.append(event.message)
    assert any("no workers" in message for message in said)
    assert tree(tmp_path / "here.ome.zarr") == tree(tmp_path / "a.ome.zarr")


def test_a_cascade_runs_there_too(tmp_path, workers):
    stack, models = stored(tmp_path, (40, 40, 40)), cascade(3)
    here, there, block = tmp_path / "here.ome.zarr", tmp_path / "there.ome.zarr", (16, 24, 24)
    wait(predict(stack, models, here, PredictConfig(block=block, **FP32)))
    wait(predict(stack, models, there, on(workers, block=block)))
    assert tree(here) == tree(there)


def test_what_a_task_has_written_is_recorded_while_it_goes_on(tmp_path, workers):
    told = cluster._plain([(3, [Region("labels/a/0", (0, 0), (4, 4), 7)]), (4, "it could not be read")])
    assert cluster._read(json.loads(json.dumps(told))) == [(3, [Region("labels/a/0", (0, 0), (4, 4), 7)])]
    path = stored(tmp_path, (96, 32, 32)).source
    stack, out = Stack(data=Slow(Path(path)), axes="zyx", source=path), tmp_path / "a.ome.zarr"
    events = predict(stack, small(2), out, on(workers, block=(4, 32, 32), overview=False))
    seen = [time.monotonic() for event in events if isinstance(event, Block)]
    assert len(seen) == 24
    assert seen[-1] - seen[0] > cluster.HEARTBEAT  # not all at the end of their task


def test_tasks_of_a_run_that_was_ended_write_no_more(tmp_path):
    stack, model, out = stored(tmp_path, (32, 32, 32)), small(3), tmp_path / "a.ome.zarr"
    config = PredictConfig(block=(16, 32, 32), **FP32)
    job = prepare(stack, model, config).measured().job()
    with job.create(out, config) as store:
        writer = pickle.loads(pickle.dumps(store.sent_writer))
        route = job.route()
        finished = [
            one for piece in route.pieces([0]) for one in route.decode(piece, route.compute(piece, route.read(piece)))
        ]
        ((_, regions),) = finished
        assert writer.write(regions)
    with pytest.raises(OutputError, match="this one was ended"):
        writer.write(regions)
    with job.create(out, config), pytest.raises(OutputError, match="another run"):
        writer.write(regions)


@pytest.mark.parametrize(("blocks", "columns", "workers"), itertools.product((1, 7, 100), (1, 5), (1, 2, 8)))
def test_parts_keep_all_workers_at_work_where_that_is_faster(blocks, columns, workers):
    def rounds(length):
        return -(-columns * -(-blocks // length) // workers) * (length + 1.5)

    length = part_length(blocks, columns, workers, 1.5)
    assert rounds(length) == min(map(rounds, range(1, blocks + 1)))
