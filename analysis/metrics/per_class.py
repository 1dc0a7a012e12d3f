"""Table of precision, recall and F1 per class and condition."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics.shared_runs import describe_shared_runs, select_shared_runs
from analysis.output.number_format import format_count, format_percent
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from analysis.statistics import hypothesis_tests
from core.plan import Groups
from core.store.record import PerClass
from core.training import metrics

SCORES = {"precision": "Precision %", "recall": "Recall %", "f1": "F1 %"}
COLUMNS = (
    Column("class", "Class"),
    *(Column(name, title, format_percent, std=f"{name}_std") for name, title in SCORES.items()),
    Column("clips", "Clips", format_count),
)
PER_CLASS_NOTES = (
    "Results of the last epoch on the test fold; mean ± standard deviation over the folds that have clips of the class "
    "(seeds averaged within each fold), or over the seeds of a single fold. Clips: number of clips of the class in all "
    "test folds.",
)
ScoredRun = tuple[int, int, PerClass | metrics.PerClass]  # fold, seed, scores


def write_per_class(results: OutputFolder, groups: Groups, leading: Sequence[Column], *, caption: str) -> None:
    """Write the table of classes with one row per condition and class.

    Parameters
    ----------
    results
        Output folder of the analysis.
    groups
        Runs of each condition (`core.plan.Plan.groups`).
    leading
        Columns that name a condition.
    caption
        Description of the runs.
    """
    store = results.session.store
    shared = select_shared_runs(groups, store)
    rows = []
    for values, planned in shared:
        records = [record for each in planned if (record := store.finished(each.run))]
        scored = [(record.run.data.fold, record.run.seed, record.per_class) for record in records]
        rows += per_class_rows(values, scored, records[0].class_names if records else ())
    notes = list(filter(None, [describe_shared_runs(groups, shared)]))
    write_per_class_rows(results, rows, leading, caption=caption, notes=notes)


def write_per_class_rows(
    results: OutputFolder,
    rows: Sequence[Mapping[str, Any]],
    leading: Sequence[Column],
    *,
    caption: str,
    notes: Sequence[str] = (),
) -> None:
    """Write the table of classes from the rows of `per_class_rows`.

    `notes` are additional footnotes; other parameters as in `write_per_class`.
    """
    if rows:
        results.write_table(
            "classes",
            pd.DataFrame(rows),
            [*leading, *COLUMNS],
            caption=f"{caption}: results per class",
            footnotes=[*PER_CLASS_NOTES, *notes],
            groups=[column.name for column in leading],
            show=False,
        )


def per_class_rows(
    values: Mapping[str, Any], scored: Iterable[ScoredRun], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row per class of a condition.

    Parameters
    ----------
    values
        Grid values and condition of the runs, added to each row; the condition is the last entry.
    scored
        Fold, seed and scores of each run. Folds without clips of a class are ignored for that class.
    class_names
        Names of the classes.

    Returns
    -------
    list of dict
        ``class``; ``precision``, ``recall`` and ``f1`` (0 to 1, means over folds with seeds averaged), each with
        ``_std``, ``_low`` and ``_high`` (95 % interval); and ``clips``, the number of clips of the class in the test
        folds.
    """
    runs = list(scored)
    if not runs:
        return []
    folds = [fold for fold, *_ in runs]

    def by_run(name: str) -> pd.DataFrame:
        values = np.array([getattr(by_class, name) for *_, by_class in runs], dtype=float)
        return pd.DataFrame(values, index=folds)  # (runs, classes)

    clips = by_run("support")
    has_clips = clips > 0
    tested, supported = has_clips.groupby(level=0).any(), clips.groupby(level=0).mean().sum()
    rows: list[dict[str, Any]] = [{**values, "class": name} for name in class_names]
    for score in SCORES:
        units, known = by_run(score), has_clips
        if len(set(folds)) > 1:
            units, known = units.where(has_clips).groupby(level=0).mean(), tested
        for k, row in enumerate(rows):
            interval = hypothesis_tests.mean_interval(units[k][known[k]].to_numpy())
            row |= {score: interval.mean, f"{score}_std": interval.std}
            row |= {f"{score}_low": interval.low, f"{score}_high": interval.high}
    return [row | {"clips": int(np.rint(supported[k]))} for k, row in enumerate(rows)]
