"""How a command ends: exit status, signals, and one line for an error.

| status | meaning |
| --- | --- |
| 0 | done |
| 1 | a run failed, or a defect of the program |
| 2 | bad input, a full disk, too little memory |
| 130, 143 | Ctrl-C, SIGTERM |
| 141 | closed pipe, as in ``| head`` |

In a notebook (``%run run_ablation.py ...``), SystemExit or KeyboardInterrupt is raised and the process goes on.

This module imports nothing slow, so that signals are handled from the start.
"""

import atexit
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from ablations.planning import PROGRAM
from commands.cli.notebook import in_notebook, restored_process
from commands.cli.process_setup import set_up_process
from core.errors import UserError, first_line, printable
from core.system.atomic_files import write_error_reason
from core.system.interrupts import REPEAT_SECONDS, clean_ups
from core.system.machine_errors import find_machine_error

DEFECT, BAD_INPUT, INTERRUPTED, CLOSED_PIPE = 1, 2, 128 + signal.SIGINT, 128 + signal.SIGPIPE
INTERRUPTED_LINE = "interrupted; finished runs are kept, the same command resumes"

_received: dict[int, float] = {}  # signal number: time at which it was first received


def run_and_exit(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> NoReturn:
    """Run a command and end the process with its status, printing at most one line for an error.

    In a notebook, raise SystemExit with the status, or KeyboardInterrupt after Ctrl-C; the process goes on as before.

    Parameters
    ----------
    main
        Function of the arguments that returns the exit status.
    arguments
        The arguments after the name of the program.
    """
    if in_notebook():
        sys.exit(_run_in_notebook(main, arguments))
    statuses: list[int] = []
    # Registered first and therefore called last: skips the destructors of C++ libraries. Those of CUDA add 0.13 GB to
    # the peak memory of a small command (`tests/robustness/test_memory.py`).
    atexit.register(lambda: _skip_destructors(statuses))
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` and background jobs of a shell ignore Ctrl-C
                signal.signal(number, _on_signal)
        set_up_process()
        threading.excepthook = lambda thread: _print_error(thread.exc_value)
        sys.unraisablehook = _on_unraisable
        status = main(arguments)
        if sys.stdout:
            sys.stdout.flush()
    except SystemExit as error:  # --help; rich exits with status 1 if its pipe is closed
        closed = isinstance(error.__context__, BrokenPipeError)
        status = CLOSED_PIPE if closed else error.code if isinstance(error.code, int) else 0
    except BaseException as error:
        status = _print_error(error)
    _discard_unwritable_output()
    statuses.append(128 + next(iter(_received)) if _received else status)
    sys.exit(statuses[0])


def _skip_destructors(statuses: Sequence[int]) -> None:
    """Exit at once if the command has ended, after flushing the output of other exit handlers."""
    if statuses:
        _discard_unwritable_output()
        os._exit(statuses[0])


def _run_in_notebook(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a command in the process of a notebook, and return its status."""
    status, line = INTERRUPTED, ""
    with restored_process():
        try:
            status = main(arguments)
        except SystemExit as error:  # --help
            status = error.code if isinstance(error.code, int) else 0
        except KeyboardInterrupt:
            line = INTERRUPTED_LINE
        except BaseException as error:
            status, line = _describe(error)
    if line:
        sys.stderr.write(f"{PROGRAM}: {printable(line)}\n")
    if status == INTERRUPTED:
        raise KeyboardInterrupt(INTERRUPTED_LINE)
    return status


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; inside `exit_at_once`, or if the signal is repeated later, exit immediately."""
    now = time.monotonic()
    since = now - _received.setdefault(number, now)
    if clean_ups or since > REPEAT_SECONDS:
        for clean_up in clean_ups:
            clean_up()
        _exit_now(number)
    if not since:
        raise KeyboardInterrupt


def _exit_now(number: int) -> NoReturn:
    _print(INTERRUPTED_LINE)
    os._exit(128 + number)


def _on_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Exit if KeyboardInterrupt was raised where Python ignores exceptions, for example in a destructor."""
    if _received:
        _exit_now(next(iter(_received)))
    sys.__unraisablehook__(unraisable)


def _print_error(error: BaseException | None) -> int:
    """Print one line for an error; return the status."""
    status, line = (INTERRUPTED, INTERRUPTED_LINE) if _received else _describe(error)
    if line:
        _print(line)
    return status


def _describe(error: BaseException | None) -> tuple[int, str]:
    """Return the status and the line for an error."""
    fault = find_machine_error(error) if error else None  # may also be the cause of a `UserError`
    if isinstance(error, UserError):
        return BAD_INPUT, str(fault or error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, INTERRUPTED_LINE
    if error is None or isinstance(error, BrokenPipeError | SystemExit):
        return CLOSED_PIPE, ""
    if reason := write_error_reason(error):
        return BAD_INPUT, f"cannot write ({reason}); free space or choose another --results: the same command resumes"
    if fault:
        return BAD_INPUT, str(fault)
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        return BAD_INPUT, f"{name or 'a file'}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError):
        return BAD_INPUT, f"the Python package '{error.name}' is missing; install the toolkit with its dependencies"
    if isinstance(error, ImportError) and ".so" in str(error):
        return BAD_INPUT, f"a library cannot be loaded ({error}); allow more memory, or reinstall its package"
    message = f"{type(error).__name__}: {first_line(error)}"
    return DEFECT, f"a defect of the program ({message}); {_save_traceback(error)}"


def _save_traceback(error: BaseException) -> str:
    """Write the traceback to a file, because only developers need it; return a hint with the name of the file."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="run_ablation-", suffix=".txt", delete=False) as file:
            file.write(text)
    except OSError:
        return text
    return f"please report it with {file.name}"


def _print(line: str) -> None:
    """Print a line to the descriptor of stderr, because a signal handler may run while `sys.stderr` is writing."""
    with suppress(OSError, ValueError, AttributeError):  # closed streams
        os.write(sys.__stderr__.fileno(), f"{PROGRAM}: {printable(line)}\n".encode(errors="backslashreplace"))  # type: ignore[union-attr]


def _discard_unwritable_output() -> None:
    """Flush both streams, and discard what cannot be written: Python would try again and print a traceback."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
