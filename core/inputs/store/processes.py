"""Work done by processes beside this one, on all cores, in order; none of them outlives it."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from core.errors import UserError
from core.io.memory import keep_freed_memory
from core.io.native_stderr import silence_native_stderr

_work: Callable[[Any], Any]  # of a process beside: what it was started for


def in_processes(
    work: Callable[[Any], Any], items: Iterable[Any], *, processes: int, imports: Sequence[str]
) -> Iterator[Any]:
    """Map `work` over items in processes beside this one, each with one thread, and give what it returns in order.

    Parameters
    ----------
    work
        Sent to each process once, so that it may hold what all items need.
    items
        Sent as their turn comes, a few ahead.
    processes
        How many.
    imports
        Modules that `work` needs: they are in memory once.

    Raises
    ------
    UserError
        Where one of the processes was ended from outside.
    """
    before = set(multiprocessing.active_children())
    with (
        silence_native_stderr(),
        _lean_processes(imports) as lean,
        ProcessPoolExecutor(processes, lean, _begin, (work,)) as pool,
    ):
        try:
            yield from ahead(pool, _work_on, items, 2 * processes)
        except BrokenProcessPool:
            raise UserError(
                "a process that made images was ended from outside, perhaps for want of memory; the same command goes "
                "on from here (with less at once under a lower --threads)"
            ) from None
        finally:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()  # nothing is lost: shards that are not whole are made again


def ahead(pool: Executor, work: Callable[[Any], Any], items: Iterable[Any], at_most: int) -> Iterator[Any]:
    """Map `work` over `items` in order, with at most so many begun and not yet taken: memory stays bounded."""
    begun: deque[Future[Any]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) == at_most:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


@contextmanager
def _lean_processes(imports: Sequence[str]) -> Iterator[multiprocessing.context.BaseContext]:
    """Let processes be forked from one that has imported what all need: it is in memory once.

    That one never computes, so there are no threads that a fork would lose. Linux only; elsewhere each imports its own.
    """
    if sys.platform != "linux":
        yield multiprocessing.get_context("spawn")
        return
    lean = multiprocessing.get_context("forkserver")
    lean.set_forkserver_preload(list(imports))
    try:
        yield lean
    finally:  # it would keep its memory for as long as this process lives, and has no public way to end
        getattr(multiprocessing.forkserver._forkserver, "_stop", bool)()


def _begin(work: Callable[[Any], Any]) -> None:
    """Let the process beside end with its parent, however that ends, and compute in one thread."""
    global _work  # noqa: PLW0603
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _work_on(item: Any) -> Any:
    return _work(item)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
