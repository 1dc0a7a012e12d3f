"""The standard report of an ablation: table of conditions, figure, paired tests, and details.

`write_condition_report` writes all of it. `write_details` writes the tables and figures that every ablation has.
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
from analysis.plots.confusion import write_confusion_by_condition
from analysis.plots.learning_curves import write_learning_curves
from analysis.plots.metric_bars import write_metric_bars
from analysis.statistics import hypothesis_tests, paired_comparisons
from core.plan import Plan
from core.store.runs import FAILED, Store

EQUIVALENT_LOSSES = {"cross-entropy", "kullback-leibler"}
EQUIVALENT_LOSSES_NOTE = (
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
DETAILED_METRICS = (
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


def write_condition_report(
    results: OutputFolder,
    *,
    title: str,
    bars: bool = False,
    add: Callable[[pd.DataFrame, OutputFolder], pd.DataFrame] | None = None,
    shown: Sequence[Column] = COLUMNS,
) -> pd.DataFrame:
    """Write the table of conditions, the tests behind it and the figures; return the table's rows.

    The figures are accuracy by condition and those of `write_details`.

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
    results.write_table(
        "table",
        frame,
        make_columns(frame, title, [*shown, *requested_metric_columns(results, shown)]),
        caption=make_caption(plan),
        footnotes=make_footnotes(plan, store),
        groups=grid_names(frame),
    )
    _write_comparisons(results, title)
    lines, name = add_grid_label(frame, grid_names(frame))
    reference = plan.planned[0].condition
    if bars:
        write_metric_bars(
            results, lines, "accuracy", title=title, caption=make_caption(plan), point=name, file="figure"
        )
    else:
        results.write_figure(
            "figure",
            frame.drop(columns="run_ids"),
            lambda ax: by_condition.draw_accuracy_by_condition(
                lines, ax, xlabel=title, reference=reference, series=name
            ),
            caption=f"{make_caption(plan)}: accuracy on the test fold by condition; the dashed line is the reference.",
        )
    write_details(results, frame, title=title)
    return frame


def write_details(results: OutputFolder, frame: pd.DataFrame, *, title: str) -> None:
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
    groups, named = results.plan.groups(), make_caption(results.plan)
    leading = make_columns(frame, title, ())
    write_metrics(results, frame, leading, notes=make_footnotes(results.plan, results.session.store)[:1])
    write_per_class(results, groups, leading, caption=named)
    write_requested_bars(results, frame, grid_names(frame), title=title)
    write_learning_curves(results, groups, caption=named)
    write_confusion_by_condition(results, groups, caption=named)


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
    results.write_table(
        "metrics",
        frame,
        [*leading, *map(metric_column, DETAILED_METRICS)],
        caption=f"{make_caption(results.plan)}: every metric",
        footnotes=[*notes, *METRIC_NOTES],
        groups=[column.name for column in leading[:-1]],
        show=False,
    )


def write_requested_bars(results: OutputFolder, frame: pd.DataFrame, names: Sequence[str], *, title: str) -> None:
    """Draw bars of the metrics that ``--metric`` names; `names` are the grid's columns, `title` is the conditions'."""
    lines, point = add_grid_label(frame, names)
    for metric in dict.fromkeys(results.session.execution.metric):
        write_metric_bars(results, lines, metric, title=title, caption=make_caption(results.plan), point=point)


def requested_metric_columns(results: OutputFolder, shown: Sequence[Column]) -> list[Column]:
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
    grid = grid_names(frame)
    results.write_table(
        "comparisons",
        frame,
        [*make_grid_columns(grid), Column("condition", title), *paired_comparisons.COLUMNS],
        caption=f"{make_caption(results.plan)}: change against the reference",
        footnotes=paired_comparisons.comparison_footnotes(frame, margin=margin),
        groups=grid,
        show=bool((frame["pairs"] > 1).any()),
    )


def make_caption(plan: Plan) -> str:
    """Name the ablation, the data sets, the backbones and their weights."""
    references = [planned.reference for planned in plan.planned]
    models = {id(run.model): run.model for run in references}.values()  # thousands of runs have a few in common
    data = {id(run.data): run.data for run in references}.values()
    backbones = sorted({f"{model.backbone} ({Path(model.weights).name} weights)" for model in models})
    names = sorted({part.display_name for part in data})
    return f"{plan.ablation.capitalize()}: {' and '.join(backbones)} on {' and '.join(names)}"


def grid_names(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a summary that name a point of the grid."""
    return list(frame.columns[: list(frame).index("condition")])


def add_grid_label(frame: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, str | None]:
    """Add a column that names each row by its values of `names`, for a figure's lines; None where there are none."""
    if not names:
        return frame, None
    return frame.assign(point=frame[list(names)].astype(str).agg(", ".join, axis=1)), "point"


def make_columns(frame: pd.DataFrame, title: str, shown: Sequence[Column] = COLUMNS) -> list[Column]:
    """Return the columns of a summary as a table shows them; `title` is that of the condition."""
    return [*make_grid_columns(grid_names(frame)), Column("condition", title), *shown]


def make_grid_columns(names: Sequence[str]) -> list[Column]:
    """Return the columns of the options that make the grid."""
    return [Column(name, name.replace("_", " ").capitalize()) for name in names]


def make_footnotes(plan: Plan, store: Store) -> list[str]:
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
    if {run.training.loss for run in runs} >= EQUIVALENT_LOSSES:
        notes.append(EQUIVALENT_LOSSES_NOTE)
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
