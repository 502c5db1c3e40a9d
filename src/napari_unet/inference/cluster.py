"""A run on a dask cluster: each task computes a column, or a part of one, and writes its own blocks."""

import contextlib
import functools
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..device import versions
from ..errors import DataError, IncompleteError, UsageError
from ..events import Block, Progress
from ..store import ResultStore
from ..store.blocks import BlockWriter
from ..store.journal import Region
from .pipeline import Pipeline
from .scheduler import ask_scheduler, in_time, run_on_each, signs_of_life
from .shares import parts_of

if TYPE_CHECKING:
    from .job import Job
from .flow import raise_unfinished

AHEAD = 2  # tasks per worker that are submitted before they can begin
HEARTBEAT = 1.0  # seconds; a worker that is silent for many of them is given up, see SILENT
TIMEOUT = 20  # seconds for an answer over a network; dask itself waits 30 for a connection
SILENT = (
    30.0  # seconds without a sign of life, of which a worker gives one a second or more, after which it is given up
)
FRUITLESS = 5  # times that a task is cancelled, with no block done meanwhile, before a run gives up
MOST_SENT = 64 << 20  # 64 MiB: an image sent with each task; a larger one must lie where all workers read it
# Of the same versions everywhere, or blocks would not have the same bytes.
PACKAGES = ("napari-unet-stacks", "torch", "zarr", "numpy")
Written = list[tuple[int, list[Region] | str]]
_turn = threading.Lock()


@contextlib.contextmanager
def connected(scheduler: str | None, job: "Job") -> Iterator[Any]:
    """Connect to a dask scheduler, for `run_on`, before anything is written; None where no scheduler is given.

    Parameters
    ----------
    scheduler : str or None
        Its address; certificates for ``tls://`` are taken from dask's configuration.

    Raises
    ------
    UsageError
        Where the scheduler cannot be reached, a worker has other versions, or the image lies in this machine's memory
        alone.
    """
    if scheduler is None:
        yield None
        return
    client = _client(scheduler)
    try:
        _check_image(job)
        try:
            _check_versions(client)
        except OSError as error:
            raise IncompleteError(f"the scheduler {scheduler} does not answer ({error}); try again later") from error
        yield client
    finally:
        client.close(timeout=5)


def run_on(client: Any, job: "Job", store: ResultStore, near: tuple[float, ...] | None = None) -> Iterator[Progress]:
    """Compute the blocks that are not done on the workers of a dask scheduler; the record is kept here.

    The blocks are those of a run on this machine, and so are their bytes where the workers' processors are alike.

    Parameters
    ----------
    client : distributed.Client
        As `connected` gives it.
    store : ResultStore
        In a folder that the workers reach under the same path, as is the image.
    near : tuple of float, optional
        Position in the viewer.

    Yields
    ------
    Progress
        A `Block` for each block, and at least one event a second.

    Raises
    ------
    UsageError
        Where a worker has other versions, or does not reach the result's folder.
    IncompleteError
        After all else is done: blocks that could not be read, or killed their workers; the scheduler was lost.
    """
    with contextlib.closing(_Run(client, job, store).events(near)) as events:
        yield from events


def _client(scheduler: str) -> Any:
    try:
        import distributed
    except ImportError as error:
        raise UsageError("a scheduler needs the package distributed; install napari-unet-stacks[cluster]") from error
    kind: Any = distributed.Client
    client = kind.__new__(kind)  # so that one that cannot connect is closed at once, not by the garbage collector
    try:
        connect = functools.partial(client.__init__, scheduler, timeout=TIMEOUT, set_as_default=False)
        if not in_time(connect, 2 * TIMEOUT):
            raise IncompleteError(f"the scheduler {scheduler} does not answer; try again later")
    except (OSError, ValueError, TypeError) as error:
        with contextlib.suppress(Exception):
            client.close(timeout=1)
        names = "name the certificates in dask's configuration (distributed.comm.tls)"
        hint = names if "TLS" in str(error) else "check that it runs at this address"
        raise UsageError(f"the scheduler {scheduler} cannot be reached: {error}; {hint}") from error
    return client


def _check_image(job: "Job") -> None:
    """Refuse an image that workers could not read."""
    from distributed.protocol import pickle as pickled

    dumps: Any = pickled.dumps
    stack = job.decoder.engine.stack
    if not stack.source or len(dumps(stack)) > MOST_SENT:
        raise UsageError(
            f"{stack.name} lies in this machine's memory, where workers cannot read it; save it as OME-Zarr first"
        )


def _check_versions(client: Any) -> None:
    """Check all workers, before anything is written; one that has just started may first have to import torch."""
    until, checked = time.monotonic() + SILENT, set[str]()
    while (left := set(signs_of_life(client)) - checked) and time.monotonic() < until:
        checked |= _checked_versions(client, left)
        time.sleep(0 if left <= checked else HEARTBEAT)


def _checked_versions(client: Any, addresses: Iterable[str]) -> set[str]:
    """Refuse workers that would give something else; return those that answered."""
    ours, found = versions(*PACKAGES), run_on_each(client, addresses, versions, *PACKAGES)
    for where, theirs in found.items():
        other = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours if theirs[name] != ours[name]]
        if other:
            raise UsageError(f"worker {where} has {', '.join(other)}; install the same versions everywhere")
    return set(found)


class _Run:
    """One run on one cluster: a bounded window of tasks."""

    def __init__(self, client: Any, job: "Job", store: ResultStore) -> None:
        self._client, self._address, self._job, self._store = client, client.scheduler.address, job, store
        self._topic = f"napari-unet-{uuid.uuid4().hex}"
        self._told: deque[list[Any]] = deque()  # what tasks that go on have written
        self._flying: dict[Any, tuple[tuple[int, ...], str | None]] = {}  # blocks, and the worker they were given to
        self._again: deque[tuple[int, ...]] = deque()
        self._suspects: deque[int] = deque()
        self._alone: int | None = None
        self._cancels: Counter[int] = Counter()  # of tasks, by their first block, since a block was done
        self._signs: dict[str, tuple[float, float]] = {}  # of each worker: its last sign of life, and when that was new
        self._checked: set[str] = set()  # workers that have said that they have our versions and reach the folder
        self._looked, self._said = 0.0, ""
        self.failed: dict[int, str] = {}
        import distributed

        self._killed: Any = distributed.KilledWorker
        self._lost = distributed.client.FutureCancelledError, distributed.comm.core.CommClosedError, TimeoutError

    def events(self, near: tuple[float, ...] | None) -> Generator[Progress, None, None]:
        """Submit, collect, record."""
        import distributed

        store, total = self._store, self._job.total
        wait: Any = distributed.wait
        over = (TimeoutError, distributed.client.FuturesCancelledError)  # what was cancelled is seen when collected
        yield from self._await_workers()
        # A task, not scattered data, which would be lost with the last worker that holds it.
        shared = self._client.submit(together, self._job, store.sent_writer, self._topic, pure=False)
        store.renew()
        parts = parts_of(self._job, self._job.pending(store), max(1, self._workers), near)
        self._client.subscribe_topic(self._topic, lambda event: self._told.append(event[1]))
        try:
            while self._fill(parts, shared):
                with contextlib.suppress(*over), self._client.as_current():
                    wait(list(self._flying), timeout=HEARTBEAT, return_when="FIRST_COMPLETED")
                self._look()
                yield Progress(store.count, total, "predict", self._where())
                while self._told:
                    for number in self._record(_read(self._told.popleft())):
                        yield Block(store.count, total, "predict", box=self._job.box(number))
                for future in [f for f in self._flying if f.done()]:
                    for number in self._collect(future):
                        yield Block(store.count, total, "predict", box=self._job.box(number))
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone: there is nothing left to cancel then
                self._client.cancel(list(self._flying), force=True)
        raise_unfinished(self.failed, len(self._job.grid))

    def _fill(self, parts: Iterator[tuple[int, ...]], shared: Any) -> bool:
        """Submit as many tasks as the window holds, then each suspect by itself; say whether any are on their way."""
        while len(self._flying) < max(1, self._workers) * (1 + AHEAD):
            numbers = self._again.popleft() if self._again else next(parts, None)
            if numbers is None:
                break
            self._submit(shared, numbers)
        if self._suspects and not self._flying:
            self._alone = self._suspects.popleft()
            self._submit(shared, (self._alone,))
        return bool(self._flying)

    def _submit(self, shared: Any, numbers: tuple[int, ...]) -> None:
        """Submit a task to the worker that has the fewest; the scheduler would give all to the one with the model."""
        busy = Counter(address for _, address in self._flying.values())
        freest = min(self._signs, key=lambda address: busy[address], default=None)
        place: Any = {"workers": [freest], "allow_other_workers": True} if freest else {}
        future = self._client.submit(task, shared, numbers, pure=False, retries=1, **place)
        self._flying[future] = numbers, freest

    def _collect(self, future: Any) -> Iterator[int]:
        """Record what a task has written; what killed its workers is split, to find the block that does."""
        numbers = tuple(n for n in self._flying.pop(future)[0] if n not in self._store)
        try:
            written = future.result(timeout=TIMEOUT)
        except self._lost as error:
            if self._client.status != "running":
                raise IncompleteError(
                    f"the scheduler {self._address} was lost; {self._store.count} of {self._job.total} blocks are "
                    "done and kept: run the same command again"
                ) from error
            self._try_again(numbers, error)
            return
        except self._killed:
            if len(numbers) > 1:
                half = len(numbers) // 2
                self._again += [numbers[:half], numbers[half:]]
            elif numbers and numbers[0] != self._alone:  # it may have died with another
                self._suspects.append(numbers[0])
            elif numbers:
                self.failed[numbers[0]] = "every worker that computed it died; its memory may be too small"
            return
        yield from self._record(written)

    def _try_again(self, numbers: tuple[int, ...], why: BaseException) -> None:
        """Put back what was cancelled, as when a worker dies with what it had to say; refuse to do so for ever."""
        if not numbers:
            return
        self._again.append(numbers)
        self._cancels[numbers[0]] += 1
        if self._cancels[numbers[0]] >= FRUITLESS:
            raise IncompleteError(
                f"the scheduler {self._address} cancelled a task {FRUITLESS} times and no block was done ({why}): "
                f"look at its log; what is done ({self._store.count} of {self._job.total} blocks) is kept"
            ) from why

    def _record(self, written: Written) -> Iterator[int]:
        """Record blocks that were written and are not recorded yet."""
        for number, found in written:
            if isinstance(found, str):
                self.failed[number] = found
            elif number not in self._store:
                self._cancels.clear()
                self._store.record(number, found)
                yield number

    def _look(self) -> None:
        """Ask the scheduler which workers there are, once a second; give up those that have stopped.

        Raises
        ------
        IncompleteError
            Where the scheduler does not answer.
        UsageError
            Where a worker has other versions, or does not reach the result's folder.
        """
        now = time.monotonic()
        if now - self._looked < HEARTBEAT:
            return
        self._looked = now
        try:
            signs = signs_of_life(self._client)
            known = self._signs
            self._signs = {
                a: known[a] if a in known and known[a][0] == sign else (sign, now) for a, sign in signs.items()
            }
            self._check({address for address, (_, since) in self._signs.items() if since == now})
        except OSError as error:  # which a timeout is, too
            what = "does not answer" if isinstance(error, TimeoutError) else "was lost"
            raise IncompleteError(
                f"the scheduler {self._address} {what}; "
                f"{self._store.count} of {self._job.total} blocks are done and kept: run the same command again"
            ) from error
        silent = [address for address, (_, since) in self._signs.items() if now - since > SILENT]
        for address in silent if self._flying else ():  # one without tasks costs nothing, and may be importing torch
            self._give_up(address)

    def _check(self, alive: set[str]) -> None:
        """Check workers that have not answered yet; one that dies meanwhile is asked again when it is seen next."""
        self._checked &= set(self._signs)
        same = _checked_versions(self._client, alive - self._checked)
        folder = str(self._store.root.resolve())
        for where, there in run_on_each(self._client, same, _reaches, folder).items():
            if not there:
                raise UsageError(f"worker {where} does not reach {folder}; put it on a shared disk")
            self._checked.add(where)

    def _give_up(self, address: str) -> None:
        """Take a worker that shows no sign of life off the scheduler, which gives its tasks to others."""
        del self._signs[address]
        self._said = f"; {address} showed no sign of life for {SILENT:.0f} s: its blocks go to others"
        with contextlib.suppress(OSError):
            ask_scheduler(self._client, "unregister", address=address, stimulus_id=f"silent-{time.time()}")

    @property
    def _workers(self) -> int:
        return len(self._signs)

    def _where(self) -> str:
        count = self._workers
        said, self._said = self._said, ""
        if not self._checked:
            return f"waiting: {'no worker answers yet' if count else 'the scheduler has no workers'}{said}"
        return f"on {count} worker{'s' * (count != 1)}{said}"

    def _await_workers(self) -> Iterator[Progress]:
        """Wait for the first that answers: a queue of jobs may start it later."""
        self._look()
        while not self._checked:
            yield Progress(self._store.count, self._job.total, "predict", self._where())
            time.sleep(HEARTBEAT)
            self._look()


def together(job: "Job", writer: BlockWriter, topic: str) -> "tuple[Job, BlockWriter, str]":
    """Return what all tasks need; dask keeps it once per worker, so that there is one model in it."""
    return job, writer, topic


def task(shared: "tuple[Job, BlockWriter, str]", numbers: tuple[int, ...]) -> Written:
    """Compute and write some blocks, on a worker; one task at a time in a process.

    What is written is told every second, so that a long task is not lost with its worker.

    Returns
    -------
    list of (block, what was written, or why nothing could be)
    """
    import distributed

    (job, writer, topic), worker = shared, distributed.get_worker()
    with _turn:
        torch.set_num_threads(max(1, int(worker.state.nthreads)))
        route = job.route()
        pipeline = Pipeline(
            route.pieces(numbers),
            route.read,
            route.compute,
            route.decode,
            lambda _, many: [(n, str(r) if isinstance(r, DataError) else writer.write(r)) for n, r in many],
        )
        written: Written = []
        told, last = 0, time.monotonic()
        for finished in pipeline:
            written += finished
            if told < len(written) and time.monotonic() - last >= HEARTBEAT:
                worker.log_event(topic, _plain(written[told:]))
                told, last = len(written), time.monotonic()
        return written


def _plain(written: Written) -> list[Any]:
    """Turn blocks that were written into what may be told."""
    done = [(number, found) for number, found in written if not isinstance(found, str)]
    return [
        [int(number), [[r.array, list(map(int, r.start)), list(map(int, r.stop)), int(r.crc32)] for r in found]]
        for number, found in done
    ]


def _read(told: list[Any]) -> Written:
    """Turn what was told into blocks that were written."""
    return [(number, [Region(name, tuple(a), tuple(b), crc) for name, a, b, crc in found]) for number, found in told]


def _reaches(folder: str) -> bool:
    try:
        return Path(folder).is_dir()
    except OSError:  # no right to look, or a disk that is gone
        return False
