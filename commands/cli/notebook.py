"""Commands inside a notebook: ``%run run_ablation.py ...`` runs a command and restores the process afterwards.

In a shell, a command has its own process: it sets up matplotlib, warnings, signals and standard streams, and ends the
process. In a notebook the process is the kernel, whose variables must survive.
"""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from commands.cli.process_setup import format_warning, set_up_libraries
from core.registry import Lazy
from core.system import interrupts
from core.system.memory import return_freed_memory

restored_settings = Lazy("core.system.torch_settings:restored_settings")  # imports torch
restored_generators = Lazy("core.system.torch_settings:restored_generators")


def in_notebook() -> bool:
    """Return whether this process belongs to IPython, for example to the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


@contextmanager
def restored_process() -> Iterator[None]:
    """Set the process up for a command, and restore it afterwards.

    It restores the environment, warnings, the handler of Ctrl-C, and the settings of torch, NumPy, Python's random
    generator and matplotlib. Ctrl-C raises KeyboardInterrupt. Inside an `exit_at_once` block, such as an import, the
    exception is raised at the end of the block, or at once if Ctrl-C is repeated.
    """
    with ExitStack() as restoring:
        restoring.callback(_restore_environment, dict(os.environ))
        restoring.callback(return_freed_memory)
        restoring.callback(setattr, warnings, "formatwarning", warnings.formatwarning)
        restoring.enter_context(warnings.catch_warnings())
        restoring.enter_context(_handled_interrupts())
        set_up_libraries()
        with interrupts.exit_at_once():
            restoring.enter_context(restored_settings())
            restoring.enter_context(restored_generators())
        warnings.formatwarning = format_warning
        yield


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@contextmanager
def _handled_interrupts() -> Iterator[None]:
    """Handle Ctrl-C by `_on_interrupt`; handlers can be set in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _on_interrupt)
    interrupts.postponed.clear()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or postpone it to the end of the open `exit_at_once` blocks."""
    now = time.monotonic()
    repeated = bool(interrupts.postponed) and now - interrupts.postponed[0] > interrupts.REPEAT_SECONDS
    if interrupts.clean_ups and not repeated:
        interrupts.postponed.append(now)
        return
    interrupts.postponed.clear()
    raise KeyboardInterrupt
