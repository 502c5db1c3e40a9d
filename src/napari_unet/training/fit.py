"""Training: labelled stacks in, a model out; stopped at any time, it resumes where it was."""

import contextlib
import csv
import dataclasses
import io
import math
import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arrays.stack import Stack
from ..errors import IncompleteError, ResourceError, UnetError
from ..events import Epoch, Progress
from ..faults import named_faults
from ..grid.tiles import scaled
from ..model import Model, OneModel, as_model
from ..sources import open_labels, open_stack
from ..threads import held
from .augment import augment, augmentation
from .checkpoint import Checkpoints, write_atomic
from .config import TrainConfig
from .fingerprint import Pair
from .learner import Learner, rate_at, weights_of
from .run import Run
from .sampling import Sampler, ahead
from .setup import set_up
from .split import Sample
from .state import State
from .targets import Targets
from .validate import Validation

Events = Generator[Progress | Epoch, None, Model]
BAD_STEPS = 3  # one bad patch is skipped; a network that has diverged gives them in a row
VALIDATION_SHARE = 0.15  # of the time at most: the rest is for learning
# So that even a short run has a best epoch to choose, and a long one a curve.
FEWEST_EPOCHS_OF_STEPS, EPOCHS_OF_STEPS = 4, 20
EPOCHS_A_MINUTE = 4  # so that the curve moves while it is watched
FEWEST_EPOCHS, MOST_EPOCHS = 8, 60  # a best epoch to choose; a history that can be read
JOIN = 0.05  # share of a run over which an extended one goes over to its new learning rate without a jump
# Seconds kept free for the last checkpoint; share of the time that checkpoints take at most.
SAVING, SAVING_SHARE = 1.0, 0.05
MOST_READERS = 8  # threads: each holds a batch in memory


def train(
    pairs: Sequence[Pair],
    out: Path,
    config: TrainConfig | None = None,
    *,
    init: OneModel | None = None,
    validation: Sequence[Pair] = (),
) -> Events:
    """Train a model on labelled stacks; closing the iterator stops it, and keeps its state for ``resume``.

    Until it ends, the state is in the folder ``OUT.training`` beside `out`; `out` itself is a model from the moment it
    is there. A run that was stopped can be made a model as it is with `finish`.

    Parameters
    ----------
    pairs : sequence of (image, labels)
        Stacks, or what `open_stack` and `open_labels` take. Labels have the axes of the image without c. Time points,
        and planes for a 2-D network, are separate samples.
    out : Path
        Model folder to make.
    init : Model, path or name, optional
        Model to start from: its network, weights and intensities are used.
    validation : sequence of (image, labels), optional
        Validation data; a part of `pairs` is held out if not given.

    Returns
    -------
    Model
        The best of the run by its validation scores.

    Raises
    ------
    DataError, UsageError, ModelError
        The data, settings or model do not fit together; nothing has been written.
    OutputError
        `out` exists, or the run to resume is another one.
    ResourceError
        Not enough memory or disk.
    IncompleteError
        The loss was not finite `BAD_STEPS` times in a row.
    """
    with named_faults("--memory, --patch and --batch"):
        training = yield from begin(pairs, Path(out), config or TrainConfig(), init, validation)
        return (yield from training.events())


def begin(
    pairs: Sequence[Pair], out: Path, config: TrainConfig, init: OneModel | None = None, validation: Sequence[Pair] = ()
) -> "Generator[Progress, None, Training]":
    """Check, measure and plan as `train` does, with its parameters; return the training before its next step."""
    started = time.monotonic()
    start = None if init is None else as_model(init)
    given, checked = (_opened(each, config.reads_labels) for each in (pairs, validation))
    run, samples, held_out = yield from set_up(given, out, config, start, checked)
    with contextlib.ExitStack() as undo:
        undo.callback(run.release)
        training = Training(run, (samples, held_out), config, start, started)
        undo.pop_all()
    return training


def _opened(pairs: Sequence[Pair], labels: bool) -> list[Pair]:
    """Open what is not open yet: images, and their labels or target images."""
    other = open_labels if labels else open_stack
    return [(open_stack(one), target if isinstance(target, Stack) else other(target)) for one, target in pairs]


class _Batch(NamedTuple):
    images: Tensor
    targets: Tensor


class Training:
    """A training that is planned: `events` does its steps, and between two events it can be looked into, and ended.

    Parameters
    ----------
    run : Run
        Its plan, task and folder, which is locked until `events` ends.
    data : (list of Sample, list of Sample)
        Training samples and validation samples.
    init : Model or None
        Whose weights the network starts from.
    started : float
        When its time began, in seconds of `time.monotonic`.
    """

    def __init__(
        self, run: Run, data: tuple[list[Sample], list[Sample]], config: TrainConfig, init: Model | None, started: float
    ) -> None:
        self.run, self.config, self.plan, self.task = run, config, run.plan, run.task
        weights = None if init is None else weights_of(init, run.task)
        self.learner = Learner(run.plan, run.task, config, weights)
        balance = 0.0 if config.learns_images else config.balance
        read = Targets(run.task, data[0]).read
        self.sampler = Sampler(data[0], run.plan, config.seed, balance, config.sparse, read)
        self.validation = Validation(data[1], run.plan, run.task, config.seed)
        self.augmentation = augmentation(config)
        self.checkpoints = Checkpoints(run.folder)
        self.best = Checkpoints(run.folder, "best")
        self.state = State()
        self.notes: tuple[str, ...] = ()
        self._began = started
        self._saved_step, self._saved_at, self._saving = -1, -math.inf, 0.0
        self._bad = 0
        self._unsaved: UnetError | None = None  # why a state could not be written
        self._ending = False
        if config.resume:
            self._restore()
        self._batches = ahead(self._batch, self.state.step, self._readers())

    def events(self) -> Events:
        """Train to the end of steps or minutes, and write the best model; once only."""
        try:
            if self.run.lock is not None:
                yield from self.run.lock.notices()
            with contextlib.closing(self._batches):
                yield from self._steps()
            if self._unsaved is not None and not (self.best.steps() and self.checkpoints.steps()):
                raise self._unsaved
            model = self.run.finish()
        finally:
            self.run.release()
        yield Progress(1, 1, "train", f"the best model, of epoch {self.state.kept}, is in {self.run.out}")
        return model

    def model(self) -> Model | None:
        """Return the current model, the running average of its weights; None before the first step."""
        if not self.learner.updates:
            return None
        return self.run.model(self.learner.kept(), {"step": self.state.step})

    def end_soon(self) -> None:
        """End it as if its time were up: a last validation, then the best so far is its model."""
        self._ending = True

    def _restore(self) -> None:
        found = self.checkpoints.load()
        if found is None:
            return
        self.state, self.notes = State(**found.state), found.notes
        self.checkpoints.drop_after(self.state.step)
        self.best.drop_after(self.state.step)
        if self.state.best_step not in self.best.steps():
            self.state.best, self.state.best_loss = -math.inf, math.inf
        self.learner.restore(found.tensors, self.state.updates)
        self._began -= self.state.elapsed
        self._saved_step = self.state.step
        now = self._progress()
        if now < self.state.progress:  # more steps or minutes than before: the rate goes on from where it was
            self.state.joined_progress, self.state.joined_rate = now, self.state.rate
            self.state.epoch_progress = min(self.state.epoch_progress, now)
            self.state.progress = now

    # Time, and what follows from it

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _deadline(self) -> float:
        """Return the seconds after which the last validation must begin."""
        budget = (self.config.budget or math.inf) * 60
        return budget - min(1.2 * self.state.validation_seconds + SAVING, 0.2 * budget)

    def _progress(self) -> float:
        parts = [self._elapsed() / self._deadline()] if self.config.budget else []
        parts += [self.state.step / self.config.steps] if self.config.steps else []
        return min(max(parts), 1.0)

    def _rate(self) -> float:
        rate = rate_at(self.state.progress, self.plan.learning_rate)
        if self.state.joined_rate is None:
            return rate
        share = (self.state.progress - self.state.joined_progress) / JOIN
        return rate if share >= 1 else self.state.joined_rate + share * (rate - self.state.joined_rate)

    def _epoch_steps(self) -> int:
        """Return the steps per epoch where steps bound the run: few enough to see, and validation a small part."""
        seen = 3 * self.plan.batch * math.prod(self.sampler.shape)
        cost = math.ceil(self.validation.voxels / seen / VALIDATION_SHARE)
        steps = self.config.steps or 1
        return max(min(cost, math.ceil(steps / FEWEST_EPOCHS_OF_STEPS)), math.ceil(steps / EPOCHS_OF_STEPS))

    def _epoch_ends(self) -> bool:
        state = self.state
        if state.progress >= 1:
            return True
        if not self.config.budget:
            return state.step - state.epoch_step >= self._epoch_steps()
        epochs = min(max(round(self.config.budget * EPOCHS_A_MINUTE), FEWEST_EPOCHS), MOST_EPOCHS)
        spent = self._elapsed() - state.epoch_elapsed
        return (
            state.progress - state.epoch_progress >= 1 / epochs and spent >= state.validation_seconds / VALIDATION_SHARE
        )

    def _steps(self) -> Generator[Progress | Epoch, None, None]:
        yield from (Progress(0, 1, "resume", note) for note in self.notes)
        steps, between = self._loop(), True
        try:
            while True:
                with held():  # so that a signal finds weights, their average and the number of the step of one another
                    between = False
                    event = next(steps, None)
                    between = True
                if event is None:
                    return
                yield event
        except (GeneratorExit, KeyboardInterrupt):
            if between and self.state.step != self._saved_step:
                self._save()
            raise

    def _loop(self) -> Generator[Progress | Epoch, None, None]:
        while True:
            if self._ending and self.state.step:
                self.state.progress = 1.0
            if self.state.step > self.state.epoch_step and self._epoch_ends():
                yield from self._end_epoch()
                if self._impatient():
                    break
            if self.state.progress >= 1:
                break
            yield self._step()
        if self.state.step != self._saved_step and not self._bad and (note := self._save()):
            yield Progress(0, 1, "save", note)

    def _readers(self) -> int:
        """Return how many threads make batches: one where the network needs the processor itself."""
        return 1 if self.learner.device.type == "cpu" else max(1, min((os.cpu_count() or 1) - 1, MOST_READERS))

    def _batch(self, step: int) -> _Batch:
        """Read, encode and augment the batch of a step: a pure function of seed and step."""
        images, encoded = self.sampler.batch(step)
        targets = torch.stack([torch.from_numpy(part) for part in encoded])
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        device = self.learner.device if self.learner.device.type == "cuda" else torch.device("cpu")
        batch = _Batch(torch.from_numpy(images).to(device), targets.to(device))
        batch = _Batch(*augment(*batch, generator, self.augmentation, self.plan.spacing))
        batch = _Batch(*self.task.prepare(*batch, generator))
        patch = [slice(m, m + n) for m, n in zip(self.plan.margin, self.plan.patch, strict=True)]
        inner: Any = scaled(patch, self.plan.factors)
        return _Batch(batch.images, batch.targets[(..., *inner)])

    def _step(self) -> Progress:
        state = self.state
        self.run.beat()
        batch = next(self._batches)
        rate = self._rate()
        loss = self.learner.step(state.step, batch.images, batch.targets, rate)
        state.step += 1
        if math.isfinite(loss):
            self._bad = 0
            state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1
        else:
            self._count_bad(loss)
        state.rate, state.updates = rate, self.learner.updates
        state.progress = max(state.progress, self._progress())
        total = self.config.steps or round((self.config.budget or 0) * 60)
        done = state.step if self.config.steps else int(self._elapsed())
        return Progress(min(done, total), total, "train", f"step {state.step}, loss {loss:.4f}")

    def _count_bad(self, loss: float) -> None:
        self._bad += 1
        if self._bad < BAD_STEPS:
            return
        step = self.state.step - 1
        names = sorted({sample.image.name for sample, _, _ in self.sampler.places(step)})
        kept = self.checkpoints.steps()
        good = f"the state of step {kept[0]} is kept" if kept else "there is no earlier state"
        raise IncompleteError(
            f"epoch {self.state.epoch + 1}, step {step}: the loss was {loss} {BAD_STEPS} times in a row, on patches of "
            f"{', '.join(names)}; {good} in {self.run.folder}: resume with a lower learning rate, or with fp32"
        )

    def _end_epoch(self) -> Generator[Progress | Epoch, None, None]:
        state, began = self.state, time.monotonic()
        work = self.validation.run(self.learner)
        while True:
            try:
                done, total = next(work)
            except StopIteration as end:
                loss, seen = end.value
                break
            yield Progress(done, total, "validate")
        state.validation_seconds = time.monotonic() - began
        state.epoch += 1
        event = self._record(loss, seen.result())
        message: str = self._save_best(seen.settings()) if event.best else ""
        if not self._bad and math.isfinite(loss) and time.monotonic() - self._saved_at >= self._saving / SAVING_SHARE:
            message = self._save() or message
        yield dataclasses.replace(event, message=message)

    def _record(self, loss: float, scores: dict[str, float]) -> Epoch:
        """Write the epoch into the history and decide whether it is the best."""
        state, config = self.state, self.config
        best = state.keep_if_best(scores.get(self.task.score, math.nan), loss)
        train_loss = state.loss_sum / state.loss_count if state.loss_count else math.nan
        seconds = self._elapsed() - state.epoch_elapsed
        row = {"epoch": state.epoch, "step": state.step, "train_loss": train_loss, "validation_loss": loss}
        state.history.append(row | scores | {"rate": state.rate, "seconds": seconds, "best": best})
        state.loss_sum, state.loss_count = 0.0, 0
        state.epoch_step, state.epoch_progress, state.epoch_elapsed = state.step, state.progress, self._elapsed()
        total = None
        if config.steps and not config.budget:
            total = max(state.epoch, math.ceil(config.steps / self._epoch_steps()))
        return Epoch(state.epoch, total, train_loss, loss, scores, seconds, best)

    def _impatient(self) -> bool:
        return self.config.patience is not None and self.state.epoch - self.state.best_epoch >= self.config.patience

    def _save_best(self, settings: dict[str, Any]) -> str:
        try:
            self.best.save(self.state.step, self.learner.kept(), self._about_best() | {"task": settings})
        except (ResourceError, IncompleteError) as error:
            self._unsaved = error
            return f"{error}; training continues, the best so far is kept"
        return ""

    def _about_best(self) -> dict[str, Any]:
        return {
            "step": self.state.step,
            "device": str(self.learner.device),
            "precision": str(self.learner.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    def _save(self) -> str:
        """Write a checkpoint and the history; return what the user should know, if anything."""
        self.state.elapsed, began = self._elapsed(), time.monotonic()
        try:
            self.checkpoints.save(self.state.step, self.learner.tensors(), dataclasses.asdict(self.state))
            write_atomic(self.run.folder / "history.csv", _table(self.state.history).encode())
        except (ResourceError, IncompleteError) as error:
            self._unsaved = error
            kept = self.checkpoints.steps()
            return f"{error}; training continues, the state of {f'step {kept[0]}' if kept else 'no step'} is kept"
        self._saved_step, self._saved_at = self.state.step, time.monotonic()
        self._saving = self._saved_at - began
        return ""


def _table(history: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    fields = list(dict.fromkeys(key for row in history for key in row))
    writer = csv.DictWriter(text, fields)
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
