import threading
import time

import pytest

from napari_unet.inference.pipeline import AHEAD, Pipeline


def test_every_job_passes_all_stages_in_order():
    written = []
    write = lambda j, done: written.append(done) or j  # noqa: E731
    run = Pipeline(range(50), lambda j: j * 2, lambda j, x: (j, x + 1), lambda j, x: (*x, j + 2), write)
    assert list(run) == list(range(50))
    assert written == [(j, 2 * j + 1, j + 2) for j in range(50)]


def test_what_is_decoded_does_not_hold_the_network_up():
    """The network has begun the next piece before the one before it is decoded: what one waits for the other does."""
    next_one = threading.Event()

    def compute(job, got):
        if job == 1:
            next_one.set()

    found = Pipeline(range(2), int, compute, lambda job, got: next_one.wait(30), lambda job, done: done)
    assert list(found) == [True, True]


def test_a_slow_writer_holds_the_reader_back():
    ahead, most, lock = [0], [0], threading.Lock()

    def read(job):
        with lock:
            ahead[0] += 1
            most[0] = max(most[0], ahead[0])

    def write(job, done):
        time.sleep(0.002)
        with lock:
            ahead[0] -= 1

    assert len(list(Pipeline(range(60), read, lambda j, x: x, lambda j, x: x, write))) == 60
    assert most[0] <= 2 * AHEAD + 5


@pytest.mark.parametrize("stage", ["read", "compute", "decode", "write"])
def test_an_error_of_any_stage_reaches_the_caller_and_stops_all(stage):
    def fail(name, job):
        if name == stage and job == 5:
            raise OSError(f"{name} of {job}")

    work = (lambda j, x, name=name: fail(name, j) for name in ("compute", "decode", "write"))
    run = Pipeline(range(1000), lambda j: fail("read", j), *work)
    seen = []
    with pytest.raises(OSError, match=f"{stage} of 5"):
        seen.extend(run)
    assert len(seen) < 10
    assert not any(t.name in ("reader", "decoder", "writer") for t in threading.enumerate())


def test_closing_stops_the_threads_and_keeps_what_is_written():
    written = []
    run = iter(Pipeline(iter(range(10**6)), int, lambda j, x: x, lambda j, x: x, lambda j, x: written.append(x) or j))
    first = next(run)
    run.close()
    assert first == 0
    assert written[0] == 0
    assert len(written) < 100
    assert not any(t.name in ("reader", "decoder", "writer") for t in threading.enumerate())


def test_a_run_that_is_closed_computes_nothing_more():
    computed = []
    work = (lambda j, x: computed.append(j) or time.sleep(0.01), lambda j, x: j, lambda j, x: j)
    run = iter(Pipeline(range(100), int, *work))
    next(run)
    before = len(computed)
    run.close()
    assert len(computed) == before < 100
