"""A .npy file that is written some rows at a time, in shards that a killed process does not lose.

Beside the file lies a journal with a line for each shard that is whole: its rows, their SHA-256 and what its maker
noted. Whoever opens the folder again goes on behind the last shard whose bytes are as the journal says.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.cache.array_shards import PIECE, Read, Shard, read_header, read_journal, row_bytes_of, unseen, whole_shards
from core.errors import UserError

ARRAY, JOURNAL = "array.npy", "shards.jsonl"


@dataclass(frozen=True)
class Whole:
    """An array's file, and the SHA-256 of its rows as whoever made them has taken it."""

    path: Path
    sha256: str


class ArrayWriter:
    """Writes an array of unknown length.

    Rows go through `write` and not through a memory map, because a full disk then raises an error, where a memory map
    would kill the process.

    Parameters
    ----------
    folder
        Where ``array.npy`` and the journal are; what lies there already is gone on with.
    blame
        The folder that a failure to write names.
    read
        Called with (bytes read, bytes to be read) of what lies there.

    Attributes
    ----------
    shards
        Those that are whole, in order.
    shape
        Of what is written so far; empty before the first rows.
    """

    def __init__(self, folder: Path, *, blame: Path, read: Read = unseen) -> None:
        self.folder, self._blame = folder, blame
        self._dtype = np.dtype(np.float32)
        self.shape: tuple[int, ...] = ()
        self.shards: list[Shard] = []
        with naming(blame):
            self._recover(read)
        self._begin_shard()

    @property
    def rows(self) -> int:
        """How many rows are written so far."""
        return self.shape[0] if self.shape else 0

    def append(self, rows: np.ndarray) -> None:
        """Append `rows` of shape (any number, ...); type and row shape are those of the first call.

        Raises
        ------
        ValueError
            The rows differ from the earlier ones in type or shape.
        UserError
            The folder cannot be written to.
        """
        self._expect(rows.dtype, rows.shape[1:])
        data = np.ascontiguousarray(rows).data
        with naming(self._blame):
            self._file.write(data)
        self._sha256.update(data)
        self.shape = (self.rows + len(rows), *self.shape[1:])

    def take(self, part: Whole) -> None:
        """Append the rows of another file, of which a shard is to be made; errors are those of `append`.

        Its digest is not taken again: wherever the array is read, it is compared with the bytes that came to be here.
        """
        with naming(self._blame), part.path.open("rb") as file:
            shape, dtype = read_header(file)
            self._expect(dtype, shape[1:])
            if os.fstat(file.fileno()).st_size != file.tell() + shape[0] * row_bytes_of(shape, dtype):
                raise UserError(f"{part.path} is not as it was written; the same command makes it again")
            shutil.copyfileobj(file, self._file, PIECE)
        self.shape = (self.rows + shape[0], *shape[1:])
        self._taken = part.sha256

    def commit(self, facts: Mapping[str, Any] | None = None) -> None:
        """End a shard: the rows since the last one are kept whatever happens to this process."""
        start = sum(shard.rows for shard in self.shards)
        self.shards.append(Shard(self.rows - start, self._taken or self._sha256.hexdigest(), dict(facts or {})))
        with naming(self._blame):
            self._file.flush()
            self._journal.write(json.dumps(asdict(self.shards[-1])).encode() + b"\n")
            self._journal.flush()
        self._begin_shard()

    def finish(self) -> None:
        """Write the number of rows into the header, for which NumPy's format leaves room, and close the file."""
        if not self.shape:
            raise ValueError("nothing was appended")
        if self.rows > sum(shard.rows for shard in self.shards):
            self.commit()
        with naming(self._blame):
            self._file.seek(0)
            self._write_header()
            self._file.close()

    def close(self) -> None:
        """Close the files, finished or not."""
        for file in (self._file, self._journal):
            with suppress(OSError):  # a full disk refuses what is still in the buffer; that error is known already
                file.close()

    def _begin_shard(self) -> None:
        self._sha256, self._taken = hashlib.sha256(), ""

    def _expect(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Take type and shape of the first rows for those of the array; other rows are a ValueError."""
        if self._taken:
            raise ValueError("rows that were taken over are a shard by themselves")
        if not self.shape:
            self._dtype, self.shape = dtype, (0, *shape)
            with naming(self._blame):
                self._write_header()
        if dtype != self._dtype or shape != self.shape[1:]:
            raise ValueError(f"rows are {dtype} {shape}, not {self._dtype} {self.shape[1:]} as before")

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _recover(self, read: Read) -> None:
        """Open both files behind the last whole shard, or empty."""
        array, journal = self.folder / ARRAY, self.folder / JOURNAL
        for path in (array, journal):
            path.touch()
        self._file, self._journal = array.open("r+b"), journal.open("r+b")
        known = read_journal(self._journal)
        with suppress(ValueError):  # no header yet
            shape, dtype = read_header(self._file)
            self.shards = whole_shards(self._file, known, row_bytes=row_bytes_of(shape, dtype), read=read)
        if self.shards:
            self._dtype, self.shape = dtype, (sum(shard.rows for shard in self.shards), *shape[1:])
        else:
            self._file.seek(0)
        self._file.truncate()
        self._journal.seek(0)
        self._journal.truncate()
        self._journal.writelines(json.dumps(asdict(shard)).encode() + b"\n" for shard in self.shards)
        self._journal.flush()


@contextmanager
def naming(folder: Path) -> Iterator[None]:
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
