"""What long work says while it runs: small events from a generator whose return value is the result."""

import dataclasses
from collections.abc import Generator, Iterator, Mapping
from typing import TypeVar

from .errors import UsageError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is.

    Parameters
    ----------
    done, total : int
        Units finished, and units in all; 0 <= done <= total.
    stage : str
        What is being done, in a word or two ("predict").
    message : str
        One line for the user, or nothing.

    Raises
    ------
    UsageError
        Where `done` is not within 0 and `total`.
    """

    done: int
    total: int
    stage: str
    message: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.done <= self.total:
            raise UsageError(f"{self.stage}: {self.done} done of {self.total}; it must be from 0 to the total")


@dataclasses.dataclass(frozen=True, slots=True)
class Block(Progress):
    """A block of a result that has been written.

    Parameters
    ----------
    box : tuple of slice
        Where it lies in the result.
    """

    box: tuple[slice, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch of training.

    Parameters
    ----------
    number : int
        Counted from 1.
    total : int or None
        Epochs planned; None where only time or steps are bounded.
    validation_loss : float or None
        None where nothing was validated.
    scores : mapping of str to float
        Validation scores by name; kept as a copy.
    seconds : float
        Duration of the epoch.
    best : bool
        Whether it is the best so far.
    message : str
        One line for the user, or nothing.

    Raises
    ------
    UsageError
        Where `number` is not positive or past `total`.
    """

    number: int
    total: int | None
    train_loss: float
    validation_loss: float | None
    scores: Mapping[str, float]
    seconds: float
    best: bool
    message: str = ""

    def __post_init__(self) -> None:
        if self.number < 1 or (self.total is not None and self.number > self.total):
            raise UsageError(f"epoch {self.number} of {self.total}; epochs are counted from 1 to the total")
        object.__setattr__(self, "scores", dict(self.scores))


def wait(work: Iterator[object] | Generator[object, None, T]) -> T:
    """Run a generator of events to its end and return its result.

    Parameters
    ----------
    work : generator
        Its events are dropped; what it raises is passed on.

    Returns
    -------
    the generator's return value; None for an iterator that has none
    """
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
