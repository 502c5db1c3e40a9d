"""Work on several parts of an array, or two files, at a time, and work that no signal may cut."""

import contextlib
import dataclasses
import enum
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")
WORKERS = 2  # the codecs have threads of their own; more would cost the memory of a part each


def in_threads(
    work: Callable[[Item], Done],
    items: Iterable[Item],
    workers: int = WORKERS,
    ahead: int = WORKERS,
    first: Callable[[], None] | None = None,
) -> Generator[tuple[Item, Done], None, None]:
    """Do the work of each item in one of a few threads; yield (item, what came of it) in the order of the items.

    What the work raises is raised here, in its item's turn; then, and where the iterator is closed, no other item is
    begun, and those at work are waited for.

    Parameters
    ----------
    items : iterable
        May be endless.
    workers : int
        Threads.
    ahead : int
        Items that are begun at most beyond the one that is yielded next.
    first : callable, optional
        What each thread does once; all have done it before any work begins.
    """
    begun: deque[tuple[Item, Future[Done]]] = deque()
    together = threading.Barrier(workers)
    with ThreadPoolExecutor(workers, "parts", initializer=first) as pool:
        try:
            if first is not None:
                for there in [pool.submit(together.wait) for _ in range(workers)]:
                    there.result()
            for item in items:
                begun.append((item, pool.submit(work, item)))
                if len(begun) > ahead:
                    done, result = begun.popleft()
                    yield done, result.result()
            for done, result in begun:
                yield done, result.result()
        finally:
            together.abort()  # where not all threads could be started
            pool.shutdown(cancel_futures=True)


class Turn(enum.Enum):
    """What the work on an item yields first: whether that on the next one may be done beside it."""

    SHARED = enum.auto()
    ALONE = enum.auto()  # nor does it go on before all earlier work has come to its end


@dataclasses.dataclass(frozen=True, slots=True)
class Ended(Generic[Item, Done]):
    """The work on an item has come to its end."""

    item: Item
    result: Done


class _Begun:
    """Work on an item in a thread; what it yields waits until its turn comes."""

    def __init__(self, item: Any, work: Generator[Any, None, Any]) -> None:
        self.item, self._work = item, work
        self.said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.known, self.turn = threading.Event(), threading.Event()
        self.is_alone = False
        self.error: BaseException | None = None

    def do(self, stopped: threading.Event) -> None:
        """Do the work until it ends or is stopped."""
        try:
            with contextlib.closing(self._work):
                self._go_on(stopped)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread, in its turn
            self.error = error
        finally:
            self.known.set()
            self.said.put(None)

    def _go_on(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                said = next(self._work)
            except StopIteration as end:
                self.said.put(Ended(self.item, end.value))
                return
            if not isinstance(said, Turn):
                self.said.put(said)
                continue
            self.is_alone = said is Turn.ALONE
            self.known.set()
            if self.is_alone:
                self.turn.wait()

    def events(self) -> Iterator[Any]:
        """Yield what it says, as it comes."""
        while (said := self.said.get()) is not None:
            yield said
        if self.error is not None:
            raise self.error


def in_turn(work: Callable[[Item], Generator[Any, None, Done]], items: Iterable[Item]) -> Generator[Any, None, None]:
    """Work on two items at a time, each in a thread; yield what the work yields, then `Ended`, item after item.

    While the work on one item waits for a disk, or makes many small steps, that on the next has the processor.
    Closing the iterator stops both after what they are at, and waits for them. What the work raises is raised here.

    Parameters
    ----------
    work : callable
        Gives a generator, which yields a `Turn` before it does anything large; that is not handed on.
    """
    waiting, stopped, begun = iter(items), threading.Event(), deque[_Begun]()
    with ThreadPoolExecutor(2, "turn") as pool:

        def begin() -> None:
            for item in waiting:
                begun.append(_Begun(item, work(item)))
                pool.submit(begun[-1].do, stopped)
                return

        try:
            begin()
            while begun:
                begun[0].turn.set()
                begun[0].known.wait()
                if not begun[0].is_alone:
                    begin()
                yield from begun.popleft().events()
                if not begun:
                    begin()
        finally:
            stopped.set()
            for each in begun:
                each.turn.set()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until a piece of work is done; a second of either comes through at once."""
    came: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if came:
            before[number](number, frame)
        came.append((number, frame))

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    main = threading.current_thread() is threading.main_thread()  # others are never interrupted
    before = {int(number): handler for number, handler in handlers.items() if main and callable(handler)}
    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number, frame in came:
        before[number](number, frame)
