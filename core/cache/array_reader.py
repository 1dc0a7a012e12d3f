"""Rows of an array on disk, read by seeking in its file: one copy of each, and threads do not wait for each other.

The pages of a memory map have to be found one by one by every process, which takes longer than the copy itself.
"""

import os
from collections.abc import Iterable
from weakref import finalize

import numpy as np

from core.errors import UserError


class ArrayReader:
    """Reads rows of an array; one that is no whole file, or a system that cannot, is looked up as usual.

    Parameters
    ----------
    array
        (rows, ...), perhaps memory-mapped.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._file = -1
        if isinstance(array, np.memmap) and array.filename and array.flags.c_contiguous and hasattr(os, "preadv"):
            file = os.open(array.filename, os.O_RDONLY)
            finalize(self, os.close, file)
            if os.fstat(file).st_size == array.offset + array.nbytes:  # no part of it
                self._file, self._first = file, array.offset

    def read(self, rows: Iterable[int], out: np.ndarray, places: Iterable[int]) -> None:
        """Copy rows to their places in `out`, which has the array's type and its shape but for the rows.

        Raises
        ------
        UserError
            Where the file has become shorter.
        """
        if self._file < 0:
            for row, place in zip(rows, places, strict=True):
                out[place] = self.array[row]
            return
        size = self.array[:1].nbytes
        for row, place in zip(rows, places, strict=True):
            self._fill(memoryview(out[place]).cast("B"), self._first + int(row) * size)

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return rows from `start` to `stop`, a copy; no page of the file stays in this process's memory.

        Raises
        ------
        UserError
            Where the file has become shorter.
        """
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
                raise UserError(f"{self.array.filename} became shorter while it was read; remove it, to be made again")
            done += got
