"""What the index keeps of a run, as bytes: its record, and what is read of its history and its predictions.

Settings, classes and versions, which thousands of runs have in common, are kept once. All numbers come back to the bit.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
import pandas as pd

from core.config.options import from_dict
from core.config.run import GROUPS, Run
from core.io.atomic_files import file_digest, text_digest
from core.store.index import KEY, Index
from core.store.record import Record

COMMON = ("environment", "versions", "class_names")  # of a record, kept once for all runs that have the same
HERE = Path(__file__).parents[1]  # core/
READERS = (
    "config/run",
    "config/options",
    "config/frontend",
    "io/atomic_files",
    *(f"store/{name}" for name in ("run_columns", "index", "index_rows", "record", "record_reader", "runs")),
)
Columns = Mapping[str, np.ndarray]  # (epochs,) numbers by the name of a history's column
Right = tuple[list[str], np.ndarray]  # clips, and (clips,) whether each was recognised
_hints = get_type_hints(Record)
_own = [f.name for f in dataclasses.fields(Record) if f.name not in (*COMMON, "run")]
_Own = msgspec.defstruct(
    "_Own",
    [
        *((name, bytes) for name in COMMON),
        ("config", dict[str, bytes]),
        ("plain", bytes),
        *((name, _hints[name]) for name in _own),
    ],
    array_like=True,
)
_read_own = msgspec.msgpack.Decoder(_Own)
_read_common = {name: msgspec.json.Decoder(_hints[name]) for name in COMMON}


def version() -> str:
    """Return what stands for the code that says what a record is, and for what parses histories."""
    return text_digest(" ".join([pd.__version__, *(file_digest(HERE / f"{name}.py") for name in READERS)]))[:16]


class RecordRows:
    """Records as rows of an index, which share what they have in common in memory too."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._made: dict[tuple[str, bytes], Any] = {}

    def write(self, record: Record, config: Mapping[str, Any]) -> bytes | None:
        """Return a record's row; None of one that has what no row can hold.

        Parameters
        ----------
        record
            As `core.store.record.read_record` gives it.
        config
            Its run, as the record's file has it.
        """
        try:
            groups = {name: json.dumps(config[name]).encode() for name in GROUPS if name in config}
            plain = json.dumps({name: value for name, value in config.items() if name not in GROUPS}).encode()
            common = {name: msgspec.json.encode(getattr(record, name)) for name in COMMON}
            own = {name: getattr(record, name) for name in _own}
            keys = {name: self.index.share(text) for name, text in groups.items()}
            shared = {name: self.index.share(text) for name, text in common.items()}
            row: bytes = msgspec.msgpack.encode(_Own(**shared, config=keys, plain=plain, **own))
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None
        return row

    def read(self, row: bytes) -> Record | None:
        """Return the record of a row; None where something that it shares is not there."""
        kept: Any = _read_own.decode(row)
        values: dict[str, Any] = {name: self._part(name, key) for name, key in kept.config.items()}
        values |= json.loads(kept.plain)
        common = {name: self._part(name, getattr(kept, name)) for name in COMMON}
        if None in values.values() or None in common.values():
            return None
        return Record(run=Run(**values), **common, **{name: getattr(kept, name) for name in _own})

    def _part(self, name: str, key: bytes) -> Any:
        if (name, key) not in self._made:
            text = self.index.shared(key)
            if text is None:
                return None
            if name in GROUPS:
                made = from_dict(GROUPS[name], json.loads(text), f"run.{name}")
            else:
                made = _read_common[name].decode(text)
            self._made[name, key] = made
        return self._made[name, key]


def write_columns(columns: Columns, index: Index) -> bytes | None:
    """Return a history's columns as bytes; None where one is not of numbers."""
    kinds = [column.dtype.str for column in columns.values()]
    if not set(kinds) <= {"<i8", "<f8"}:
        return None
    header = index.share(json.dumps([list(columns), kinds]).encode())
    return header + b"".join(column.tobytes() for column in columns.values())


def read_columns(row: bytes, index: Index) -> Columns | None:
    """Return a history's columns by name; None where the names are not there any more."""
    header = index.shared(row[:KEY])
    if header is None:
        return None
    names, kinds = json.loads(header)
    size = (len(row) - KEY) // max(1, len(names))
    parts = zip(names, kinds, range(KEY, len(row), size or 1), strict=False)
    return {name: np.frombuffer(row, kind, size // 8, start) for name, kind, start in parts}


def write_right(clips: Sequence[str], right: np.ndarray, index: Index) -> bytes:
    """Return as bytes which clips were recognised: `right` (clips,) bool."""
    return index.share(json.dumps(list(clips)).encode()) + np.packbits(right).tobytes()


def read_right(row: bytes, index: Index) -> Right | None:
    """Return the clips, and which of them were recognised; None where the clips are not there any more."""
    text = index.shared(row[:KEY])
    if text is None:
        return None
    clips = json.loads(text)
    return clips, np.unpackbits(np.frombuffer(row, np.uint8, offset=KEY), count=len(clips)).astype(bool)
