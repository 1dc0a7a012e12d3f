"""Runs that are written by threads of their own while the next are trained."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from core.errors import UserError
from core.io.atomic_files import write_failure

WRITERS = 2  # runs that are written at once: half of it is waiting for the disk, and digests
MOST = 64  # runs that wait to be written; a process that is killed loses what they have trained since a checkpoint


def _nothing() -> None:
    pass


def _raised(error: Exception) -> None:
    raise error


class Writing:
    """Writes what it is given, and does what follows in this thread and in that order.

    Left by an error of this thread it writes the rest first; left because nothing can be written, or interrupted, it
    gives up what no thread has begun with.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WRITERS)
        self._pending: deque[tuple[Future[None], Callable[[], None], Callable[[Exception], None]]] = deque()
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._stopped and (kind is None or issubclass(kind, Exception)):
                self.settle(until=0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def add(
        self,
        write: Callable[[], None],
        then: Callable[[], None] = _nothing,
        lost: Callable[[Exception], None] = _raised,
    ) -> None:
        """Write something in another thread.

        Parameters
        ----------
        write
            Writes it.
        then
            What follows in this thread, behind all that was added before.
        lost
            What follows instead where `write` fails for no reason that is the user's to mend; such a one is raised by
            whatever settles it.
        """
        self.settle(until=MOST - 1)
        self._pending.append((self._pool.submit(write), then, lost))

    def after(self, then: Callable[[], None]) -> None:
        """Do something in this thread behind all that was added before, which may be at once."""
        nothing: Future[None] = Future()
        nothing.set_result(None)
        self._pending.append((nothing, then, _raised))
        self.settle()

    def settle(self, *, until: int = MOST) -> None:
        """Do what follows what has been written; wait until no more than some are left to be written."""
        while self._pending and (len(self._pending) > until or self._pending[0][0].done()):
            written, then, lost = self._pending.popleft()
            error = written.exception()
            if error is None:
                then()
            elif isinstance(error, Exception) and not isinstance(error, UserError) and not write_failure(error):
                lost(error)
            else:
                self._stopped = True
                raise error
