"""Files that are whole or not there."""

import errno
import hashlib
import os
from functools import cache
from pathlib import Path

from core.errors import UserError

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)  # nor could another run


class replacing:
    """Give a temporary path beside `path`, put in its place when the block ends well and removed when it does not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.temporary.replace(self.path)
        else:
            self.temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def short_digest(text: str) -> str:
    """Return eight hex digits that stand for a text, as part of a folder's name."""
    return text_digest(text)[:8]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex.

    Raises
    ------
    UserError
        Where it is not a file that can be read.
    """
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    """Read a file once in the life of the process, however many runs of a plan start from it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
