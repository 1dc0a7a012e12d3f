"""A table of features, a row for each clip: what GTZAN is distributed with, or anyone's own. No sound is read."""

from pathlib import Path

import numpy as np
import pandas as pd

from core.datasets.dataset import Dataset
from core.datasets.loader import Loader
from core.datasets.metadata import find_split_groups, format_few, parse_integers, read_rows
from core.errors import UserError

CLIP_COLUMN, LABEL_COLUMN = "filename", "label"
IGNORED_COLUMNS = ("length",)  # columns of GTZAN's tables that describe the file and not the sound
HOW_TO_GIVE = "give --data-root a CSV file of filename, features and label (and fold, group)"


def load(root: Path | None = None) -> Dataset:
    """Read a CSV file of ``filename``, ``label``, numbers, and where there are any ``fold`` and ``group``.

    Every other column is a feature, but for ``length``. Folds are seeded and stratified by class where the table has
    none. Rows that repeat another's numbers are named and kept, as published results on such tables have them.

    Raises
    ------
    UserError
        For no such file, a column that is missing or never changes, and a cell that is no finite number.
    """
    if root is None or not root.is_file():
        raise UserError(f"features: {'no data given' if root is None else f'{root} is no file'}; {HOW_TO_GIVE}")
    rows = read_rows(root, [CLIP_COLUMN, LABEL_COLUMN])
    optional = [column for column in ("fold", "group") if column in rows]
    columns = [str(column) for column in rows if column not in (CLIP_COLUMN, LABEL_COLUMN, *optional, *IGNORED_COLUMNS)]
    if not columns:
        raise UserError(f"features: {root} has no column of features beside {', '.join(rows.columns)}; {HOW_TO_GIVE}")
    vectors = np.stack([_parse_numbers(root, rows, column) for column in columns], axis=1)
    class_names = sorted(rows[LABEL_COLUMN].unique())
    clips = pd.DataFrame({"path": rows[CLIP_COLUMN], "label": rows[LABEL_COLUMN].map(class_names.index)})
    if "fold" in optional:
        clips["fold"] = parse_integers(root, rows, "fold", at_least=1)
    if "group" in optional:
        clips["group"] = rows["group"]
    if len(optional) == 2 and (leaks := find_split_groups(clips)):
        raise UserError(
            f"{root}: in more than one fold: group {format_few(leaks)}; put all rows of a group into one fold"
        )
    return Dataset.from_rows(
        "features",
        root.parent,
        clips,
        class_names=class_names,
        sr=22_050,
        duration=30.0,
        n_frames=1,
        vectors=vectors,
        columns=tuple(columns),
        remarks=tuple(_describe_repeated(rows, vectors)),
    )


def _parse_numbers(table: Path, rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as float32, (rows,)."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
        numbers = pd.to_numeric(rows[column], errors="coerce").to_numpy(np.float32)
    if len(wrong := np.flatnonzero(~np.isfinite(numbers))):
        value = rows[column].iloc[wrong[0]]
        raise UserError(f"{table}: row {wrong[0] + 1}: {column} is '{value}'; a feature must be a finite number")
    if len(numbers) and (numbers == numbers[0]).all():
        raise UserError(f"{table}: {column} is {numbers[0]:g} in every row, which tells nothing; remove the column")
    return numbers


def _describe_repeated(rows: pd.DataFrame, vectors: np.ndarray) -> list[str]:
    """Name the rows whose numbers another row has too, and those of them that have another label."""
    first: dict[bytes, int] = {}
    numbers = [row.tobytes() for row in vectors]
    pairs = [(k, first[key]) for k, key in enumerate(numbers) if first.setdefault(key, k) != k]
    names, labels = rows[CLIP_COLUMN].tolist(), rows[LABEL_COLUMN].tolist()
    torn = [f"{names[a]} ({labels[a]}) = {names[b]} ({labels[b]})" for a, b in pairs if labels[a] != labels[b]]
    found = []
    if pairs:
        same = format_few([f"{names[a]} = {names[b]}" for a, b in pairs])
        found.append(f"{len(pairs)} rows repeat another's features and may be trained and tested on: {same}")
    if torn:
        found.append(f"{len(torn)} of them with another label than the row they repeat: {format_few(torn)}")
    return found


LOADER = Loader(load, "A CSV file of features, a row for each clip: filename, numbers, label[, fold][, group].")
