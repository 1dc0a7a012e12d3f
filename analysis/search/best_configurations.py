"""Results of a search: configurations sorted by validation accuracy, a figure, and the command to use the best.

The test accuracy of a configuration is reported only if it was not chosen on test clips: for the best configuration of
a search on one fold, and for the best configuration of each fold (`analysis.search.nested_selection`).
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.condition_report import make_caption
from analysis.metrics.condition_summary import run_counts, summarise_conditions
from analysis.metrics.registry import METRICS_WITHOUT_TEST_CLIPS, metric_column
from analysis.metrics.shared_runs import averaged_over, describe_spread
from analysis.output.number_format import format_number, format_option, format_percent, format_seconds, option_title
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column, protocol_note
from analysis.plots.metric_bars import write_metric_bars
from analysis.search import search_figures
from analysis.search.nested_selection import format_nested_accuracy, select_per_fold, write_nested_selection
from analysis.search.space import (
    Range,
    Space,
    column_name,
    flag_of,
    option_values,
    read_validation_score,
)
from analysis.statistics.hypothesis_tests import average_seeds
from core.config.options import typed_value
from core.config.run import Run, field_of
from core.plan import Plan, PlannedRun
from core.store.run_store import STOPPED, Store

BEST_CONDITION = "best"  # condition name of the best configuration
SEARCH_OPTIONS = ("--search", "--trials", "--search-seed", "--scheduler")  # not options of a run


def write_search_results(results: OutputFolder, space: Space, *, is_adaptive: bool = False) -> pd.DataFrame:
    """Write the tables and the figure of a search.

    Parameters
    ----------
    results
        Output folder whose plan has one condition for each configuration.
    space
        Search space.
    is_adaptive
        Whether the results of earlier runs decided which runs were trained (Optuna, early stopping of trials).

    Returns
    -------
    rows
        Result of `summarise_search`.
    """
    plan, store = results.plan, results.session.store
    frame = summarise_search(plan, store, list(space))
    names = [column_name(key) for key in space]
    result_columns = [
        Column("validation_accuracy", "Validation %", format_percent, best="max", std="validation_accuracy_std"),
        Column("validation_loss", "Validation loss", format_number, best="min"),
        Column("epochs", "Epochs", format_option),
        Column("seconds", "Time", format_seconds),
    ]
    shown = {column.name for column in result_columns}
    requested = [n for n in dict.fromkeys(results.session.execution.metric) if n in METRICS_WITHOUT_TEST_CLIPS]
    metric_columns = [metric_column(name) for name in requested if name not in shown]
    if requested:
        metrics = summarise_conditions(plan, store).set_index("condition")
        added = [f"{name}{suffix}" for name in requested for suffix in ("", "_std", "_low", "_high")]
        values = metrics[[name for name in added if name not in frame]]
        complete = metrics["compared"] == metrics["runs"]  # conditions with missing runs have means over fewer folds
        frame = frame.join(values.where(complete), on="condition")
    nested = select_per_fold(plan, store)
    results.write_table(
        "table",
        frame,
        [
            *(Column(name, option_title(name), format_option) for name in names),
            *result_columns,
            *metric_columns,
        ],
        caption=make_caption(plan),
        footnotes=_footnotes(frame, nested, plan, store),
    )
    write_nested_selection(results, nested, space, is_adaptive=is_adaptive)
    _write_best_settings(results, frame, space)
    if frame["validation_accuracy"].notna().any():
        is_grid = len(names) == 2 and not any(isinstance(values, Range) for values in space.values())
        draw = search_figures.draw_heat_map if is_grid else search_figures.draw_parallel_coordinates
        if len(names) == 1:
            draw = search_figures.draw_points
        scored = frame[frame["validation_accuracy"].notna()]
        mean = describe_spread("mean and standard deviation", {over: [""] for over in scored["over"]})
        results.write_figure(
            "figure",
            frame.drop(columns="run_ids"),
            draw,
            caption=f"{make_caption(plan)}: accuracy on validation clips by configuration; {mean}.",
            options={"options": names},
            width=3.5 if len(names) == 1 or is_grid else min(7.0, 2.0 + 1.2 * len(names)),
        )
    for metric in requested:
        write_metric_bars(results, frame, metric, title="Configuration", caption=make_caption(plan))
    return frame


def best_configuration_row(frame: pd.DataFrame, plan: Plan, store: Store, space: Space) -> pd.DataFrame:
    """Return the best configuration as one row, the condition ``best``, to compare it with published settings.

    Parameters
    ----------
    frame
        Result of `write_search_results`.
    plan, store, space
        Plan, store and space of the search.

    Returns
    -------
    row
        One row with the searched options by column name, ``data``, ``backbone``, ``condition``, ``run_ids`` of the best
        configuration, and ``accuracy``. For one fold, this is the test accuracy of the best configuration; for several
        folds, the mean test accuracy of the configuration chosen in each fold (`analysis.search.nested_selection`).
        No row if no configuration has finished.
    """
    best = frame.iloc[0]
    if not _is_finished(best):
        return pd.DataFrame()
    run = next(run for run in plan.runs if run.id in best["run_ids"])
    values = {column_name(key): best[column_name(key)] for key in space}
    is_one_fold = len({run.data.fold for run in plan.runs}) == 1
    accuracy = (
        _mean_test_accuracy(best, store) if is_one_fold else float(select_per_fold(plan, store)["accuracy"].mean())
    )
    keys = {"data": run.data.display_name, "backbone": run.model.backbone, "condition": BEST_CONDITION}
    return pd.DataFrame([{**values, **keys, "accuracy": accuracy, "run_ids": list(best["run_ids"])}])


def _write_best_settings(results: OutputFolder, frame: pd.DataFrame, space: Space) -> None:
    """Write a table of the searched options: all values, and the best one."""
    if not _is_finished(frame.iloc[0]):
        return
    names = {flag_of(key): column_name(key) for key in space}
    rows = [
        {
            "option": flag,
            "searched": _format_searched(key, space[key]),
            "best": format_option(frame[names[flag]].iloc[0]),
        }
        for key, flag in zip(space, names, strict=True)
    ]
    columns = (Column("option", "Option"), Column("searched", "Searched"), Column("best", "Best"))
    results.write_table("best", pd.DataFrame(rows), columns, caption=f"{make_caption(results.plan)}: best settings")


def _format_searched(key: str, values: Any) -> str:
    """Return the range or the values of a searched option as text."""
    if isinstance(values, Range):
        return f"{format_option(values.low)} to {format_option(values.high)}"
    return ", ".join(format_option(typed_value(field_of(key), value)) for value in values)


def summarise_search(plan: Plan, store: Store, keys: Sequence[str]) -> pd.DataFrame:
    """Return one row for each configuration, sorted from best to worst; those without a result come last.

    Parameters
    ----------
    plan, store
        Plan of the search, and store of its runs.
    keys
        Searched options, as ``group__field``.

    Columns
    -------
    options
        Searched options by column name.
    condition
        Name of the configuration: the searched options and their values.
    validation_accuracy, validation_accuracy_std, validation_loss
        Mean over folds and seeds after the last epoch. The standard deviation is between folds (seeds are averaged
        first), or between seeds if there is one fold. NaN if a run has no score. The best configuration has the
        highest accuracy; ties are decided by the lowest loss.
    epochs, seconds
        Means over runs.
    compared, over
        Number of runs, and what is averaged: "folds", "seeds" (of one fold) or "1 run".
    runs, failed, missing, stopped
        Number of planned runs, and of those that failed, are not in the store, or were stopped early.
    run_ids
        Ids of the runs.
    """
    rows = [_summarise_configuration(point["condition"], part, store, keys) for point, part in plan.groups()]
    rows.sort(key=_sort_key)
    return pd.DataFrame(rows)


def as_cli_options(point: Mapping[str, Any]) -> str:
    """Return the options of a point of the search space in the form of a command line."""
    return " ".join(f"{flag_of(key)} {shlex.quote(format_option(value))}" for key, value in point.items())


def make_best_command(frame: pd.DataFrame, plan: Plan, space: Space, *, command: str) -> str:
    """Return the command that trains with the best configuration and the other options of the search.

    The result is empty if no configuration has finished.
    """
    if not _is_finished(frame.iloc[0]):
        return ""
    best = next(run for run in plan.runs if run.id == frame["run_ids"].iloc[0][0])
    return make_training_command(command, option_values(best, list(space)))


def make_training_command(command: str, point: Mapping[str, Any]) -> str:
    """Return the command that trains one configuration: `compare` with its values and the options of the search."""
    dropped = {*SEARCH_OPTIONS, *(flag_of(key) for key in point)}
    words: list[str] = []
    skipping = False
    search_words = shlex.split(command)
    search_words[search_words.index("tune")] = "compare"  # the command; a later "tune" is the value of an option
    for word in search_words:
        if word.startswith("--"):
            skipping = word.partition("=")[0].replace("_", "-") in dropped
        if not skipping:
            words.append(word)
    return f"{shlex.join(words)} {as_cli_options(point)}"


def _summarise_configuration(
    name: str, part: Sequence[PlannedRun], store: Store, keys: Sequence[str]
) -> dict[str, Any]:
    """Return the row of one configuration; columns as in `summarise_search`."""
    runs = [planned.run for planned in part]
    records = {run.id: store.record(run) for run in runs}
    available = [record for record in records.values() if record]
    scores = [read_validation_score(store, run) for run in runs]
    known_scores = np.array([score for score in scores if score is not None]).reshape(-1, 2)
    all_known = len(known_scores) == len(part)
    index = pd.MultiIndex.from_tuples([(run.data.fold, run.seed) for run in runs])
    by_fold = average_seeds(pd.Series(known_scores[:, 0], index=index)) if all_known else pd.Series(dtype=float)
    epochs = [record.epochs for record in available if record.epochs]
    seconds = [record.seconds.epochs for record in available if record.finished]
    stopped = sum(record.status == STOPPED for record in available)
    counts = run_counts(runs, records)
    return {
        **{column_name(key): value for key, value in option_values(part[0].run, keys).items()},
        "condition": name,
        "validation_accuracy": by_fold.mean(),
        "validation_accuracy_std": by_fold.std(),
        "validation_loss": known_scores[:, 1].mean() if all_known else math.nan,
        "epochs": float(np.mean(epochs)) if epochs else math.nan,
        "seconds": float(np.mean(seconds)) if seconds else math.nan,
        "compared": len(part),
        "over": averaged_over(part),
        **counts,
        "stopped": stopped,
        "missing": counts["missing"] - stopped,
    }


def _sort_key(row: Mapping[str, Any]) -> tuple[bool, bool, float, float]:
    """Return a sorting key: accuracy, then loss; stopped configurations after finished ones, unfinished ones last."""
    accuracy, loss = row["validation_accuracy"], row["validation_loss"]
    no_result = math.isnan(accuracy)
    return (no_result, row["stopped"] > 0, 0.0 if no_result else -accuracy, 0.0 if no_result else loss)


def _is_finished(row: Any) -> bool:
    """Return whether all runs of a configuration have a score and none was stopped early."""
    return not math.isnan(row["validation_accuracy"]) and not row["stopped"]


def _footnotes(frame: pd.DataFrame, nested: pd.DataFrame, plan: Plan, store: Store) -> list[str]:
    """Return the footnotes of the table of configurations: protocol, selection, and the best configuration."""
    runs, folds = plan.runs, {run.data.fold for run in plan.runs}
    notes = [
        protocol_note(epoch="last epoch", folds=folds, seeds={r.seed for r in runs}),
        f"Selected by the accuracy on validation clips: {_validation_fraction(runs, store)} of the clips of the "
        "training folds, held out by group. Validation loss: cross-entropy, for every --loss.",
    ]
    best = frame.iloc[0]
    if not _is_finished(best):
        return [*notes, "No configuration has finished."]
    if len(folds) == 1:
        accuracy = _mean_test_accuracy(best, store)
        return [*notes, f"Best: {best['condition']}; accuracy on the test fold, not used to select it: {accuracy:.1%}."]
    return [
        *notes,
        f"Best: {best['condition']}. Its test accuracy over these folds would be too high, because the validation "
        "clips of one fold are test clips of another. Nested cross-validation (table 'folds') has an accuracy of "
        f"{format_nested_accuracy(nested)}.",
    ]


def _mean_test_accuracy(row: Any, store: Store) -> float:
    """Return the mean test accuracy of the finished runs of a configuration."""
    return float(np.mean([record.metrics.accuracy for run in row["run_ids"] if (record := store.finished(run))]))


def _validation_fraction(runs: Sequence[Run], store: Store) -> str:
    """Return the fraction of validation clips in percent; it can differ from --validation, as groups are not split."""
    requested = runs[0].data.validation
    clips = [record.clips for run in runs if (record := store.finished(run))]
    fractions = [f"{each.validation / (each.train + each.validation):.0%}" for each in clips]
    if not fractions or set(fractions) == {f"{requested:.0%}"}:
        return f"{requested:.0%}"
    percentages = dict.fromkeys(sorted(fractions, key=lambda text: int(text[:-1])))
    return f"{' to '.join([*percentages][:: max(1, len(percentages) - 1)])} (requested: {requested:.0%})"
