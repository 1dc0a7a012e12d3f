"""A digest of a data set's table and files; the digests of files that did not change are remembered."""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import write_text
from core.workers import Workers

Memo = dict[str, list[Any]]  # path: size in bytes, time of change in nanoseconds, SHA-256


def content_digest(
    name: str,
    root: Path,
    rows: Sequence[Sequence[Any]],
    *,
    class_names: Sequence[str],
    cache: Path,
    sizes: bool = False,
    more: Sequence[Any] = (),
) -> str:
    """Return the SHA-256 of class names, rows and the contents of the files they name.

    Parameters
    ----------
    name, root
        The data set, and the folder its paths are relative to.
    rows
        Path, label, fold and group of each clip.
    cache
        Folder under which file digests are remembered, by path, size and time of change.
    sizes
        Take the size of each file for its content: one directory listing per folder, and no file is read.
    more
        What else stands for the set, of JSON types; nothing changes where there is none.

    Raises
    ------
    UserError
        Where a file cannot be read.
    """
    known = _sizes(root, rows) if sizes else _digests(name, root, rows, cache)
    everything = [list(class_names), [[*row, known[row[0]]] for row in rows], *more]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def _sizes(root: Path, rows: Sequence[Sequence[Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for folder in {row[0].rpartition("/")[0] for row in rows}:
        try:
            with os.scandir(root / folder) as entries:
                found |= {f"{folder}/{entry.name}".lstrip("/"): entry.stat().st_size for entry in entries}
        except OSError as error:
            raise UserError(f"{root / folder}: cannot be read ({error.strerror})") from error
    if gone := [row[0] for row in rows if row[0] not in found]:
        raise UserError(f"{root / gone[0]}: cannot be read (No such file or directory)")
    return found


def _digests(name: str, root: Path, rows: Sequence[Sequence[Any]], cache: Path) -> dict[str, str]:
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    memo_path = cache / "fingerprints" / f"{name}-{place}.json"
    memo = _read(memo_path)
    with Workers() as pool:  # hashlib lets go of the interpreter lock
        fresh = dict(pool.map(lambda row: (row[0], _file_entry(root, row[0], memo)), rows))
    if fresh != memo:
        _write(memo_path, fresh)
    return {path: entry[2] for path, entry in fresh.items()}


def _file_entry(root: Path, path: str, memo: Mapping[str, list[Any]]) -> list[Any]:
    try:
        status = (root / path).stat()
        known = memo.get(path)
        if known and known[:2] == [status.st_size, status.st_mtime_ns]:
            return known
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device read for ever
            raise UserError(f"{root / path}: is no regular file; a clip must be one")
        with (root / path).open("rb") as file:
            return [status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
    except OSError as error:
        raise UserError(f"{root / path}: cannot be read ({error.strerror})") from error


def _read(path: Path) -> Memo:
    """Read what is remembered; whatever is not in order counts as forgotten."""
    try:
        memo = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: entry for key, entry in memo.items() if _in_order(entry)} if isinstance(memo, dict) else {}


def _in_order(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], str) and len(entry[2]) == 64


def _write(path: Path, memo: Memo) -> None:
    # A cache that cannot be written costs time, never the answer. Replacing: another process reads all or nothing.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(memo))
