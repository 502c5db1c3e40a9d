"""Memory that is freed is used again while a network runs, and goes back after."""

import os
import resource
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest

from napari_unet import allocation

needs_glibc = pytest.mark.skipif(allocation._glibc() is None, reason="the C library is not glibc")
ROOM = 2**26


def in_a_process(work):
    """Run lines after the imports in a process of its own; return the numbers it prints."""
    head = f"""
        import resource
        import numpy as np
        from napari_unet.allocation import freed_memory_kept

        def faults(times):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(times):
                np.empty({ROOM}, np.uint8).fill(1)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        def resident():
            return int(open("/proc/self/statm").read().split()[1])
    """
    script = textwrap.dedent(head) + textwrap.dedent(work)
    # numpy asks the kernel for pages of 2 MiB, which it has or has not: the counts of faults would follow from that
    env = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=env)
    return [int(word) for word in done.stdout.split()]


@needs_glibc
def test_pages_are_cleared_once_while_it_is_kept_and_go_back_at_the_end():
    outside, first, again, between, followed, kept, after = in_a_process("""
        from napari_unet import allocation
        print(faults(8))
        with freed_memory_kept():
            with freed_memory_kept():
                print(faults(1), faults(8))
            print(resident())
        first = allocation._timer
        with freed_memory_kept():  # what follows at once takes it again
            first.join()
            print(faults(1), resident())
        allocation._timer.join()
        print(resident())
    """)
    assert outside >= 4 * first
    assert again < first / 4
    assert followed < first / 4
    assert kept >= between
    assert (between - after) * resource.getpagesize() > ROOM / 2


def test_where_no_thread_can_be_started_it_goes_back_all_the_same(monkeypatch):
    def none_left(thread):
        raise RuntimeError("can't start new thread")

    trimmed = []
    library = SimpleNamespace(mallopt=lambda name, value: None, malloc_trim=trimmed.append)
    monkeypatch.setattr(allocation, "_glibc", lambda: library)
    monkeypatch.setattr(allocation, "_timer", None)
    monkeypatch.setattr(threading.Thread, "start", none_left)
    with allocation.freed_memory_kept():
        assert not trimmed
    assert trimmed == [0]
    assert allocation._timer is None


@needs_glibc
def test_a_long_run_gives_back_from_time_to_time_what_lies_free():
    before, soon, later = in_a_process("""
        from napari_unet import allocation
        with freed_memory_kept() as tidy:
            faults(1)
            print(resident())
            tidy()
            print(resident())
            allocation.TIDY_SECONDS = 0.0
            tidy()
            print(resident())
    """)
    assert soon >= before
    assert (soon - later) * resource.getpagesize() > ROOM / 2


def test_where_there_is_no_such_library_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with allocation.freed_memory_kept() as tidy:
        tidy()
        assert not allocation._inside


def test_an_error_inside_comes_out_and_ends_it():
    with pytest.raises(OSError, match="inside"), allocation.freed_memory_kept():
        raise OSError("inside")
    assert not allocation._inside


@needs_glibc
def test_a_thread_takes_memory_that_is_kept_as_the_main_thread_does():
    plain, kept, again = in_a_process("""
        import threading
        from napari_unet.allocation import main_memory

        def in_a_thread():
            with freed_memory_kept():
                faults(1)
                print(faults(8))
                with main_memory() as call:
                    call(faults, 1)
                    print(call(faults, 8))
            with freed_memory_kept(), main_memory() as call:  # once more, when threads have come and gone
                call(faults, 1)
                print(call(faults, 8))

        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
    """)
    assert kept < plain / 16
    assert again < plain / 16


@needs_glibc
def test_the_main_thread_calls_for_itself():
    with allocation.main_memory() as call:
        assert call(threading.get_ident) == threading.get_ident()


def test_what_is_called_in_another_thread_raises_here_and_leaves_no_thread(monkeypatch):
    monkeypatch.setattr(
        allocation, "_takes_main_memory", lambda library: threading.current_thread().name == "network_0"
    )
    if allocation._glibc() is None:
        monkeypatch.setattr(allocation, "_glibc", lambda: SimpleNamespace(mallopt=lambda *_: 1))
    with pytest.raises(ZeroDivisionError), allocation.main_memory() as call:
        assert call(lambda: threading.current_thread().name).startswith("network")
        call(divmod, 1, 0)
    assert not any(thread.name.startswith("network") for thread in threading.enumerate())


@pytest.mark.parametrize("started", [True, False])
def test_where_no_thread_takes_it_or_none_can_be_started_the_function_is_called_here(started, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(allocation, "_takes_main_memory", lambda library: False)
    monkeypatch.setattr(allocation, "CANDIDATES", 9)
    if not started:
        monkeypatch.setattr(threading.Thread, "start", refuse)
    if allocation._glibc() is None:
        monkeypatch.setattr(allocation, "_glibc", lambda: SimpleNamespace(mallopt=lambda *_: 1))
    with allocation.main_memory() as call:
        assert call(threading.get_ident) == threading.get_ident()
