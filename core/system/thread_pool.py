"""A thread pool that stops early: after an error, running calls end at their next `check_cancelled`."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from typing import Any


class Cancelled(Exception):
    """The pool of this thread was cancelled."""


_thread = threading.local()  # attribute `cancelled`: the event of the pool of this thread


class CancellablePool(ThreadPoolExecutor):
    """A thread pool that cancels all calls if its ``with`` block ends with an exception, such as Ctrl-C."""

    def __init__(
        self, max_workers: int | None = None, *, initializer: Callable[..., object] | None = None, initargs: Any = ()
    ) -> None:
        self.cancelled = threading.Event()
        super().__init__(max_workers, initializer=_start_thread, initargs=(self.cancelled, initializer, initargs))

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.cancelled.set()
        self.shutdown(cancel_futures=kind is not None)


def _start_thread(cancelled: threading.Event, initializer: Callable[..., object] | None, initargs: Any) -> None:
    _thread.cancelled = cancelled
    if initializer:
        initializer(*initargs)


def check_cancelled() -> None:
    """Raise `Cancelled` in a thread of a cancelled pool; long functions call this regularly."""
    cancelled = getattr(_thread, "cancelled", None)
    if cancelled and cancelled.is_set():
        raise Cancelled


def map_ahead(pool: Executor, function: Callable[[Any], Any], items: Iterable[Any], ahead: int) -> Iterator[Any]:
    """Map `function` over `items` in order, with at most `ahead` calls submitted before their result is needed.

    Unlike `Executor.map`, items are taken only when they are needed, so that memory stays bounded.
    """
    items = iter(items)
    waiting = deque(pool.submit(function, item) for item in islice(items, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(function, item) for item in islice(items, 1))
        yield result
