"""Settings of the whole process: OpenMP, memory, garbage collection, streams, matplotlib. Only commands change them."""

import atexit
import gc
import os
import shutil
import sys
import sysconfig
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

from ablations.planning import PROGRAM
from core.errors import printable
from core.system.memory import keep_freed_memory

# Idle OpenMP threads spin before they sleep, and occupy cores that other processes need: two trainings on one machine
# become several times slower. Values that the user has set are kept.
OPENMP = {
    "GOMP_SPINCOUNT": "1000",  # GNU OpenMP, which torch uses: number of iterations
    "KMP_BLOCKTIME": "0",  # Intel and LLVM OpenMP: milliseconds
}


def set_up_process() -> None:
    """Set up a process of the command line; must be called before torch is imported."""
    gc.disable()  # until `resume_garbage_collection`
    set_up_libraries()
    os.environ["MPLBACKEND"] = "agg"  # figures are written to files; a notebook passes its own backend to commands
    warnings.formatwarning = format_warning
    _separate_stderr()


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return the line that a warning prints: the message, without the place in the code."""
    return f"{PROGRAM}: {printable(str(message))}\n"


def resume_garbage_collection() -> None:
    """Enable garbage collection again, but exclude all existing (imported) objects: commands start 10 % faster."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def set_up_libraries() -> None:
    """Set up OpenMP and malloc, also for processes of tests and benchmarks."""
    for name, value in OPENMP.items():
        os.environ.setdefault(name, value)
    _set_numba_cache()
    keep_freed_memory()


def _set_numba_cache() -> None:
    """Give numba, which librosa uses, a temporary cache folder if it cannot write to one of its own.

    It stores compiled functions beside the package or in the user's cache folder, and fails if it can do neither, for
    example in a container with a read-only file system.
    """
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folders = [Path(sysconfig.get_path("purelib")), user_cache if user_cache.exists() else user_cache.parent]
    if "NUMBA_CACHE_DIR" not in os.environ and not any(os.access(folder, os.W_OK) for folder in folders):
        os.environ["NUMBA_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _separate_stderr() -> None:
    """Give `sys.stderr` its own file descriptor, as `core.system.native_stderr` redirects 2; escape invalid names."""
    with suppress(OSError, AttributeError, ValueError):  # closed streams
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        encoding = sys.stderr.encoding
        own = open(os.dup(2), "w", 1, encoding, "backslashreplace")  # noqa: PTH123, SIM115
        sys.stderr = sys.__stderr__ = own  # type: ignore[misc]
