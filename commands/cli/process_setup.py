"""Settings of the whole process: OpenMP, memory, garbage collector, streams, matplotlib. Only commands make them."""

import gc
import os
import sys
import warnings
from contextlib import suppress

from core.errors import printable
from core.io.memory import keep_freed_memory

# Idle OpenMP threads spin before they sleep. Beside any other busy process they hold the core it needs, and two
# trainings on one machine become several times slower. Values the user has set are kept.
OPENMP = {
    "GOMP_SPINCOUNT": "1000",  # GNU's OpenMP, which torch uses: turns
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's: milliseconds
}


def set_up_process(program: str) -> None:
    """Set up a process of the command line; to be called before torch is imported.

    Parameters
    ----------
    program
        Its name, put before warnings.
    """
    gc.disable()  # until `resume_garbage_collection`
    set_up_libraries()
    os.environ["MPLBACKEND"] = "agg"  # figures are files; a notebook's "!" command inherits the notebook's backend
    warnings.formatwarning = lambda message, *where: f"{program}: {printable(str(message))}\n"
    _separate_stderr()


def resume_garbage_collection() -> None:
    """Collect garbage again, but never look at what was imported: that saves a tenth of a command's start."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def set_up_libraries() -> None:
    """Set up OpenMP and malloc, also for processes of tests and benchmarks."""
    for name, value in OPENMP.items():
        os.environ.setdefault(name, value)
    keep_freed_memory()


def _separate_stderr() -> None:
    """Give `sys.stderr` a descriptor of its own (see `core.io.native_stderr`), and both streams any file name."""
    with suppress(OSError, AttributeError, ValueError):  # closed streams
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        encoding = sys.stderr.encoding
        own = open(os.dup(2), "w", 1, encoding, "backslashreplace")  # noqa: PTH123, SIM115
        sys.stderr = sys.__stderr__ = own  # type: ignore[misc]
