"""Recognise errors that are due to the machine, not to a run: no memory, no threads, no open files, a failing disk."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import MachineError, first_line

MEMORY_REMEDY = "use smaller images, shorter clips, or a lower --batch-size or --threads"
LIMIT_REMEDY = "close other programs or raise the limit (ulimit)"
DISK_REMEDY = "check the disk or the network drive"
REMEDIES = {
    errno.ENOMEM: MEMORY_REMEDY,
    errno.EAGAIN: LIMIT_REMEDY,
    errno.EMFILE: LIMIT_REMEDY,
    errno.ENFILE: LIMIT_REMEDY,
    errno.EIO: DISK_REMEDY,
    errno.ESTALE: DISK_REMEDY,
}
# Messages of libraries, which raise a RuntimeError. oneDNN cannot create "a primitive descriptor" of operations that it
# does not support, and "a primitive" if memory runs out.
_MEMORY_TEXT = re.compile(r"(?i)can(no|')t allocate memory|out of memory|could not create a primitive(?! descriptor)")
_THREAD_TEXT = "can't start new thread"


def find_machine_error(error: BaseException) -> MachineError | None:
    """Return a `MachineError` if an error, or one of its causes, is due to the machine; otherwise None."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, MachineError):
        if remedy := _find_remedy(link):
            return MachineError(f"{_message(link)}; {remedy}: finished runs are kept, the same command resumes")
        link = link.__cause__ or link.__context__
    return None


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(filter(None, (str(error.filename or ""), error.strerror)))
    return f"out of memory ({first_line(error)})" if isinstance(error, MemoryError) else first_line(error)


def _find_remedy(error: BaseException) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own, not imported here
        return MEMORY_REMEDY
    if isinstance(error, OSError):
        return REMEDIES.get(error.errno or 0, "")
    if isinstance(error, RuntimeError):
        text = first_line(error)
        return MEMORY_REMEDY if _MEMORY_TEXT.search(text) else LIMIT_REMEDY if _THREAD_TEXT in text else ""
    return ""


@contextmanager
def explain_machine_errors() -> Iterator[None]:
    """Turn errors that are due to the machine into a `MachineError` with a remedy; other errors pass unchanged.

    Raises
    ------
    MachineError
        If memory, threads or open files run out, or a disk fails.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MachineError) or not (found := find_machine_error(error)):
            raise
        raise found from error
