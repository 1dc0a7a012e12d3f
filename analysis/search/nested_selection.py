"""Nested cross-validation of a search: each fold has its own best configuration.

In fold k the configuration with the highest accuracy on the validation clips of fold k is chosen, and its accuracy on
the test clips of fold k is reported. These clips are disjoint. For a configuration that is chosen by its mean over all
folds, the test clips are not independent of the choice: the validation clips of a fold are test clips of other folds.
Its test accuracy is therefore too high (``python -m tests.benchmarks statistics``).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.condition_report import make_caption
from analysis.output.number_format import format_option, format_percent, option_title
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from analysis.search.space import Space, column_name, option_values, read_validation_score
from core.config.run import Run
from core.plan import Plan
from core.store.run_store import Store


def choose_per_fold(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the row of the best configuration of each fold.

    Parameters
    ----------
    scores
        One row for each configuration and fold, with the columns ``fold``, ``validation_accuracy`` (NaN if there is no
        result) and ``validation_loss``.

    Returns
    -------
    DataFrame
        One row of `scores` for each fold, sorted by fold: the row with the highest accuracy or, if accuracies are
        equal, the lowest loss. Folds without results have no row.
    """
    known = scores[scores["validation_accuracy"].notna()]
    ranked = known.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True], kind="stable")
    return ranked.drop_duplicates("fold").sort_values("fold", ignore_index=True)


def select_per_fold(plan: Plan, store: Store) -> pd.DataFrame:
    """Return the best configuration of each fold of a search, chosen on the validation clips of this fold only.

    Columns
    -------
    fold
        Number of the fold.
    condition
        Name of the configuration.
    run
        One of its runs in this fold.
    validation_accuracy, validation_loss
        Means over seeds after the last epoch, on the validation clips of this fold.
    accuracy
        Mean over seeds after the last epoch, on the test clips of this fold.
    """
    rows = [
        _summarise_fold(point["condition"], [planned.run for planned in part if planned.run.data.fold == fold], store)
        for point, part in plan.groups()
        for fold in sorted({planned.run.data.fold for planned in part})
    ]
    return choose_per_fold(pd.DataFrame(rows))


def write_nested_selection(results: OutputFolder, nested: pd.DataFrame, space: Space, *, is_adaptive: bool) -> None:
    """Write the table of the configuration chosen in each fold; nothing for a search on one fold."""
    folds = {run.data.fold for run in results.plan.runs}
    if len(folds) == 1 or nested.empty:
        return
    names = [column_name(key) for key in space]
    options = pd.DataFrame([option_values(run, list(space)).values() for run in nested["run"]], columns=names)
    notes = [
        "Nested cross-validation: in each fold, the configuration with the highest accuracy on the validation clips of "
        f"this fold is tested on its test clips. Mean test accuracy: {format_nested_accuracy(nested)}."
    ]
    if len(nested) < len(folds):
        notes.append(f"{len(folds) - len(nested)} of {len(folds)} folds have no finished configuration.")
    if is_adaptive:
        notes.append(
            "Optuna and --scheduler use the validation clips of all folds, which are test clips of other folds, so the "
            "test accuracy can be too high. Grid and random search without --scheduler do not have this problem."
        )
    results.write_table(
        "folds",
        pd.concat([nested.drop(columns=["run", "validation_loss"]), options], axis=1),
        [
            Column("fold", "Fold"),
            *(Column(name, option_title(name), format_option) for name in names),
            Column("validation_accuracy", "Validation %", format_percent),
            Column("accuracy", "Test %", format_percent),
        ],
        caption=f"{make_caption(results.plan)}: best configuration of each fold",
        footnotes=notes,
    )


def format_nested_accuracy(nested: pd.DataFrame) -> str:
    """Return mean and standard deviation over folds of the test accuracy, in percent."""
    accuracy = nested["accuracy"]
    return f"{accuracy.mean():.1%}, standard deviation over folds {100 * accuracy.std():.1f} points"


def _summarise_fold(condition: str, runs: Sequence[Run], store: Store) -> dict[str, Any]:
    """Return the scores of a configuration in one fold, NaN unless all its runs in this fold have finished."""
    records = [record for run in runs if (record := store.finished(run))]
    scores = [score for run in runs if (score := read_validation_score(store, run))]
    complete = len(records) == len(runs)
    return {
        "fold": runs[0].data.fold,
        "condition": condition,
        "run": runs[0],
        "validation_accuracy": _mean(accuracy for accuracy, _ in scores) if complete else math.nan,
        "validation_loss": _mean(loss for _, loss in scores) if complete else math.nan,
        "accuracy": _mean(record.metrics.accuracy for record in records) if complete else math.nan,
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
