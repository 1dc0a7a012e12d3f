"""Fingerprint of a data set: SHA-256 of its table and files. Digests of unchanged files are cached."""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from core.errors import UserError
from core.progress import Progress, no_progress, show_if_slow
from core.system.atomic_files import atomic_write, text_digest
from core.system.file_signatures import Signature, file_or_link_signature, is_broken_link, signature_of
from core.system.thread_pool import CancellablePool

FILES_PER_TASK = 256
ROWS_PER_PIECE = 4096  # rows that are encoded at a time, to limit the memory
FileDigest = tuple[Signature, Annotated[str, msgspec.Meta(min_length=64, max_length=64)]]
Memo = dict[str, FileDigest]  # signature and SHA-256 of each file by path

_read_signatures: dict[str, Signature] = {}  # signature of each file that this process has hashed, by absolute path


def hash_content(
    rows: Iterable[Sequence[Any]],
    *,
    class_names: Sequence[str],
    more: Sequence[Any] = (),
) -> str:
    """Return the SHA-256 of class names and rows, encoded as one JSON list.

    Parameters
    ----------
    rows
        Path, label, fold, group and content (a digest or a size) of each clip.
    more
        Further JSON values; an empty sequence does not affect the digest.
    """
    digest = hashlib.sha256(f"[{json.dumps(list(class_names))}, [".encode())
    rest, between = iter(rows), ""
    while piece := list(islice(rest, ROWS_PER_PIECE)):
        digest.update((between + json.dumps(piece)[1:-1]).encode())
        between = ", "
    digest.update("".join(["]", *(f", {json.dumps(part)}" for part in more), "]"]).encode())
    return digest.hexdigest()


def get_file_sizes(root: Path, paths: Sequence[str]) -> list[int]:
    """Return the size of each file in bytes, by listing each folder once, without opening files.

    Raises
    ------
    UserError
        If a folder cannot be read or a file is missing.
    """
    sizes_by_path: dict[str, int] = {}
    names_by_folder: dict[str, set[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        names_by_folder.setdefault(folder, set()).add(name)
    for folder, names in names_by_folder.items():
        try:
            with os.scandir(root / folder) as entries:
                sizes = ((entry.name, entry.stat().st_size) for entry in entries if entry.name in names)
                sizes_by_path |= {f"{folder}/{name}".lstrip("/"): size for name, size in sizes}
        except OSError as error:
            raise UserError(f"{root / folder}: cannot be read ({error.strerror})") from error
    if missing := [path for path in paths if path not in sizes_by_path]:
        raise UserError(f"{root / missing[0]}: cannot be read (No such file or directory)")
    return [sizes_by_path[path] for path in paths]


def hash_rows(vectors: np.ndarray) -> list[str]:
    """Return the SHA-256 of each row of `vectors` (clips, features)."""
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in np.ascontiguousarray(vectors, dtype="<f4")]


def hash_files(
    name: str,
    root: Path,
    paths: Sequence[str],
    cache: Path | None,
    *,
    skip_unreadable: bool = False,
    progress: Progress = no_progress,
) -> list[str]:
    """Return the SHA-256 of each file.

    Parameters
    ----------
    name, root
        Name of the data set, and folder that its paths are relative to.
    cache
        Folder in which digests are stored by path and signature (`core.system.file_signatures`); None to store none.
    skip_unreadable
        Whether the digest of a file that cannot be read is "", instead of an error.
    progress
        Called with (files read, files to read, description) if it takes seconds.

    Raises
    ------
    UserError
        If a file cannot be read, unless `skip_unreadable`.
    """
    memo_path = get_memo_path(cache, "fingerprints", name, root)
    memo = _read_memo(memo_path) if memo_path else {}
    # Usually the paths and their order are unchanged: comparing lists is faster than 100,000 look-ups.
    remembered = list(memo.values()) if list(memo) == list(paths) else [memo.get(path) for path in paths]
    report, done = show_if_slow(progress), 0
    entries = _find_unchanged(str(root), paths, remembered)
    changed = [number for number, entry in enumerate(entries) if entry is None]
    pieces = [changed[i : i + FILES_PER_TASK] for i in range(0, len(changed), FILES_PER_TASK)]
    with CancellablePool() as pool:  # hashlib releases the GIL
        for piece in pool.map(partial(_hash_selected, root, paths, skip_unreadable=skip_unreadable), pieces):
            for number, entry in piece:
                entries[number] = entry
            done += len(piece)
            report(done, len(changed), f"reading the files of {name}")
    read = {path: entry for path, entry in zip(paths, entries, strict=True) if entry}
    _read_signatures.update((f"{root}/{path}", entry[0]) for path, entry in read.items())
    if memo_path and (changed or len(memo) != len(paths)):
        write_memo(memo_path, read)
    return [entry[1] if entry else "" for entry in entries]


def check_unchanged(root: Path, paths: Iterable[str]) -> None:
    """Check that files have not changed since this process computed their fingerprint; other files are not checked.

    Raises
    ------
    UserError
        If a file has changed. Results computed from it must then not be stored under the old fingerprint.
    """
    for path in paths:
        file = f"{root}/{path}"
        try:
            if file in _read_signatures and file_or_link_signature(file) != _read_signatures[file]:
                raise UserError(f"{file} has changed while the command was running: run the command again")
        except OSError as error:
            raise UserError(f"{file}: cannot be read any more ({error.strerror}): run the command again") from error


def _find_unchanged(root: str, paths: Sequence[str], entries: Sequence[FileDigest | None]) -> list[FileDigest | None]:
    """Return the cached digest of each file below `root` that is unchanged, else None.

    Uses strings in one thread, because a `Path` object or a thread costs more than the `stat` call.
    """
    unchanged: list[FileDigest | None] = []
    for path, entry in zip(paths, entries, strict=True):
        if entry:
            try:
                entry = entry if entry[0] == file_or_link_signature(f"{root}/{path}") else None
            except OSError:
                entry = None  # the error is raised when the file is read
        unchanged.append(entry)
    return unchanged


def _hash_selected(
    root: Path, paths: Sequence[str], numbers: Sequence[int], *, skip_unreadable: bool
) -> list[tuple[int, FileDigest | None]]:
    entries: list[tuple[int, FileDigest | None]] = []
    for number in numbers:
        try:
            entries.append((number, _hash_file(root, paths[number])))
        except UserError:
            if not skip_unreadable:
                raise
            entries.append((number, None))
    return entries


def _hash_file(root: Path, path: str) -> FileDigest:
    """Return the signature and the digest of a file; of a broken link (a bad clip), the digest of a description."""
    try:
        if is_broken_link(root / path):
            target = f"{path} is a broken link to {(root / path).readlink()}"
            return file_or_link_signature(f"{root}/{path}"), text_digest(target)
        status = (root / path).stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or device might never end
            raise UserError(f"{root / path}: not a regular file; remove it")
        with (root / path).open("rb") as file:
            return signature_of(status), hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{root / path}: cannot be read ({error.strerror})") from error


def _read_memo(path: Path) -> Memo:
    """Read the cached digests; empty if the file is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes() if path.is_file() else b"", type=Memo)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return {}


def get_memo_path(cache: Path | None, folder: str, name: str, root: Path) -> Path | None:
    """Return the cache file for facts on the files of data set `name` in `root`; None without a cache."""
    return cache and cache / folder / f"{name}-{text_digest(str(root.resolve()))[:12]}.json"


def write_memo(path: Path, memo: Mapping[str, Any]) -> None:
    """Write facts on files as JSON. Errors are ignored: without these facts, the files are only read again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(memo))
