"""Detect whether a file has changed since it was last read."""

import os
from pathlib import Path

Signature = tuple[int, int, int, int]


def signature_of(status: os.stat_result) -> Signature:
    """Return size in bytes, modification time and inode change time in nanoseconds, and inode number.

    Writing to a file changes its inode change time, even if the size stays the same and the modification time is reset
    (``cp -p``, archives with fixed times). A file that replaces another one has another inode number.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def file_signature(path: str | Path) -> Signature:
    """Return the signature of a file.

    Raises
    ------
    OSError
        If there is no such file.
    """
    return signature_of(os.stat(path))  # noqa: PTH116 (called for every file of 10,000 runs)
