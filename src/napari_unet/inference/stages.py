"""Samples whose steps do not fit the memory at once: some steps at a time, what they give kept beside the result.

All steps as one network look far, and where a plane of the image does not fit, each column computes what its neighbours
do. Then it costs less to write what some of the steps gave, and let the next ones read it::

    noise, image -> steps 1, 2 -> state -> steps 3, 4 -> state -> ... -> sample

States are of the image completed by mirroring, as the network sees it whole: so the result is the same.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..arrays.views import Box, LazyArray, LazyBase
from ..events import Progress
from ..faults import persist
from ..objects.scratch import discard
from ..store import ResultStore
from .config import PredictConfig
from .diffusion import SamplingEngine, completed
from .engine import Engine
from .layout import Layout, choose_layout, device_memory, seen

if TYPE_CHECKING:
    from .job import Job

KEPT = 0.15  # of a step: about what writing a state and reading it costs beside it
STATE = "state"  # folders in the result's ledger, with a number


def spans(engine: SamplingEngine, config: PredictConfig) -> list[tuple[int, int]]:
    """Divide the steps into those that go through the memory together so that the whole takes the least work."""
    steps, memory = engine.steps, device_memory(engine.device, config.memory)

    def work(together: int) -> float:
        part = engine.changed(span=(0, together))
        found = repeats(part, choose_layout(part, memory, config.block))
        return found * steps + KEPT * (math.ceil(steps / together) - 1)

    count = min(range(1, steps + 1), key=lambda parts: work(math.ceil(steps / parts)))
    ends = [round(steps * number / count) for number in range(count + 1)]
    return list(itertools.pairwise(ends))


def alone(engine: Engine) -> Engine:
    """Return an engine that makes one step, where there are several: its blocks are of any size."""
    if not isinstance(engine, SamplingEngine):
        return engine
    return engine.changed(span=(0, 1))


def repeats(engine: SamplingEngine, layout: Layout) -> float:
    """Return how often a voxel goes through the network: more than once where columns overlap."""
    first, shape = engine.batch_axes, [engine.stack.size(axis) for axis in engine.axes]
    across = [i for i in range(first, len(shape)) if i != layout.flow]
    return math.prod(seen(engine, i, layout.core[i]) / min(layout.core[i], shape[i]) for i in across)


def staged(job: "Job", config: PredictConfig) -> "Job":
    """Return a job that goes through some steps at a time, where that is less work; else the job itself."""
    engine = job.decoder.engine
    if not isinstance(engine, SamplingEngine):
        return job
    parts = spans(engine, config)
    if len(parts) == 1:
        return job
    axes, sizes = engine.axes, tuple(engine.stack.size(axis) for axis in engine.axes)
    full = [math.ceil(n / s) * s for n, s in zip(sizes, engine.footprint.stride, strict=True)]
    stack = completed(engine.stack, axes, full)
    engines = [engine.changed(stack=stack, extent=sizes, span=span) for span in parts]
    bare = dataclasses.replace(config, uncertainty=False, error=False, each_sample=False, overview=False)
    jobs = [type(job).plan(each, bare, job.before) for each in engines]
    outputs = [
        dataclasses.replace(found, shape=wanted.shape, dtype=wanted.dtype)
        for found, wanted in zip(jobs[-1].decoder.outputs, job.decoder.outputs, strict=True)
    ]
    last = dataclasses.replace(jobs[-1].decoder, outputs=tuple(outputs), task=job.decoder.task)
    before = tuple(map(_state_job, jobs[:-1]))
    return dataclasses.replace(job, grid=jobs[-1].grid, layout=jobs[-1].layout, decoder=last, stages=before)


def _state_job(job: "Job") -> "Job":
    """Return the job whose result is what the steps give, as the next ones take it."""
    task: Any = job.decoder.task
    none = (0.0,) * task.drawn, (1.0,) * task.drawn
    plain = dataclasses.replace(task, offset=none[0], scale=none[1], dtype_name="float32")
    outputs = tuple(dataclasses.replace(output, dtype=np.dtype(np.float32)) for output in job.decoder.outputs)
    return dataclasses.replace(job, decoder=dataclasses.replace(job.decoder, outputs=outputs, task=plain))


def go_through(
    job: "Job", store: ResultStore, compute: "Callable[[Job, ResultStore], Iterator[Progress]]"
) -> Generator[Progress, None, "Job"]:
    """Compute what the steps before the last ones give; return the job that goes on from there.

    A state is kept until the next one is whole, so that a run that was stopped goes on in the one it was at.

    Parameters
    ----------
    store : ResultStore
        That of the last steps; states lie in its ledger.
    compute : callable
        Computes the blocks of a job that a store lacks.
    """
    if not job.stages or not job.pending(store):
        return job
    at = max((n for n in range(len(job.stages)) if _folder(store, n).is_dir()), default=0)
    state = None
    if at:
        with _opened(job, at - 1, store) as work:
            state = State.of(job.stages[at - 1], work)
    for number in range(at, len(job.stages)):
        done = sum(len(stage.grid) for stage in job.stages[:number])
        with _opened(job, number, store) as work:
            for event in compute(_from(job.stages[number], state), work):
                yield dataclasses.replace(event, done=done + event.done, total=job.total)
            state = State.of(job.stages[number], work)
        if number:
            discard(_folder(store, number - 1))
    return _from(job, state)


def forget(job: "Job", store: ResultStore) -> None:
    """Remove the states of a job whose blocks are done."""
    for number in range(len(job.stages)):
        discard(_folder(store, number))


def _folder(store: ResultStore, number: int) -> Path:
    return store.ledger / f"{STATE}-{number}"


def _opened(job: "Job", number: int, store: ResultStore) -> ResultStore:
    """Make the store of a state, or open it where a run was left."""
    stage = job.stages[number]
    settings = {**store.plan.settings, "stage": number, "stages": len(job.stages), "block": list(stage.grid.core)}
    return ResultStore.create(
        _folder(store, number),
        stage.decoder.outputs,
        blocks=len(stage.grid),
        settings=settings,
        provenance={},
        break_lock=True,  # the lock of the result is held, so the run that made this is gone
        reopen=True,
    )


def _from(job: "Job", state: "State | None") -> "Job":
    """Return a job whose steps begin at a state."""
    engine = cast("SamplingEngine", job.decoder.engine).changed(state=state)
    return dataclasses.replace(job, decoder=dataclasses.replace(job.decoder, engine=engine))


@dataclasses.dataclass(frozen=True, slots=True)
class State(LazyBase):
    """What some steps gave, its channels first.

    Parameters
    ----------
    base : array
    at : int
        Which of its axes are channels; below 0 where there is one, without an axis.
    """

    base: LazyArray
    at: int

    @classmethod
    def of(cls, job: "Job", store: ResultStore) -> "State":
        """Return what lies in the store of a job."""
        (output,) = job.decoder.outputs
        return cls(store.arrays[output.path], output.axes.find("c"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        shape = tuple(map(int, self.base.shape))
        return (1, *shape) if self.at < 0 else (shape[self.at], *shape[: self.at], *shape[self.at + 1 :])

    @property
    def chunks(self) -> tuple[int, ...]:
        """All of it: nothing is chosen by them."""
        return self.shape

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        channels, *rest = box
        if self.at < 0:
            return persist(lambda: np.asarray(self.base[tuple(rest)]))[None]
        rest.insert(self.at, channels)
        return np.moveaxis(persist(lambda: np.asarray(self.base[tuple(rest)])), self.at, 0)
