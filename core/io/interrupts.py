"""Blocks in which a stop signal must end the process at once, because an exception could not be raised safely.

Importing is such a block (a half-imported package breaks in odd ways), and so is starting Ray (its C++ threads would
wait for ever). The command line's signal handler (`commands.cli.exit_handling`) reads `clean_ups`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

clean_ups: list[Callable[[], object]] = []  # one for each open block; to be called before the process exits


@contextmanager
def exit_at_once(clean_up: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let Ctrl-C or SIGTERM inside this block call `clean_up` and exit the process, without raising an exception.

    Parameters
    ----------
    clean_up
        Called first, for example to end child processes.
    """
    clean_ups.append(clean_up)
    try:
        yield
    finally:
        clean_ups.remove(clean_up)
