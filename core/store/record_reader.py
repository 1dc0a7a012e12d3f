"""Reads `run.json`, once for each state of the file; parsed records are kept in `core.store.index`."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.io.atomic_files import read_json, size_of
from core.store.index import Index, stamp_of
from core.store.index_rows import RecordRows, version
from core.store.record import Record, read_record

RECORD = "run.json"
INDEX = "runs.sqlite"  # in the cache


class Damaged(Exception):
    """There is no record to believe; says why."""


class Records:
    """The records of a results folder.

    Parameters
    ----------
    runs
        Where their folders are.
    index
        Where what was read is kept.
    """

    def __init__(self, runs: Path, index: Index) -> None:
        self.runs = str(runs)
        self.index = index
        self._rows = RecordRows(index)
        self._parsed: dict[str, tuple[tuple[int, ...], Record]] = {}  # by folder, with the state of the record's file

    def read(self, id: str) -> Record:
        """Return the record of a run.

        Raises
        ------
        Damaged
            Where there is none to believe, or a file that it names is missing or has another size.
        """
        try:
            record = self._parse(id)
            sizes = {name: size_of(f"{self.runs}/{id}/{name}") for name in record.files}
        except OSError as error:
            raise Damaged(f"{RECORD} cannot be read ({error.strerror})") from None
        except ValueError as error:  # no UTF-8, no JSON, or no record
            raise Damaged(f"{RECORD} cannot be used ({error})") from None
        if record.id != id:
            raise Damaged(f"{RECORD} is that of run {record.id}")
        for name, size in record.files.items():
            if sizes[name] != size:
                raise Damaged(f"{name} has {sizes[name]} bytes of {size}" if sizes[name] >= 0 else f"{name} is missing")
        return record

    def _parse(self, id: str) -> Record:
        """Return what a record's file says, read anew where the file is another than the last time."""
        status = os.stat(f"{self.runs}/{id}/{RECORD}")  # noqa: PTH116
        state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        before, record = self._parsed.get(id, ((), None))
        if not record or before != state:
            stamp = stamp_of(status)
            record = self._kept(id, stamp) or self._parse_anew(id, stamp)
            self._parsed[id] = state, record
        return record

    def _kept(self, id: str, stamp: str) -> Record | None:
        row = self.index.get(RECORD, id, stamp)
        return self._rows.read(row) if row else None

    def _parse_anew(self, id: str, stamp: str) -> Record:
        values = read_json(Path(self.runs, id, RECORD))
        if isinstance(values, dict) and values.get("digest") != digest(values):
            raise Damaged(f"{RECORD} is not as it was written")
        record = read_record(values)
        if stamp and (row := self._rows.write(record, values["config"])):
            self.index.put(RECORD, id, stamp, row)
        return record


def open_records(runs: Path, *, cache: Path) -> Records:
    """Return the records of runs, whose index is in the cache of their results folder; nothing is written yet."""
    return Records(runs, Index(cache / INDEX, version()))


def digest(record: Mapping[str, Any]) -> str:
    """Return what a record says of itself."""
    rest = {key: value for key, value in record.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
