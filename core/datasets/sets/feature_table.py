"""Feature tables with one row per clip, such as the one that is distributed with GTZAN. No sound is read."""

from pathlib import Path

import numpy as np
import pandas as pd

from core.datasets.dataset import Dataset
from core.datasets.loader import Loader
from core.datasets.metadata import find_split_groups, format_few, parse_integers, read_rows
from core.errors import UserError

CLIP_COLUMN, LABEL_COLUMN = "filename", "label"
IGNORED_COLUMNS = ("length",)  # columns of GTZAN's table that do not describe the sound
HOW_TO_GIVE = "give --data-root a CSV file of filename, features and label (and fold, group)"


def load(root: Path | None = None) -> Dataset:
    """Read a CSV file with the columns ``filename``, ``label``, features, and optionally ``fold`` and ``group``.

    All other columns except ``length`` are features. Without ``fold``, seeded folds stratified by class are drawn. Rows
    with equal features are kept and reported, because published results on such tables include them.

    Raises
    ------
    UserError
        If the file or a column is missing, a feature is constant, or a cell is not a finite number.
    """
    if root is None or not root.is_file():
        raise UserError(f"features: {'no data given' if root is None else f'{root} is not a file'}; {HOW_TO_GIVE}")
    rows = read_rows(root, [CLIP_COLUMN, LABEL_COLUMN])
    optional = [column for column in ("fold", "group") if column in rows]
    columns = [str(column) for column in rows if column not in (CLIP_COLUMN, LABEL_COLUMN, *optional, *IGNORED_COLUMNS)]
    if not columns:
        raise UserError(f"features: {root} has no features, only the columns {', '.join(rows.columns)}; {HOW_TO_GIVE}")
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
    with np.errstate(over="ignore"):  # too large for float32: becomes infinite and is refused
        numbers = pd.to_numeric(rows[column], errors="coerce").to_numpy(np.float32)
    if len(wrong := np.flatnonzero(~np.isfinite(numbers))):
        value = rows[column].iloc[wrong[0]]
        raise UserError(f"{table}: row {wrong[0] + 1}: {column} is '{value}'; a feature must be a finite number")
    if len(numbers) and (numbers == numbers[0]).all():
        raise UserError(f"{table}: {column} is {numbers[0]:g} in every row; remove the column")
    return numbers


def _describe_repeated(rows: pd.DataFrame, vectors: np.ndarray) -> list[str]:
    """Return remarks on rows with equal features, and on those of them with different labels."""
    first: dict[bytes, int] = {}
    numbers = [row.tobytes() for row in vectors]
    pairs = [(k, first[key]) for k, key in enumerate(numbers) if first.setdefault(key, k) != k]
    names, labels = rows[CLIP_COLUMN].tolist(), rows[LABEL_COLUMN].tolist()
    relabelled = [f"{names[a]} ({labels[a]}) = {names[b]} ({labels[b]})" for a, b in pairs if labels[a] != labels[b]]
    remarks = []
    if pairs:
        same = format_few([f"{names[a]} = {names[b]}" for a, b in pairs])
        remarks.append(f"{len(pairs)} rows repeat the features of another row, maybe in another fold: {same}")
    if relabelled:
        remarks.append(f"{len(relabelled)} of them have another label: {format_few(relabelled)}")
    return remarks


LOADER = Loader(load, "CSV file with one row of features per clip: filename, numbers, label[, fold][, group].")
