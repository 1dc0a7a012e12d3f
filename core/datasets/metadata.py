"""Reading the tables that data sets come with, and checking them against their files."""

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
MAX_NAMES = 3  # names listed before "and N more"


def read_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file, every cell as text.

    Raises
    ------
    UserError
        Where it cannot be read, lacks one of `columns`, or leaves one of them empty.
    """
    try:
        if not path.is_file():  # a pipe would be waited for, a device read for ever
            raise UserError(f"{path}: not a readable CSV file (it is no regular file)")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # more cells than the header has columns
            rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (OSError, *CSV_ERRORS) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from error
    if missing := [column for column in columns if column not in rows]:
        raise UserError(f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(rows.columns)}")
    for column in columns:
        if len(empty := np.flatnonzero(rows[column] == "")):
            raise UserError(f"{path}: row {empty[0] + 1} has no {column}")
    return rows


def parse_integers(path: Path, rows: pd.DataFrame, column: str, *, at_least: int = 0) -> pd.Series:
    """Return a text column as whole numbers.

    Raises
    ------
    UserError
        Naming the file, the row (counted from 1 below the header) and the value that is not one.
    """
    for number, value in enumerate(rows[column], start=1):
        if (found := parse_whole_number(value)) is None or found < at_least:
            raise UserError(f"{path}: row {number}: {column} is '{value}'; it must be a whole number from {at_least}")
    return rows[column].astype("int64")


def check_present(name: str, root: Path, paths: Sequence[str], *, remedy: str) -> None:
    """Check that every clip's file exists, at one directory listing per folder.

    Raises
    ------
    UserError
        Naming the first missing ones, their number, and the remedy.
    """
    split = [path.rpartition("/") for path in paths]
    listed = {folder: _list_folder(root / folder) for folder in {folder for folder, _, _ in split}}
    missing = [path for path, (folder, _, name) in zip(paths, split, strict=True) if name not in listed[folder]]
    if missing:
        raise UserError(f"{name}: {root} lacks {len(missing)} of {len(paths)} clips: {format_few(missing)}; {remedy}")


def check_names(name: str, rows: pd.DataFrame, *, file: str, pattern: str, metadata: str) -> None:
    """Check that what a set writes into its file names agrees with its metadata.

    Parameters
    ----------
    file
        Column of the file names.
    pattern
        Regular expression of a whole file name; its named groups are columns.
    metadata
        Where the rows come from, for the message.

    Raises
    ------
    UserError
        Naming the first clip whose name and row disagree, and how.
    """
    for row in rows.to_dict("records"):
        match = re.fullmatch(pattern, row[file])
        if not match:
            raise UserError(f"{name}: {row[file]} in {metadata} is no name of an official clip; remove the row")
        for column, named in match.groupdict().items():
            if named != row[column]:
                raise UserError(
                    f"{name}: {row[file]} is mislabelled: {metadata} gives {column} {row[column]}, its name {named}; "
                    "mend the row"
                )


def find_split_groups(clips: pd.DataFrame) -> list[str]:
    """Return the groups that are in more than one fold: what is tested on has then been heard in training."""
    n_folds = clips.groupby("group")["fold"].nunique()
    return [str(group) for group in n_folds.index[n_folds > 1]]


def _list_folder(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208


def format_few(items: Sequence[object]) -> str:
    """Name the first few items, and say how many more there are."""
    shown = ", ".join(map(str, items[:MAX_NAMES]))
    return shown if len(items) <= MAX_NAMES else f"{shown} and {len(items) - MAX_NAMES} more"
