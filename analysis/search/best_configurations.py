"""What a search has found: one row per configuration, the best first, a figure, and the command that uses the best."""

import math
import shlex
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from analysis.conditions import make_caption, requested_metric_columns, write_requested_bars
from analysis.metrics.condition_summary import run_counts, summarise_conditions
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_number, format_percent, format_seconds, format_text
from analysis.output.tables import Column, protocol_note
from analysis.search import search_figures as search_figures
from analysis.search.space import Point, Range, Space, column_name, flag_of, read_validation_score
from analysis.statistics.hypothesis_tests import average_seeds
from core.config.options import typed_value
from core.config.run import Run, field_of
from core.plan import Plan, PlannedRun
from core.store.runs import STOPPED, Store

BEST_CONDITION = "best"  # what the condition of the best configuration is called
SEARCH_OPTIONS = ("--search", "--trials", "--search-seed", "--scheduler")  # options of the search, not of what it finds


def write_search_results(results: OutputFolder, space: Space) -> pd.DataFrame:
    """Write the table and the figure of a search.

    Parameters
    ----------
    results
        The runs of all configurations, one condition each.
    space
        What was searched.

    Returns
    -------
    rows
        As `summarise_search` gives them.
    """
    plan, store = results.plan, results.session.store
    frame = summarise_search(plan, store, list(space))
    names = [column_name(key) for key in space]
    shown = [
        Column("validation_accuracy", "Validation %", format_percent, best="max", std="validation_accuracy_std"),
        Column("validation_loss", "Validation loss", format_number, best="min"),
        Column("epochs", "Epochs", _format_value),
        Column("seconds", "Time", format_seconds),
    ]
    if more := requested_metric_columns(results, shown):
        measured = summarise_conditions(plan, store).set_index("condition")
        frame = frame.join(measured[[name for name in measured if name not in frame]], on="condition")
    results.write_table(
        "table",
        frame,
        [*(Column(name, search_figures.option_title(name), _format_value) for name in names), *shown, *more],
        caption=make_caption(plan),
        footnotes=_footnotes(frame, plan, store),
    )
    _write_best(results, frame, space)
    if frame["validation_accuracy"].notna().any():
        both = len(names) == 2 and not any(isinstance(values, Range) for values in space.values())
        draw = search_figures.draw_heat_map if both else search_figures.draw_parallel_coordinates
        results.write_figure(
            "figure",
            frame.drop(columns="run_ids"),
            lambda ax: draw(frame, ax, options=names),
            caption=f"{make_caption(plan)}: accuracy on validation clips by configuration.",
            width=3.5 if both else min(7.0, 2.0 + 1.2 * len(names)),
        )
    write_requested_bars(results, frame, (), title="Configuration")
    return frame


def best_configuration_row(frame: pd.DataFrame, plan: Plan, store: Store, space: Space) -> pd.DataFrame:
    """Return the best configuration as one condition, ``best``, to be set beside a report's.

    Parameters
    ----------
    frame
        What `write_search_results` returns.
    plan, store, space
        The search.

    Returns
    -------
    row
        The searched options by the names of their fields, and the accuracy of its last epoch on the test fold; no row
        where no configuration has finished.
    """
    best = frame.iloc[0]
    runs = [run for run in plan.runs if run.id in best["run_ids"]]
    records = [record for run in runs if (record := store.finished(run))]
    if not _is_finished(best) or not records:
        return pd.DataFrame()
    values = {column_name(key): best[column_name(key)] for key in space}
    accuracy = float(np.mean([record.metrics.accuracy for record in records]))
    about = {"data": runs[0].data.display_name, "backbone": runs[0].model.backbone, "condition": BEST_CONDITION}
    return pd.DataFrame([{**values, **about, "accuracy": accuracy}])


def _write_best(results: OutputFolder, frame: pd.DataFrame, space: Space) -> None:
    """Write the table of the best settings, each beside what it was chosen from."""
    if not _is_finished(frame.iloc[0]):
        return
    names = {flag_of(key): column_name(key) for key in space}
    rows = [
        {
            "option": flag,
            "searched": _format_searched(key, space[key]),
            "best": _format_value(frame[names[flag]].iloc[0]),
        }
        for key, flag in zip(space, names, strict=True)
    ]
    columns = (Column("option", "Option"), Column("searched", "Searched"), Column("best", "Best"))
    results.write_table("best", pd.DataFrame(rows), columns, caption=f"{make_caption(results.plan)}: best settings")


def _format_searched(key: str, values: Any) -> str:
    if isinstance(values, Range):
        return f"{_format_value(values.low)} to {_format_value(values.high)}"
    return ", ".join(_format_value(typed_value(field_of(key), value)) for value in values)


def summarise_search(plan: Plan, store: Store, keys: Sequence[str]) -> pd.DataFrame:
    """Return one row for each configuration, the best first, those without a result last.

    Parameters
    ----------
    plan, store
        The runs, and where they are.
    keys
        The options that were searched, as ``group__field``.

    Columns
    -------
    options
        The searched options by the names of their fields.
    condition
        All of them in words.
    validation_accuracy, validation_accuracy_std, validation_loss
        After the last epoch: means over folds and seeds, and the deviation between folds, seeds averaged within each,
        or between the seeds of a single fold; missing where a run of the configuration has none. The highest accuracy
        is best, and among equals the lowest loss.
    epochs, seconds
        Means over its runs.
    runs, failed, missing, stopped
        How many runs were planned, and how many failed, are not there, or were stopped early.
    run_ids
        The runs.
    """
    rows = [_summarise_configuration(point["condition"], part, store, keys) for point, part in plan.groups()]
    rows.sort(key=_sort_key)
    return pd.DataFrame(rows)


def option_values(run: Run, keys: Sequence[str]) -> Point:
    """Return a run's values of some options, as they are typed on the command line."""
    return {key: typed_value(field_of(key), attrgetter(key.replace("__", "."))(run)) for key in keys}


def as_cli_options(point: Mapping[str, Any]) -> str:
    """Write a point as options of the command line."""
    return " ".join(f"{flag_of(key)} {shlex.quote(_format_value(value))}" for key, value in point.items())


def make_best_command(frame: pd.DataFrame, plan: Plan, space: Space, *, command: str) -> str:
    """Return the command that fine-tunes with the best configuration, and else with what the search's `command` said.

    It is empty where no configuration has finished.
    """
    if not _is_finished(frame.iloc[0]):
        return ""
    best = next(run for run in plan.runs if run.id == frame["run_ids"].iloc[0][0])
    return make_training_command(command, option_values(best, list(space)))


def make_training_command(command: str, point: Mapping[str, Any]) -> str:
    """Return the command that fine-tunes with a point's values, and else with what the search's command said."""
    dropped = {*SEARCH_OPTIONS, *(flag_of(key) for key in point)}
    kept: list[str] = []
    skipping = False
    given = shlex.split(command)
    trains = "compare" if any(word.partition("=")[0] == "--freeze" for word in given) else "freeze"
    for word in given:
        if word.startswith("--"):
            skipping = word.partition("=")[0].replace("_", "-") in dropped
        if not skipping:
            kept.append(trains if word == "tune" else word)
    return f"{shlex.join(kept)} {as_cli_options(point)}"


def _summarise_configuration(
    name: str, part: Sequence[PlannedRun], store: Store, keys: Sequence[str]
) -> dict[str, Any]:
    runs = [planned.run for planned in part]
    records = {run.id: store.record(run) for run in runs}
    found = [record for record in records.values() if record]
    scores = [read_validation_score(store, run) for run in runs]
    known = np.array([score for score in scores if score is not None]).reshape(-1, 2)
    all_known = len(known) == len(part)
    places = pd.MultiIndex.from_tuples([(run.data.fold, run.seed) for run in runs])
    units = average_seeds(pd.Series(known[:, 0], index=places)) if all_known else pd.Series(dtype=float)
    epochs = [record.epochs for record in found if record.epochs]
    spent = [record.seconds.epochs for record in found if record.finished]
    stopped = sum(record.status == STOPPED for record in found)
    counted = run_counts(runs, records)
    return {
        **{column_name(key): value for key, value in option_values(part[0].run, keys).items()},
        "condition": name,
        "validation_accuracy": units.mean(),
        "validation_accuracy_std": units.std(),
        "validation_loss": known[:, 1].mean() if all_known else math.nan,
        "epochs": float(np.mean(epochs)) if epochs else math.nan,
        "seconds": float(np.mean(spent)) if spent else math.nan,
        **counted,
        "stopped": stopped,
        "missing": counted["missing"] - stopped,
    }


def _sort_key(row: Mapping[str, Any]) -> tuple[bool, bool, float, float]:
    """Put the best first; what was stopped early cannot be the best, and what has no result is last."""
    accuracy, loss = row["validation_accuracy"], row["validation_loss"]
    unknown = math.isnan(accuracy)
    return (unknown, row["stopped"] > 0, 0.0 if unknown else -accuracy, 0.0 if unknown else loss)


def _is_finished(row: Any) -> bool:
    return not math.isnan(row["validation_accuracy"]) and not row["stopped"]


def _footnotes(frame: pd.DataFrame, plan: Plan, store: Store) -> list[str]:
    runs = plan.runs
    notes = [
        protocol_note(epoch="last epoch", folds={r.data.fold for r in runs}, seeds={r.seed for r in runs}),
        f"Chosen by the accuracy on {_validation_share(runs, store)} of the training folds' clips, held out by group; "
        "the test fold plays no part.",
    ]
    best = frame.iloc[0]
    if not _is_finished(best):
        return [*notes, "No configuration has finished."]
    tested = np.mean([record.metrics.accuracy for run in best["run_ids"] if (record := store.finished(run))])
    return [
        *notes,
        f"Best: {best['condition']}; its accuracy on the test fold, looked at only now: {tested:.1%}.",
    ]


def _validation_share(runs: Sequence[Run], store: Store) -> str:
    """Say which share was held out; whole groups can be more or less than what was asked for."""
    asked = runs[0].data.validation
    clips = [record.clips for run in runs if (record := store.finished(run))]
    shares = [f"{one.validation / (one.train + one.validation):.0%}" for one in clips]
    if not shares or set(shares) == {f"{asked:.0%}"}:
        return f"{asked:.0%}"
    found = dict.fromkeys(sorted(shares, key=lambda share: int(share[:-1])))
    return f"{' to '.join([*found][:: max(1, len(found) - 1)])} ({asked:.0%} asked for)"


def _format_value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else format_text(value)
