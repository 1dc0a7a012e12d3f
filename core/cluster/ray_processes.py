"""Ray on this machine leaves no process behind, even where it is stopped while it starts.

Its processes are told by a mark in their environment, which every one of them has from the one that started it, and
those that have written their title over it by their parents. Agents whose raylet has ended look for it once a minute,
or never if it had not told them of itself yet.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from core.registry import Lazy

psutil = Lazy("psutil")

MARK = "AUDIO_ABLATION_STARTED_BY"
LEGIBLE = "SPT_NOENV"  # keeps setproctitle from writing over the environment
GRACE = 2.0  # seconds from the request to end to the end that cannot be put off
ROUNDS = 3  # a process that is ending may yet have started another


@contextmanager
def marked() -> Iterator[str]:
    """Mark what is started in a block; gives the mark."""
    mark = f"{os.getpid()}-{secrets.token_hex(8)}"
    os.environ |= {MARK: mark, LEGIBLE: "1"}
    try:
        yield mark
    finally:
        for name in (MARK, LEGIBLE):
            os.environ.pop(name, None)


def family(mark: str) -> set[Any]:
    """Return every process with a mark, and those that they have started."""
    found = {process for process in psutil.process_iter() if _has(process, mark)}
    for process in tuple(found):
        with suppress(psutil.Error):
            found.update(process.children(recursive=True))
    return found


def end_marked(mark: str, known: Iterable[Any] = ()) -> None:
    """End every process with a mark, and those `known`: by request, and what is there after `GRACE` without one."""
    for _ in range(ROUNDS):
        left = [process for process in family(mark) | set(known) if process.is_running()]
        if not left:
            return
        for process in left:
            with suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(left, timeout=GRACE)[1]:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=GRACE)


def _has(process: Any, mark: str) -> bool:
    try:
        found: bool = process.pid != os.getpid() and process.environ().get(MARK) == mark
    except (psutil.Error, OSError):  # another user's, or one that has just ended
        return False
    return found
