"""Read and check the published numbers and statements of reports.

``ablations/studies/<report>/published.csv`` has one number or statement in each row, with these columns:

- ``item``: table, figure or section of the report.
- ``row``, ``column``: row and column of the number in a table of the report. Empty for a number in the text; its row
  and column in our table then follow from the next columns.
- ``data``, ``backbone``, ``condition``: data set, backbone and condition of the number, with the names of this toolkit
  if it has them. Empty if the report names none, for example for a statement about all backbones. A condition can also
  be a class or a cell of a confusion matrix (`analysis.published.class_level`).
- ``metric``: name of the metric (`KNOWN_METRICS`). A published range is two metrics that end in ``_low`` and ``_high``.
  ``delta`` is a change against the first condition.
- ``epoch``: ``best`` if the number is from the best epoch of a run; it is then compared with our best epoch. Otherwise
  empty, also if the report does not name the epoch; the number is then compared with our last epoch.
- ``value``: a fraction from 0 to 1, a count, or seconds. ``std``: its standard deviation, or empty.
- ``printed``: the number as the report prints it, such as ``91.39±0.37%``; our number is shown in the same unit and
  with the same number of decimals. For a statement, its words.
- ``approximate``: true for a number in words ("about 90%", "over 6 million").
- ``claim``, ``compared-with``: for a statement in words, instead of ``value``: its claim about the metric
  (`analysis.published.statements`).
- ``differs``: a difference between the report and this toolkit that no option expresses, or empty.
- ``contradiction``: a contradicting statement at another place of the report, or empty.
- ``source``: the place in the report, in the report's own words.

Every other column is a setting that the report states for the number: an option of a run without its dashes (such as
``epochs``), ``freeze``, or one of `analysis.published.settings.DESIGN_COLUMNS`. If the report does not state a setting,
the cell is empty and the setting is not compared.
"""

import contextlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.metrics.registry import METRICS
from analysis.published.settings import DESIGN_COLUMNS, FREEZE, parse_setting
from core.config.options import option_name
from core.config.run import option_keys, run_options
from core.errors import UserError, first_line, unknown_name_error

KEYS = ("data", "backbone", "condition")
TEXT_COLUMNS = (
    "item",
    "row",
    "column",
    *KEYS,
    "metric",
    "epoch",
    "printed",
    "claim",
    "compared-with",
    "differs",
    "contradiction",
    "source",
)
OTHER_COLUMNS = ("value", "std", "approximate")
REQUIRED_COLUMNS = ("item", "data", "metric", "value")
BEST_EPOCH = "best"
FRACTIONS = ("accuracy", "precision", "recall", "f1", "score")  # names of metrics from 0 to 1 end with one of these
SIZE_METRICS = (  # metrics of the size of a network, which do not depend on training
    "parameters",
    "trainable_parameters",
    "non_trainable_parameters",
    "parameters_with_statistics",
    "multiply_adds",
    "units",
    "input_megabytes",
    "pass_megabytes",
    "parameters_megabytes",
    "total_megabytes",
)
KNOWN_METRICS = (
    *METRICS,
    *(name for name in SIZE_METRICS if name not in METRICS),
    "delta",
    "clips",
    "similarity",
    *(option_name(f) for f in run_options().values()),
)
CLAIMS = ("highest", "lowest", "above", "below", "stated")


def list_published(folder: Path) -> tuple[str, ...]:
    """Return the names of the studies in a folder that have published numbers."""
    return tuple(sorted(file.parent.name for file in folder.glob("*/published.csv")))


def load_published(study: str, item: str | None = None, *, folder: Path) -> pd.DataFrame:
    """Read and check the published numbers of a report.

    Parameters
    ----------
    study
        Name of the study, for example ``rethinking-cnn``.
    item
        Table, figure or section of the report, for example ``Table I``; None for all of them.
    folder
        Folder of all studies.

    Returns
    -------
    DataFrame
        One row for each number, in the order of the report, with the column ``study`` and those of ``published.csv``.

    Raises
    ------
    UserError
        If the study, the item or a column is unknown (with the nearest match), the file cannot be read, or a value is
        invalid; the message names the row and the column.
    """
    if study not in list_published(folder):
        raise unknown_name_error("study", study, list_published(folder))
    numbers = _read_table(folder / study / "published.csv", f"{study}/published.csv")
    numbers.insert(0, "study", study)
    if item is None:
        return numbers
    if item not in set(numbers["item"]):
        raise unknown_name_error(f"item of {study}", item, numbers["item"].unique())
    return numbers[numbers["item"] == item].reset_index(drop=True)


def load_all_published(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the published numbers by study; files that cannot be read are skipped (their own study reports them)."""
    numbers = {}
    for study in list_published(folder):
        with contextlib.suppress(UserError):
            numbers[study] = load_published(study, folder=folder)
    return numbers


def setting_columns(numbers: pd.DataFrame) -> list[str]:
    """Return the columns of published numbers that are settings."""
    return [str(name) for name in numbers if name not in ("study", "value_text", *TEXT_COLUMNS, *OTHER_COLUMNS)]


def metric_base(metric: str) -> str:
    """Return the name of a metric without the suffix of a bound: ``delta`` for ``delta_high``."""
    return re.sub("_(low|high)$", "", metric)


def is_fraction(metric: str) -> bool:
    """Return whether the values of a metric are fractions from 0 to 1 that are shown in percent."""
    return metric_base(metric).removesuffix("_best_epoch").endswith(FRACTIONS)


def _read_table(file: Path, where: str) -> pd.DataFrame:
    """Read and check a ``published.csv``; `where` is its name for messages."""
    if not file.is_file():  # reading a pipe would never end
        raise UserError(f"{where}: is not a file")
    try:
        numbers = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise UserError(f"{where}: {first_line(error)}") from None
    if missing := [name for name in REQUIRED_COLUMNS if name not in numbers]:
        raise UserError(f"{where}: add the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    known = (*TEXT_COLUMNS, *OTHER_COLUMNS, *DESIGN_COLUMNS, FREEZE, *option_keys())
    if unknown := [name for name in numbers if name not in known]:
        raise unknown_name_error(f"column of {where}", str(unknown[0]), known)
    texts = {name: "" for name in (*TEXT_COLUMNS, *OTHER_COLUMNS) if name not in numbers}
    numbers = numbers.assign(**texts)
    converted = []
    for number, row in enumerate(numbers.to_dict("records"), start=1):
        try:
            converted.append(_convert_row({str(name): value for name, value in row.items()}))
            _check_settings(converted[-1])
        except _CellError as error:
            raise UserError(f"{where}, row {number}, column {error.column}: {error}") from None
    frame = pd.DataFrame(converted, columns=[*numbers.columns, "value_text"])
    _check_contradictions(frame, where)
    return frame


class _CellError(Exception):
    """Raised for a cell with an invalid value; `column` is its column."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


def _convert_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with numbers as numbers, after checking it."""
    for column in ("item", "metric"):
        if not row[column]:
            raise _CellError(column, "is empty")
    metric, claim, text = row["metric"], row["claim"], row["value"]
    if metric_base(metric) not in KNOWN_METRICS:
        raise _CellError("metric", str(unknown_name_error("metric", metric, KNOWN_METRICS)))
    if claim and claim not in CLAIMS:
        raise _CellError("claim", str(unknown_name_error("claim", claim, CLAIMS)))
    if claim and (text or not row["printed"]):
        raise _CellError("claim", "a statement has its words in the column printed, and no value")
    if row["epoch"] not in ("", BEST_EPOCH):
        raise _CellError("epoch", f"'{row['epoch']}': give {BEST_EPOCH}, or leave it empty")
    value = math.nan if claim else _parse_number(text, "value")
    std = _parse_number(row["std"], "std") if row["std"] else math.nan
    _check_range(value, std, metric)
    approximate = {"": False, "false": False, "true": True}.get(row["approximate"].lower())
    if approximate is None:
        raise _CellError("approximate", f"'{row['approximate']}': give true or false")
    return row | {"value": value, "std": std, "approximate": approximate, "value_text": text}


def _check_settings(row: Mapping[str, Any]) -> None:
    """Raise `_CellError` if a setting has an invalid value."""
    for column, text in row.items():
        if text and column in (*DESIGN_COLUMNS, FREEZE, *option_keys()):
            try:
                parse_setting(column, text)
            except (ValueError, KeyError) as error:
                raise _CellError(column, f"'{text}' is not a value of this setting ({first_line(error)})") from None


def _parse_number(text: str, column: str) -> float:
    """Return the number in a cell; raise `_CellError` if it is not finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        example = "0.57 for 57%" if text.endswith("%") else "0.57"
        raise _CellError(column, f"'{text}' is not a finite number; give a number such as {example}")
    return value


def _check_range(value: float, std: float, metric: str) -> None:
    """Check that a value is possible; fractions are the metrics that tables show in percent."""
    if is_fraction(metric) and (value < 0 or value > 1):
        raise _CellError("value", f"{value:g}: {metric} is a fraction from 0 to 1; write a percentage p as p / 100")
    if metric_base(metric).startswith("delta"):
        if abs(value) > 1:
            raise _CellError("value", f"{value:g}: a change is from -1 to 1; write percentage points p as p / 100")
    elif value < 0:
        raise _CellError("value", f"{value:g}: {metric} cannot be negative")
    if std < 0:
        raise _CellError("std", f"{std:g}: a standard deviation cannot be negative")
    if std > 1 and (is_fraction(metric) or metric.startswith("delta")):
        raise _CellError("std", f"{std:g}: {metric} is a fraction; write a percentage p as p / 100")


def _check_contradictions(numbers: pd.DataFrame, where: str) -> None:
    """Raise `UserError` for repeated rows, and for different values of the same number without ``contradiction``."""
    settings = setting_columns(numbers)
    first: dict[tuple[Any, ...], tuple[int, Mapping[Any, Any]]] = {}
    for number, row in enumerate(numbers.to_dict("records"), start=1):
        if row["claim"]:
            continue
        key = tuple(row[name] for name in (*KEYS, "metric", "epoch", *settings))
        if (row["item"], *key) in first:
            raise UserError(f"{where}, row {number}: repeats row {first[row['item'], *key][0]}; remove one of them")
        first[(row["item"], *key)] = (number, row)
        other_number, other = first.setdefault(("", *key), (number, row))
        declared = row["contradiction"] or other["contradiction"] or row["approximate"] or other["approximate"]
        if row["value"] != other["value"] and not declared:
            raise UserError(
                f"{where}, row {number}, column value: {row['value']:g} contradicts {other['value']:g} in row "
                f"{other_number}; correct one of them, or name the contradiction of the report in the column "
                "contradiction"
            )
