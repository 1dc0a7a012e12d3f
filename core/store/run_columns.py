"""Numbers out of the large files of runs, worked out once: learning curves, and which clips were recognised.

They are kept in the index with the state of the file that they are of and the digest that the run's record gives its
content, so they are those of a file that was found whole, as it still is.
"""

import os
from collections.abc import Callable
from typing import TypeVar

from core.config.run import Run
from core.store import index_rows
from core.store.index import Index, stamp_of
from core.store.index_rows import Columns, Right
from core.store.runs import HISTORY, PREDICTIONS, Store

__all__ = ["Columns", "Right", "curve", "recognised"]

T = TypeVar("T")


def curve(run: Run, store: Store) -> Columns:
    """Return the columns of a run's ``history.csv``: (epochs,) numbers by name.

    Raises
    ------
    DamagedFile
        Where it is missing or not what was written.
    """

    def read() -> tuple[Columns, bytes | None]:
        columns = {str(name): column.to_numpy() for name, column in store.history(run).items()}
        return columns, index_rows.write_columns(columns, store.index)

    return _kept(run, HISTORY, store, index_rows.read_columns, read)


def recognised(run: Run, store: Store) -> Right:
    """Return the clips of a run's ``predictions.parquet``, and (clips,) whether each was given its class.

    Raises
    ------
    DamagedFile
        Where it is missing or not what was written.
    """

    def read() -> tuple[Right, bytes | None]:
        clips, targets, logits = store.predictions(run)
        right = logits.argmax(axis=1) == targets
        return (clips, right), index_rows.write_right(clips, right, store.index)

    return _kept(run, PREDICTIONS, store, index_rows.read_right, read)


def _kept(
    run: Run,
    name: str,
    store: Store,
    understand: Callable[[bytes, Index], T | None],
    read: Callable[[], tuple[T, bytes | None]],
) -> T:
    """Return what a file holds from the index, or `read` it and keep it there."""
    record = store.record(run)
    try:
        stamp = stamp_of(os.stat(f"{store.runs}/{run.id}/{name}")) if record else ""  # noqa: PTH116
    except OSError:  # reading it says what is wrong
        stamp = ""
    if record and stamp:
        stamp += f" {record.sha256.get(name, '')}"
        row = store.index.get(name, run.id, stamp)
        if row is not None and (found := understand(row, store.index)) is not None:
            return found
    found, row = read()
    if row is not None:
        store.index.put(name, run.id, stamp, row)
    return found
