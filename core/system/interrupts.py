"""Blocks in which a stop signal ends the process immediately, because raising an exception would not be safe.

Examples are imports (a partly imported package fails later) and the start of Ray (its C++ threads would never return).
The signal handler of the command line (`commands.cli.exit_handling`) reads `clean_ups`. A notebook must not exit: its
handler (`commands.cli.notebook`) postpones Ctrl-C to the end of the block.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

clean_ups: list[Callable[[], object]] = []  # one function for each open block, called before the process exits

postponed: list[float] = []  # times of Ctrl-C inside the open blocks, in a notebook
REPEAT_SECONDS = 1.0  # seconds in which a second signal counts as a repetition (a process group gets Ctrl-C twice)


@contextmanager
def exit_at_once(clean_up: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let Ctrl-C or SIGTERM inside this block call `clean_up` and exit the process, without raising an exception.

    In a notebook, KeyboardInterrupt is raised at the end of the outermost block instead.

    Parameters
    ----------
    clean_up
        Called before the exit, for example to end child processes.
    """
    clean_ups.append(clean_up)
    try:
        yield
    finally:
        clean_ups.remove(clean_up)
        if postponed and not clean_ups:
            postponed.clear()
            raise KeyboardInterrupt
