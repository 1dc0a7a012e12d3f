"""Maps a function over items in processes beside this one, on all cores and in order; none of them outlives it."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from core.errors import UserError
from core.io.memory import keep_freed_memory
from core.io.native_stderr import silence_native_stderr
from core.io.thread_pool import map_ahead

_process_function: Callable[[Any], Any]  # in a process of the pool: what it was started for


def map_in_processes(
    work: Callable[[Any], Any], items: Iterable[Any], *, processes: int, imports: Sequence[str]
) -> Iterator[Any]:
    """Map `work` over items in processes beside this one, each with one thread; yield the results in order.

    Parameters
    ----------
    work
        Sent to each process once, so it may hold data that all items need.
    items
        Sent a few ahead of their turn.
    processes
        Number of processes.
    imports
        Modules that `work` needs; on Linux the processes share their memory.

    Raises
    ------
    UserError
        One of the processes was killed.
    """
    before = set(multiprocessing.active_children())
    with (
        _process_context(imports) as context,
        ProcessPoolExecutor(processes, context, _set_up_process, (work,)) as pool,
    ):
        try:
            yield from map_ahead(pool, _call_process_function, items, 2 * processes)
        except BrokenProcessPool:
            raise UserError(
                "a process that computed inputs was killed, perhaps because memory ran out; run the same command "
                "again to continue (a lower --threads needs less memory)"
            ) from None
        finally:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()  # an unfinished batch is built again by the next command


@contextmanager
def _process_context(imports: Sequence[str]) -> Iterator[multiprocessing.context.BaseContext]:
    """Give a context whose processes are forked from a server that has imported `imports`: they are in memory once.

    The server never computes, so a fork loses no threads. Linux only; elsewhere each process imports for itself.
    """
    if sys.platform != "linux":
        yield multiprocessing.get_context("spawn")
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(imports))
    with silence_native_stderr():  # the server and its processes keep this standard error: decoders print warnings
        multiprocessing.forkserver.ensure_running()
    try:
        yield context
    finally:  # the server would keep its memory until this process ends, and has no public way to stop
        getattr(multiprocessing.forkserver._forkserver, "_stop", bool)()


def _set_up_process(work: Callable[[Any], Any]) -> None:
    """Prepare a process: it ends with its parent, however that ends, and computes in one thread."""
    global _process_function  # noqa: PLW0603
    _process_function = work
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _call_process_function(item: Any) -> Any:
    return _process_function(item)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
