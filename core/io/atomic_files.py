"""Files that are whole or not there."""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)  # nor could another run

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

SETTLED = 2.0  # seconds after which a later change to a file surely shows in its times


def cannot_write(error: BaseException) -> str | None:
    """Return why files cannot be written, where that is what an error comes from.

    Libraries that write files themselves (safetensors, pyarrow, zlib, NumPy) have errors of their own for a full disk:
    so the words of the error, and of all it came from, are looked at.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in CANNOT_WRITE:
            return str(link)
        for number in NO_ROOM:
            if os.strerror(number) in str(link):
                return os.strerror(number)
        if re.search(r"\d+ requested and \d+ written", str(link)):  # NumPy
            return os.strerror(errno.ENOSPC)
        link = link.__cause__ or link.__context__
    return None


@contextlib.contextmanager
def written_below(folder: Path) -> Iterator[None]:
    """Say in one line that files below a folder cannot be written; other errors pass.

    Raises
    ------
    UserError
        Instead of what `cannot_write` knows.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not (why := cannot_write(error)):
            raise
        raise UserError(f"cannot write to {folder} ({why}); free space or change --results") from error


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
            with contextlib.suppress(OSError):  # the error that is under way says more
                self.temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file: OSError where it cannot be read, ValueError where it holds no JSON that can be used."""
    if not (path.is_file() or path.is_dir()) and path.exists():  # a pipe would be waited for, a device read for ever
        raise ValueError("is no regular file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def is_utf8(name: str) -> bool:
    """Tell whether a file's name is text; of one that is none Python keeps the bytes (PEP 383)."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


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
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device read for ever
            raise UserError(f"cannot read {path}: is no regular file")
        state = path, status.st_size, status.st_mtime_ns
        if state not in _digests:
            with path.open("rb") as file:
                _digests[state] = hashlib.file_digest(file, "sha256").hexdigest()
        return _digests[state]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


# A file is read once in the life of the process, however many runs of a plan start from it: by path, size and change.
_digests: dict[tuple[Path, int, int], str] = {}


def know_digest(path: Path, digest: str) -> None:
    """Tell `file_digest` of a file that was just written, by whoever has digested what was written."""
    status = path.stat()
    _digests[path, status.st_size, status.st_mtime_ns] = digest


def size_of(path: str | Path) -> int:
    """Return a file's bytes, -1 where there is no such file; of 10,000 runs each is asked for several times."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


@contextlib.contextmanager
def in_place(path: Path) -> Iterator[None]:
    """Say in one line that something else has the name of what is to be written."""
    try:
        yield
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(f"{error.filename2 or path} is in the way ({error.strerror}); remove it") from None
