"""Threads that stop when the work is given up: what is not yet begun at once, what takes long at the next `go_on`."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class GivenUp(Exception):
    """Nobody waits for this work any more."""


_own = threading.local()  # of a worker's thread: `given_up` of its pool


class Workers(ThreadPoolExecutor):
    """A pool whose ``with`` block, when it ends in an error or an interrupt, does not wait for its work."""

    def __init__(
        self, max_workers: int | None = None, *, initializer: Callable[..., object] | None = None, initargs: Any = ()
    ) -> None:
        self.given_up = threading.Event()
        super().__init__(max_workers, initializer=_begin, initargs=(self.given_up, initializer, initargs))

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.given_up.set()
        self.shutdown(cancel_futures=kind is not None)


def _begin(given_up: threading.Event, initializer: Callable[..., object] | None, initargs: Any) -> None:
    _own.given_up = given_up
    if initializer:
        initializer(*initargs)


def go_on() -> None:
    """Say, now and then, that work still goes on: raises `GivenUp` in a worker's thread whose pool was given up."""
    given_up = getattr(_own, "given_up", None)
    if given_up and given_up.is_set():
        raise GivenUp
