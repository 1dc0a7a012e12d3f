"""Long work in a pool ends after an error, and not before."""

import threading
import time

import pytest

from core.io.thread_pool import CancellablePool, check_cancelled


def test_cancellable_pool_error_in_the_block_cancels_long_work() -> None:
    has_started = threading.Event()

    def work() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            has_started.set()
            check_cancelled()
            time.sleep(0.01)

    start_time = time.monotonic()
    with pytest.raises(KeyboardInterrupt), CancellablePool(1) as pool:
        pool.submit(work)
        waiting = pool.submit(work)
        has_started.wait()
        raise KeyboardInterrupt
    assert time.monotonic() - start_time < 20
    assert waiting.cancelled()


def test_cancellable_pool_without_error_finishes_all_work() -> None:
    def work(k: int) -> int:
        check_cancelled()
        return k

    with CancellablePool(2) as pool:
        assert list(pool.map(work, range(9))) == list(range(9))
    check_cancelled()  # outside the pool
