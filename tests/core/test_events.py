"""Events: checked at birth, frozen, and a generator of them gives back its result."""

import dataclasses
import json
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import UsageError
from napari_unet.events import Epoch, Progress, wait


@settings(deadline=None, max_examples=50)
@given(st.integers(-5, 20), st.integers(-5, 20))
def test_progress_is_never_outside_its_total(done: int, total: int) -> None:
    if 0 <= done <= total:
        assert Progress(done, total, "predict").done == done
    else:
        with pytest.raises(UsageError, match="predict"):
            Progress(done, total, "predict")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 20), st.integers())
def test_wait_runs_everything_and_returns_the_result(steps: int, result: int) -> None:
    seen = []

    def work() -> Iterator[Progress]:
        for i in range(steps):
            seen.append(i)
            yield Progress(i, steps, "work")
        return result

    assert wait(work()) == result
    assert seen == list(range(steps))


def test_wait_passes_errors_on() -> None:
    def work() -> Iterator[Progress]:
        yield Progress(0, 1, "work")
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        wait(work())


def test_wait_on_a_plain_iterator_returns_nothing() -> None:
    assert wait(iter([Progress(0, 1, "work")])) is None


def test_epoch_counts_from_one_to_its_total() -> None:
    for number, total in ((0, None), (-1, 3), (4, 3)):
        with pytest.raises(UsageError, match="epoch"):
            Epoch(number, total, 0.5, None, {}, 1.0, False)
    assert Epoch(7, None, 0.5, None, {}, 1.0, False).number == 7


def test_events_are_frozen_and_keep_their_own_scores() -> None:
    scores = {"dice": 0.5}
    epoch = Epoch(1, 2, 0.5, 0.4, scores, 1.0, True)
    scores["dice"] = 0.9
    assert epoch.scores == {"dice": 0.5}
    with pytest.raises(dataclasses.FrozenInstanceError):
        epoch.best = False  # type: ignore[misc]


def test_events_travel_between_processes_and_into_logs() -> None:
    epoch = Epoch(1, 2, 0.5, 0.4, {"dice": 0.5}, 1.0, True)
    assert Epoch(**json.loads(json.dumps(dataclasses.asdict(epoch)))) == epoch
    assert pickle.loads(pickle.dumps(epoch)) == epoch
