"""Find our number for a published number, and list the settings in which the two differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.output.output_folder import OutputFolder
from analysis.published.numbers import BEST_EPOCH, KEYS, SIZE_METRICS, metric_base
from analysis.published.settings import FREEZE, SIZE_SETTINGS, list_setting_differences
from core import datasets
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.plan import Plan

EPOCH_METRICS = ("accuracy", "delta")  # our runs have both for the best and for the last epoch
DECLARED_SETS = ("thirteen-classes",)  # not public: the content cannot be checked, so the name is trusted
UNFROZEN = "none"  # value of the setting "freeze" if nothing is frozen
Published = Mapping[Any, Any]  # a row of `analysis.published.numbers.load_published`


@dataclass(frozen=True)
class OwnRow:
    """One row of the table of an analysis, with its runs.

    Attributes
    ----------
    values
        Columns of the row: one for each metric. ``<metric>_best_epoch`` is its value at the best epoch,
        ``<metric>_std`` its standard deviation, and ``<metric>_low`` and ``<metric>_high`` its 95 % interval.
    data
        Name of the data set, as in published numbers; "" for a number that does not depend on the data, such as the
        number of parameters.
    backbone, condition
        Names of the backbone and the condition.
    runs
        Runs of the row; empty for a network that is described without training.
    point
        Values of the options that differ between the rows of the analysis.
    is_published_set
        Whether the data set is the published one, by its content or because the user declared it.
    is_declared
        Whether the user declared it.
    """

    values: Mapping[str, Any]
    data: str
    backbone: str
    condition: str
    runs: Sequence[Run] = ()
    point: Mapping[str, Any] = field(default_factory=dict)
    is_published_set: bool = False
    is_declared: bool = False

    def value(self, column: str) -> float:
        """Return a number of the row; nan if it has none."""
        value = self.values.get(column)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


@dataclass(frozen=True)
class Match:
    """One of our numbers for a published number.

    Attributes
    ----------
    value, std
        Our number, and its standard deviation.
    row
        The row that has the number.
    differences
        Settings in which our runs differ from the report, in words.
    """

    value: float
    std: float
    row: OwnRow
    differences: Sequence[str]


def collect_own_rows(frame: pd.DataFrame, results: OutputFolder) -> list[OwnRow]:
    """Return the rows of an analysis with their runs.

    Parameters
    ----------
    frame
        Rows with ``data``, ``backbone``, ``condition``, and ``run_ids`` if they are from runs.
    results
        Output folder. Its `published_as` is the name of our data set in the published numbers.
    """
    if frame.empty or not {*KEYS} <= set(frame):
        return []
    plan = results.plan
    runs = {run.id: run for run in plan.runs}
    points = {planned.run.id: point for planned, point in zip(plan.planned, plan.points, strict=True)}
    rows = []
    for values in frame.to_dict("records"):
        ids = values.get("run_ids")
        own_runs = [runs[id] for id in ids if id in runs] if isinstance(ids, list | tuple) else []
        name, is_published_set, is_declared = str(values["data"]), False, False
        if own_runs:
            name, is_published_set, is_declared = _identify_data(name, own_runs[0], plan, results.published_as)
        rows.append(
            OwnRow(
                values={str(key): value for key, value in values.items()},
                data=name,
                backbone=str(values["backbone"]),
                condition=str(values["condition"]),
                runs=own_runs,
                point=points[own_runs[0].id] if own_runs else {},
                is_published_set=is_published_set,
                is_declared=is_declared,
            )
        )
    return rows


def _identify_data(name: str, run: Run, plan: Plan, published_as: str) -> tuple[str, bool, bool]:
    """Return the published name of a data set, whether it is the published set, and whether the user declared it."""
    if published_as:
        return published_as, True, True
    if run.data.name in DECLARED_SETS:
        return name, True, True
    dataset: Dataset | None = plan.datasets.get(run.data.content)
    is_embedded = run.data.name in datasets.LOADERS and datasets.LOADERS[run.data.name].embedded
    return name, is_embedded or (dataset is not None and dataset.is_published_set), False


def metric_column(published: Published) -> str:
    """Return the column of our rows that has the metric of a published number, for the same epoch (last or best)."""
    column = metric_base(str(published["metric"]))
    return column + "_best_epoch" * (published["epoch"] == BEST_EPOCH and column in EPOCH_METRICS)


def find_matches(
    published: Published,
    own_rows: Sequence[OwnRow],
    *,
    settings: Sequence[str],
    data_sets: Mapping[str, Dataset],
    item_backbones: Mapping[str, Sequence[str]],
    in_study: bool,
) -> list[Match]:
    """Return our numbers that can be compared with a published number. Only this function decides that.

    A match has the same data set, condition, metric and epoch. It also has the same backbone and starting weights,
    unless a study replaces the published network by another one. Of several candidates, such as rows with two learning
    rates, those with the fewest differences are returned, one match for each different number.

    Parameters
    ----------
    published
        A published number; an empty backbone means all backbones.
    own_rows
        Our rows.
    settings
        Columns of `published` with settings that the report states.
    data_sets
        Data sets of our runs by ``data.content``.
    item_backbones
        Backbones of the published numbers of the item, by condition.
    in_study
        Whether the rows are from the command `study`, whose experiment reproduces the item; False for other commands.
    """
    column = metric_column(published)
    candidates = [
        row
        for row in own_rows
        if row.condition == published["condition"]
        and (not row.data or (row.data == published["data"] and row.is_published_set))
        and not math.isnan(row.value(column))
    ]
    candidates = select_backbone(published, candidates, item_backbones, substitutes=in_study)
    stated = {name: str(published[name]) for name in settings}
    if not in_study:
        candidates = [row for row in candidates if _has_weights(row, stated.get("weights", ""))]
    is_size = metric_base(str(published["metric"])) in SIZE_METRICS
    if is_size:
        stated = {name: stated[name] for name in SIZE_SETTINGS if name in stated}
    matches = [
        Match(
            row.value(column),
            math.nan if is_size else row.value(f"{column}_std"),
            row,
            list_differences(published, row, stated, data_sets),
        )
        for row in candidates
    ]
    fewest = min((len(match.differences) for match in matches), default=0)
    chosen = [match for match in matches if len(match.differences) == fewest]
    distinct = {(match.value, match.std, tuple(match.differences)): match for match in reversed(chosen)}
    return [match for match in chosen if any(match is other for other in distinct.values())]


def select_backbone(
    published: Published, rows: Sequence[OwnRow], item_backbones: Mapping[str, Sequence[str]], *, substitutes: bool
) -> list[OwnRow]:
    """Return the rows with the backbone of a published number or, if there are none, with its substitute in a study.

    A substitute is a backbone that has no published numbers in this item. It is accepted with `substitutes`, and only
    for a condition with one published backbone.
    """
    backbone = published["backbone"]
    same = [row for row in rows if backbone in ("", row.backbone)]
    if same or not substitutes or len(item_backbones.get(published["condition"], ())) != 1:
        return same
    published_backbones = {name for names in item_backbones.values() for name in names}
    return [row for row in rows if row.backbone not in published_backbones]


def list_backbones(numbers: pd.DataFrame) -> dict[str, list[str]]:
    """Return the backbones of published numbers by condition."""
    by_condition = numbers[numbers["backbone"] != ""].groupby("condition")
    return {str(name): sorted(set(part["backbone"])) for name, part in by_condition}


def list_differences(
    published: Published, row: OwnRow, stated: Mapping[str, str], data_sets: Mapping[str, Dataset]
) -> list[str]:
    """Return the differences between a published number and one of our rows as texts, such as "lr 0.1 instead of 0.01".

    Parameters
    ----------
    published, row
        The published number, and our row.
    stated
        Settings that the report states for the number, by column; empty ones are not compared.
    data_sets
        Data sets of our runs by ``data.content``.
    """
    differences = []
    if row.data and row.data != published["data"]:
        differences.append(f"data {row.data} instead of {published['data']}")
    elif row.is_declared:
        differences.append(f"data declared as {row.data}")
    elif row.data and not row.is_published_set:
        differences.append(f"data not the published {row.data}")
    if published["backbone"] and row.backbone != published["backbone"]:
        differences.append(f"backbone {row.backbone} instead of {published['backbone']}")
    differences += list_setting_differences(stated, row.runs, data_sets)
    freeze = row.values.get(FREEZE)
    if not row.runs and stated.get(FREEZE) == UNFROZEN and isinstance(freeze, str) and freeze != UNFROZEN:
        differences.append(f"{FREEZE} {freeze} instead of {UNFROZEN}")
    return [*differences, *([published["differs"]] if published["differs"] and row.runs else [])]


def _has_weights(row: OwnRow, stated: str) -> bool:
    """Return whether all runs of a row have the stated starting weights; True if none are stated."""
    return not stated or all(run.model.weights == stated for run in row.runs)
