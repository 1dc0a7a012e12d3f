"""A cache of large arrays on disk. Each array is built once, shared by processes, and used only if it is complete.

An entry is a folder ``<key>/`` with ``array.npy`` and ``manifest.json``; the key is the hash of all settings that
determine the array. The manifest is written last. An entry is rebuilt if size or header of its file differ from the
manifest. While one process builds an entry, others wait at a file lock. If the process is killed, the next one
continues after the finished parts. File contents are not hashed, so a changed bit in a complete file is not detected.
"""

import json
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from core.cache.array_file import ARRAY_FILE, PROGRESS_FILE, ArrayWriter, Layout, explain_cache_write_errors
from core.system.atomic_files import read_json, text_digest, write_text

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """A complete entry of the cache.

    Attributes
    ----------
    key
        Cache key, the name of the folder.
    array
        Memory-mapped, read-only array.
    facts
        Metadata that the `build` function returned, in JSON types.
    """

    key: str
    array: np.ndarray
    facts: dict[str, Any]


class DamagedEntry(Exception):
    """An entry has a manifest but cannot be used; the message is the reason."""


def load_or_build(
    folder: Path,
    *,
    key_fields: Mapping[str, Any],
    build: Callable[[ArrayWriter], tuple[int, Mapping[str, Any]]],
    on_wait: Callable[[], None] | None = None,
) -> Entry:
    """Return the entry for `key_fields`; build it if the cache has no complete one.

    Parameters
    ----------
    folder
        Folder of all entries.
    key_fields
        All settings that determine the array, in JSON types.
    build
        Function that writes the rows that are not finished. It returns the number of all rows and metadata to store.
    on_wait
        Function that is called once before waiting for another process that builds the same entry.

    Raises
    ------
    UserError
        The folder is not writable. Errors of `build` are passed on; finished parts are kept.
    """
    path = folder / cache_key(key_fields)
    if entry := find_entry(folder, key_fields=key_fields):
        return entry
    with explain_cache_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock"), on_wait):
        try:
            if entry := _load(path):
                return entry
        except DamagedEntry as damage:
            warnings.warn(f"{path} is damaged ({damage}); it is rebuilt", stacklevel=2)
        _build(path, key_fields=key_fields, build=build)
        entry = _load(path)
        assert entry
        return entry


def find_entry(folder: Path, *, key_fields: Mapping[str, Any]) -> Entry | None:
    """Return the entry for `key_fields`; None if the cache has no complete one."""
    try:
        return _load(folder / cache_key(key_fields))
    except DamagedEntry:
        return None


def cache_key(key_fields: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of `key_fields`."""
    return text_digest(json.dumps(key_fields, sort_keys=True, separators=(",", ":")))[:16]


def _build(
    entry: Path, *, key_fields: Mapping[str, Any], build: Callable[[ArrayWriter], tuple[int, Mapping[str, Any]]]
) -> None:
    """Build an entry in its folder, after the parts that a killed process finished. The caller holds the lock."""
    manifest = entry / MANIFEST_FILE
    with explain_cache_write_errors(entry.parent):
        if manifest.is_symlink() or manifest.exists() or not (entry / PROGRESS_FILE).is_file():
            shutil.rmtree(entry, ignore_errors=True)
        entry.mkdir(exist_ok=True)
    writer = ArrayWriter(entry)
    try:
        with closing(writer):
            n_rows, facts = build(writer)
            layout = writer.finalise(n_rows)
        written = {"key_fields": key_fields, "dtype": layout.dtype, "shape": [n_rows, *layout.row_shape]}
        text = json.dumps(written | {"bytes": layout.offset(n_rows), "facts": facts}, indent=1)
        with explain_cache_write_errors(entry.parent):
            write_text(manifest, text)
        (entry / PROGRESS_FILE).unlink()
    except BaseException:
        if not writer.parts:
            shutil.rmtree(entry, ignore_errors=True)
        raise


def _load(entry: Path) -> Entry | None:
    """Return the entry of a folder; None if there is no manifest.

    Raises
    ------
    DamagedEntry
        The manifest is invalid, or size or header of the array differ from it.
    """
    path, manifest = entry / ARRAY_FILE, entry / MANIFEST_FILE
    if not (manifest.is_symlink() or manifest.exists()):
        return None
    try:
        written = read_json(manifest)
        n_rows, *row_shape = written["shape"]
        layout, size, facts = Layout(tuple(row_shape), written["dtype"]), written["bytes"], dict(written["facts"])
        header = layout.header(n_rows)
        if cache_key(written["key_fields"]) != entry.name or layout.offset(n_rows) != size:
            raise ValueError("belongs to another entry")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedEntry(f"{MANIFEST_FILE}: {error}") from None
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise DamagedEntry(f"{ARRAY_FILE} has {status.st_size} bytes, not {size}")
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                raise DamagedEntry(f"{ARRAY_FILE} has another header")
    except OSError as error:
        raise DamagedEntry(f"{ARRAY_FILE}: {error.strerror}") from None
    array = np.memmap(path, np.dtype(layout.dtype), mode="r", offset=len(header), shape=(n_rows, *row_shape))
    return Entry(entry.name, array, facts)


@contextmanager
def _locked(path: Path, on_wait: Callable[[], None] | None) -> Iterator[None]:
    lock = FileLock(path)
    with explain_cache_write_errors(path.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_wait:
                on_wait()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
