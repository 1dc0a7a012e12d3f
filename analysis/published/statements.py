"""Statements of a report in words, and what our runs show.

In ``published.csv`` the column ``claim`` has the claim of a statement about the metric of its condition:

- ``highest``, ``lowest``: the metric is the highest or lowest of all conditions of the experiment.
- ``above``, ``below``: it is above or below all values in the column ``compared-with``. These are conditions, separated
  by ";" (conditions of another network are written as ``BACKBONE / CONDITION``), or another metric of the same row.
- ``stated``: no metric of our runs can test the statement.

The words of the statement are in ``printed``. Unlike a number, a statement is also tested on other data and with other
settings; the table then lists the differences.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.metrics.registry import METRICS
from analysis.output.number_format import format_metric, metric_title
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from analysis.published.class_level import CLASS_LEVEL, describe_subject, split_class, split_compared
from analysis.published.matching import OwnRow, list_differences, metric_column, select_backbone
from analysis.published.numbers import SIZE_METRICS, is_fraction, setting_columns
from core.datasets.dataset import Dataset

HOLDS, FAILS, UNCLEAR, NOT_MEASURED = "holds", "does not hold", "not clear", "not measured"
MAX_LISTED = 4  # values that a statement is compared with; if there are more, only the most extreme one is shown
COLUMNS = (
    Column("statement", "Statement"),
    Column("subject", "Subject"),
    Column("ours", "Ours"),
    Column("finding", "Finding"),
    Column("differs_in", "Differs in"),
    Column("source", "Source"),
)
FINDING_NOTE = (
    "Finding: holds (or does not hold) if our values are in the stated (or the opposite) order and their 95 % "
    "intervals do not overlap; numbers of parameters are exact. Not clear: the intervals overlap, or a condition has "
    "no interval because it is a single run. Not measured: none of our runs can test the statement."
)


@dataclass(frozen=True)
class _Quantity:
    """A metric of one of our rows and its 95 % interval; without an interval the bounds are nan."""

    backbone: str
    name: str  # of the condition or, in a comparison of two metrics of one row, of the metric
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _Candidates:
    """Our rows that a statement can be about.

    Attributes
    ----------
    rows
        The rows.
    backbones
        Backbones that the statements of the item name, by condition.
    substitutes
        Whether a backbone that the statements do not name can replace a published one.
    """

    rows: Sequence[OwnRow]
    backbones: Mapping[str, Sequence[str]]
    substitutes: bool

    def select(self, condition: str, backbone: str, data: str, column: str) -> list[OwnRow]:
        """Return the rows of a condition and backbone that have a value in `column`, on data set `data` if possible."""
        subject = {"backbone": backbone, "condition": condition}
        rows = [row for row in self.rows if row.condition == condition and not math.isnan(row.value(column))]
        rows = select_backbone(subject, rows, self.backbones, substitutes=self.substitutes)
        return [row for row in rows if row.data == data] or rows


def write_statements(
    results: OutputFolder,
    statements: pd.DataFrame,
    own_rows: Sequence[OwnRow],
    *,
    name: str,
    caption: str,
    in_study: bool,
) -> None:
    """Write the table of statements of an item, with what our runs show.

    Parameters
    ----------
    results
        Output folder.
    statements
        Statements of the item: rows of `analysis.published.numbers.load_published`.
    own_rows
        Our rows.
    name, caption
        Name and caption of the table.
    in_study
        Whether the rows are from the command `study`, whose experiment reproduces the item. For other commands (False),
        only statements are shown that their runs can test on the published data set.
    """
    rows = [
        row
        for row in examine_statements(statements, own_rows, results.plan.datasets, in_study=in_study)
        if in_study or row["finding"] != NOT_MEASURED
    ]
    if not rows:
        return
    frame = pd.DataFrame(rows)
    notes = [FINDING_NOTE] if (frame["finding"] != NOT_MEASURED).any() else []
    contradictions = statements.loc[statements["contradiction"] != "", ["printed", "contradiction"]]
    notes += [f"Contradiction in the report: {row.printed}; {row.contradiction}" for row in contradictions.itertuples()]
    columns = [column for column in COLUMNS if column.name != "differs_in" or (frame["differs_in"] != "").any()]
    results.write_table(name, frame, columns, caption=caption, footnotes=notes, show=bool((frame["ours"] != "").any()))


def examine_statements(
    statements: pd.DataFrame, own_rows: Sequence[OwnRow], data_sets: Mapping[str, Dataset], *, in_study: bool
) -> list[dict[str, str]]:
    """Return the table rows of statements.

    A statement has one row for each of our rows that can test it, or one row "not measured".

    Parameters
    ----------
    statements, own_rows, in_study
        As in `write_statements`.
    data_sets
        Data sets of our runs by ``data.content``.

    Returns
    -------
    rows
        ``statement``, ``subject``, ``ours``, ``finding``, ``differs_in`` and ``source``.
    """
    usable = [row for row in own_rows if in_study or row.is_published_set]
    candidates = _Candidates(usable, _list_backbones(statements), substitutes=in_study)
    settings, several_sets = setting_columns(statements), statements["data"].nunique() > 1
    rows: list[dict[str, str]] = []
    for statement in statements.to_dict("records"):
        _, part = split_class(statement["condition"])
        subject_text = ", ".join(filter(None, [describe_subject(statement, several_sets=several_sets), part]))
        quotation = {"statement": statement["printed"], "subject": subject_text, "source": statement["source"]}
        stated, column = {name: statement[name] for name in settings}, metric_column(statement)
        findings = []
        for subject in candidates.select(statement["condition"], statement["backbone"], statement["data"], column):
            first, others = _quantity(subject, column, subject.condition), _list_others(statement, subject, candidates)
            if not others:
                continue
            texts = {
                "ours": _describe(first, others, statement),
                "finding": _judge(first, others, statement),
                "differs_in": ", ".join(list_differences(statement, subject, stated, data_sets)),
            }
            findings.append(quotation | texts)
        rows += findings or [quotation | {"ours": "", "finding": NOT_MEASURED, "differs_in": ""}]
    return rows


def _list_backbones(statements: pd.DataFrame) -> dict[str, list[str]]:
    """Return the backbones that statements are about or compare with, by condition."""
    backbones: dict[str, list[str]] = {}
    for statement in statements.to_dict("records"):
        pairs = [(statement["backbone"], statement["condition"]), *split_compared(statement["compared-with"])]
        for backbone, condition in pairs:
            if backbone and backbone not in backbones.setdefault(condition, []):
                backbones[condition].append(backbone)
    return backbones


def _list_others(statement: Mapping[Any, Any], subject: OwnRow, candidates: _Candidates) -> list[_Quantity]:
    """Return the values that the subject of a statement is compared with; an empty list if one of them is missing."""
    claim, compared, column = statement["claim"], statement["compared-with"], metric_column(statement)
    rows: list[OwnRow] = []
    if claim in ("highest", "lowest"):
        rows = [row for row in candidates.rows if row is not subject and _is_same_experiment(row, subject)]
    elif compared in METRICS:
        rows, column = [subject], compared
    else:
        for backbone, condition in split_compared(compared):
            others = candidates.select(condition, backbone or subject.backbone, subject.data, column)
            others = [row for row in others if row is not subject]
            if not others:
                return []
            rows += [row for row in others if row.point == subject.point] or others
    quantities = [_quantity(row, column, metric_title(column) if row is subject else row.condition) for row in rows]
    return [quantity for quantity in quantities if not math.isnan(quantity.value)]


def _is_same_experiment(row: OwnRow, other: OwnRow) -> bool:
    """Return whether two rows are conditions of one experiment at the same point of its grid."""
    return row.data == other.data and row.point == other.point and not CLASS_LEVEL.fullmatch(row.condition)


def _quantity(row: OwnRow, column: str, name: str) -> _Quantity:
    """Return the value and the interval in a column of a row."""
    return _Quantity(row.backbone, name, row.value(column), row.value(f"{column}_low"), row.value(f"{column}_high"))


def _judge(first: _Quantity, others: Sequence[_Quantity], statement: Mapping[Any, Any]) -> str:
    """Return the finding: the statement holds if `first` is in the stated order with every value in `others`."""
    sign = 1 if statement["claim"] in ("highest", "above") else -1
    orders = {_compare(first, other, exact=statement["metric"] in SIZE_METRICS) * sign for other in others}
    if orders == {1}:
        return HOLDS
    return FAILS if -1 in orders else UNCLEAR


def _compare(first: _Quantity, other: _Quantity, *, exact: bool) -> int:
    """Return 1 if a quantity is larger, -1 if it is smaller, 0 if the two intervals overlap or one is unknown."""
    low, high = (first.value, first.value) if exact else (first.low, first.high)
    other_low, other_high = (other.value, other.value) if exact else (other.low, other.high)
    return int(low > other_high) - int(high < other_low)


def _describe(first: _Quantity, others: Sequence[_Quantity], statement: Mapping[Any, Any]) -> str:
    """Return our values as text, such as "accuracy: 64: 58.3%; 32: 60.0%"."""
    metric = str(statement["metric"])
    if len(others) > MAX_LISTED:
        pick = max if statement["claim"] in ("highest", "above") else min
        others = [pick(others, key=lambda other: other.value)]
    unit = "%" * is_fraction(metric)
    quantities = (first, *others)
    several = len({quantity.backbone for quantity in quantities}) > 1
    labels = [", ".join([*([quantity.backbone] if several else []), quantity.name]) for quantity in quantities]
    values = [format_metric(quantity.value, metric) + unit for quantity in quantities]
    return f"{metric_title(metric)}: {'; '.join(map(': '.join, zip(labels, values, strict=True)))}"
