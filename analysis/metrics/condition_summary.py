"""Summary of a plan: one row per condition with the mean of every metric over folds and seeds."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics.calibration_error import read_calibration
from analysis.metrics.chance import chance_level
from analysis.metrics.prediction_time import average_prediction_times
from analysis.metrics.registry import METRICS, POOLED_METRICS
from analysis.metrics.shared_runs import averaged_over, select_shared_runs
from analysis.statistics import hypothesis_tests
from core.config.run import Run
from core.plan import Groups, Plan, PlannedRun
from core.store.run_store import FAILED, Record, Store

Records = Mapping[str, Record | None]  # by run id
COMPARED_METRICS = {
    "delta": "accuracy",
    "delta_best_epoch": "accuracy_best_epoch",
}  # column with the difference to the reference: its metric
AVERAGED_METRICS = {name: metric for name, metric in METRICS.items() if name not in POOLED_METRICS}


def summarise_conditions(plan: Plan, store: Store, requested: Collection[str] = ()) -> pd.DataFrame:
    """Return one row per condition of a plan, in the order of the plan (`summarise_groups`)."""
    return summarise_groups(plan.groups(), store, requested)


def summarise_groups(groups: Groups, store: Store, requested: Collection[str] = ()) -> pd.DataFrame:
    """Return one row per condition.

    If runs have failed or are missing, all numbers are over the folds and seeds that the compared conditions share
    (`analysis.metrics.shared_runs.select_shared_runs`).

    Parameters
    ----------
    groups, store
        Runs of each condition, and the store with the runs.
    requested
        Names of the metrics of ``--metric``. The predictions of all runs are read only if `POOLED_METRICS` are among
        them.

    Columns
    -------
    grid columns
        One column per option that differs between rows.
    condition
        Name of the condition.
    accuracy and all other `analysis.metrics.registry.METRICS`; `POOLED_METRICS` only if requested
        Mean over folds (seeds averaged within each fold), or over the seeds of a single fold; nan if a run lacks it.
    accuracy_std, accuracy_low, accuracy_high and so on
        Sample standard deviation, and bounds of the 95 % t interval of the mean
        (`analysis.statistics.hypothesis_tests.mean_interval`). Intervals of scores of clips are corrected for
        overlapping training sets; those of fractions lie within 0 and 1. `POOLED_METRICS` have none of these, and
        ``prediction_ms`` neither: it is one time per network
        (`analysis.metrics.prediction_time.average_prediction_times`).
    delta, delta_best_epoch
        Mean accuracy difference to the reference.
    chance, n_classes
        Fraction of the test clips in the largest class, and number of classes with test clips.
    compared, over
        Number of runs in the means, and what is averaged: "folds", "seeds" (of one fold) or "1 run".
    runs, failed, missing
        Number of planned, failed and missing runs.
    run_ids
        Ids of the runs.
    data, backbone
        Data set and backbone.
    """
    runs = {run.id: run for _, planned in groups for each in planned for run in (each.run, each.reference)}
    records = {id: store.record(run) for id, run in runs.items()}
    has_calibration = any(name in POOLED_METRICS for name in requested)
    times = average_prediction_times(records.values())
    return pd.DataFrame(
        [
            values
            | _average_runs(shared, records)
            | (read_calibration([each.run for each in shared], store) if has_calibration else {})
            | _prediction_time([times[each.run.id] for each in shared])
            | run_counts([each.run for each in planned], records)
            | dataset_and_backbone(planned[0])
            for (values, planned), (_, shared) in zip(groups, select_shared_runs(groups, store), strict=True)
        ]
    )


def _prediction_time(times: Sequence[float]) -> dict[str, float]:
    """Return the columns of the prediction time of a condition, from the times of its runs."""
    spread = {f"prediction_ms{suffix}": math.nan for suffix in ("_std", "_low", "_high")}
    return {"prediction_ms": float(np.mean(times)) if times else math.nan} | spread


def run_counts(runs: Sequence[Run], records: Records) -> dict[str, Any]:
    """Return the columns ``runs``, ``failed``, ``missing`` and ``run_ids`` of a row."""
    existing = [record for run in runs if (record := records[run.id])]
    failed = sum(record.status == FAILED for record in existing)
    missing = len(runs) - failed - sum(record.finished for record in existing)
    return {"runs": len(runs), "failed": failed, "missing": missing, "run_ids": [run.id for run in runs]}


def dataset_and_backbone(planned: PlannedRun) -> dict[str, str]:
    """Return the columns ``data`` and ``backbone`` of a row."""
    return {"data": planned.run.data.display_name, "backbone": planned.run.model.backbone}


def _average_runs(planned: Sequence[PlannedRun], records: Records) -> dict[str, Any]:
    """Return the metrics of a condition, averaged over finished runs, and the columns that describe these runs."""
    row: dict[str, Any] = {}
    runs, references = [each.run for each in planned], [each.reference for each in planned]
    finished = [record for run in runs if (record := records[run.id])]
    units = _average_seeds(finished)
    sizes = hypothesis_tests.FoldSizes.from_records(finished)
    if sizes and len({record.run.data.fold for record in finished}) == 1:
        sizes = sizes.without_overlap
    for name, metric in AVERAGED_METRICS.items():
        values = units[name].to_numpy() if units[name].notna().all() else np.zeros(0)
        bounds = (0.0, 1.0) if metric.is_fraction else (-math.inf, math.inf)
        interval = hypothesis_tests.mean_interval(values, sizes=sizes if metric.is_score else None, bounds=bounds)
        row |= {name: interval.mean, f"{name}_std": interval.std}
        row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    for name, compared in COMPARED_METRICS.items():
        change = _metric_by_run(runs, records, compared) - _metric_by_run(references, records, compared).to_numpy()
        row[name] = hypothesis_tests.average_seeds(change).mean()
    chance, n_classes = chance_level(finished)
    return row | {"chance": chance, "n_classes": n_classes, "compared": len(runs), "over": averaged_over(planned)}


def _average_seeds(records: Sequence[Record]) -> pd.DataFrame:
    """Return every metric, one row per fold (seeds averaged) or per seed of a single fold.

    A metric that one run lacks is nan in all rows, so that all means of a condition are over the same runs.
    """
    index = pd.MultiIndex.from_tuples([(record.run.data.fold, record.run.seed) for record in records] or [(0, 0)])
    values = {name: [metric.read(record) for record in records] for name, metric in AVERAGED_METRICS.items()}
    frame = pd.DataFrame(
        {name: math.nan if np.isnan(column).any() else column for name, column in values.items()},
        index=index[: len(records)],
        dtype=float,
    )
    return frame.groupby(level=0).mean() if index.get_level_values(0).nunique() > 1 else frame


def _metric_by_run(runs: Sequence[Run], records: Records, name: str) -> "pd.Series[float]":
    """Return a metric of every run, indexed by (fold, seed); nan for unfinished runs.

    If the record of a finished run lacks the metric, all values are nan.
    """
    finished = [record if (record := records[run.id]) and record.finished else None for run in runs]
    values = [METRICS[name].read(record) if record else math.nan for record in finished]
    lacking = any(record and math.isnan(value) for record, value in zip(finished, values, strict=True))
    index = pd.MultiIndex.from_tuples([(run.data.fold, run.seed) for run in runs] or [(0, 0)])[: len(runs)]
    return pd.Series(math.nan if lacking else values, index=index, dtype=float)
