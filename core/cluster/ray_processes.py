"""End the processes that Ray starts on this machine, also where it is interrupted while it starts."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from core.registry import Lazy

psutil = Lazy("psutil")

TERMINATE_TIMEOUT = 2.0  # seconds between the request to end and the kill
ROUNDS = 3  # a process that is ending may have started another one


def new_descendants() -> Callable[[], set[Any]]:
    """Return a function that lists the descendants of this process that were started after this call."""
    before = set(psutil.Process().children())

    def descendants() -> set[Any]:
        new = set(psutil.Process().children()) - before
        found = set(new)
        for process in new:
            with suppress(psutil.Error):
                found.update(process.children(recursive=True))
        return found

    return descendants


def end_processes(descendants: Callable[[], set[Any]], known: Iterable[Any] = ()) -> None:
    """Terminate processes, and kill those that remain.

    Parameters
    ----------
    descendants
        Lists the processes to end.
    known
        Further ones, whose parent may have ended already.
    """
    for _ in range(ROUNDS):
        left = [process for process in descendants() | set(known) if process.is_running()]
        if not left:
            return
        for process in left:
            with suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(left, timeout=TERMINATE_TIMEOUT)[1]:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=TERMINATE_TIMEOUT)
