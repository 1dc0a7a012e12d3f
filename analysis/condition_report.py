"""The standard report of an ablation: table of conditions, figure, paired tests, and details.

`write_condition_report` writes all of it. `write_details` writes the tables and figures that every ablation has.
"""

import dataclasses
from collections.abc import Callable, Sequence

import pandas as pd

from analysis.metrics.chance import chance_notes
from analysis.metrics.condition_summary import summarise_conditions
from analysis.metrics.per_class import write_per_class
from analysis.metrics.registry import (
    ACCURACY_COLUMN,
    BEST_EPOCH_COLUMN,
    CHANGE_COLUMN,
    MACRO_F1_COLUMN,
    METRIC_NOTES,
    POOLED_CALIBRATION_NOTE,
    POOLED_METRICS,
    metric_column,
)
from analysis.metrics.shared_runs import describe_shared_runs, select_shared_runs
from analysis.output.display_names import dataset_title, model_title
from analysis.output.number_format import format_p_value, format_point, format_seconds
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column, FullTable, protocol_note
from analysis.plots import by_condition
from analysis.plots.confusion import write_confusion_by_condition
from analysis.plots.learning_curves import write_learning_curves
from analysis.plots.metric_bars import write_metric_bars
from analysis.statistics import hypothesis_tests, paired_comparisons
from analysis.statistics.sentences import describe_comparisons
from core.datasets.metadata import format_few
from core.plan import Groups, Plan
from core.store.run_store import FAILED, Store

EQUIVALENT_LOSSES = {"cross-entropy", "kullback-leibler"}
EQUIVALENT_LOSSES_NOTE = (
    "Cross-entropy and Kullback-Leibler divergence have the same gradient because each clip has one label; "
    "differences between them are due to rounding."
)
PAIRS_NOTE = "The table of comparisons uses every fold and seed that a condition shares with its reference."
COLUMNS = (
    ACCURACY_COLUMN,
    BEST_EPOCH_COLUMN,
    MACRO_F1_COLUMN,
    CHANGE_COLUMN,
    metric_column("trainable_parameters", spread=False),
    dataclasses.replace(metric_column("seconds", spread=False), best=None),
)
NARROW_COLUMNS = (
    dataclasses.replace(ACCURACY_COLUMN, std="", bounds=("accuracy_low", "accuracy_high")),
    CHANGE_COLUMN,
)
METRICS_NOTE = (
    " Best epoch: epoch chosen on the test fold, therefore optimistic. Macro F1: unweighted mean over the classes in "
    "the test fold."
)
FOLD_TEST, CLIP_TEST = Column("p", "p", format_p_value), Column("p", "p (McNemar)", format_p_value)
FOLD_TEST_NOTE = (
    "p: two-sided corrected t test over folds against the reference, Holm-corrected; the table of comparisons has the "
    "intervals of the changes."
)
CHANGE_NOTE = "Change: difference in accuracy from the reference, the first condition, in percentage points."
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
    subject: str,
    draw_bars: bool = False,
    add_columns: Callable[[pd.DataFrame, OutputFolder], pd.DataFrame] | None = None,
    columns: Sequence[Column] = COLUMNS,
    notes: Sequence[str] = (),
) -> pd.DataFrame:
    """Write the table of conditions, the paired tests, the figure of accuracy by condition, and all details.

    Parameters
    ----------
    results
        Output folder of the analysis.
    title
        Heading of the condition column, e.g. "Frozen through".
    subject
        Start of the sentence about each condition, as in `analysis.statistics.sentences.describe_comparisons`.
    draw_bars
        Whether to draw bars instead of a line.
    add_columns
        Function that returns the table with additional columns.
    columns
        Columns of the full table between the condition and the metrics of ``--metric``. The narrow table has
        `NARROW_COLUMNS` instead, and those of `columns` that are not in `COLUMNS`.
    notes
        Additional footnotes.

    Returns
    -------
    DataFrame
        The rows of the table.
    """
    plan, store = results.plan, results.session.store
    frame = summarise_conditions(plan, store, results.session.execution.metric)
    if add_columns:
        frame = add_columns(frame, results)
    margin_points = results.session.execution.equivalence_margin
    margin = None if margin_points is None else margin_points / 100
    comparisons = paired_comparisons.compare_with_reference(plan, store, margin=margin)
    requested = requested_metric_columns(results, columns)
    frame, p_columns, p_notes = _add_p_values(frame, comparisons)
    calibration = [POOLED_CALIBRATION_NOTE] if "ece" in frame else []
    more_notes = [*make_single_run_notes(comparisons), *calibration, *notes]
    full_columns = [*columns, *requested]
    names = {column.name for column in requested} | set(results.session.execution.metric)
    metric_columns = [column for column in full_columns if column.name in names and column.name != "accuracy"]
    own_columns = [column for column in columns if column not in COLUMNS]  # columns that only this ablation has
    results.write_table(
        "table",
        frame,
        make_columns(frame, title, [*NARROW_COLUMNS, *p_columns, *own_columns, *metric_columns]),
        caption=make_caption(plan),
        footnotes=[*make_footnotes(plan, store, narrow=True), *p_notes, *more_notes],
        groups=grid_names(frame),
        full=FullTable(make_columns(frame, title, full_columns), [*make_footnotes(plan, store), *more_notes]),
    )
    if not comparisons.empty:
        _write_comparisons(results, comparisons, title, margin=margin)
    labelled, label_column = add_grid_label(frame, grid_names(frame))
    reference = plan.planned[0].condition
    if draw_bars:
        write_metric_bars(
            results, labelled, "accuracy", title=title, caption=make_caption(plan), point=label_column, file="figure"
        )
    elif len(frame) > 1:
        error_bars = by_condition.describe_error_bars(labelled, "accuracy", point=label_column)
        parts = [f"{make_caption(plan)}: accuracy on the test fold by condition", error_bars, "dashed line: reference"]
        results.write_figure(
            "figure",
            labelled.drop(columns="run_ids"),
            by_condition.draw_accuracy_by_condition,
            caption="; ".join(filter(None, parts)) + ".",
            options={"xlabel": title, "reference": reference, "series": label_column},
        )
    write_details(results, frame, title=title)
    if not comparisons.empty:
        grid = grid_names(comparisons)
        results.sentences += describe_comparisons(
            comparisons, subject=subject, reference=reference, grid=grid, margin=margin
        )
    return frame


def _add_p_values(frame: pd.DataFrame, comparisons: pd.DataFrame) -> tuple[pd.DataFrame, list[Column], list[str]]:
    """Add a column with the corrected p-value of each condition; return the frame, table columns, and footnotes.

    The p-value is that of the test over folds. If every condition is a single run, it is that of McNemar's test, whose
    footnote is in `make_single_run_notes`. Without a test, the frame is unchanged and both lists are empty.
    """
    if comparisons.empty:
        return frame, [], []
    single = not (comparisons["pairs"] > 1).any()
    name = "mcnemar_p_holm" if single else "p_holm"
    keys = [*grid_names(frame), "condition"]
    tests = comparisons[[*keys, name]].rename(columns={name: "p"})
    if tests["p"].isna().all():
        return frame, [], []
    merged = frame.merge(tests, how="left", on=keys, validate="one_to_one")
    return merged, [CLIP_TEST if single else FOLD_TEST], [] if single else [FOLD_TEST_NOTE]


def write_details(results: OutputFolder, frame: pd.DataFrame, *, title: str) -> None:
    """Write the tables and figures that every ablation has.

    These are the table of all metrics, the table per class, bars of the metrics of ``--metric``, learning curves and
    confusion matrices.

    Parameters
    ----------
    results
        Output folder of the analysis.
    frame
        One row per condition, from `analysis.metrics.condition_summary.summarise_conditions`.
    title
        Heading of the condition column.
    """
    groups, caption = results.plan.groups(), make_caption(results.plan)
    leading = make_columns(frame, title, ())
    shared = select_shared_runs(groups, results.session.store)
    write_metrics(results, frame, leading, notes=make_protocol_notes(groups, shared))
    write_per_class(results, groups, leading, caption=caption)
    write_requested_bars(results, frame, grid_names(frame), title=title)
    write_learning_curves(results, groups, caption=caption, title=title)
    write_confusion_by_condition(results, groups, caption=caption)


def write_metrics(
    results: OutputFolder, frame: pd.DataFrame, leading: Sequence[Column], *, notes: Sequence[str]
) -> None:
    """Write the table of all metrics, which is too wide for a terminal.

    Parameters
    ----------
    results
        Output folder of the analysis.
    frame
        One row per condition with all metrics.
    leading
        Columns of grid and condition.
    notes
        First footnotes: epoch, folds and seeds.
    """
    results.write_table(
        "metrics",
        frame,
        [*leading, *map(metric_column, DETAILED_METRICS)],
        caption=f"{make_caption(results.plan)}: all metrics",
        footnotes=[*notes, *METRIC_NOTES],
        groups=[column.name for column in leading[:-1]],
        show=False,
    )


def write_requested_bars(results: OutputFolder, frame: pd.DataFrame, names: Sequence[str], *, title: str) -> None:
    """Write a bar chart of each metric of ``--metric``.

    Parameters
    ----------
    results, frame
        As in `write_metrics`.
    names
        Grid columns.
    title
        Heading of the condition column.
    """
    labelled, label_column = add_grid_label(frame, names)
    for metric in dict.fromkeys(results.session.execution.metric):
        write_metric_bars(
            results, labelled, metric, title=title, caption=make_caption(results.plan), point=label_column
        )


def requested_metric_columns(results: OutputFolder, shown: Sequence[Column]) -> list[Column]:
    """Return the columns of the metrics of ``--metric`` that are not in `shown`; `POOLED_METRICS` come together."""
    existing = {column.name for column in shown}
    names: dict[str, None] = {}
    for metric in results.session.execution.metric:
        names |= dict.fromkeys(POOLED_METRICS if metric in POOLED_METRICS else [metric])
    return [metric_column(name, spread=name not in POOLED_METRICS) for name in names if name not in existing]


def make_single_run_notes(comparisons: pd.DataFrame) -> list[str]:
    """Return a footnote with the p-values of McNemar's test if each condition is one run; otherwise no footnote.

    Parameters
    ----------
    comparisons
        Result of `analysis.statistics.paired_comparisons.compare_with_reference`.
    """
    if comparisons.empty or (comparisons["pairs"] > 1).any():
        return []
    texts = []
    for row in comparisons.dropna(subset=["mcnemar_p_holm"]).to_dict("records"):
        name = format_point({column: row[column] for column in (*grid_names(comparisons), "condition")})
        p = format_p_value(row["mcnemar_p_holm"])
        texts.append(f"{name} p {p if p.startswith('<') else f'= {p}'}")
    return [
        f"McNemar's test against the reference over the test clips (Holm-corrected): {'; '.join(texts)}. It compares "
        "two trained networks and does not account for the variation between trainings."
    ] * bool(texts)


def _write_comparisons(results: OutputFolder, frame: pd.DataFrame, title: str, *, margin: float | None) -> None:
    """Write the table of paired tests; print it on the terminal if there are at least two pairs."""
    grid = grid_names(frame)
    leading = [*make_grid_columns(grid), Column("condition", title)]
    several = bool((frame["pairs"] > 1).any())
    notes = [paired_comparisons.comparison_footnotes(frame, margin=margin, narrow=narrow) for narrow in (True, False)]
    results.write_table(
        "comparisons",
        frame,
        [*leading, *paired_comparisons.narrow_columns(frame)],
        caption=f"{make_caption(results.plan)}: comparison with the reference",
        footnotes=notes[0],
        groups=grid,
        show=several,
        full=FullTable([*leading, *paired_comparisons.COLUMNS], notes[1]),
    )


def make_caption(plan: Plan) -> str:
    """Return the start of all captions: "Freeze: EfficientNet-Lite0 with ImageNet weights on ESC-50"."""
    references = [planned.reference for planned in plan.planned]
    models = {id(run.model): run.model for run in references}.values()  # thousands of runs share a few objects
    data_parts = {id(run.data): run.data for run in references}.values()
    backbones = sorted({model_title(model) for model in models})
    names = sorted({dataset_title(data, plan.datasets.get(data.content)) for data in data_parts})
    return f"{plan.ablation.capitalize()}: {' and '.join(backbones)} on {' and '.join(names)}"


def grid_names(frame: pd.DataFrame) -> list[str]:
    """Return the names of the grid columns of a summary: those before the column ``condition``."""
    return list(frame.columns[: list(frame).index("condition")])


def add_grid_label(frame: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, str | None]:
    """Add a column ``point`` with the values of the columns `names`; return the frame and its name, or None."""
    if not names:
        return frame, None
    return frame.assign(point=[format_point(point) for point in frame[list(names)].to_dict("records")]), "point"


def make_columns(frame: pd.DataFrame, title: str, others: Sequence[Column] = COLUMNS) -> list[Column]:
    """Return the columns of a table: grid, condition (with the heading `title`), and `others`."""
    return [*make_grid_columns(grid_names(frame)), Column("condition", title), *others]


def make_grid_columns(names: Sequence[str]) -> list[Column]:
    """Return the table columns of the grid options."""
    return [Column(name, name.replace("_", " ").capitalize()) for name in names]


def make_protocol_notes(groups: Groups, shared: Groups) -> list[str]:
    """Return the first footnotes of a table: epoch, folds and seeds, and what is left out for missing runs.

    Parameters as in `analysis.metrics.shared_runs.describe_shared_runs`.
    """
    planned = [each for _, part in shared for each in part] or [each for _, part in groups for each in part]
    folds, seeds = ({each.run.data.fold for each in planned}, {each.run.seed for each in planned})
    return [
        protocol_note(epoch="last epoch", folds=folds, seeds=seeds),
        *filter(None, [describe_shared_runs(groups, shared)]),
    ]


def make_footnotes(plan: Plan, store: Store, *, narrow: bool = False) -> list[str]:
    """Return the footnotes of the main table: protocol, metrics, time, unusable clips and failed runs.

    With `narrow`, footnotes about columns of the full table only are left out.
    """
    groups = plan.groups()
    shared = select_shared_runs(groups, store)
    runs = [each.run for _, planned in shared for each in planned]
    notes = [
        *make_protocol_notes(groups, shared),
        *([PAIRS_NOTE] if describe_shared_runs(groups, shared) else []),
        CHANGE_NOTE + METRICS_NOTE * (not narrow),
        *chance_notes(plan, shared, store),
    ]
    if len({run.data.fold for run in runs}) > 1:
        notes.append(f"Standard deviations and intervals are over folds. {hypothesis_tests.OVERLAP_NOTE}")
    elif len({run.seed for run in runs}) > 1:
        notes.append(paired_comparisons.ONE_FOLD_NOTE)
    if {run.training.loss for run in runs} >= EQUIVALENT_LOSSES:
        notes.append(EQUIVALENT_LOSSES_NOTE)
    records = [record for run in plan.runs if (record := store.record(run))]
    preparation = [record.seconds.preparation for record in records if record.finished]
    if sum(preparation) >= 1 and not narrow:
        notes.append(
            "Time: training and evaluation per run. Preparation (inputs, weights, frozen prefixes; cached for later "
            f"runs) took another {format_seconds(sum(preparation))} in total, at most "
            f"{format_seconds(max(preparation))} per run."
        )
    bad = {clip for record in records for clip in record.bad_clips}
    if bad:
        named = format_few(sorted({path for path, _ in bad}))
        notes.append(f"Unusable clips left out: {len(bad)} ({named}). Each run.json gives the reasons.")
    return notes + [f"{record.id} failed: {record.reason}." for record in records if record.status == FAILED]
