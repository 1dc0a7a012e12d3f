"""From the runs of a plan to one row per condition: means over folds and seeds, and the change against the reference.

`compare` is what most ablations show: one table, one figure, and the paired tests behind the changes.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import figures, statistics
from analysis.formats import magnitude, percent, points, seconds
from analysis.results import Results
from analysis.tables import Column, protocol
from core.config import Run
from core.plan import Plan, Planned, axes
from core.store import FAILED, FINISHED, Store

COLUMNS = (
    Column("accuracy", "Accuracy %", percent, best="max", std="accuracy_std"),
    Column("accuracy_best_epoch", "Best epoch %", percent),
    Column("macro_f1", "Macro F1 %", percent, best="max"),
    Column("delta", "Change", points),
    Column("trainable_parameters", "Trainable", magnitude),
    Column("seconds", "Time", seconds),
)


def compare(results: Results, *, title: str) -> pd.DataFrame:
    """Write the table and the figure of accuracy by condition, and return the table's rows.

    Parameters
    ----------
    results
        The finished runs.
    title
        What the conditions are.
    """
    plan, store = results.plan, results.session.store
    frame = summarise(plan, store)
    results.table(
        "table",
        frame,
        columns(frame, title),
        caption=caption(plan),
        footnotes=footnotes(plan, store),
        groups=grid_columns(frame),
    )
    lines, name = series(frame)
    reference = plan.planned[0].condition
    results.figure(
        "figure",
        frame.drop(columns="run_ids"),
        lambda ax: figures.accuracy_by_condition(lines, ax, xlabel=title, reference=reference, series=name),
        caption=f"{caption(plan)}: accuracy on the test fold by condition; the dashed line is the reference.",
    )
    return frame


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
        Of the last epoch on the test fold; mean and standard deviation (of a sample) over folds and seeds, 0 to 1.
    accuracy_low, accuracy_high
        Bounds of a 95 % interval of the mean (`analysis.statistics.describe`).
    accuracy_best_epoch
        Mean of each run's best epoch on the test fold, which flatters.
    delta
        Mean change of accuracy against the reference over the folds and seeds that both have.
    trainable_parameters, parameters, seconds
        Means; seconds are of training and evaluation.
    runs, failed, missing
        How many runs were planned, and how many of them gave nothing.
    run_ids
        The runs.
    """
    records = {run.id: store.record(run) for run in plan.runs}
    grid = axes(plan)
    groups: dict[tuple[Any, ...], list[Planned]] = defaultdict(list)
    for i, planned in enumerate(plan.planned):
        groups[(*(values[i] for values in grid.values()), planned.condition)].append(planned)
    names = [*grid, "condition"]
    return pd.DataFrame([dict(zip(names, key, strict=True)) | _row(part, records) for key, part in groups.items()])


def grid_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a summary that name a point of the grid."""
    return list(frame.columns[: list(frame).index("condition")])


def series(frame: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
    """Add a column that names each row's point of the grid, for a figure's lines; None where there is one point."""
    names = grid_columns(frame)
    if not names:
        return frame, None
    return frame.assign(series=frame[names].astype(str).agg(", ".join, axis=1)), "series"


def columns(frame: pd.DataFrame, title: str) -> list[Column]:
    """Return the columns of a summary as a table shows them; `title` is that of the condition."""
    grid = [
        Column(name, name.replace("_", " ").capitalize()) for name in frame.columns[: list(frame).index("condition")]
    ]
    return [*grid, Column("condition", title), *COLUMNS]


def footnotes(plan: Plan, store: Store) -> list[str]:
    """Say what the numbers are of: epoch, folds, seeds, and clips that were left out."""
    runs = plan.runs
    notes = [
        protocol(epoch="last epoch", folds={r.data.fold for r in runs}, seeds={r.seed for r in runs}),
        "Best epoch: chosen on the test fold itself, which flatters. Change: percentage points against the first row, "
        "over the folds and seeds that both have.",
    ]
    records = [record for run in runs if (record := store.record(run))]
    bad = {tuple(clip) for record in records for clip in record.get("bad_clips", [])}
    if bad:
        notes.append(f"{len(bad)} clips that could not be used were left out; run.json names them.")
    return notes + [f"{r['id']} failed: {r['reason']}." for r in records if r["status"] == FAILED]


def _row(part: Sequence[Planned], records: Mapping[str, dict[str, Any] | None]) -> dict[str, Any]:
    all_records = [records[planned.run.id] for planned in part]
    done = [record for record in all_records if record and record["status"] == FINISHED]
    failed = sum(record is not None and record["status"] == FAILED for record in all_records)
    scores = {name: [r["metrics"][name] for r in done] for name in ("accuracy", "accuracy_best_epoch", "macro_f1")}
    changes = [
        mine["metrics"]["accuracy"] - theirs["metrics"]["accuracy"]
        for planned in part
        if (mine := records[planned.run.id])
        and (theirs := records[planned.reference.id])
        and mine["status"] == theirs["status"] == FINISHED
    ]
    spent = [record["seconds"]["training"] + record["seconds"]["evaluation"] for record in done]
    accuracy = statistics.describe(scores["accuracy"]) if done else None
    return {
        "accuracy": accuracy.mean if accuracy else math.nan,
        "accuracy_std": accuracy.std if accuracy else math.nan,
        "accuracy_low": accuracy.low if accuracy else math.nan,
        "accuracy_high": accuracy.high if accuracy else math.nan,
        "accuracy_best_epoch": _mean(scores["accuracy_best_epoch"]),
        "macro_f1": _mean(scores["macro_f1"]),
        "delta": _mean(changes),
        "trainable_parameters": _mean([record["trainable_parameters"] for record in done]),
        "parameters": _mean([record["parameters"] for record in done]),
        "seconds": _mean(spent),
        "runs": len(part),
        "failed": failed,
        "missing": len(part) - len(done) - failed,
        "run_ids": [planned.run.id for planned in part],
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
