"""True labels of recordings: a CSV file, or a folder with one folder per class."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from core.datasets.label_names import find_similar_name, format_name
from core.datasets.metadata import check_columns, format_few, read_rows
from core.datasets.sets.folder import find_files
from core.errors import UserError

LABEL_COLUMN = "label"
NAME_COLUMNS = ("path", "file", "filename", "id")  # columns that can name a recording; the first of them is used
HOW_TO_GIVE = (
    f"give a CSV file of {LABEL_COLUMN} and one of {', '.join(NAME_COLUMNS)}, or a folder with one folder per class"
)
MATCH_KEYS: Mapping[str, Callable[[str], str]] = {
    "path": str,
    "name": lambda path: PurePosixPath(path).name,
    "stem": lambda path: PurePosixPath(path).stem,
}


def read_labels(path: Path) -> list[tuple[str, str]]:
    """Read pairs (recording, class) from a CSV file, or from a folder of class folders.

    Raises
    ------
    UserError
        If the file has other columns, or the folder has no class folders.
    """
    if path.is_dir():
        files = [file for file in sorted(find_files(path)) if "/" in file]
        if not files:
            raise UserError(f"--labels {path}: has no class folders; {HOW_TO_GIVE}")
        return [(file, file.partition("/")[0]) for file in files]
    rows = read_rows(path, [], optional=[*NAME_COLUMNS, LABEL_COLUMN])
    column = next((name for name in NAME_COLUMNS if name in rows), "")
    if not column or LABEL_COLUMN not in rows:
        raise UserError(f"--labels {path}: has the columns {format_few(list(rows.columns))}; {HOW_TO_GIVE}")
    check_columns(path, rows, [column, LABEL_COLUMN])
    return list(zip(rows[column], rows[LABEL_COLUMN], strict=True))


def match_labels(
    paths: Sequence[str], true_labels: Sequence[tuple[str, str]], class_names: Sequence[str], *, source: str
) -> np.ndarray:
    """Return the class number of each recording, (recordings,); -1 for a recording without a label.

    Recordings are matched by path if the labels have paths with folders. If no path matches, they are matched by file
    name, and if no name matches, by name without suffix.

    Parameters
    ----------
    paths
        Paths of the recordings.
    true_labels
        Result of `read_labels`.
    class_names
        Class names of the network.
    source
        Origin of the labels, for messages.

    Raises
    ------
    UserError
        If no recording has a label, one has two, or a label is not a class of the network.
    """
    by_path = any("/" in name for name, _ in true_labels)
    keys = {name: key for name, key in MATCH_KEYS.items() if by_path or name != "path"}
    matches = ((name, _collect_labels(paths, true_labels, key)) for name, key in keys.items())
    matched_by, label_sets = next((match for match in matches if any(match[1])), ("", []))
    if not label_sets:
        raise UserError(f"{source}: labels none of the {len(paths)} recordings, such as {paths[0]}; {HOW_TO_GIVE}")
    if ambiguous := [path for path, label_set in zip(paths, label_sets, strict=True) if len(label_set) > 1]:
        raise UserError(
            f"{source}: {format_few(ambiguous)}: more than one label, matched by {matched_by}; give their paths"
        )
    labels = [next(iter(label_set), "") for label_set in label_sets]
    numbers = {name: number for number, name in enumerate(class_names)}
    if unknown := sorted({label for label in labels if label and label not in numbers}):
        alike = find_similar_name(unknown[0], class_names)
        hint = f"{format_name(unknown[0])} looks like the class {format_name(alike)}, but differs; " if alike else ""
        raise UserError(
            f"{source}: {format_few(unknown)}: not a class of the network, whose classes are "
            f"{format_few(class_names)}; {hint}correct the labels"
        )
    return np.array([numbers.get(label, -1) for label in labels], np.int64)


def _collect_labels(
    paths: Sequence[str], true_labels: Sequence[tuple[str, str]], key: Callable[[str], str]
) -> list[set[str]]:
    """Return the set of labels of each path, comparing names by `key`."""
    labels: dict[str, set[str]] = defaultdict(set)
    for name, label in true_labels:
        labels[key(name)].add(label)
    return [labels.get(key(path), set()) for path in paths]
