"""Numbers that reports have published, and tables that compare them with ours.

``ablations/studies/<report>/published.csv`` has one number in each row, with these columns:

- ``item``: table, figure or section of the report.
- ``data``, ``backbone``, ``condition``: what the number is about, in the names of this toolkit if it has them. Empty if
  the report names none, for example a statement about all backbones. A condition can also be a class or a cell of a
  confusion matrix (`analysis.published.class_level`).
- ``metric``: name of the metric, which decides the format (`analysis.output.number_format.format_metric`). A published
  range is two metrics that end in ``_low`` and ``_high``. ``delta`` is a change against the first condition.
- ``epoch``: ``best`` if the number is from the best epoch of a run; it is then compared with our best epoch, never with
  our last one. Empty if the report does not name the epoch or the number has none, such as a count.
- ``value``: a fraction from 0 to 1, a count, or seconds. ``std``: its standard deviation, or empty.
- ``approximate``: true for a number in words ("about 90%", "over 6 million").
- ``source``: the place in the report, in the report's own words.
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
from analysis.output.number_format import format_metric, metric_title
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import MISSING, Column
from analysis.published.class_level import ENTRY, ENTRY_NOTE, class_level_rows
from core.errors import UserError, first_line, unknown_name_error

KEYS = ("data", "backbone", "condition")
TEXT_COLUMNS = ("study", "item", *KEYS, "metric", "epoch", "source")
BEST_EPOCH = "best"
EPOCH_METRICS = ("accuracy", "delta")  # we have these for the best epoch and for the last one
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
    "Both numbers are from the same epoch: the best epoch on the test fold (optimistic) if the report gives that one, "
    "otherwise the last epoch. Accuracy and F1 in %, changes in percentage points. 'about': approximate in the report.",
)
ALL_BACKBONES_NOTE = (
    "For a published number about all backbones, ours is the mean over backbones for a change, and the best backbone "
    "for other metrics."
)


@dataclass(frozen=True)
class Match:
    """One of our numbers that measures the same as a published one, its standard deviation, and the row it is from."""

    value: float
    std: float
    row: Mapping[str, Any]


def list_published(folder: Path) -> tuple[str, ...]:
    """Return the names of the studies in a folder that have published numbers."""
    return tuple(sorted(file.parent.name for file in folder.glob("*/published.csv")))


def load_published(study: str, item: str | None = None, *, folder: Path) -> pd.DataFrame:
    """Read the published numbers of a report.

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
        If the study or item is unknown (with the nearest match), or the file cannot be read.
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
        raise UserError(f"{study}/published.csv: {first_line(error)}") from None
    if missing := [name for name in ("item", "data", "metric", "value") if name not in numbers]:
        raise UserError(f"{study}/published.csv: add the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    defaults: dict[str, Any] = dict.fromkeys(TEXT_COLUMNS, "") | {"study": study, "std": math.nan, "approximate": False}
    numbers = numbers.assign(**{name: value for name, value in defaults.items() if name not in numbers})
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


def find_matches(published: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Match]:
    """Return our numbers that measure the same as a published one. Only this function decides that.

    Parameters
    ----------
    published
        A row of `load_published`; an empty backbone means all backbones.
    rows
        Our conditions, with ``data`` (empty for a number that does not depend on the data, such as the number of
        parameters), ``backbone``, ``condition``, and one column for each metric. ``<metric>_best_epoch`` is its value
        at the best epoch, and ``<metric>_std`` its standard deviation.
    """
    column = re.sub("_(low|high)$", "", str(published["metric"]))
    column += "_best_epoch" * (published["epoch"] == BEST_EPOCH and column in EPOCH_METRICS)
    return [
        Match(row[column], row.get(f"{column}_std", math.nan), row)
        for row in rows
        if row["condition"] == published["condition"]
        and row["data"] in ("", published["data"])
        and published["backbone"] in ("", row["backbone"])
        and _is_number(row.get(column))
    ]


def join_with_published(
    frame: pd.DataFrame, study: str, item: str, *, folder: Path, class_rows: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return a table with one row for each number, ours and the published one side by side.

    Parameters
    ----------
    frame
        Our conditions, one row each, with the columns of `find_matches`. Not changed.
    study, item, folder
        Parameters of `load_published`.
    class_rows
        Rows of `class_level_rows`. They appear only beside a published number.

    Returns
    -------
    DataFrame
        ``data``, ``backbone``, ``condition``, ``metric``, ``epoch``, ``ours``, ``ours_std``, ``published``,
        ``published_std``, ``approximate``, ``source``: first the numbers of the report in its order, then the accuracy
        of our conditions that the report does not have. A published bound of a change (``delta_low``) is compared with
        our change.

    Raises
    ------
    ValueError
        If `frame` has two rows with the same data set, backbone and condition.
    """
    if (duplicates := frame.duplicated(list(KEYS))).any():
        raise ValueError(f"more than one row for {', '.join(map(str, frame.loc[duplicates, list(KEYS)].iloc[0]))}")
    own = _to_rows(frame)
    all_own = own + _to_rows(pd.DataFrame() if class_rows is None else class_rows)
    numbers = load_published(study, item, folder=folder).rename(columns={"value": "published", "std": "published_std"})
    rows: list[dict[Any, Any]] = numbers.drop(columns=["study", "item"]).to_dict("records")
    matched = []
    for row in rows:
        matches = find_matches(row, all_own)
        matched += [tuple(match.row[name] for name in KEYS) for match in matches]
        row["ours"], row["ours_std"] = _combine_matches(matches, str(row["metric"]))
        if not row["backbone"] and matches:
            row["backbone"] = f"all ({len(matches)})"
    epoch = BEST_EPOCH if (numbers["epoch"] == BEST_EPOCH).any() else "last"
    scored = [row for row in own if "accuracy" in row]
    rows += [_unmatched_row(row, epoch) for row in scored if tuple(row[name] for name in KEYS) not in matched]
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
    only_published: bool = False,
) -> None:
    """Write the table that compares an analysis with the published numbers of an item, if there are any.

    Parameters
    ----------
    results
        Output folder. Its `published_as` is the name of our data set in the published numbers.
    frame
        Rows of the analysis, averaged over a grid so that each condition is one number.
    study, item, folder
        Parameters of `load_published`.
    title
        Title of the report.
    name
        Name of the table.
    always
        Whether to write the table if none of our numbers matches a published one.
    only_published
        Whether to leave out conditions that the report does not have.
    """
    if study not in list_published(folder) or item not in set(load_published(study, folder=folder)["item"]):
        return
    numbers = load_published(study, item, folder=folder)
    if only_published and "condition" in frame:  # the frame of `samples` has no conditions
        frame = frame[frame["condition"].isin(set(numbers["condition"]))]
    by_class = pd.DataFrame(class_level_rows(results.plan, results.session.store, numbers))
    own, class_rows = average_over_grid(frame), average_over_grid(by_class)
    if results.published_as:
        own, class_rows = (
            part.assign(data=part["data"].where(part["data"] == "", results.published_as)) for part in (own, class_rows)
        )
    table = join_with_published(own, study, item, class_rows=class_rows, folder=folder)
    compared = table["ours"].notna() & table["published"].notna()
    if not (always or compared.any()):
        return
    notes = [*FOOTNOTES]
    if table["backbone"].str.startswith("all (").any():
        notes.append(ALL_BACKBONES_NOTE)
    if table[compared]["condition"].map(lambda name: bool(ENTRY.fullmatch(name))).any():
        notes.append(ENTRY_NOTE)
    caption = f"{title}, {item}: our numbers and the published ones"
    printed = table.assign(epoch=table["epoch"].replace("", MISSING), backbone=table["backbone"].replace("", MISSING))
    results.write_table(name, printed, COLUMNS, caption=caption, footnotes=notes, show=bool(compared.any()))


def average_over_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each data set, backbone and condition: the mean over all other options of a grid."""
    if frame.empty or not {*KEYS} <= set(frame):
        return pd.DataFrame(columns=[*KEYS])
    numbers = [name for name in frame.select_dtypes("number") if name not in KEYS]
    return frame.groupby(list(KEYS), sort=False)[numbers].mean().reset_index()


def _combine_matches(matches: Sequence[Match], metric: str) -> tuple[float, float]:
    """Return value and standard deviation of ours: the mean over backbones for a change, the best for other metrics."""
    if len(matches) < 2:
        return (matches[0].value, matches[0].std) if matches else (math.nan, math.nan)
    values = [match.value for match in matches]
    if metric.startswith("delta"):
        return sum(values) / len(values), math.nan
    lower_is_better = metric in METRICS and METRICS[metric].best == "min"
    return (min(values) if lower_is_better else max(values)), math.nan


def _unmatched_row(row: Mapping[str, Any], epoch: str) -> dict[str, Any]:
    """Return the row of a condition that the report does not have: our accuracy at the epoch of its other numbers."""
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
