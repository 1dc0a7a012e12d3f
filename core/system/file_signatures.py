"""Detect whether a file has changed since it was last read, or is a broken link or a Git LFS pointer."""

import errno
import os
from pathlib import Path

Signature = tuple[int, int, int, int]
LFS_START = b"version https://git-lfs.github.com/spec/"  # start of the text file that Git LFS puts in place of a file
LFS_REASON = "a Git LFS pointer in place of the file (run git lfs pull)"


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


def file_or_link_signature(path: str | Path) -> Signature:
    """Return the signature of a file or, if it is a broken link, of the link.

    Raises
    ------
    OSError
        If there is no such file or link, or the file cannot be read.
    """
    return signature_of(os.lstat(path)) if is_broken_link(path) else file_signature(path)


def is_broken_link(path: str | Path) -> bool:
    """Return whether a path is a link to a file that does not exist, or to itself."""
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ELOOP) and os.path.islink(path)  # noqa: PTH114
    return False
