"""Large arrays on disk that are made once, shared by processes, and believed only when whole.

An entry is a folder, `<key>/array.npy` and `<key>/manifest.json`, where the key is the hash of what the array is made
from. It is written beside its place and moved there in one step while a file lock keeps other processes waiting, so a
process killed at any moment leaves nothing that is read later; the shards it had ended are gone on with. The manifest
carries the SHA-256 of every shard and its own; an entry that does not match them is made again. What was found whole
once is not read through again by every process, as long as the file was not touched since.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from core.cache.array_shards import Read, Shard, is_whole
from core.cache.array_writer import ARRAY, JOURNAL, ArrayWriter, naming
from core.errors import UserError
from core.io.atomic_files import read_json
from core.io.signatures import SETTLED_SECONDS, file_signature
from core.progress import Progress, if_long, no_progress

MANIFEST, SEEN = "manifest.json", "seen.json"  # what was made; the state of the array's file when it was found whole
MB = 10**6  # bytes
_verified: set[tuple[str, ...]] = set()  # entries that this process found whole, and the state of their files


@dataclass(frozen=True)
class Stored:
    """An entry of the cache.

    Attributes
    ----------
    key
        Name of its folder.
    array
        The array, memory-mapped and read-only.
    facts
        What its maker noted beside it.
    digests
        SHA-256 of the rows of each shard.
    """

    key: str
    array: np.ndarray
    facts: dict[str, Any]
    digests: tuple[str, ...] = ()


def load_or_make(
    folder: Path,
    *,
    made_from: Mapping[str, Any],
    make: Callable[[ArrayWriter], Mapping[str, Any]],
    waiting: Callable[[], None] | None = None,
    progress: Progress = no_progress,
    what: str = "a file of the cache",
) -> Stored:
    """Return the array made from `made_from`, making it if no whole one is there.

    Parameters
    ----------
    folder
        Where the entries are.
    made_from
        Everything that decides the array, in JSON types.
    make
        Appends the array's rows to the writer and returns facts to keep beside it, in JSON types.
    waiting
        Called once if another process is making the same array, before waiting for it.
    progress, what
        Called while an array is read through, where that takes seconds: with (MB read, MB, what is being done); and
        what the array is called there.

    Raises
    ------
    UserError
        The folder cannot be written to. What `make` raises is passed on, and nothing is kept.
    """
    entry, read = folder / key_of(made_from), _in_mb(progress, what)
    if stored := _load(entry, read):
        return stored
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(entry.with_suffix(".lock"), waiting):
        return _load(entry, read) or _make(entry, made_from=made_from, make=make, read=read)


def _in_mb(progress: Progress, what: str) -> Read:
    report = if_long(progress)

    def read(done: int, total: int) -> None:
        whole = total // MB + 1
        report(whole if done == total else min(done // MB, whole - 1), whole, f"reading through {what} (MB)")

    return read


def find(
    folder: Path, *, made_from: Mapping[str, Any], progress: Progress = no_progress, what: str = "a file of the cache"
) -> Stored | None:
    """Return the array made from `made_from` if a whole one is there; the rest is as in `load_or_make`."""
    return _load(folder / key_of(made_from), _in_mb(progress, what))


def key_of(made_from: Mapping[str, Any]) -> str:
    """Sixteen hex digits that stand for `made_from`."""
    return _checksum(made_from)[:16]


def _make(
    entry: Path, *, made_from: Mapping[str, Any], make: Callable[[ArrayWriter], Mapping[str, Any]], read: Read
) -> Stored:
    """Make an entry, going on with what a dead process left; the caller holds its lock."""
    temporary = entry.with_suffix(".tmp")
    with naming(entry.parent):
        temporary.mkdir(exist_ok=True)
    writer = ArrayWriter(temporary, blame=entry.parent, read=read)
    try:
        with closing(writer):
            facts = make(writer)
            writer.finish()
        with naming(entry.parent):
            manifest = {
                "made_from": made_from,
                "shape": writer.shape,
                "facts": facts,
                "shards": [[shard.rows, shard.sha256] for shard in writer.shards],
            }
            text = json.dumps(manifest | {"checksum": _checksum(manifest)}, indent=1)
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            (temporary / JOURNAL).unlink()
            shutil.rmtree(entry, ignore_errors=True)  # there only if it could not be believed
            temporary.replace(entry)
        _verified.add(
            (str((entry / ARRAY).resolve()), *_state(entry / ARRAY))
        )  # its hashes were taken as it was written
    except BaseException:
        if not writer.shards:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if not (stored := _load(entry, read)):
        raise UserError(f"{entry} cannot be read back as it was written: check the disk")
    return stored


def _load(entry: Path, read: Read) -> Stored | None:
    """Read an entry; None where it is missing or anything about it is not as it was written."""
    path = entry / ARRAY
    try:
        manifest = read_json(entry / MANIFEST)
        if (
            not path.is_file()
            or manifest.pop("checksum") != _checksum(manifest)
            or key_of(manifest["made_from"]) != entry.name
        ):
            return None
        state = _state(path)
        if (str(path.resolve()), *state) in _verified:
            if not (entry / SEEN).exists():  # it was made here, and was too new until now
                _note_seen(entry, state)
        elif not _was_seen(entry, state):
            shards = [Shard(rows, sha256, {}) for rows, sha256 in manifest["shards"]]
            if not is_whole(path, shards, shape=tuple(manifest["shape"]), read=read):
                return None
            _note_seen(entry, state)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    _verified.add((str(path.resolve()), *state))
    return Stored(
        key=entry.name,
        array=array,
        facts=manifest["facts"],
        digests=tuple(sha256 for _, sha256 in manifest["shards"]),
    )


def _state(path: Path) -> tuple[str, ...]:
    """Return the device and the signature of a file."""
    return tuple(map(str, (path.stat().st_dev, *file_signature(path))))


def _was_seen(entry: Path, state: tuple[str, ...]) -> bool:
    try:
        return bool(read_json(entry / SEEN) == list(state))
    except (OSError, ValueError):
        return False


def _note_seen(entry: Path, state: tuple[str, ...]) -> None:
    """Tell later processes that the array was found whole, unless its file is so new that a change might not show."""
    if time.time() - int(state[3]) / 1e9 < SETTLED_SECONDS:
        return
    temporary = entry / f"{SEEN}.{os.getpid()}"
    with suppress(OSError):  # of a read-only cache every process assures itself
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(entry / SEEN)


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def _locked(path: Path, waiting: Callable[[], None] | None) -> Iterator[None]:
    lock = FileLock(path)
    with naming(path.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting:
                waiting()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
