"""One row for each condition of a plan: every measure over folds and seeds, and how many runs it is of."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics.registry import METRICS
from analysis.statistics import hypothesis_tests
from core.config.run import Run
from core.plan import Plan, PlannedRun
from core.store.runs import FAILED, Record, Store

Records = Mapping[str, Record | None]  # by the run's id
COMPARED_METRICS = {"delta": "accuracy", "delta_best_epoch": "accuracy_best_epoch"}  # changes against the reference


def summarise_conditions(plan: Plan, store: Store) -> pd.DataFrame:
    """Return one row for each condition of a plan, in its order.

    Columns
    -------
    grid columns
        Every option that differs between the rows, by its name.
    condition
        The condition's name.
    accuracy and every other of `analysis.metrics.registry.METRICS`
        Mean over folds, each the mean of its seeds, or over the seeds of a single fold; nan where a run lacks it.
    accuracy_std, accuracy_low, accuracy_high and so on
        Its standard deviation (of a sample), and the bounds of a 95 % t interval of the mean
        (`analysis.statistics.hypothesis_tests.mean_interval`).
    delta, delta_best_epoch
        Mean change of accuracy against the reference over the folds and seeds that both have.
    runs, failed, missing
        How many runs were planned, and how many of them gave nothing.
    run_ids
        The runs.
    data, backbone
        Where they are not among the grid columns already.
    """
    records = {run.id: store.record(run) for run in plan.runs}
    return pd.DataFrame(
        [point | condition_row(part, records) | dataset_and_backbone(part[0]) for point, part in plan.groups()]
    )


def run_counts(runs: Sequence[Run], records: Records) -> dict[str, Any]:
    """Return ``runs``, ``failed``, ``missing`` and ``run_ids`` of the row that runs share."""
    found = [record for run in runs if (record := records[run.id])]
    failed = sum(record.status == FAILED for record in found)
    missing = len(runs) - failed - sum(record.finished for record in found)
    return {"runs": len(runs), "failed": failed, "missing": missing, "run_ids": [run.id for run in runs]}


def dataset_and_backbone(planned: PlannedRun) -> dict[str, str]:
    """Return the data set and the backbone, which stand in every row whether the grid varies them or not."""
    return {"data": planned.run.data.display_name, "backbone": planned.run.model.backbone}


def condition_row(part: Sequence[PlannedRun], records: Records) -> dict[str, Any]:
    """Return the row of a condition's runs, without what names it."""
    runs, references = [planned.run for planned in part], [planned.reference for planned in part]
    row: dict[str, Any] = {}
    units = _average_seeds([record for run in runs if (record := records[run.id]) and record.finished])
    for name in METRICS:
        over = hypothesis_tests.mean_interval(units[name].to_numpy() if units[name].notna().all() else [])
        row |= {name: over.mean, f"{name}_std": over.std, f"{name}_low": over.low, f"{name}_high": over.high}
    for name, of in COMPARED_METRICS.items():
        change = _metric_by_run(runs, records, of) - _metric_by_run(references, records, of).to_numpy()
        row[name] = hypothesis_tests.average_seeds(change).mean()
    return row | run_counts(runs, records)


def _average_seeds(records: Sequence[Record]) -> pd.DataFrame:
    """Return a row for each fold, its seeds averaged, or for each seed of a single fold, and a column for each measure.

    It is nan throughout where a run lacks it: a mean over other runs than the accuracy beside it would be of something
    else.
    """
    index = pd.MultiIndex.from_tuples([(record.run.data.fold, record.run.seed) for record in records] or [(0, 0)])
    read = {name: [measure.read(record) for record in records] for name, measure in METRICS.items()}
    found = pd.DataFrame(
        {name: math.nan if np.isnan(of).any() else of for name, of in read.items()},
        index=index[: len(records)],
        dtype=float,
    )
    return found.groupby(level=0).mean() if index.get_level_values(0).nunique() > 1 else found


def _metric_by_run(runs: Sequence[Run], records: Records, name: str) -> "pd.Series[float]":
    """Return a measure of every run by fold and seed, nan where it has not finished."""
    found = [record if (record := records[run.id]) and record.finished else None for run in runs]
    values = [METRICS[name].read(record) if record else math.nan for record in found]
    lacking = any(record and math.isnan(value) for record, value in zip(found, values, strict=True))
    index = pd.MultiIndex.from_tuples([(run.data.fold, run.seed) for run in runs])
    return pd.Series(math.nan if lacking else values, index=index, dtype=float)
