"""Read the tables of data sets, and check them against the files."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.config.options import parse_whole_number
from core.errors import UserError

CSV_ERRORS = (UnicodeDecodeError, pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError)
MAX_NAMES = 3  # names in a message before "and N more"


def read_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file with all cells as text.

    Raises
    ------
    UserError
        If the file cannot be read, lacks one of `columns`, or has an empty cell in one.
    """
    try:
        if not path.is_file():  # reading a pipe or device might never end
            raise UserError(f"{path}: not a readable CSV file (not a regular file)")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # raised for rows with more cells than the header
            rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (OSError, *CSV_ERRORS) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from error
    check_columns(path, rows, columns)
    return rows


def check_columns(path: Path, rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise UserError if a table lacks one of `columns`, or has an empty cell in one; `path` is for the message."""
    if missing := [column for column in columns if column not in rows]:
        raise UserError(f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(rows.columns)}")
    for column in columns:
        if len(empty := np.flatnonzero(rows[column] == "")):
            raise UserError(f"{path}: row {empty[0] + 1} has no {column}")


def parse_integers(path: Path, rows: pd.DataFrame, column: str, *, at_least: int = 0) -> pd.Series:
    """Return a text column as integers.

    Raises
    ------
    UserError
        If a value is not a whole number from `at_least`; the message names the row, counted from 1 below the header.
    """
    for number, value in enumerate(rows[column], start=1):
        if (parsed := parse_whole_number(value)) is None or parsed < at_least:
            raise UserError(f"{path}: row {number}: {column} is '{value}'; it must be a whole number from {at_least}")
    return rows[column].astype("int64")


def check_present(name: str, root: Path, paths: Sequence[str], *, remedy: str) -> None:
    """Check that the file of every clip exists, by listing each folder once.

    Raises
    ------
    UserError
        If files are missing; the message names the first ones, their number, and `remedy`.
    """
    split = [path.rpartition("/") for path in paths]
    listed = {folder: _list_folder(root / folder) for folder in {folder for folder, _, _ in split}}
    missing = [path for path, (folder, _, name) in zip(paths, split, strict=True) if name not in listed[folder]]
    if missing:
        raise UserError(f"{name}: {root} lacks {len(missing)} of {len(paths)} clips: {format_few(missing)}; {remedy}")


def check_names(name: str, rows: pd.DataFrame, *, file: str, pattern: str, metadata: str) -> None:
    """Check that the metadata in the file names agree with the table.

    Parameters
    ----------
    name
        Name of the data set, for the message.
    rows
        Table of the clips.
    file
        Column of the file names.
    pattern
        Regular expression for a whole file name; its named groups are columns of the table.
    metadata
        File of the table, for the message.

    Raises
    ------
    UserError
        If a file name contradicts its row.
    """
    for row in rows.to_dict("records"):
        match = re.fullmatch(pattern, row[file])
        if not match:
            raise UserError(f"{name}: {row[file]} in {metadata} is not the name of an official clip; remove the row")
        for column, named in match.groupdict().items():
            if named != row[column]:
                raise UserError(
                    f"{name}: {row[file]} is mislabelled: {metadata} gives {column} {row[column]}, its name {named}; "
                    "correct the row"
                )


def find_split_groups(clips: pd.DataFrame) -> list[str]:
    """Return the groups with clips in more than one fold, which leak from training into testing."""
    n_folds = clips.groupby("group")["fold"].nunique()
    return [str(group) for group in n_folds.index[n_folds > 1]]


def _list_folder(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208


def format_few(items: Sequence[object]) -> str:
    """Return the first few items as text, and the number of the others."""
    text = ", ".join(map(str, items[:MAX_NAMES]))
    return text if len(items) <= MAX_NAMES else f"{text} and {len(items) - MAX_NAMES} more"
