import threading
import time

import pytest

from napari_unet.inference.pipeline import AHEAD, Pipeline


def test_every_job_passes_all_stages_in_order():
    written = []
    run = Pipeline(range(50), lambda j: j * 2, lambda j, x: (j, x + 1), lambda j, done: written.append(done) or j)
    assert list(run) == list(range(50))
    assert written == [(j, 2 * j + 1) for j in range(50)]


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

    assert len(list(Pipeline(range(60), read, lambda j, x: x, write))) == 60
    assert most[0] <= 2 * AHEAD + 3


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_an_error_of_any_stage_reaches_the_caller_and_stops_all(stage):
    def fail(name, job):
        if name == stage and job == 5:
            raise OSError(f"{name} of {job}")

    run = Pipeline(
        range(1000), lambda j: fail("read", j), lambda j, x: fail("compute", j), lambda j, x: fail("write", j)
    )
    seen = []
    with pytest.raises(OSError, match=f"{stage} of 5"):
        seen.extend(run)
    assert len(seen) < 10
    assert not any(t.name in ("reader", "writer") for t in threading.enumerate())


def test_closing_stops_the_threads_and_keeps_what_is_written():
    written = []
    run = iter(Pipeline(iter(range(10**6)), lambda j: j, lambda j, x: x, lambda j, x: written.append(x) or j))
    first = next(run)
    run.close()
    assert first == 0
    assert written[0] == 0
    assert len(written) < 100
    assert not any(t.name in ("reader", "writer") for t in threading.enumerate())
