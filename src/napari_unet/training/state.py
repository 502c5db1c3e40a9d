"""What changes while training, besides tensors."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(slots=True)
class State:
    """How far a training is; all of it is in each checkpoint.

    Parameters
    ----------
    step, epoch, updates : int
        Steps done, epochs ended, steps that changed the weights.
    elapsed, progress : float
        Seconds of training, and the part of the run that is over.
    epoch_step, epoch_progress, epoch_elapsed
        The same at the end of the last epoch.
    loss_sum, loss_count : float, int
        Of the finite losses of this epoch.
    rate : float
        Learning rate of the last step.
    joined_progress, joined_rate : float, float or None
        From where an extended run goes over to its new schedule.
    best, best_epoch, best_step : float, int, int
        The best validation so far.
    validation_seconds : float
    history : list of dict
        One an epoch.
    """

    step: int = 0
    epoch: int = 0
    updates: int = 0
    elapsed: float = 0.0
    progress: float = 0.0
    epoch_step: int = 0
    epoch_progress: float = 0.0
    epoch_elapsed: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    rate: float = 0.0
    joined_progress: float = 0.0
    joined_rate: float | None = None
    best: float = -math.inf
    best_epoch: int = 0
    best_step: int = 0
    validation_seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
