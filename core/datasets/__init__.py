"""Data sets: a table of clips with official folds each, found by name; nothing heavy is imported before it is needed.

A new data set is a module with a loader, and its line in `LOADERS`.
"""

import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import unknown

if TYPE_CHECKING:
    from core.datasets.table import Dataset, Split

__all__ = ["Dataset", "Split", "download", "load", "names"]

LOADERS = {
    "instruments": "core.datasets.instruments:load",
    "urbansound8k": "core.datasets.urbansound8k:load",
    "esc50": "core.datasets.esc50:load",
    "gtzan": "core.datasets.gtzan:load",
    "gtzan-filtered": "core.datasets.gtzan:load_filtered",
    "folder": "core.datasets.folder:load",
}


def names() -> tuple[str, ...]:
    """Return the names of all data sets, the embedded one first."""
    return tuple(LOADERS)


def load(name: str, root: Path | None = None) -> "Dataset":
    """Read a data set's table and check it against its files.

    Parameters
    ----------
    name
        One of `names`.
    root
        Its folder in the official layout (for `folder`, a folder of class folders or a CSV file); `instruments`,
        being embedded, needs none.

    Raises
    ------
    UserError
        For an unknown name, with the nearest match; a missing or half-present folder, with how to get it; a clip whose
        name and metadata disagree; a class with a single clip.
    """
    _check(name)
    dataset: Dataset = pkgutil.resolve_name(LOADERS[name])(root and root.expanduser())
    return dataset


def download(name: str, root: Path) -> None:
    """Fetch a data set into `root`, unless it is there: checked by MD5, continued where an earlier attempt stopped.

    Raises
    ------
    UserError
        Where the set has no public source, the source cannot be reached, or what came is not what was asked for.
    """
    _check(name)
    from core.datasets.remote import fetch

    fetch(name, root.expanduser())


def _check(name: str) -> None:
    if name not in LOADERS:
        raise unknown("data set", name, LOADERS)


def __getattr__(name: str) -> Any:
    if name in ("Dataset", "Split"):
        return pkgutil.resolve_name(f"core.datasets.table:{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
