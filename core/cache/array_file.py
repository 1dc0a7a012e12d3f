"""Arrays in .npy files: rows are written in place and read by seeking.

Rows are read and written at their position in the file and not through a memory map. A full disk is then an error,
where a memory map would kill the process, and touching the pages of a map for the first time is slower than the copy.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from weakref import finalize

import msgspec
import numpy as np

from core.errors import UserError

ARRAY_FILE, PROGRESS_FILE = "array.npy", "progress.jsonl"
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Part:
    """Finished rows of an array: the first of them, their number, and what the builder notes of them, in JSON types."""

    first: int
    n_rows: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """Shape of one row of an array, and its dtype as in a .npy header."""

    row_shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.row_shape, dtype=np.int64))

    def header(self, n_rows: int) -> bytes:
        """Return the header of a .npy file; NumPy pads it, so that its length is the same for any number of rows."""
        file = BytesIO()
        header = {"descr": self.dtype, "fortran_order": False, "shape": (n_rows, *self.row_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        return file.getvalue()

    def offset(self, row: int) -> int:
        """Return where a row begins in the file; for the number of rows the size of the file, in bytes."""
        return len(self.header(0)) + row * self.row_bytes


class ArrayWriter:
    """Writes the rows of an array in any order. A killed process loses only the parts that are not finished.

    The progress file has a line for the layout and one for each finished part. Other processes may write rows with
    `write_rows` meanwhile.

    Parameters
    ----------
    folder
        Existing folder of the array and the progress file.

    Attributes
    ----------
    parts
        Finished parts, also those of an earlier process.
    path
        File of the array.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ARRAY_FILE
        self.layout: Layout | None = None
        self.parts: list[Part] = []
        with explain_write_errors(folder.parent):
            self._progress = (folder / PROGRESS_FILE).open("a+b")
            self._resume()

    def create(self, shape: Sequence[int], dtype: Any) -> None:
        """Reserve space for an array of `shape`, unless an earlier process did.

        Raises
        ------
        ValueError
            Shape of a row or dtype differ from those of earlier calls.
        UserError
            The disk is full or cannot be written to.
        """
        layout = Layout(tuple(shape[1:]), np.dtype(dtype).str)
        if self.layout is None:
            with explain_write_errors(self.folder.parent):
                self.path.write_bytes(layout.header(shape[0]))
                if shape[0] and hasattr(os, "posix_fallocate"):
                    with self.path.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, layout.offset(shape[0]))
                self._note(layout)
            self.layout = layout
        if layout != self.layout:
            raise ValueError(f"rows are {layout.dtype} {layout.row_shape}, earlier ones are {self.layout}")

    def write(self, first: int, rows: np.ndarray) -> None:
        """Write `rows`, shape (any number, ...), from row `first` on; errors are those of `create`."""
        self.create((0, *rows.shape[1:]), rows.dtype)
        with explain_write_errors(self.folder.parent):
            write_rows(self.path, first, rows)

    def record_part(self, part: Part) -> None:
        """Record that the rows of a part are written, once they are on the disk."""
        with explain_write_errors(self.folder.parent):
            if self.layout is not None:
                self._sync()
            self._note(part)
        self.parts.append(part)

    def move_rows_to_start(self, rows: Sequence[int]) -> None:
        """Move some rows, ascending, to the start of the array.

        The parts of moved rows are not finished any more: a process that is killed from now on has to build them again.
        """
        moved = next((place for place, row in enumerate(rows) if place != row), len(rows))
        if self.layout is None or moved == len(rows):
            return
        self.parts = [part for part in self.parts if part.first + part.n_rows <= moved]
        size = self.layout.row_bytes
        with explain_write_errors(self.folder.parent), self.path.open("r+b") as file:
            self._rewrite_progress()
            for place, row in enumerate(rows[moved:], moved):
                file.seek(self.layout.offset(row))
                data = file.read(size)
                file.seek(self.layout.offset(place))
                file.write(data)

    def finalise(self, n_rows: int) -> Layout:
        """Cut the array to its final number of rows and write that into the header."""
        if self.layout is None:
            raise ValueError("no rows were written")
        with explain_write_errors(self.folder.parent):
            with self.path.open("r+b") as file:
                file.write(self.layout.header(n_rows))
                file.truncate(self.layout.offset(n_rows))
            self._sync()
        return self.layout

    def close(self) -> None:
        """Close the progress file."""
        self._progress.close()

    def _sync(self) -> None:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def _note(self, line: Layout | Part) -> None:
        self._progress.write(msgspec.json.encode(line) + b"\n")
        self._progress.flush()

    def _resume(self) -> None:
        """Read the finished parts; a part that is not in the file any more, and half a line, are forgotten."""
        self._progress.seek(0)
        lines = self._progress.readlines()
        try:
            self.layout = msgspec.json.decode(lines[0], type=Layout)
            size = self.path.stat().st_size
            for line in lines[1:]:
                part = msgspec.json.decode(line, type=Part)
                if self.layout.offset(part.first + part.n_rows) <= size:
                    self.parts.append(part)
        except (IndexError, FileNotFoundError, msgspec.MsgspecError, TypeError):
            if not self.parts:
                self.layout = None
        self._rewrite_progress()

    def _rewrite_progress(self) -> None:
        self._progress.truncate(0)
        for line in (self.layout, *self.parts):
            if line is not None:
                self._note(line)


def write_rows(path: Path, first: int, rows: np.ndarray) -> None:
    """Write `rows`, shape (any number, ...), in place, from row `first` on; any process may, also several at once."""
    with path.open("r+b") as file:
        file.seek(Layout(rows.shape[1:], rows.dtype.str).offset(first))
        file.write(np.ascontiguousarray(rows).data)


class ArrayReader:
    """Reads rows of an array, by seeking if it is a memory-mapped .npy file. Threads do not wait for each other.

    Parameters
    ----------
    array
        Shape (rows, ...), memory-mapped or in memory.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._file = -1
        if isinstance(array, np.memmap) and array.filename and array.flags.c_contiguous and hasattr(os, "preadv"):
            file = os.open(array.filename, os.O_RDONLY)
            finalize(self, os.close, file)
            if os.fstat(file).st_size == array.offset + array.nbytes:  # the whole file and not a part of it
                self._file, self._first = file, array.offset

    def read(self, rows: Iterable[int], out: np.ndarray, places: Iterable[int]) -> None:
        """Copy rows to their places in `out`, shape (any number, ...).

        Raises
        ------
        UserError
            The file has become shorter.
        """
        size = self.array[:1].nbytes
        for row, place in zip(rows, places, strict=True):
            if self._file < 0:
                out[place] = self.array[row]
            else:
                self._fill(memoryview(out[place]).cast("B"), self._first + int(row) * size)

    def read_slice(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of the rows from `start` to `stop`; errors are those of `read`."""
        if self._file < 0:
            return np.array(self.array[start:stop])
        found = np.empty((stop - start, *self.array.shape[1:]), self.array.dtype)
        if found.size:
            self._fill(found.data.cast("B"), self._first + start * self.array[:1].nbytes)
        return found

    def _fill(self, buffer: memoryview, start: int) -> None:
        assert isinstance(self.array, np.memmap)
        done = 0
        while done < len(buffer):
            got = os.preadv(self._file, [buffer[done:]], start + done)
            if not got:
                raise UserError(f"{self.array.filename} became shorter while it was read; remove it to rebuild it")
            done += got


@contextmanager
def explain_write_errors(folder: Path) -> Iterator[None]:
    """Turn an error of writing into a `UserError` that names `folder`."""
    try:
        yield
    except OSError as error:
        remedy = "free space" if error.errno in DISK_FULL_ERRORS else "allow writing there"
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; {remedy} or choose another folder"
        ) from error
