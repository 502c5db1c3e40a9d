"""Calls to a dask scheduler and its workers with a time limit, as either may have stopped."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import Any

from ..errors import UsageError

ANSWER = 10.0  # seconds for an answer of a worker
PATIENCE = 30.0  # seconds for one of the scheduler: with the wait for a result before it, one that froze is named in 60


def in_time(work: Callable[[], None], seconds: float) -> bool:
    """Do something that may wait without end, in a thread of its own; say whether it was done in so many seconds.

    Raises
    ------
    Exception
        What the work raises.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - handed on to the caller's thread, where it is raised
            done.set_exception(error)

    threading.Thread(target=run, name="connecting", daemon=True).start()
    wait([done], seconds)
    if done.done():
        done.result()
    return done.done()


def run_on_each(client: Any, addresses: Iterable[str], function: Any, *args: Any) -> dict[str, Any]:
    """Run a function on workers; return what those say that answer in time.

    One that dies while it is asked, or has stopped, gives no answer and takes none from the others.

    Raises
    ------
    UsageError
        Where a worker cannot run it, as one where this package is not installed.
    OSError
        Where the way to the scheduler is broken.
    """
    known = list(addresses)

    async def answers() -> list[Any]:
        each = (client._run(function, *args, workers=[address], on_error="return") for address in known)
        return await asyncio.gather(*(asyncio.wait_for(one, ANSWER) for one in each), return_exceptions=True)

    found: dict[str, Any] = {}
    for answer in client.sync(answers):
        if isinstance(answer, BaseException) and not isinstance(answer, TimeoutError):
            raise answer
        found |= answer if isinstance(answer, dict) else {}
    for address, said in found.items():
        if isinstance(said, Exception) and not isinstance(said, OSError):  # an OSError is the way to it, which broke
            why = f"{type(said).__name__}: {said}"
            raise UsageError(f"worker {address} cannot run a task ({why}); install the same versions everywhere")
    return {address: said for address, said in found.items() if not isinstance(said, OSError)}


def ask_scheduler(client: Any, what: str, **more: Any) -> Any:
    """Ask the scheduler something that it has to answer in time.

    Raises
    ------
    OSError
        Where it does not, or the way to it is broken.
    """
    return client.sync(getattr(client.scheduler, what), callback_timeout=PATIENCE, **more)


def signs_of_life(client: Any) -> dict[str, float]:
    """Return when the scheduler last heard of each worker, by its clock."""
    takes = inspect.signature(client.scheduler_info).parameters
    found = ask_scheduler(client, "identity", **({"n_workers": -1} if "n_workers" in takes else {}))
    return {address: worker["last_seen"] for address, worker in found["workers"].items()}
