"""Work on several parts of an array at a time."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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
