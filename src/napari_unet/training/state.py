"""What changes while training, besides tensors."""

import dataclasses
import math
from typing import Any

# Of a score from 0 to 1; specks of a network that has learnt nothing have found thin objects with an AP of 0.014.
SAYS = 0.05


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
    best, best_loss, best_epoch, best_step : float, float, int, int
        The best validation so far.
    history : list of dict
        One per epoch.
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
    best_loss: float = math.inf
    best_epoch: int = 0
    best_step: int = 0
    validation_seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def keep_if_best(self, score: float, loss: float) -> bool:
        """Take the epoch that has just ended as the best where it is, and say so.

        The score decides, then the loss: that alone where the score is the same each time, or so low that it says
        nothing.
        """
        score = 0.0 if 0 < score < SAYS else score
        mark = (score if math.isfinite(score) else -math.inf, -loss)
        best = math.isfinite(loss) and mark > (self.best, -self.best_loss)
        if best:
            self.best, self.best_loss, self.best_epoch, self.best_step = mark[0], loss, self.epoch, self.step
        return best

    @property
    def kept(self) -> str:
        """The number of the epoch that is kept, and by what where that is not its score."""
        why = f" by its validation loss, as no epoch had a score above {SAYS}"
        return f"{self.best_epoch}{why if self.best in (0.0, -math.inf) else ''}"
