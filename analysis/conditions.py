"""From the runs of a plan to one row per condition: means over folds and seeds, and the change against the reference.

`compare` is what most ablations show: one table, one figure, and the paired tests behind the changes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import comparisons, figures, statistics
from analysis.confusion import write_confusion
from analysis.formats import magnitude, percent, points, seconds
from analysis.learning import write_learning_curves
from analysis.results import Results
from analysis.tables import Column, protocol
from core.config import Run
from core.plan import Plan, Planned
from core.store import FAILED, Record, Store

Records = Mapping[str, Record | None]  # by the run's id
MEASURED = ("accuracy", "accuracy_best_epoch")
WEIGHTED = ("precision", "recall", "f1")  # over the classes, by their clips
ACCURACY = Column("accuracy", "Accuracy %", percent, best="max", std="accuracy_std")
BEST_EPOCH = Column("accuracy_best_epoch", "Best epoch %", percent)
MACRO_F1 = Column("macro_f1", "Macro F1 %", percent, best="max")
CHANGE = Column("delta", "Change", points)
COLUMNS = (
    ACCURACY,
    BEST_EPOCH,
    MACRO_F1,
    CHANGE,
    Column("trainable_parameters", "Trainable", magnitude),
    Column("seconds", "Time", seconds),
)


def compare(
    results: Results,
    *,
    title: str,
    bars: bool = False,
    add: Callable[[pd.DataFrame, Results], pd.DataFrame] | None = None,
    shown: Sequence[Column] = COLUMNS,
) -> pd.DataFrame:
    """Write the table of conditions, the tests behind it and the figures; return the table's rows.

    The figures are accuracy by condition, learning curves and confusion matrices.

    Parameters
    ----------
    results
        The finished runs.
    title
        What the conditions are.
    bars
        Draw bars instead of a line along the depth.
    add
        Adds columns to the table's rows.
    shown
        The columns that are shown, after the grid's and the condition.
    """
    plan, store = results.plan, results.session.store
    frame = summarise(plan, store)
    if add:
        frame = add(frame, results)
    results.table(
        "table",
        frame,
        columns(frame, title, shown),
        caption=caption(plan),
        footnotes=footnotes(plan, store),
        groups=grid_columns(frame),
    )
    _write_comparisons(results, title)
    lines, name = name_points(frame, grid_columns(frame))
    reference = plan.planned[0].condition

    def draw(ax: Axes) -> Axes:
        if bars:
            data = lines if name else lines.assign(point="")
            return figures.grouped_bars(data, ax, x=name or "point", series="condition")
        return figures.accuracy_by_condition(lines, ax, xlabel=title, reference=reference, series=name)

    results.figure(
        "figure",
        frame.drop(columns="run_ids"),
        draw,
        caption=f"{caption(plan)}: accuracy on the test fold by condition"
        + ("." if bars else "; the dashed line is the reference."),
    )
    write_learning_curves(results, plan.groups(), caption=caption(plan))
    write_confusion(results, plan.groups(), caption=caption(plan))
    return frame


def _write_comparisons(results: Results, title: str) -> None:
    """Write the paired tests; they are shown where there are pairs enough for one."""
    points = results.session.execution.equivalence_margin
    margin = None if points is None else points / 100
    frame = comparisons.comparisons(results.plan, results.session.store, margin=margin)
    if frame.empty:
        return
    grid = grid_columns(frame)
    results.table(
        "comparisons",
        frame,
        [*grid_titles(grid), Column("condition", title), *comparisons.COLUMNS],
        caption=f"{caption(results.plan)}: change against the reference",
        footnotes=comparisons.footnotes(frame, margin=margin),
        groups=grid,
        show=bool((frame["pairs"] > 1).any()),
    )


def caption(plan: Plan) -> str:
    """Name the ablation, the data sets, the backbones and their weights."""
    runs = [planned.reference for planned in plan.planned]
    parts = [sorted({get(run) for run in runs}) for get in (_backbone, lambda run: run.data.name)]
    return f"{plan.ablation.capitalize()}: {' and '.join(parts[0])} on {' and '.join(parts[1])}"


def _backbone(run: Run) -> str:
    return f"{run.model.backbone} ({Path(run.model.weights).name} weights)"


def summarise(plan: Plan, store: Store) -> pd.DataFrame:
    """Return one row for each condition of a plan, in its order.

    Columns
    -------
    grid columns
        Every option that differs between the rows, by its name.
    condition
        The condition's name.
    accuracy, accuracy_std, macro_f1
        Of the last epoch on the test fold, 0 to 1; mean and standard deviation (of a sample) over folds, each the mean
        of its seeds, or over the seeds of a single fold.
    accuracy_low, accuracy_high
        Bounds of a 95 % t interval of that mean (`analysis.statistics.describe`).
    accuracy_best_epoch, accuracy_best_epoch_std
        Mean and deviation of each run's best epoch on the test fold, which flatters.
    balanced_accuracy, precision, recall, f1
        Means over folds as those of accuracy, of the last epoch; the last three of classes weighted by their clips.
    epochs
        Mean over the runs.
    delta, delta_best_epoch
        Mean change of accuracy against the reference over the folds and seeds that both have.
    trainable_parameters, parameters, seconds
        Means; seconds are of training and evaluation, without what the cache may hold.
    runs, failed, missing
        How many runs were planned, and how many of them gave nothing.
    run_ids
        The runs.
    data, backbone
        Where they are not among the grid columns already.
    """
    records = {run.id: store.record(run) for run in plan.runs}
    return pd.DataFrame([point | _row(part, records) | named(part[0]) for point, part in plan.groups()])


def counts(runs: Sequence[Run], records: Records) -> dict[str, Any]:
    """Return ``runs``, ``failed``, ``missing`` and ``run_ids`` of the row that runs share."""
    found = [record for run in runs if (record := records[run.id])]
    failed = sum(record.status == FAILED for record in found)
    missing = len(runs) - failed - sum(record.finished for record in found)
    return {"runs": len(runs), "failed": failed, "missing": missing, "run_ids": [run.id for run in runs]}


def named(planned: Planned) -> dict[str, str]:
    """Return the data set and the backbone, which stand in every row whether the grid varies them or not."""
    return {"data": planned.run.data.name, "backbone": planned.run.model.backbone}


def grid_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a summary that name a point of the grid."""
    return list(frame.columns[: list(frame).index("condition")])


def name_points(frame: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, str | None]:
    """Add a column that names each row by its values of `names`, for a figure's lines; None where there are none."""
    if not names:
        return frame, None
    return frame.assign(point=frame[list(names)].astype(str).agg(", ".join, axis=1)), "point"


def columns(frame: pd.DataFrame, title: str, shown: Sequence[Column] = COLUMNS) -> list[Column]:
    """Return the columns of a summary as a table shows them; `title` is that of the condition."""
    return [*grid_titles(grid_columns(frame)), Column("condition", title), *shown]


def grid_titles(names: Sequence[str]) -> list[Column]:
    """Return the columns of the options that make the grid."""
    return [Column(name, name.replace("_", " ").capitalize()) for name in names]


def footnotes(plan: Plan, store: Store) -> list[str]:
    """Say what the numbers are of: epoch, folds, seeds, and clips that were left out."""
    runs = plan.runs
    notes = [
        protocol(epoch="last epoch", folds={r.data.fold for r in runs}, seeds={r.seed for r in runs}),
        "Best epoch: chosen on the test fold itself, which flatters. Change: percentage points against the first row, "
        "over the folds and seeds that both have. Macro F1: over the classes that the test fold has.",
    ]
    if len({run.data.fold for run in runs}) > 1:
        notes.append(f"Seeds are averaged within a fold; ± and intervals are over folds. {statistics.OVERLAP}")
    elif len({run.seed for run in runs}) > 1:
        notes.append(comparisons.ONE_FOLD)
    records = [record for run in runs if (record := store.record(run))]
    spent = [record.seconds.preparation for record in records if record.finished]
    if sum(spent) >= 1:
        notes.append(
            f"Time: training and evaluation, per run. Preparing images, weights and frozen prefixes, which later runs "
            f"find in the cache, took another {seconds(sum(spent))} in all, {seconds(max(spent))} for one run at most."
        )
    bad = {clip for record in records for clip in record.bad_clips}
    if bad:
        notes.append(f"{len(bad)} clips that could not be used were left out; run.json names them.")
    return notes + [f"{record.id} failed: {record.reason}." for record in records if record.status == FAILED]


def _row(part: Sequence[Planned], records: Records) -> dict[str, Any]:
    runs, references = [planned.run for planned in part], [planned.reference for planned in part]
    done = [record for run in runs if (record := records[run.id]) and record.finished]
    index = pd.MultiIndex.from_tuples([(p.run.data.fold, p.run.seed) for p in part])

    def measured(of: Sequence[Run], metric: str) -> "pd.Series[float]":
        found = [records[run.id] for run in of]
        values = [getattr(each.metrics, metric) if each and each.finished else math.nan for each in found]
        lacking = any(each and each.finished and math.isnan(v) for each, v in zip(found, values, strict=True))
        return pd.Series(math.nan if lacking else values, index=index, dtype=float)  # older records may lack a metric

    def over(values: Sequence[float]) -> float:
        """Average over folds, each the mean of its seeds, as accuracy is; nan where a run lacks the metric."""
        place = pd.MultiIndex.from_tuples([(record.run.data.fold, record.run.seed) for record in done] or [(0, 0)])
        found = pd.Series(values or math.nan, index=place, dtype=float)
        return math.nan if found.isna().any() else float(statistics.over_folds(found).mean())

    mine, theirs = ({metric: measured(of, metric) for metric in MEASURED} for of in (runs, references))
    accuracy, best = (statistics.describe(statistics.over_folds(mine[metric]).to_numpy()) for metric in MEASURED)
    delta, best_delta = (statistics.over_folds(mine[metric] - theirs[metric]).mean() for metric in MEASURED)
    return {
        "accuracy": accuracy.mean,
        "accuracy_std": accuracy.std,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "accuracy_best_epoch": best.mean,
        "accuracy_best_epoch_std": best.std,
        "macro_f1": over([record.macro_f1 for record in done]),
        "balanced_accuracy": over([record.metrics.balanced_accuracy for record in done]),
        **{name: over([getattr(record.metrics, f"weighted_{name}") for record in done]) for name in WEIGHTED},
        "epochs": _mean([record.epochs for record in done]),
        "delta": delta,
        "delta_best_epoch": best_delta,
        "trainable_parameters": _mean([record.trainable_parameters for record in done]),
        "parameters": _mean([record.parameters for record in done]),
        "seconds": _mean([record.seconds.epochs for record in done]),
        **counts(runs, records),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
