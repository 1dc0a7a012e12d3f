"""Arrays in .npy files whose rows are written in place and read by seeking.

Rows are not written through a memory map, because a full disk would then kill the process instead of raising an error.

Gain of reading by seeking with several threads: 4.3 times as fast as a memory map for random images of 384 kB
(``python -m tests.benchmarks reading``, `docs/speed.md`).
"""

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
from core.system.atomic_files import NO_SPACE_ERRNOS

ARRAY_FILE, PROGRESS_FILE = "array.npy", "progress.jsonl"


@dataclass(frozen=True)
class Part:
    """Finished rows of an array: first row, number of rows, and metadata from the code that wrote them (JSON types)."""

    first: int
    n_rows: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """Shape of one row of an array, and the dtype as written in a .npy header."""

    row_shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Size of one row in bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.row_shape, dtype=np.int64))

    def header(self, n_rows: int) -> bytes:
        """Return the header of a .npy file. NumPy pads it, so its length does not depend on the number of rows."""
        file = BytesIO()
        header = {"descr": self.dtype, "fortran_order": False, "shape": (n_rows, *self.row_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        return file.getvalue()

    def offset(self, row: int) -> int:
        """Return the byte offset of a row in the file. The offset of the row after the last is the size of the file."""
        return len(self.header(0)) + row * self.row_bytes


class ArrayWriter:
    """Writes the rows of an array in any order. If the process is killed, only unfinished parts are lost.

    The progress file has one line for the layout and one for each finished part. Other processes may write rows at the
    same time with `write_rows`.

    Parameters
    ----------
    folder
        Existing folder for the array and the progress file.

    Attributes
    ----------
    parts
        Finished parts, including those of an earlier process.
    path
        Path of the array.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ARRAY_FILE
        self.layout: Layout | None = None
        self.parts: list[Part] = []
        with explain_cache_write_errors(folder.parent):
            self._progress = (folder / PROGRESS_FILE).open("a+b")
            self._resume()

    def create(self, shape: Sequence[int], dtype: Any) -> None:
        """Reserve disk space for an array of `shape`, unless an earlier process did.

        Raises
        ------
        ValueError
            Row shape or dtype differ from those of earlier calls.
        UserError
            The disk is full or not writable.
        """
        layout = Layout(tuple(shape[1:]), np.dtype(dtype).str)
        if self.layout is None:
            with explain_cache_write_errors(self.folder.parent):
                self.path.write_bytes(layout.header(shape[0]))
                if shape[0] and hasattr(os, "posix_fallocate"):
                    with self.path.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, layout.offset(shape[0]))
                self._append_line(layout)
            self.layout = layout
        if layout != self.layout:
            raise ValueError(f"rows are {layout.dtype} {layout.row_shape}, earlier ones are {self.layout}")

    def write(self, first: int, rows: np.ndarray) -> None:
        """Write `rows`, shape (n, ...), from row `first` on. Errors: see `create`."""
        self.create((0, *rows.shape[1:]), rows.dtype)
        with explain_cache_write_errors(self.folder.parent):
            write_rows(self.path, first, rows)

    def record_part(self, part: Part) -> None:
        """Flush the rows of a part to the disk and record the part as finished."""
        with explain_cache_write_errors(self.folder.parent):
            if self.layout is not None:
                self._sync()
            self._append_line(part)
        self.parts.append(part)

    def move_rows_to_start(self, rows: Sequence[int]) -> None:
        """Move some rows, in ascending order, to the start of the array.

        Parts with moved rows are no longer recorded as finished, so a killed process builds them again.
        """
        first_moved = next((target for target, row in enumerate(rows) if target != row), len(rows))
        if self.layout is None or first_moved == len(rows):
            return
        self.parts = [part for part in self.parts if part.first + part.n_rows <= first_moved]
        size = self.layout.row_bytes
        with explain_cache_write_errors(self.folder.parent), self.path.open("r+b") as file:
            self._rewrite_progress()
            for target, row in enumerate(rows[first_moved:], first_moved):
                file.seek(self.layout.offset(row))
                data = file.read(size)
                file.seek(self.layout.offset(target))
                file.write(data)

    def finalise(self, n_rows: int) -> Layout:
        """Truncate the array to its final number of rows, and write this number into the header."""
        if self.layout is None:
            raise ValueError("no rows were written")
        with explain_cache_write_errors(self.folder.parent):
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

    def _append_line(self, line: Layout | Part) -> None:
        self._progress.write(msgspec.json.encode(line) + b"\n")
        self._progress.flush()

    def _resume(self) -> None:
        """Read the finished parts; ignore an incomplete line, and parts beyond the end of the file."""
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
                self._append_line(line)


def write_rows(path: Path, first: int, rows: np.ndarray) -> None:
    """Write `rows`, shape (n, ...), in place from row `first` on. Several processes may do this at the same time."""
    with path.open("r+b") as file:
        file.seek(Layout(rows.shape[1:], rows.dtype.str).offset(first))
        file.write(np.ascontiguousarray(rows).data)


class ArrayReader:
    """Reads rows of an array, by seeking if it is a memory-mapped .npy file. Threads may share a reader.

    Parameters
    ----------
    array
        Array (rows, ...), memory-mapped or in memory.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._file = -1
        if isinstance(array, np.memmap) and array.filename and array.flags.c_contiguous and hasattr(os, "preadv"):
            file = os.open(array.filename, os.O_RDONLY)
            finalize(self, os.close, file)
            if os.fstat(file).st_size == array.offset + array.nbytes:  # the array is the whole file
                self._file, self._first = file, array.offset

    def read(self, rows: Iterable[int], out: np.ndarray, targets: Iterable[int]) -> None:
        """Copy rows to the target rows of `out`, shape (n, ...).

        Raises
        ------
        UserError
            The file became shorter.
        """
        size = self.array[:1].nbytes
        for row, target in zip(rows, targets, strict=True):
            if self._file < 0:
                out[target] = self.array[row]
            else:
                self._fill(memoryview(out[target]).cast("B"), self._first + int(row) * size)

    def read_slice(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of rows `start` to `stop` (exclusive). Errors: see `read`."""
        if self._file < 0:
            return np.array(self.array[start:stop])
        rows = np.empty((stop - start, *self.array.shape[1:]), self.array.dtype)
        if rows.size:
            self._fill(rows.data.cast("B"), self._first + start * self.array[:1].nbytes)
        return rows

    def _fill(self, buffer: memoryview, start: int) -> None:
        assert isinstance(self.array, np.memmap)
        done = 0
        while done < len(buffer):
            n_read = os.preadv(self._file, [buffer[done:]], start + done)
            if not n_read:
                raise UserError(f"{self.array.filename} became shorter while it was read; remove it to rebuild it")
            done += n_read


@contextmanager
def explain_cache_write_errors(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into a `UserError` that names `folder` and a remedy."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):  # the user may delete the cache at any time
            remedy = "the folder was removed; run the same command again"
        else:
            remedy = (
                f"{'free space' if error.errno in NO_SPACE_ERRNOS else 'allow writing there'} or choose another folder"
            )
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; {remedy}") from error
