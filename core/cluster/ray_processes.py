"""End the processes that Ray starts on this machine, even if Ray is interrupted while it starts."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from core.registry import Lazy

psutil = Lazy("psutil")

TERMINATE_TIMEOUT = 2.0  # seconds between the request to end and the kill
KILL_ROUNDS = 3  # a process may start another one before it ends


def new_descendants() -> Callable[[], set[Any]]:
    """Return a function that lists the descendants of this process that were started after this call."""
    before = set(psutil.Process().children())

    def descendants() -> set[Any]:
        new = set(psutil.Process().children()) - before
        processes = set(new)
        for process in new:
            with suppress(psutil.Error):
                processes.update(process.children(recursive=True))
        return processes

    return descendants


def end_processes(descendants: Callable[[], set[Any]], known: Iterable[Any] = ()) -> None:
    """Terminate processes, and kill those that remain.

    Parameters
    ----------
    descendants
        Function that lists the processes to end.
    known
        Further processes, whose parent may have ended already.
    """
    for _ in range(KILL_ROUNDS):
        running = [process for process in descendants() | set(known) if process.is_running()]
        if not running:
            return
        for process in running:
            with suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(running, timeout=TERMINATE_TIMEOUT)[1]:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(running, timeout=TERMINATE_TIMEOUT)
