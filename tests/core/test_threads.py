import threading
import time

import pytest

from napari_unet.threads import Ended, Turn, in_turn


def said(work, items):
    return [(e.item, e.result) if isinstance(e, Ended) else e for e in in_turn(work, items)]


def test_what_two_items_say_comes_item_after_item():
    def work(item):
        yield Turn.SHARED
        time.sleep(0.01 * (item % 3))
        yield f"{item} a"
        yield f"{item} b"
        return item * item

    assert said(work, range(7)) == [e for i in range(7) for e in (f"{i} a", f"{i} b", (i, i * i))]
    assert said(work, []) == []


def test_the_next_item_is_worked_on_beside_one_that_shares():
    met = threading.Barrier(2, timeout=30)

    def work(item):
        yield Turn.SHARED
        met.wait()
        return item

    assert said(work, "ab") == [("a", "a"), ("b", "b")]


def test_nothing_is_worked_on_beside_an_item_that_is_alone():
    at_work, most = set(), {}

    def work(item):
        yield Turn.ALONE if item % 4 == 1 else Turn.SHARED
        at_work.add(item)
        time.sleep(0.02)
        yield item
        most[item] = len(at_work)
        at_work.remove(item)

    said(work, range(9))
    assert [most[item] for item in (1, 5)] == [1, 1]


@pytest.mark.parametrize("first", [Turn.SHARED, Turn.ALONE])
def test_closed_both_are_stopped_and_closed_in_their_own_thread(first):
    ended = []

    def work(item):
        try:
            yield first
            while True:
                yield item
                time.sleep(0.001)
        finally:
            ended.append((item, threading.current_thread().name))

    run = in_turn(work, "abc")
    assert [next(run) for _ in range(3)] == ["a"] * 3
    run.close()
    assert sorted(item for item, _ in ended) == (["a", "b"] if first is Turn.SHARED else ["a"])
    assert all(name.startswith("turn") for _, name in ended)


def test_what_the_work_raises_is_raised_in_its_turn():
    def work(item):
        if item == "b":
            raise ValueError(item)
        yield Turn.SHARED
        return item

    run, got = in_turn(work, "abc"), []
    with pytest.raises(ValueError, match="b"):
        got.extend(each.item for each in run)
    assert next(run, None) is None
