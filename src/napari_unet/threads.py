"""Work on several parts of an array at a time, and work that no signal may cut."""

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import TypeVar

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
