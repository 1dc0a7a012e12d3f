"""What was read of the runs, in one file, so that no command parses thousands of records that another has parsed.

``results/cache/runs.sqlite`` may be deleted at any time: the runs' folders stay the truth. What is kept of a file
counts only while the file is as it was when it was read and found whole: the same inode, size and times. Every row
carries a digest of its own, so that a damaged index is read as one that lacks something. One that is no index, or that
other code has written, is made anew; one that cannot be written or is locked for long is done without.
"""

import hashlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.io.atomic_files import SETTLED

KEY = 16  # bytes of the digest of a row, and of the key of what rows share
PATIENCE = 2.0  # seconds that another process's writing is waited for
MANY = 30  # questions of one kind after which all of that kind are read at once
BEYOND_MENDING = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
TABLES = """
CREATE TABLE IF NOT EXISTS about (version TEXT);
CREATE TABLE IF NOT EXISTS kept (
  kind TEXT, run TEXT, stamp TEXT, content BLOB, digest BLOB, PRIMARY KEY (kind, run)
);
CREATE TABLE IF NOT EXISTS shared (key BLOB PRIMARY KEY, content BLOB) WITHOUT ROWID;
"""
Row = tuple[str, bytes, bytes]  # stamp, content, digest


def stamp_of(status: os.stat_result) -> str:
    """Return what changes whenever a file is written to or another takes its place; "" where it is too new to tell."""
    if time.time() - status.st_ctime < SETTLED:
        return ""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class Index:
    """Rows by their kind and run, below one results folder.

    Parameters
    ----------
    path
        The file; made when something is first saved.
    version
        What stands for the code that writes the rows; those of other code are not read.
    """

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self.version = version
        self._connection: sqlite3.Connection | None = None
        self._given_up = False
        self._remade = False
        self._asked: Counter[str] = Counter()
        self._all: dict[str, dict[str, Row]] = {}  # by kind, once many were asked for
        self._new: dict[tuple[str, str], Row] = {}
        self._new_shared: dict[bytes, bytes] = {}

    def get(self, kind: str, run: str, stamp: str) -> bytes | None:
        """Return what was kept of a file that has not changed since; None where nothing was."""
        if not stamp:
            return None
        row = self._new.get((kind, run)) or self._row(kind, run)
        if not row or row[0] != stamp or not isinstance(row[1], bytes):
            return None
        return row[1] if row[2] == self._digest(kind, run, stamp, row[1]) else None

    def put(self, kind: str, run: str, stamp: str, content: bytes) -> None:
        """Keep what was read of a file, whose `stamp` was taken before it was read; nothing where that is ""."""
        if stamp:
            self._new[kind, run] = stamp, content, self._digest(kind, run, stamp, content)

    def shared(self, key: bytes) -> bytes | None:
        """Return what several rows have in common; None where it is not there, or is not what it was."""
        if key in self._new_shared:
            return self._new_shared[key]
        found: list[tuple[bytes]] = []
        with self._asking() as connection:
            if connection:
                found = connection.execute("SELECT content FROM shared WHERE key = ?", (key,)).fetchall()
        content = found[0][0] if found else None
        return content if isinstance(content, bytes) and _key(content) == key else None

    def share(self, content: bytes) -> bytes:
        """Keep what several rows have in common; return its key."""
        key = _key(content)
        self._new_shared[key] = content
        return key

    def save(self) -> None:
        """Write what is new; where that cannot be, the next command reads the files again."""
        for _ in range(2):  # once more where a damaged file was in the way
            if self._new:
                self._write([(kind, run, *row) for (kind, run), row in self._new.items()])

    def _write(self, rows: list[tuple[str, str, str, bytes, bytes]]) -> None:
        with self._asking(make=True) as connection:
            if connection:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany("REPLACE INTO shared VALUES (?, ?)", self._new_shared.items())
                    connection.executemany("REPLACE INTO kept VALUES (?, ?, ?, ?, ?)", rows)
                for kind, run, stamp, content, digest in rows:
                    self._all.get(kind, {})[run] = stamp, content, digest
                self._new.clear()
                self._new_shared.clear()

    def _digest(self, kind: str, run: str, stamp: str, content: bytes) -> bytes:
        """Return what a row must carry that this code has written."""
        return _key(f"{self.version} {kind} {run} {stamp}\0".encode("utf-8", "replace") + content)

    def _row(self, kind: str, run: str) -> Row | None:
        if kind not in self._all:
            self._asked[kind] += 1
            with self._asking() as connection:
                if connection and self._asked[kind] <= MANY:
                    asked = "SELECT stamp, content, digest FROM kept WHERE kind = ? AND run = ?"
                    return connection.execute(asked, (kind, run)).fetchone()
                if connection:
                    asked = "SELECT run, stamp, content, digest FROM kept WHERE kind = ?"
                    found: list[tuple[str, str, bytes, bytes]] = connection.execute(asked, (kind,)).fetchall()
                    self._all[kind] = {name: (of, content, digest) for name, of, content, digest in found}
        return self._all.get(kind, {}).get(run)

    @contextmanager
    def _asking(self, *, make: bool = False) -> Iterator[sqlite3.Connection | None]:
        """Give the open file, None where there is none; what goes wrong with it ends the block and is no error."""
        try:
            connection = self._opened(make=make)
        except sqlite3.Error as error:
            self._mend(error)
            connection = None
        try:
            yield connection
        except sqlite3.Error as error:
            self._mend(error)

    def _mend(self, error: sqlite3.Error) -> None:
        """Remove a file that is no index any more, once; do without one from then on, and where it cannot be used."""
        self._close()
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without what a detail adds to it
        if code in BEYOND_MENDING and not self._remade:
            self._remade = True
            self._remove()
        else:
            self._given_up = True

    def _opened(self, *, make: bool) -> sqlite3.Connection | None:
        if self._connection or self._given_up or not (make or self.path.exists()):
            return self._connection
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            self._given_up = True
            return None
        connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.text_factory = _text
        for setting in ("journal_mode = MEMORY", "synchronous = OFF"):  # torn by a power cut, it is made anew
            connection.execute(f"PRAGMA {setting}")
        if not connection.execute("SELECT name FROM sqlite_master").fetchall():
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in filter(str.strip, TABLES.split(";")):
                    connection.execute(statement)
                connection.execute("INSERT INTO about VALUES (?)", (self.version,))
        elif (self.version,) not in connection.execute("SELECT version FROM about").fetchall():
            self._close()
            self._remove()
            return self._opened(make=make)
        return connection

    def _close(self) -> None:
        self._all.clear()
        if self._connection:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()


def _key(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:KEY]


def _text(content: bytes) -> str:
    """Read text whose bytes may be damaged: its row's digest then says so."""
    return content.decode("utf-8", "replace")
