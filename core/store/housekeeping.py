"""Delete runs and cached files. Runs go to a trash inside the results folder, from which they can be moved back."""

import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from core.errors import ResultsError
from core.store.run_store import Store
from core.system.atomic_files import explain_write_errors

TRASH = "trash"  # folder in the results folder


@dataclass(frozen=True)
class Removal:
    """Folders to remove, and their size in bytes."""

    folders: tuple[Path, ...]
    size: int


def measure(folders: Iterable[Path]) -> Removal:
    """Return the folders with the size of all their files."""
    chosen = tuple(folders)
    files = (file for folder in chosen for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return Removal(chosen, sum(file.stat().st_size for file in files))


def move_to_trash(store: Store, ids: Sequence[str]) -> Path:
    """Move the folders of runs to a new folder of the trash, and return it.

    Raises
    ------
    ResultsError
        If a process is training one of the runs, or the results folder cannot be written to. Then no folder is moved.
    """
    trash = store.results / TRASH / time.strftime("%Y-%m-%d_%H-%M-%S")
    with ExitStack() as locks, explain_write_errors(store.results):
        for id in ids:
            try:
                locks.enter_context(store.lock(id).acquire(blocking=False))
            except Timeout:
                raise ResultsError(f"run {id} is being trained by another process; nothing was deleted") from None
        trash.mkdir(parents=True, exist_ok=True)
        for id in ids:
            store.folder(id).rename(trash / id)
    return trash


def list_trash(store: Store) -> list[Path]:
    """Return the folders of the trash; each holds the runs of one deletion."""
    return _subfolders(store.results / TRASH)


def find_old_cache_entries(store: Store, *, days: float) -> list[Path]:
    """Return the folders of the cache whose files were neither read nor written for a number of days."""
    limit = time.time() - days * 24 * 3600
    entries = [entry for kind in _subfolders(store.cache) for entry in _subfolders(kind)]
    return [entry for entry in entries if _last_use(entry) < limit]


def delete_folders(folders: Iterable[Path]) -> None:
    """Delete folders for good."""
    for folder in folders:
        with explain_write_errors(folder.parent):
            shutil.rmtree(folder)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _last_use(entry: Path) -> float:
    times = [max(status.st_atime, status.st_mtime) for status in (file.stat() for file in entry.rglob("*"))]
    return max(times, default=entry.stat().st_mtime)
