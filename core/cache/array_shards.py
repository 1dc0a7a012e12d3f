"""The shards of an array's file, read through and compared with what was written.

A shard is whole whose bytes have the SHA-256 that its maker noted (`core.cache.array_writer`).
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, takewhile
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import msgspec
import numpy as np

from core.io.thread_pool import CancellablePool, check_cancelled

PIECE = 2**22  # bytes read at a time
READERS = min(8, os.cpu_count() or 1)  # threads
Read = Callable[[int, int], None]  # told how many bytes of how many were read through


def unseen(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Shard:
    """Some rows of an array, one after the other.

    Attributes
    ----------
    rows
        How many.
    sha256
        Of their bytes.
    facts
        What their maker noted, in JSON types.
    """

    rows: int
    sha256: str
    facts: dict[str, Any]


def is_whole(path: Path, shards: Sequence[Shard], *, shape: tuple[int, ...], read: Read = unseen) -> bool:
    """Tell whether an array's file holds these shards and nothing was changed in it.

    Parameters
    ----------
    path, shards, shape
        The file, what it was written as, and the array's shape.
    read
        Called with (bytes read, bytes to be read).

    Raises
    ------
    OSError, ValueError
        Where it cannot be read at all.
    """
    with path.open("rb") as file:
        found, dtype = read_header(file)
        row_bytes = row_bytes_of(found, dtype)
        return found == shape and whole_shards(file, shards, row_bytes=row_bytes, read=read) == list(shards)


def whole_shards(file: BinaryIO, shards: Sequence[Shard], *, row_bytes: int, read: Read = unseen) -> list[Shard]:
    """Return the shards whose bytes follow in `file`, up to the first that differs; the file is left behind them.

    Several are read at once: digests take longer than the disk.
    """
    sizes = [shard.rows * row_bytes for shard in shards]
    starts = list(accumulate(sizes, initial=file.tell()))
    digest = partial(_digest, file.fileno(), _counted(read, sum(sizes)))
    with CancellablePool(READERS) as pool:
        found = zip(shards, pool.map(digest, starts, sizes), strict=True)  # of starts there is one more
        whole = [shard for shard, _ in takewhile(lambda pair: pair[0].sha256 == pair[1], found)]
    file.seek(starts[len(whole)])
    return whole


def _counted(read: Read, total: int) -> Callable[[int], None]:
    """Return what threads tell of the bytes they have read, so that `read` is told of all."""
    lock, done = Lock(), 0

    def more(size: int) -> None:
        nonlocal done
        with lock:
            done += size
            read(done, total)

    return more


def _digest(file: int, more: Callable[[int], None], start: int, size: int) -> str:
    """Return the SHA-256 of a file's bytes, "" where there are not so many."""
    digest, end = hashlib.sha256(), start + size
    while start < end and (piece := os.pread(file, min(end - start, PIECE), start)):
        check_cancelled()
        digest.update(piece)
        start += len(piece)
        more(len(piece))
    return "" if start != end else digest.hexdigest()


def read_journal(file: BinaryIO) -> list[Shard]:
    """Return the shards of a journal, up to the first line that is none; a killed process may leave half a line."""
    shards: list[Shard] = []
    with suppress(msgspec.DecodeError):
        for line in file:
            shards.append(msgspec.json.decode(line, type=Shard))
    return shards


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of the array in a file, which is left behind its header; ValueError where it is none."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not the version of the format that is written here")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # a damaged one is taken for Python, whose parser has errors of several kinds
        raise ValueError(str(error)) from None
    return shape, dtype


def row_bytes_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the bytes of one row of an array."""
    return dtype.itemsize * int(np.prod(shape[1:]))
