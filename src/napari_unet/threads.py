"""Work on several parts of an array at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")
WORKERS = 2  # the codecs have threads of their own; more would cost the memory of a part each


def in_threads(work: Callable[[Item], Done], items: Iterable[Item]) -> Iterator[tuple[Item, Done]]:
    """Do the work of each item in one of two threads; yield (item, what came of it) in the order of the items.

    At most three items are begun and not yet taken. What the work raises is raised here, in its item's turn; then, and
    where the iterator is closed, no other item is begun, and those at work are waited for.
    """
    begun: deque[tuple[Item, Future[Done]]] = deque()
    with ThreadPoolExecutor(WORKERS, "parts") as pool:
        try:
            for item in items:
                begun.append((item, pool.submit(work, item)))
                if len(begun) > WORKERS:
                    first, done = begun.popleft()
                    yield first, done.result()
            for last, done in begun:
                yield last, done.result()
        finally:
            pool.shutdown(cancel_futures=True)
