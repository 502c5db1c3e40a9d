"""A run on several devices of one machine: each takes the next part of the blocks, as the workers of a cluster do."""

import contextlib
import dataclasses
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..events import Block, Progress
from ..faults import out_of_memory
from ..store import ResultStore
from .flow import DoneBlocks, raise_unfinished
from .pipeline import Pipeline
from .shares import parts_of

if TYPE_CHECKING:
    from .job import Job

Write = Callable[[Any, DoneBlocks], DoneBlocks]


@dataclasses.dataclass(frozen=True, slots=True)
class Devices:
    """Devices that compute at the same time, each in a thread with a pipeline of its own.

    Parameters
    ----------
    names : tuple of str
        As torch names them: ``("cuda:0", "cuda:1")``.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: str) -> "Devices | None":
        """Return those of a setting, where it names several, with commas between."""
        return cls(tuple(names.split(","))) if "," in names else None

    def run(self, job: "Job", store: ResultStore, near: tuple[float, ...] | None = None) -> Iterator[Progress]:
        """Compute the blocks that are not done yet; where the memory of one runs out, the first goes on alone.

        Raises
        ------
        IncompleteError
            After all others are done, where blocks could not be read.
        """
        failed, tasks = dict[int, str](), deque(parts_of(job, job.pending(store), len(self.names), near))
        try:
            with contextlib.closing(_Work(job, store, self.names, tasks).finished()) as found:
                for number, regions in (block for finished in found for block in finished):
                    if isinstance(regions, DataError):
                        failed[number] = str(regions)
                    else:
                        yield Block(store.count, job.total, "predict", box=job.box(number))
        except (MemoryError, RuntimeError, OSError) as error:
            if not out_of_memory(error):
                raise
            yield Progress(store.count, job.total, "predict", "the memory of a device ran out; going on with one")
            yield from job.run(store, near)
            return
        raise_unfinished(failed, len(job.grid))


class _Work:
    """What the devices do, each in a thread; iterate over it once for what is written, as it comes."""

    def __init__(self, job: "Job", store: ResultStore, names: Sequence[str], tasks: deque[tuple[int, ...]]) -> None:
        self._job, self._store, self._tasks = job, store, tasks
        self._done: queue.SimpleQueue[DoneBlocks | None] = queue.SimpleQueue()
        self._stopped, self._writing = threading.Event(), threading.Lock()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._do, args=(name,), name=name, daemon=True) for name in names]

    def finished(self) -> Generator[DoneBlocks, None, None]:
        """Yield what was written; closing it stops the devices after what they are at."""
        try:
            for thread in self._threads:
                thread.start()
            left = len(self._threads)
            while left:
                finished = self._done.get()
                left -= finished is None
                yield finished or []
        finally:
            self._stopped.set()
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()
        if self._errors:
            raise self._errors[0]

    def _do(self, name: str) -> None:
        try:
            for finished in _computed(self._job, name, self._tasks, self._write):
                self._done.put(finished)
                if self._stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._errors.append(error)
            self._stopped.set()
        finally:
            self._done.put(None)

    def _write(self, _: Any, finished: DoneBlocks) -> DoneBlocks:
        with self._writing:  # a store has one writer
            for number, regions in finished:
                if not isinstance(regions, DataError):
                    self._store.write(number, regions)
        return finished


def _computed(job: "Job", name: str, tasks: deque[tuple[int, ...]], write: Write) -> Iterator[DoneBlocks]:
    """Compute one part of the blocks after the other on a device, until there are no more."""
    engine = job.decoder.engine.on(name)
    job = dataclasses.replace(job, decoder=dataclasses.replace(job.decoder, engine=engine))
    while (task := _next(tasks)) is not None:
        route = job.route()
        run = Pipeline(route.pieces(task), route.read, route.compute, route.decode, write).__iter__()
        with contextlib.closing(run):
            yield from run


def _next(tasks: deque[tuple[int, ...]]) -> tuple[int, ...] | None:
    try:
        return tasks.popleft()
    except IndexError:
        return None
