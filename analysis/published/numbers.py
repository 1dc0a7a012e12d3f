"""The numbers that the reports themselves state, and ours beside them, never mixed.

``ablations/studies/<report>/published.csv`` holds one number a row: study, item (table, figure or section), data,
backbone, condition, metric, epoch, value (fraction 0 to 1, count, or seconds), std, approximate, source. Data sets and
backbones go by this toolkit's names where it has them; `source` names report and place in the report's own words.
`epoch` is ``best`` where the number is that of a run's best epoch, so that it stands beside our best epoch and never
beside our last; it is empty where the report does not say, or where a number has none, such as a count. `approximate`
marks what a report gives in words ("about 90%", "over 6 million"); a range is two metrics, ``_low`` and ``_high``; a
change (``delta``) is against the first condition of our ablation. An empty field means that the report names none,
such as the backbone of a statement about all of them. What is finer than a condition, a class or a cell of a confusion
matrix, is named as `analysis.published.class_level` says.

What a metric's numbers are, and so how they are written, follows from its name
(`analysis.output.number_format.format_metric`).
"""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.metrics.registry import METRICS
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_metric, metric_title
from analysis.output.tables import MISSING, Column
from analysis.published.class_level import ENTRY, ENTRY_NOTE, class_level_rows
from core.errors import UserError, unknown_name_error

FOLDER = Path(__file__).resolve().parents[2] / "ablations" / "studies"
KEYS = ("data", "backbone", "condition")
TEXT_COLUMNS = ("study", "item", *KEYS, "metric", "epoch", "source")
BEST_EPOCH = "best"
EPOCH_METRICS = ("accuracy", "delta")  # metrics that we have of the best epoch, and of the last
COLUMNS = (
    Column("data", "Data"),
    Column("backbone", "Backbone"),
    Column("condition", "Condition"),
    Column("metric", "Metric", metric_title),
    Column("epoch", "Epoch"),
    Column("ours", "Ours", format_metric, std="ours_std", unit="metric"),
    Column("published", "Published", format_metric, std="published_std", unit="metric", mark="approximate"),
)
FOOTNOTES = (
    "Ours and published are of the same epoch: the best one on the test fold, which flatters, where the report's is, "
    "and else the last. Accuracy and F1 in %, changes in percentage points. 'about': stated in words.",
)
ALL_BACKBONES_NOTE = "A statement about all backbones has the mean of ours for a change, and our best for the rest."


@dataclass(frozen=True)
class Match:
    """A number of ours that is the same thing as a published one, its deviation, and the row that it is from."""

    value: float
    std: float
    row: Mapping[str, Any]


def list_published(folder: Path = FOLDER) -> tuple[str, ...]:
    """Name the reports whose numbers are at hand."""
    return tuple(sorted(file.parent.name for file in folder.glob("*/published.csv")))


def load_published(study: str, item: str | None = None, *, folder: Path = FOLDER) -> pd.DataFrame:
    """Read a report's numbers.

    Parameters
    ----------
    study
        The report, e.g. ``rethinking-cnn``.
    item
        One of its tables, figures or sections, e.g. ``Table I``; all of them where none is named.
    folder
        Where the reports are.

    Returns
    -------
    DataFrame
        One number a row, in the report's order; see the module for the columns.

    Raises
    ------
    UserError
        For a study or an item that there is not, naming those there are, and for a file that cannot be read.
    """
    if study not in list_published(folder):
        raise unknown_name_error("study", study, list_published(folder))
    file = folder / study / "published.csv"
    types = dict.fromkeys(TEXT_COLUMNS, str) | {"value": float, "std": float, "approximate": bool}
    try:
        numbers = pd.read_csv(
            file,
            dtype=types,
            keep_default_na=False,  # the condition "none" and an empty name are text
            na_values={"std": [""]},
        )
    except (ValueError, OSError) as error:
        raise UserError(f"{study}/published.csv: {str(error).splitlines()[0]}") from None
    if absent := [name for name in ("item", "data", "metric", "value") if name not in numbers]:
        raise UserError(f"{study}/published.csv lacks the column{'s' * (len(absent) > 1)} {', '.join(absent)}")
    filled: dict[str, Any] = dict.fromkeys(TEXT_COLUMNS, "") | {"study": study, "std": math.nan, "approximate": False}
    numbers = numbers.assign(**{name: value for name, value in filled.items() if name not in numbers})
    if item is None:
        return numbers
    if item not in set(numbers["item"]):
        raise unknown_name_error(f"item of {study}", item, numbers["item"].unique())
    return numbers[numbers["item"] == item].reset_index(drop=True)


def load_all_published(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """Return the numbers of every report whose file can be read, by name; the others' own studies say what is wrong."""
    found = {}
    for study in list_published(folder):
        with contextlib.suppress(UserError):
            found[study] = load_published(study, folder=folder)
    return found


def find_matches(stated: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Match]:
    """Find a published number among rows of ours: the one place that says when two numbers are the same thing.

    Parameters
    ----------
    stated
        A row of `load_published`. One without a backbone is about all of them.
    rows
        Conditions of ours: ``data`` ("" where they hang on none, as a network's parameters), ``backbone``,
        ``condition``, and a column for each metric, with ``_best_epoch`` behind its name for the best epoch's, and
        with ``_std`` for its deviation.
    """
    column = re.sub("_(low|high)$", "", str(stated["metric"]))
    column += "_best_epoch" * (stated["epoch"] == BEST_EPOCH and column in EPOCH_METRICS)
    return [
        Match(row[column], row.get(f"{column}_std", math.nan), row)
        for row in rows
        if row["condition"] == stated["condition"]
        and row["data"] in ("", stated["data"])
        and stated["backbone"] in ("", row["backbone"])
        and _is_number(row.get(column))
    ]


def join_with_published(
    frame: pd.DataFrame, study: str, item: str, *, finer: pd.DataFrame | None = None, folder: Path = FOLDER
) -> pd.DataFrame:
    """Set our numbers and a report's side by side, one number a row; what only one of us has stands alone.

    Parameters
    ----------
    frame
        Our conditions: one row each, with the columns of `find_matches`. Not changed.
    study, item, folder
        Where the published numbers are from; see `load_published`.
    finer
        Further rows of the same columns, which stand beside published numbers and never alone.

    Returns
    -------
    DataFrame
        ``data``, ``backbone``, ``condition``, ``metric``, ``epoch``, ``ours``, ``ours_std``, ``load_published``,
        ``published_std``, ``approximate``, ``source``: the report's rows in its order, then the accuracy of our
        conditions that it does not have. A published bound of a change (``delta_low``) stands beside our change.

    Raises
    ------
    ValueError
        Where `frame` has two rows for one data set, backbone and condition, so that ours would not be one number.
    """
    if (twice := frame.duplicated(list(KEYS))).any():
        raise ValueError(f"more than one row for {', '.join(map(str, frame.loc[twice, list(KEYS)].iloc[0]))}")
    own = _to_rows(frame)
    all_own = own + _to_rows(pd.DataFrame() if finer is None else finer)
    theirs = load_published(study, item, folder=folder).rename(columns={"value": "published", "std": "published_std"})
    rows: list[dict[Any, Any]] = theirs.drop(columns=["study", "item"]).to_dict("records")
    found = []
    for row in rows:
        every = find_matches(row, all_own)
        found += [tuple(match.row[name] for name in KEYS) for match in every]
        row["ours"], row["ours_std"] = _combine_matches(every, str(row["metric"]))
        if not row["backbone"] and every:
            row["backbone"] = f"all ({len(every)})"
    epoch = BEST_EPOCH if (theirs["epoch"] == BEST_EPOCH).any() else "last"
    scored = [row for row in own if "accuracy" in row]
    rows += [_unmatched_row(row, epoch) for row in scored if tuple(row[name] for name in KEYS) not in found]
    columns = [*KEYS, "metric", "epoch", "ours", "ours_std", "published", "published_std", "approximate", "source"]
    return pd.DataFrame(rows).reindex(columns=columns)


def write_published_comparison(
    results: OutputFolder,
    frame: pd.DataFrame,
    study: str,
    item: str,
    *,
    title: str,
    folder: Path,
    name: str = "published",
    always: bool = True,
) -> None:
    """Write the table that sets the rows of an analysis beside an item's published numbers, where it states any.

    Parameters
    ----------
    results
        Where to write; its `published_as` is the name that published rows have for our data set.
    frame
        The analysis's rows, over any grid: averaged, so that a condition is one number.
    study, item, folder
        See `load_published`.
    title
        The report's.
    name
        The table's.
    always
        Write it also where no number of ours is the same thing as a published one.
    """
    if study not in list_published(folder) or item not in set(load_published(study, folder=folder)["item"]):
        return
    more = class_level_rows(results.plan, results.session.store, load_published(study, item, folder=folder))
    own, finer = average_over_grid(frame), average_over_grid(pd.DataFrame(more))
    if results.published_as:
        own, finer = (
            part.assign(data=part["data"].where(part["data"] == "", results.published_as)) for part in (own, finer)
        )
    table = join_with_published(own, study, item, finer=finer, folder=folder)
    both = table["ours"].notna() & table["published"].notna()
    if not (always or both.any()):
        return
    notes = [*FOOTNOTES, *([ALL_BACKBONES_NOTE] if table["backbone"].str.startswith("all (").any() else [])]
    notes += [ENTRY_NOTE] if table[both]["condition"].map(lambda name: bool(ENTRY.fullmatch(name))).any() else []
    caption = f"{title}, {item}: ours beside the published"
    shown = table.assign(epoch=table["epoch"].replace("", MISSING), backbone=table["backbone"].replace("", MISSING))
    results.write_table(name, shown, COLUMNS, caption=caption, footnotes=notes, show=bool(both.any()))


def average_over_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """Average over whatever else a grid varies, so that a condition of a data set and a backbone is one row."""
    if frame.empty or not {*KEYS} <= set(frame):
        return pd.DataFrame(columns=[*KEYS])
    numbers = [name for name in frame.select_dtypes("number") if name not in KEYS]
    return frame.groupby(list(KEYS), sort=False)[numbers].mean().reset_index()


def _combine_matches(found: Sequence[Match], metric: str) -> tuple[float, float]:
    """Make one number of ours of all that a statement is about."""
    if len(found) < 2:
        return (found[0].value, found[0].std) if found else (math.nan, math.nan)
    values = [match.value for match in found]
    if metric.startswith("delta"):
        return sum(values) / len(values), math.nan
    least = metric in METRICS and METRICS[metric].best == "min"
    return (min(values) if least else max(values)), math.nan


def _unmatched_row(row: Mapping[str, Any], epoch: str) -> dict[str, Any]:
    """Return our accuracy of a condition for which the report has no number, of the epoch of its others."""
    name = "accuracy_best_epoch"
    if epoch != BEST_EPOCH or not _is_number(row.get(name)):
        name, epoch = "accuracy", "last"
    return {key: row[key] for key in KEYS} | {
        "metric": "accuracy",
        "epoch": epoch,
        "ours": row[name],
        "ours_std": row.get(f"{name}_std", math.nan),
        "approximate": False,
        "source": "",
    }


def _to_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
