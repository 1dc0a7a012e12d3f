"""Work that takes long ends when it is given up, and not before."""

import threading
import time

import pytest

from core.io.thread_pool import CancellablePool, check_cancelled


def test_long_work_ends_when_the_block_does() -> None:
    begun = threading.Event()

    def work() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            begun.set()
            check_cancelled()
            time.sleep(0.01)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), CancellablePool(1) as pool:
        pool.submit(work)
        waiting = pool.submit(work)
        begun.wait()
        raise KeyboardInterrupt
    assert time.monotonic() - started < 20
    assert waiting.cancelled()


def test_work_of_a_block_that_ends_well_is_done() -> None:
    def work(k: int) -> int:
        check_cancelled()
        return k

    with CancellablePool(2) as pool:
        assert list(pool.map(work, range(9))) == list(range(9))
    check_cancelled()  # in this thread nobody gives up
