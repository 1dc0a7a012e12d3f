"""Silence messages of C libraries (decoders, Ray) on file descriptor 2, but not those of Python."""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_terminal: list[int] = []  # duplicate of descriptor 2, followed by one placeholder for each further open block


@contextlib.contextmanager
def silence_native_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to the null device inside a block.

    Blocks may be nested and may run in several threads; descriptor 2 is restored when the last block ends. If
    `sys.stderr` writes to descriptor 2, nothing is redirected, because Python's messages would disappear too. The
    command line lets `sys.stderr` write to another descriptor (`commands.cli.process_setup`).
    """
    active = _python_has_own_descriptor()
    if active:
        with _lock:
            _redirect()
    try:
        yield
    finally:
        if active:
            with _lock:
                _restore()


def _redirect() -> None:
    if not _terminal:
        _terminal.append(os.dup(2))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
    else:
        _terminal.append(-1)


def _restore() -> None:
    if len(_terminal) > 1:
        _terminal.pop()
        return
    terminal = _terminal.pop()
    os.dup2(terminal, 2)
    os.close(terminal)


def _python_has_own_descriptor() -> bool:
    try:
        return sys.stderr.fileno() != 2
    except (AttributeError, ValueError, io.UnsupportedOperation):
        return False
