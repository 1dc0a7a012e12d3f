"""The one door through which a command ends: done, a mistake, a signal, a full disk, a closed pipe or a defect.

Each of them is a status and at most one line on standard error. This module imports nothing that takes long, so that
the door stands open before anything else is imported.
"""

import atexit
import contextlib
import io
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn, TextIO

from core.errors import UserError, printable
from core.io.atomic_files import write_failure

PROGRAM = "run_ablation.py"
MISTAKE, DEFECT, CLOSED_PIPE = 2, 70, 128 + signal.SIGPIPE  # statuses; 70 is EX_SOFTWARE, 128 + N the shell's for N
INTERRUPTED = "interrupted; what is done is kept, the same command goes on from here"
PATIENCE = 1.0  # seconds within which a second Ctrl-C is the same one, and for which an import is let end
AGAIN = 0.05  # seconds

_asked: dict[int, float] = {}  # signals to stop that came, and when
_leaving = False


def end(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> NoReturn:
    """Run a program's `main`, whatever happens in it, and end the process with its status.

    Threads are waited for and what is to be done at the end is done, as Python does it; only the destructors of
    libraries written in C++ are left out. Those of CUDA's take about a second, and read in 110 MB to do nothing.
    """
    ended: list[int] = []
    atexit.register(lambda: ended and os._exit(ended[0]))  # the first that is registered is called last
    ended.append(leave(main, arguments))
    sys.exit(ended[0])


def leave(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a program's `main`, whatever happens in it, and return the status to exit with."""
    global _leaving
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # what is not to be interrupted was started so
            signal.signal(number, _stop)
    sys.unraisablehook = _unraisable
    threading.excepthook = _in_a_thread
    _keep_streams()
    _tidy_environment()
    warnings.formatwarning = lambda message, *where: f"{PROGRAM}: {printable(str(message))}\n"
    try:
        status = main(arguments)
        sys.stdout.flush()
    except SystemExit as ended:  # --help, and what rich makes of a closed pipe
        pipe = isinstance(ended.__context__, BrokenPipeError)
        status = CLOSED_PIPE if pipe else ended.code if isinstance(ended.code, int) else 0
    except BaseException as error:
        status, line = _answer(error)
        if line and not _asked:
            _say(line)
        elif _asked:
            _say(INTERRUPTED)
    _leaving = True
    for stream in (sys.stdout, sys.stderr):
        _empty(stream)
    return 128 + next(iter(_asked)) if _asked else status


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep from the terminal what libraries written in C print on standard error; Python's own messages still come.

    Blocks may lie within each other and run in several threads: it is quiet until the last one ends.
    """
    with _lock:
        if apart := _python_is_apart():
            _begin_quiet()
    try:
        yield
    finally:
        if apart:
            with _lock:
                _end_quiet()


@contextlib.contextmanager
def at_once(clean_up: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C or a request to end, in this block, end the process there and then, once `clean_up` was called.

    For libraries in C++ that an exception in their midst leaves waiting for ever, while nothing of ours is half done.
    """
    _at_once.append(clean_up)
    try:
        yield
    finally:
        _at_once.remove(clean_up)


_at_once: list[Callable[[], None]] = []
_lock = threading.Lock()
_quiet: list[int] = []  # one entry for each block; the first is the terminal's descriptor, kept


def _begin_quiet() -> None:
    _quiet.append(-1 if _quiet else os.dup(2))
    if len(_quiet) == 1:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        os.close(nothing)


def _end_quiet() -> None:
    if len(_quiet) > 1:
        _quiet.pop()
        return
    kept = _quiet.pop()
    os.dup2(kept, 2)
    os.close(kept)


def _python_is_apart() -> bool:
    try:
        return sys.stderr.fileno() != 2
    except (AttributeError, ValueError, io.UnsupportedOperation):
        return False


def _keep_streams() -> None:
    """Give Python's messages a descriptor of their own, and both streams a way to write any file name.

    Where one of the three descriptors is closed, the next file that is opened, a run's perhaps, would get its number,
    and whatever a library prints would go into it: so that nowhere is opened in its place.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(nowhere)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    with contextlib.suppress(OSError, AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stderr = _Messages(open(os.dup(2), "wb"), encoding, "backslashreplace", line_buffering=True)  # noqa: PTH123, SIM115


class _Messages(io.TextIOWrapper):
    """Standard error: where it cannot be written to, what is done goes on all the same."""

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        try:
            return super().write(text)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            return len(text)

    def flush(self) -> None:
        """Write what is left, or keep it for another time."""
        try:
            super().flush()
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise


def _empty(stream: TextIO) -> None:
    """Write what is left in a stream, or forget it where that cannot be, so that nothing of it is tried again."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tidy_environment() -> None:
    """Take out of the environment what libraries would stumble over: a width of no terminal, a display for figures."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name, "1")
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text)):
            del os.environ[name]
    os.environ["MPLBACKEND"] = "agg"  # figures are files; notebooks leave the name of theirs to what they start


def _stop(number: int, frame: FrameType | None) -> None:
    """Answer Ctrl-C or a request to end: with KeyboardInterrupt, or at once where nothing can be left in order."""
    now = time.monotonic()
    since = now - _asked.setdefault(number, now)
    if _leaving or _at_once or since > PATIENCE:
        for clean_up in _at_once * (since <= PATIENCE):
            clean_up()
        _say(INTERRUPTED)
        os._exit(128 + number)
    if _importing(frame):  # an import that is broken off may break whatever it was needed for
        _again(number)
    elif not since or number in _postponed:
        _postponed.discard(number)
        raise KeyboardInterrupt


_postponed: set[int] = set()


def _again(number: int) -> None:
    _postponed.add(number)
    timer = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def _importing(frame: FrameType | None) -> bool:
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _unraisable(what: "sys.UnraisableHookArgs") -> None:
    """Ask again where KeyboardInterrupt was raised in a place that cannot pass it on, as a callback."""
    if issubclass(what.exc_type, KeyboardInterrupt) and _asked:
        _again(next(iter(_asked)))
    else:
        sys.__unraisablehook__(what)


def _in_a_thread(what: threading.ExceptHookArgs) -> None:
    """Say in one line what ended a thread, as one of a library that writes curves; the command goes on."""
    if what.exc_value is None or isinstance(what.exc_value, SystemExit) or _asked:
        return
    if line := _answer(what.exc_value)[1]:
        _say(line)


def _answer(error: BaseException) -> tuple[int, str]:
    """Return the status and the line for what ended a command."""
    if isinstance(error, UserError):
        return MISTAKE, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT, INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE, ""
    if reason := write_failure(error):
        return MISTAKE, f"cannot write ({reason}); free space or choose another --results: the same command goes on"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return MISTAKE, f"out of memory ({error}); use smaller images, shorter clips or a lower --batch-size"
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        return MISTAKE, f"{name or 'a file'}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError):
        return MISTAKE, f"the Python package '{error.name}' is missing; install the toolkit with what it needs"
    if isinstance(error, ImportError) and ".so" in str(error):
        return MISTAKE, f"a library cannot be loaded ({error}); allow more memory, or install its package anew"
    return DEFECT, f"a defect of the program ({type(error).__name__}: {error}); {_trace(error)}"


def _trace(error: BaseException) -> str:
    """Write the whole trace to a file and say where; it is needed to mend the program and nobody else reads it."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="run_ablation-", suffix=".txt", delete=False) as file:
            file.write(text)
    except OSError:
        return text
    return f"please report it with {file.name}"


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"{PROGRAM}: {printable(line)}", file=sys.stderr, flush=True)  # noqa: T201
