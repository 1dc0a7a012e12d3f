"""Feature tables: one row per clip, or several rows per track, as in those distributed with GTZAN. No sound is read."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from core.datasets.dataset import Dataset
from core.datasets.feature_columns import check_features
from core.datasets.loader import Loader
from core.datasets.metadata import read_rows
from core.datasets.recording_groups import TRACK_IN_NAME, find_tracks
from core.datasets.split_names import TABLE_COLUMNS, read_folds
from core.errors import UserError

CLIP_COLUMN, LABEL_COLUMN = "filename", "label"
IGNORED_COLUMNS = ("length",)  # columns of GTZAN's table that do not describe the sound
WHOLE_NUMBER = r"-?\d+"
GTZAN_SHA256 = "f49072c14e7936fee56bee11754e9bfd7defd63e55f009f20f956154e4d79af4"  # features of its 1,000 tracks
HOW_TO_GIVE = "give --data-root a CSV file of filename, features and label (and fold, group)"


def load(root: Path | None = None) -> Dataset:
    """Read a CSV file of ``filename``, ``label``, features, and optionally ``fold`` or ``split``, and ``group``.

    All other columns except ``length`` and columns of text are features. ``--group`` and ``--label`` can use columns of
    text or of whole numbers, which are then no features. Without ``group``, rows are grouped by track if the file names
    show it (`core.datasets.recording_groups.find_tracks`). Without ``fold``, seeded folds stratified by class are
    drawn. Rows with equal features stay in their folds, because published results on such tables include them, but they
    are reported as a problem.

    Raises
    ------
    UserError
        If the file or a column is missing, a feature is constant, a row number or determined by the label, or a cell is
        not a finite number.
    """
    if root is None or not root.is_file():
        raise UserError(f"features: {'no data given' if root is None else f'{root} is not a file'}; {HOW_TO_GIVE}")
    rows = read_rows(root, [CLIP_COLUMN, LABEL_COLUMN], optional=TABLE_COLUMNS, with_index=False)
    folds, optional = read_folds(root, rows)
    more = [str(column) for column in rows if column not in (CLIP_COLUMN, LABEL_COLUMN, *optional)]
    columns = [column for column in more if column not in IGNORED_COLUMNS and not _is_text(rows[column])]
    if not columns:
        raise UserError(f"features: {root} has no features, only the columns {', '.join(rows.columns)}; {HOW_TO_GIVE}")
    vectors = np.stack([_parse_numbers(root, rows, column) for column in columns], axis=1)
    class_names = sorted(rows[LABEL_COLUMN].unique())
    clips = pd.DataFrame({"path": rows[CLIP_COLUMN], "label": rows[LABEL_COLUMN].map(class_names.index), **folds})
    check_features(f"{root}", columns, vectors, clips["label"].to_numpy())
    grouped_by = "column group" if "group" in optional else ""
    tracks = None if grouped_by else find_tracks(rows[CLIP_COLUMN].tolist(), rows[LABEL_COLUMN].tolist())
    if tracks:
        clips["group"], grouped_by = tracks, TRACK_IN_NAME
    for column in more:  # attributes
        if column not in clips and (column not in columns or rows[column].str.fullmatch(WHOLE_NUMBER).all()):
            clips[column] = rows[column]
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
        grouped_by=grouped_by,
        has_fixed_split="split" in optional,
        table_columns=tuple(map(str, rows.columns)),
        used_columns=(CLIP_COLUMN, LABEL_COLUMN, *optional),
        is_published_set=_hash_by_name(rows[CLIP_COLUMN], vectors) == GTZAN_SHA256,
    )


def _is_text(column: pd.Series) -> bool:
    """Return whether a column has text and no number; empty cells are neither."""
    return bool((column != "").any()) and not any(map(_is_number, column[column != ""]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _hash_by_name(names: "pd.Series[str]", vectors: np.ndarray) -> str:
    """Return the SHA-256 of the feature vectors in the order of the names."""
    return hashlib.sha256(vectors[np.argsort(names.to_numpy(str), kind="stable")].tobytes()).hexdigest()


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


LOADER = Loader(load, "CSV file with one row of features per clip: filename, numbers, label[, fold][, group].")
