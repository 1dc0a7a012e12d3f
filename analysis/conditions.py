"""From the runs of a plan to one row per condition: means over folds and seeds, and the change against the reference.

`compare` is what most ablations show: one table, one figure, the paired tests behind the changes, and what `detail`
adds for every ablation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from analysis.metrics.condition_summary import summarise_conditions
from analysis.metrics.per_class import write_per_class
from analysis.metrics.registry import METRIC_NOTES, metric_column
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_points, format_seconds
from analysis.output.tables import Column, protocol_note
from analysis.plots import by_condition
from analysis.plots.confusion import write_confusion
from analysis.plots.learning_curves import write_learning_curves
from analysis.plots.metric_bars import write_bars
from analysis.statistics import hypothesis_tests, paired_comparisons
from core.plan import Plan
from core.store.runs import FAILED, Store

SAME_LOSSES = {"cross-entropy", "kullback-leibler"}
SAME = (
    "The Kullback-Leibler divergence from labels that name one class is the cross-entropy, and with smoothed labels it "
    "has the same gradient: what differs between the two here is rounding, and no merit of either."
)
ACCURACY, MACRO_F1 = metric_column("accuracy"), metric_column("macro_f1", spread=False)
BEST_EPOCH = dataclasses.replace(metric_column("accuracy_best_epoch", spread=False), best=None)
CHANGE = Column("delta", "Change", format_points)
COLUMNS = (
    ACCURACY,
    BEST_EPOCH,
    MACRO_F1,
    CHANGE,
    metric_column("trainable_parameters", spread=False),
    dataclasses.replace(metric_column("seconds", spread=False), best=None),
)
DETAILED = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "precision",
    "recall",
    "f1",
    "training_accuracy",
    "validation_accuracy",
    "epochs",
    "best_epoch",
    "time_to_converge",
    "prediction_ms",
)


def compare(
    results: OutputFolder,
    *,
    title: str,
    bars: bool = False,
    add: Callable[[pd.DataFrame, OutputFolder], pd.DataFrame] | None = None,
    shown: Sequence[Column] = COLUMNS,
) -> pd.DataFrame:
    """Write the table of conditions, the tests behind it and the figures; return the table's rows.

    The figures are accuracy by condition and those of `detail`.

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
        The columns that are shown, after the grid's and the condition; those of ``--metric`` follow them.
    """
    plan, store = results.plan, results.session.store
    frame = summarise_conditions(plan, store)
    if add:
        frame = add(frame, results)
    results.table(
        "table",
        frame,
        columns(frame, title, [*shown, *metrics_asked_for(results, shown)]),
        caption=caption(plan),
        footnotes=footnotes(plan, store),
        groups=grid_columns(frame),
    )
    _write_comparisons(results, title)
    lines, name = name_points(frame, grid_columns(frame))
    reference = plan.planned[0].condition
    if bars:
        write_bars(results, lines, "accuracy", title=title, caption=caption(plan), point=name, file="figure")
    else:
        results.figure(
            "figure",
            frame.drop(columns="run_ids"),
            lambda ax: by_condition.accuracy_by_condition(lines, ax, xlabel=title, reference=reference, series=name),
            caption=f"{caption(plan)}: accuracy on the test fold by condition; the dashed line is the reference.",
        )
    detail(results, frame, title=title)
    return frame


def detail(results: OutputFolder, frame: pd.DataFrame, *, title: str) -> None:
    """Write what every ablation has beside its own question.

    That is a table of every metric, one of the classes, bars of the metrics that ``--metric`` names, learning curves
    and confusion matrices.

    Parameters
    ----------
    results
        The finished runs.
    frame
        As `analysis.metrics.condition_summary.summarise_conditions` gives it.
    title
        What the conditions are.
    """
    groups, named = results.plan.groups(), caption(results.plan)
    leading = columns(frame, title, ())
    write_metrics(results, frame, leading, notes=footnotes(results.plan, results.session.store)[:1])
    write_per_class(results, groups, leading, caption=named)
    write_asked_bars(results, frame, grid_columns(frame), title=title)
    write_learning_curves(results, groups, caption=named)
    write_confusion(results, groups, caption=named)


def write_metrics(
    results: OutputFolder, frame: pd.DataFrame, leading: Sequence[Column], *, notes: Sequence[str]
) -> None:
    """Write the table of every metric, which is too wide for a terminal.

    Parameters
    ----------
    results
        Where to write.
    frame
        One row for each condition, with a column for each metric.
    leading
        The columns that name a condition, the grid's first.
    notes
        Which epochs, folds and seeds the numbers are of.
    """
    results.table(
        "metrics",
        frame,
        [*leading, *map(metric_column, DETAILED)],
        caption=f"{caption(results.plan)}: every metric",
        footnotes=[*notes, *METRIC_NOTES],
        groups=[column.name for column in leading[:-1]],
        show=False,
    )


def write_asked_bars(results: OutputFolder, frame: pd.DataFrame, names: Sequence[str], *, title: str) -> None:
    """Draw bars of the metrics that ``--metric`` names; `names` are the grid's columns, `title` is the conditions'."""
    lines, point = name_points(frame, names)
    for metric in dict.fromkeys(results.session.execution.metric):
        write_bars(results, lines, metric, title=title, caption=caption(results.plan), point=point)


def metrics_asked_for(results: OutputFolder, shown: Sequence[Column]) -> list[Column]:
    """Return the columns of the metrics that ``--metric`` names, but for those that are shown already."""
    there = {column.name for column in shown}
    return [metric_column(name) for name in dict.fromkeys(results.session.execution.metric) if name not in there]


def _write_comparisons(results: OutputFolder, title: str) -> None:
    """Write the paired tests; they are shown where there are pairs enough for one."""
    points = results.session.execution.equivalence_margin
    margin = None if points is None else points / 100
    frame = paired_comparisons.compare_with_reference(results.plan, results.session.store, margin=margin)
    if frame.empty:
        return
    grid = grid_columns(frame)
    results.table(
        "comparisons",
        frame,
        [*grid_titles(grid), Column("condition", title), *paired_comparisons.COLUMNS],
        caption=f"{caption(results.plan)}: change against the reference",
        footnotes=paired_comparisons.comparison_footnotes(frame, margin=margin),
        groups=grid,
        show=bool((frame["pairs"] > 1).any()),
    )


def caption(plan: Plan) -> str:
    """Name the ablation, the data sets, the backbones and their weights."""
    references = [planned.reference for planned in plan.planned]
    models = {id(run.model): run.model for run in references}.values()  # thousands of runs have a few in common
    data = {id(run.data): run.data for run in references}.values()
    backbones = sorted({f"{model.backbone} ({Path(model.weights).name} weights)" for model in models})
    names = sorted({part.about for part in data})
    return f"{plan.ablation.capitalize()}: {' and '.join(backbones)} on {' and '.join(names)}"


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
        protocol_note(epoch="last epoch", folds={r.data.fold for r in runs}, seeds={r.seed for r in runs}),
        "Best epoch: chosen on the test fold itself, which flatters. Change: percentage points against the first row, "
        "over the folds and seeds that both have. Macro F1: over the classes that the test fold has.",
    ]
    if len({run.data.fold for run in runs}) > 1:
        notes.append(
            f"Seeds are averaged within a fold; ± and intervals are over folds. {hypothesis_tests.OVERLAP_NOTE}"
        )
    elif len({run.seed for run in runs}) > 1:
        notes.append(paired_comparisons.ONE_FOLD_NOTE)
    if {run.training.loss for run in runs} >= SAME_LOSSES:
        notes.append(SAME)
    records = [record for run in runs if (record := store.record(run))]
    spent = [record.seconds.preparation for record in records if record.finished]
    if sum(spent) >= 1:
        notes.append(
            "Time: training and evaluation, per run. Computing inputs, weights and frozen prefixes, which later runs "
            f"read from the cache, took another {format_seconds(sum(spent))} in total, at most "
            f"{format_seconds(max(spent))} for one run."
        )
    bad = {clip for record in records for clip in record.bad_clips}
    if bad:
        notes.append(f"{len(bad)} clips that could not be used were left out; run.json names them.")
    return notes + [f"{record.id} failed: {record.reason}." for record in records if record.status == FAILED]
