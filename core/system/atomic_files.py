"""Write files atomically, explain write errors, and compute digests."""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.errors import ResultsError, UserError, error_message
from core.system.file_signatures import Signature, signature_of

NO_SPACE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNWRITABLE_ERRNOS = (*NO_SPACE_ERRNOS, errno.EACCES, errno.EROFS, errno.ENOLCK, errno.EOPNOTSUPP)


def write_error_reason(error: BaseException) -> str | None:
    """Return the reason if an error is due to a full disk, missing access rights or no locks, otherwise None.

    Libraries that write files themselves (safetensors, pyarrow, zlib, NumPy) raise their own errors for a full disk,
    so the message of the error and of all its causes is searched as well.
    """
    link: BaseException | None = error
    while link is not None:
        message = error_message(link)
        if isinstance(link, OSError) and link.errno in UNWRITABLE_ERRNOS:
            return message
        for number in NO_SPACE_ERRNOS:
            if os.strerror(number) in message:
                return os.strerror(number)
        if re.search(r"\d+ requested and \d+ written", message):  # NumPy
            return os.strerror(errno.ENOSPC)
        link = link.__cause__ or link.__context__
    return None


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn write errors of a file or folder into a `ResultsError` with a remedy; other errors pass unchanged.

    Raises
    ------
    ResultsError
        If the disk is full, access rights are missing, or a file has the name of a folder or the other way round.
    """
    try:
        yield
    except UserError:
        raise
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        blocking = Path(error.filename2 or error.filename or path)
        if not blocking.is_relative_to(path):
            raise
        raise ResultsError(f"{blocking} is in the way ({error.strerror}); remove it") from None
    except Exception as error:
        if not (reason := write_error_reason(error)):
            raise
        raise ResultsError(f"cannot write to {path} ({reason}); free space or change --results") from error


class atomic_write:
    """Context manager that yields a temporary path, which replaces `path` if the block succeeds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.temporary.replace(self.path)
        else:
            with contextlib.suppress(OSError):  # keep the error that ended the block
                self.temporary.unlink(missing_ok=True)


def remove_temporary_files(folder: Path, names: Sequence[str]) -> None:
    """Delete temporary files of killed processes in a folder. Other files, including hidden ones, are not deleted.

    Parameters
    ----------
    folder
        The folder.
    names
        Names of the final files that `atomic_write` or safetensors was writing when the process was killed.
    """
    of_ours = "|".join(map(re.escape, names))
    for path in folder.glob(".*"):
        if re.fullmatch(rf"\.({of_ours})\.\d+|\.tmp\w{{6}}", path.name):
            with contextlib.suppress(OSError):  # it is a folder, or a file that NFS keeps open
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_regular_file(path: Path) -> bytes:
    """Read a file; refuse pipes, which would block, and devices, which may never end.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not a regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise ValueError("is not a regular file")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not a regular file or not valid JSON.
    """
    try:
        return json.loads(read_regular_file(path).decode())
    except RecursionError:
        raise ValueError("nested too deep") from None


def is_utf8(name: str) -> bool:
    """Return whether a file name is valid UTF-8; Python stores other bytes as surrogates (PEP 383)."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def short_digest(text: str) -> str:
    """Return the first eight hex digits of the SHA-256 of a text, for folder names."""
    return text_digest(text)[:8]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex; it is computed again only if the file has changed.

    Raises
    ------
    UserError
        If it is not a regular file or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, and a device may never end
            raise UserError(f"cannot read {path}: is not a regular file")
        key = path, signature_of(status)
        if key not in _digests:
            with path.open("rb") as file:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _digests[key]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


_digests: dict[tuple[Path, Signature], str] = {}


def file_size(path: str | Path) -> int:
    """Return the size of a file in bytes, -1 if there is no such regular file.

    Raises
    ------
    OSError
        If the size cannot be read, for example because access rights are missing.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (called for every file of 10,000 runs)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
