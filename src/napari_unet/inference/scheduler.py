"""What is asked of a dask scheduler and its workers: answered in time, or given up, as either may have stopped."""

import contextlib
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

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


def run_on_each(client: Any, function: Any, *args: Any) -> dict[str, Any]:
    """Run a function on each worker that answers; one that has stopped would be waited for without end."""
    found: dict[str, Any] = {}
    for address in signs_of_life(client):
        with contextlib.suppress(TimeoutError):
            found |= client.sync(client._run, function, *args, workers=[address], callback_timeout=ANSWER)
    return found


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
