"""How well every class is recognised: precision, recall and F1 of each by condition, a row for each class."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_count, format_percent
from analysis.output.tables import Column
from analysis.plots.learning_curves import Groups
from analysis.statistics import hypothesis_tests
from core.store.record import PerClass
from core.training import metrics

SCORES = {"precision": "Precision %", "recall": "Recall %", "f1": "F1 %"}
COLUMNS = (
    Column("class", "Class"),
    *(Column(name, title, format_percent, std=f"{name}_std") for name, title in SCORES.items()),
    Column("clips", "Clips", format_count),
)
PER_CLASS_NOTES = (
    "Of the last epoch on the test fold; mean ± standard deviation over the folds that have clips of the class, seeds "
    "averaged within each, or over the seeds of a single fold. Clips: of the class in all test folds.",
)
ScoredRun = tuple[int, int, PerClass | metrics.PerClass]  # the fold, the seed, and what was scored there


def write_per_class(results: OutputFolder, groups: Groups, leading: Sequence[Column], *, caption: str) -> None:
    """Write the table of classes: a row for each condition and class.

    Parameters are those of `analysis.plots.learning_curves.write_learning_curves`; `leading` are the columns that
    name a condition.
    """
    store = results.session.store
    rows = []
    for values, planned in groups:
        records = [record for one in planned if (record := store.finished(one.run))]
        scored = [(record.run.data.fold, record.run.seed, record.per_class) for record in records]
        rows += per_class_rows(values, scored, records[0].class_names if records else ())
    write_per_class_rows(results, rows, leading, caption=caption)


def write_per_class_rows(
    results: OutputFolder, rows: Sequence[Mapping[str, Any]], leading: Sequence[Column], *, caption: str
) -> None:
    """Write rows that were made by `per_class_rows`; parameters as `write_per_class`."""
    if rows:
        results.write_table(
            "classes",
            pd.DataFrame(rows),
            [*leading, *COLUMNS],
            caption=f"{caption}: every class",
            footnotes=PER_CLASS_NOTES,
            groups=[column.name for column in leading],
            show=False,
        )


def per_class_rows(
    values: Mapping[str, Any], scored: Iterable[ScoredRun], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of one condition.

    Parameters
    ----------
    values
        What its runs have in common: the condition last.
    scored
        The scores of every class, run by run; a fold without a class's clips says nothing of it.
    class_names
        One name for each class.

    Returns
    -------
    rows
        ``class``, ``precision``, ``recall`` and ``f1`` (0 to 1; means over folds, each the mean of its seeds), each
        with ``_std``, and ``clips``: how many the test folds have.
    """
    runs = list(scored)
    if not runs:
        return []
    folds = [fold for fold, *_ in runs]

    def by_run(name: str) -> pd.DataFrame:
        values = np.array([getattr(by_class, name) for *_, by_class in runs], dtype=float)
        return pd.DataFrame(values, index=folds)  # (runs, classes)

    clips = by_run("support")
    there = clips > 0
    tested, supported = there.groupby(level=0).any(), clips.groupby(level=0).mean().sum()
    rows: list[dict[str, Any]] = [{**values, "class": name} for name in class_names]
    for score in SCORES:
        units, known = by_run(score), there
        if len(set(folds)) > 1:  # of one fold alone, its seeds' deviation is not that of folds beside it
            units, known = units.where(there).groupby(level=0).mean(), tested
        for k, row in enumerate(rows):
            over = hypothesis_tests.mean_interval(units[k][known[k]].to_numpy())
            row |= {score: over.mean, f"{score}_std": over.std}
    return [row | {"clips": int(np.rint(supported[k]))} for k, row in enumerate(rows)]
