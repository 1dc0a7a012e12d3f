"""Large arrays on disk that are made once, shared by processes, and believed only when whole.

An entry is a folder, `<key>/array.npy` and `<key>/manifest.json`, where the key is the hash of what the array is made
from. It is written beside its place and moved there in one step while a file lock keeps other processes waiting, so a
process killed at any moment leaves nothing that is read later. The manifest carries the array's SHA-256 and its own;
an entry that does not match them is made again.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from core.errors import UserError

_verified: set[tuple[str, int, int]] = set()  # (path, size, mtime in ns) of arrays whose SHA-256 this process checked


@dataclass(frozen=True)
class Stored:
    """An entry of the cache.

    Attributes
    ----------
    key
        Name of its folder.
    array
        The array, memory-mapped and read-only.
    facts
        What its maker noted beside it.
    """

    key: str
    array: np.ndarray
    facts: dict[str, Any]


class ArrayWriter:
    """Writes an array of unknown length to a .npy file, some rows at a time.

    Rows go through `write` and not through a memory map, because a full disk then raises an error, where a memory map
    would kill the process.

    Parameters
    ----------
    path
        The file to write.
    blame
        The folder that a failure to write names.
    """

    def __init__(self, path: Path, *, blame: Path) -> None:
        self._blame = blame
        self._dtype = np.dtype(np.float32)
        self.shape: tuple[int, ...] = ()
        with _naming(blame):
            self._file = path.open("wb")

    def append(self, rows: np.ndarray) -> None:
        """Append `rows` of shape (any number, ...); type and row shape are those of the first call.

        Raises
        ------
        ValueError
            The rows differ from the earlier ones in type or shape.
        UserError
            The folder cannot be written to.
        """
        first = not self.shape
        if first:
            self._dtype, self.shape = rows.dtype, (0, *rows.shape[1:])
        if rows.dtype != self._dtype or rows.shape[1:] != self.shape[1:]:
            raise ValueError(f"rows are {rows.dtype} {rows.shape[1:]}, not {self._dtype} {self.shape[1:]} as before")
        with _naming(self._blame):
            if first:
                self._write_header()
            self._file.write(np.ascontiguousarray(rows).data)
        self.shape = (self.shape[0] + len(rows), *self.shape[1:])

    def finish(self) -> None:
        """Write the number of rows into the header, for which NumPy's format leaves room, and close the file."""
        if not self.shape:
            raise ValueError("nothing was appended")
        with _naming(self._blame):
            self._file.seek(0)
            self._write_header()
            self._file.close()

    def close(self) -> None:
        """Close the file, finished or not."""
        with suppress(OSError):  # a full disk refuses what is still in the buffer; that error is known already
            self._file.close()

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def load_or_make(
    folder: Path,
    *,
    made_from: Mapping[str, Any],
    make: Callable[[ArrayWriter], Mapping[str, Any]],
    waiting: Callable[[], None] | None = None,
) -> Stored:
    """Return the array made from `made_from`, making it if no whole one is there.

    Parameters
    ----------
    folder
        Where the entries are.
    made_from
        Everything that decides the array, in JSON types.
    make
        Appends the array's rows to the writer and returns facts to keep beside it, in JSON types.
    waiting
        Called once if another process is making the same array, before waiting for it.

    Raises
    ------
    UserError
        The folder cannot be written to. What `make` raises is passed on, and nothing is kept.
    """
    entry = folder / key_of(made_from)
    if stored := _load(entry):
        return stored
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(entry.with_suffix(".lock"), waiting):
        return _load(entry) or _make(entry, made_from=made_from, make=make)


def key_of(made_from: Mapping[str, Any]) -> str:
    """Sixteen hex digits that stand for `made_from`."""
    return _checksum(made_from)[:16]


def _make(entry: Path, *, made_from: Mapping[str, Any], make: Callable[[ArrayWriter], Mapping[str, Any]]) -> Stored:
    """Make an entry; the caller holds its lock, so whatever lies in its temporary folder is a dead process's."""
    temporary = entry.with_suffix(".tmp")
    try:
        with _naming(entry.parent):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        with closing(ArrayWriter(temporary / "array.npy", blame=entry.parent)) as writer:
            facts = make(writer)
            writer.finish()
        with _naming(entry.parent):
            manifest = {
                "made_from": made_from,
                "shape": writer.shape,
                "facts": facts,
                "array_sha256": _digest(temporary),
            }
            text = json.dumps(manifest | {"checksum": _checksum(manifest)}, indent=1)
            (temporary / "manifest.json").write_text(text, encoding="utf-8")
            shutil.rmtree(entry, ignore_errors=True)  # there only if it could not be believed
            temporary.replace(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if not (stored := _load(entry)):
        raise UserError(f"{entry} cannot be read back as it was written: check the disk")
    return stored


def _load(entry: Path) -> Stored | None:
    """Read an entry; None where it is missing or anything about it is not as it was written."""
    try:
        manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
        if manifest.pop("checksum") != _checksum(manifest) or key_of(manifest["made_from"]) != entry.name:
            return None
        status = (entry / "array.npy").stat()
        seen = (str(entry.resolve()), status.st_size, status.st_mtime_ns)
        if seen not in _verified and _digest(entry) != manifest["array_sha256"]:
            return None
        array = np.load(entry / "array.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    _verified.add(seen)
    return Stored(key=entry.name, array=array, facts=manifest["facts"])


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _digest(folder: Path) -> str:
    with (folder / "array.npy").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path, waiting: Callable[[], None] | None) -> Iterator[None]:
    lock = FileLock(path)
    with _naming(path.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting:
                waiting()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Turn a failure to write into the user's error that names `folder`."""
    try:
        yield
    except OSError as error:
        remedy = (
            "make room on it" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "allow writing there"
        )
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; {remedy} or choose another folder"
        ) from error
