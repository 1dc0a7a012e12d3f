"""Read the tables of data sets, and check them against the files."""

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.config.options import parse_whole_number
from core.errors import UserError
from core.system.file_signatures import LFS_REASON, LFS_START

CSV_ERRORS = (UnicodeDecodeError, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError)
DELIMITERS = (",", ";", "\t", "|")
SKIPPED_LINE = re.compile(r"(#[^\r\n]*|sep=(?P<delimiter>[^\r\n])|[ \t]*)(\r\n|\n|\r)", re.IGNORECASE)
DECIMAL_COMMA = r"^\s*([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)\s*$"
MAX_LISTED_FILES = 200_000
MAX_NAMES = 3  # names in a message before "and N more"


def read_rows(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), with_index: bool = True
) -> pd.DataFrame:
    """Read a CSV file with all cells as text.

    Columns are separated by commas, semicolons, tabs or bars; with semicolons, decimal commas become points. The file
    is UTF-8 or UTF-16. Empty lines, comments (``#``) and a line ``sep=;`` before the header are skipped. The case of
    the names in `columns` and `optional` does not matter. Empty columns without a name are left out.

    Parameters
    ----------
    path, columns
        The file, and the columns that it must have.
    optional
        Further columns that the program uses if the file has them.
    with_index
        Whether the file may have the index of a pandas table, which is left out.

    Raises
    ------
    UserError
        If the file cannot be read, lacks one of `columns`, has an empty cell in one, or has a repeated or unnamed
        column.
    """
    try:
        if not path.is_file():  # reading a pipe or device might never end
            raise UserError(f"{path}: not a readable CSV file (not a regular file)")
        text, delimiter = _skip_to_header(_decode(path))
        cells = pd.read_csv(io.StringIO(text), sep=delimiter, header=None, dtype=str, keep_default_na=False)
    except (OSError, *CSV_ERRORS) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from error
    cells = cells.fillna("")  # cells are missing in rows that are shorter than the header
    rows = cells.iloc[1:].reset_index(drop=True)
    rows.columns = pd.Index(_name_columns(path, cells, [*columns, *optional], with_index=with_index))
    rows = rows.loc[:, rows.columns != ""].copy()
    if delimiter == ";":
        for column in rows.columns.difference([*columns, *optional]):
            rows[column] = rows[column].str.replace(DECIMAL_COMMA, r"\1.\2", regex=True)
    check_columns(path, rows, columns)
    return rows


def _decode(path: Path) -> str:
    """Return the text of a file in UTF-8 or UTF-16.

    Raises
    ------
    UserError
        If the file is a pointer of Git LFS.
    """
    content = path.read_bytes()
    if content.startswith(LFS_START):
        raise UserError(f"{path}: {LFS_REASON}")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


def _skip_to_header(text: str) -> tuple[str, str]:
    """Return the text from the header on, and the delimiter: the one that gives the header the most columns."""
    delimiter = ""
    while match := SKIPPED_LINE.match(text):
        delimiter = match["delimiter"] or delimiter
        text = text[match.end() :]
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in DELIMITERS}
    return text, delimiter or max(DELIMITERS, key=lambda mark: counts[mark])


def _name_columns(path: Path, cells: pd.DataFrame, known: Sequence[str], *, with_index: bool) -> list[str]:
    """Return the name of each column of a table whose first row is the header; "" for columns to be left out.

    Raises
    ------
    UserError
        If a column is repeated or has no name.
    """
    names = [name.strip() for name in cells.iloc[0]]
    for wanted in known:
        same = [place for place, name in enumerate(names) if name.casefold() == wanted.casefold()]
        if len(same) == 1:
            names[same[0]] = wanted
    if repeated := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise UserError(f"{path}: the column {repeated[0]} occurs more than once; remove or rename one")
    for place, name in enumerate(names):
        values = cells.iloc[1:, place]
        is_index = place == 0 and bool(values.str.fullmatch(r"\d+").all())
        if not name and not (values == "").all() and not (is_index and with_index):
            what = " and looks like an index; remove it, or write the table with index=False" if is_index else ""
            raise UserError(f"{path}: column {place + 1} has no name{what or '; name or remove it'}")
    return names


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
        reason = _explain_missing(root, missing)
        raise UserError(
            f"{name}: {root} lacks {len(missing)} of {len(paths)} clips: {format_few(missing)}; {reason}{remedy}"
        )


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


def _explain_missing(root: Path, paths: Sequence[str]) -> str:
    """Return why paths are missing although files with similar names exist; "" if there are none."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(root, followlinks=True):
        inside = os.path.relpath(folder, root)
        found |= {_fold_name(path): path for path in (os.path.normpath(f"{inside}/{name}") for name in names)}
        if len(found) > MAX_LISTED_FILES:
            return ""
    similar = [found.get(_fold_name(path), "") for path in paths]
    if not all(similar):
        return ""
    form = next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, similar[0])), "")
    if unicodedata.normalize("NFC", similar[0]) == unicodedata.normalize("NFC", paths[0]):
        return f"the files exist, but their names are in Unicode form {form}; "
    return "the files exist, but their names differ in upper and lower case; "


def _fold_name(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _list_folder(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208


def format_few(items: Sequence[object]) -> str:
    """Return the first few items as text, and the number of the others."""
    text = ", ".join(map(str, items[:MAX_NAMES]))
    return text if len(items) <= MAX_NAMES else f"{text} and {len(items) - MAX_NAMES} more"
