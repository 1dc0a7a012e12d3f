"""What recordings really are, by their names: a list, or a folder with a folder for each class."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from core.datasets.metadata import read_rows, some
from core.datasets.sets.folder import files_below
from core.errors import UserError

LABEL = "label"
NAMES = ("path", "file", "filename", "id")  # columns of a list that name a recording, the first that it has
WAY = f"give a CSV file of {LABEL} and one of {', '.join(NAMES)}, or a folder with a folder for each class"
KEYS: Mapping[str, Callable[[str], str]] = {
    "path": str,
    "name": lambda path: PurePosixPath(path).name,
    "stem": lambda path: PurePosixPath(path).stem,
}


def read_truth(path: Path) -> list[tuple[str, str]]:
    """Read (recording, class) of a CSV file, or of every file in the class folders of a folder.

    Raises
    ------
    UserError
        For what is neither.
    """
    if path.is_dir():
        shown = [file for file in sorted(files_below(path)) if "/" in file]
        if not shown:
            raise UserError(f"--truth {path}: has no folders with files; {WAY}")
        return [(file, file.partition("/")[0]) for file in shown]
    rows = read_rows(path, [])
    column = next((name for name in NAMES if name in rows), "")
    if not column or LABEL not in rows:
        raise UserError(f"--truth {path}: has the columns {some(list(rows.columns))}; {WAY}")
    rows = read_rows(path, [column, LABEL])
    return list(zip(rows[column], rows[LABEL], strict=True))


def labels_of(
    paths: Sequence[str], truth: Sequence[tuple[str, str]], class_names: Sequence[str], *, source: str
) -> np.ndarray:
    """Give each recording its class number by the truth; -1 where it says nothing.

    Recordings are found by their path, if the truth has folders; where none is, all of them by their name; where none
    is so either, by their name without suffix, as competitions have them.

    Parameters
    ----------
    paths
        Of the recordings.
    truth
        As `read_truth` gives it.
    class_names
        Those that the network knows.
    source
        Where the truth comes from, for messages.

    Raises
    ------
    UserError
        Where the truth is of no recording at all, says two things of one, or a class that the network does not have.
    """
    by_path = any("/" in name for name, _ in truth)
    ways = ((how, _said(paths, truth, key)) for how, key in KEYS.items() if by_path or how != "path")
    how, found = next((way for way in ways if any(way[1])), ("", []))
    if not found:
        raise UserError(f"{source}: names none of the {len(paths)} recordings, such as {paths[0]}; {WAY}")
    if torn := [path for path, labels in zip(paths, found, strict=True) if len(labels) > 1]:
        raise UserError(f"{source}: {some(torn)}: more than one label, taken by {how}; name each by its path")
    named = [next(iter(labels), "") for labels in found]
    numbers = {name: number for number, name in enumerate(class_names)}
    if strange := sorted({label for label in named if label and label not in numbers}):
        raise UserError(
            f"{source}: {some(strange)}: no class of the network, which has {some(class_names)}; mend the labels"
        )
    return np.array([numbers.get(label, -1) for label in named], np.int64)


def _said(paths: Sequence[str], truth: Sequence[tuple[str, str]], key: Callable[[str], str]) -> list[set[str]]:
    """Return every label that the truth gives to each of `paths`, names being compared by `key`."""
    said: dict[str, set[str]] = defaultdict(set)
    for name, label in truth:
        said[key(name)].add(label)
    return [said.get(key(path), set()) for path in paths]
