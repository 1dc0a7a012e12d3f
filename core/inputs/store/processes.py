"""Mapping of a function over items in child processes, which end when this process ends."""

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
from core.system.memory import keep_freed_memory
from core.system.native_stderr import silence_native_stderr
from core.system.thread_pool import map_ahead

_process_function: Callable[[Any], Any]  # set in each child process


def map_in_processes(
    work: Callable[[Any], Any], items: Iterable[Any], *, processes: int, imports: Sequence[str]
) -> Iterator[Any]:
    """Map `work` over items in child processes with one thread each; yield the results in order.

    Parameters
    ----------
    work
        Function. It is sent to each process once, so it may hold data that all items need.
    items
        Arguments of `work`; a few are sent ahead.
    processes
        Number of processes.
    imports
        Modules that `work` needs; on Linux the processes share the memory of these modules.

    Raises
    ------
    UserError
        If a child process was killed.
    """
    other_children = set(multiprocessing.active_children())
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
            for process in set(multiprocessing.active_children()) - other_children:
                process.terminate()  # the next command builds unfinished batches again


@contextmanager
def _process_context(imports: Sequence[str]) -> Iterator[multiprocessing.context.BaseContext]:
    """Return a context whose processes are forked from a server that has imported `imports`, so they share its memory.

    The server never computes, so it has no threads that a fork would lose. On other systems than Linux, each process
    imports the modules again.
    """
    if sys.platform != "linux":
        yield multiprocessing.get_context("spawn")
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(imports))
    with silence_native_stderr():  # inherited by the server and its processes, where decoders print warnings
        multiprocessing.forkserver.ensure_running()
    try:
        yield context
    finally:  # there is no public way to stop the server, which would keep its memory
        getattr(multiprocessing.forkserver._forkserver, "_stop", bool)()


def _set_up_process(work: Callable[[Any], Any]) -> None:
    """Set up a child process: it computes in one thread and ends when its parent ends, even if that is killed."""
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
