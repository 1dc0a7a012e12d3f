"""Names of parts and folds, such as the folders ``train``, ``test`` and ``fold1``, or values of a column ``split``."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD
from core.datasets.metadata import check_columns, find_split_groups, format_few, parse_integers
from core.errors import UserError

PARTS = {
    TRAIN_FOLD: "train|training",
    TEST_FOLD: "test|testing|eval|evaluation",
    VALIDATION_FOLD: "val|valid|validation|dev",
}
TABLE_COLUMNS = ("fold", "split", "group")  # optional columns of a table of clips
SUFFIX = r"([_ -]?(set|data|audio|clips|split|part))?"
PART_NAMES = {part: re.compile(f"({words}){SUFFIX}", re.IGNORECASE) for part, words in PARTS.items()}
FOLD_NAME = re.compile(r"fold[_ -]?(\d{1,9})", re.IGNORECASE)


def parse_part(name: str) -> int | None:
    """Return the part that a name stands for (`TRAIN_FOLD`, `TEST_FOLD` or `VALIDATION_FOLD`), or None."""
    return next((part for part, pattern in PART_NAMES.items() if pattern.fullmatch(name.strip())), None)


def parse_fold(name: str) -> int | None:
    """Return the number in a name such as ``fold1`` or ``Fold_01``, or None."""
    match = FOLD_NAME.fullmatch(name.strip())
    return int(match[1]) if match else None


def number_parts(names: Sequence[str]) -> dict[str, int] | None:
    """Return the fold of each name of a split; None if training, or both other parts, are missing.

    Without a test part, the validation part is the test part.
    """
    parts = {name: part for name in names if (part := parse_part(name)) is not None}
    if TRAIN_FOLD not in parts.values() or len(set(parts.values())) < 2:
        return None
    if TEST_FOLD not in parts.values():
        return {name: TEST_FOLD if part == VALIDATION_FOLD else part for name, part in parts.items()}
    return parts


def number_folds(names: Sequence[str]) -> dict[str, int] | None:
    """Return the fold of each name such as ``fold1``; None if there are fewer than two folds."""
    folds = {name: fold for name in names if (fold := parse_fold(name)) is not None}
    return folds if len(set(folds.values())) > 1 else None


def read_folds(table: Path, rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read the folds and groups of a table.

    The column ``split`` with values such as train and test is used if there is no column ``fold``.

    Returns
    -------
    folds
        Columns ``fold`` and ``group``, as far as the table has them.
    used
        Columns of the table that were used: fold or split, and group. With split, the folds are a fixed split.

    Raises
    ------
    UserError
        If a value is missing or invalid, a part is missing, or a group is in several folds.
    """
    columns: dict[str, pd.Series] = {}
    if "fold" in rows:
        columns["fold"] = parse_integers(table, rows, "fold", at_least=1)
    is_split = "fold" not in rows and "split" in rows and any(parse_part(value) for value in rows["split"].unique())
    folds = _parse_split(table, rows) if is_split else columns.get("fold")
    if "group" in rows:
        check_columns(table, rows, ["group"])
        columns["group"] = rows["group"]
        # validation and test parts of a split may share groups
        clips = rows[["group"]].assign(fold=(folds == TRAIN_FOLD) if is_split else folds)
        if folds is not None and (leaks := find_split_groups(clips)):
            raise UserError(
                f"{table}: in more than one fold: group {format_few(leaks)}; put all clips of a group into one fold"
            )
    used = (*(["split"] if is_split else []), *columns)
    return pd.DataFrame(({"fold": folds} if is_split else {}) | columns, index=rows.index), used


def _parse_split(table: Path, rows: pd.DataFrame) -> pd.Series:
    """Return the fold of each row, given by the column ``split``."""
    for number, value in enumerate(rows["split"], start=1):
        if parse_part(value) is None:
            raise UserError(f"{table}: row {number}: split is '{value}'; it must be train, validation or test")
    folds = number_parts(rows["split"].unique().tolist())
    if folds is None:
        has_train = TRAIN_FOLD in map(parse_part, rows["split"].unique())
        raise UserError(f"{table}: split has no {'test' if has_train else 'training'} clips; add some, or remove split")
    return rows["split"].map(folds).astype("int64")
