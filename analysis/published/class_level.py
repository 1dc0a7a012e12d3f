"""Rows of ours that are finer than a condition, as published numbers call them: classes, cells of confusion matrices.

A report's condition is ``class NAME``, ``NAME as NAME`` (target and prediction, either of them ``All``), or ``entry K``
for the K-th number of a list that names no classes; before it may stand our condition and a comma, which is else the
first one of the data set and the backbone.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics.condition_summary import dataset_and_backbone
from analysis.metrics.per_class import SCORES, per_class_rows
from analysis.plots.confusion import MARGIN_LABEL, add_margins
from core.plan import Plan
from core.store.runs import Record, Store

ENTRY_NOTE = (
    "Entry: of a list that names no classes; ours is of the class at that place in the order of their names, where the "
    "list is as long as there are classes."
)
ENTRY = re.compile(r"entry \d+")
CLASS_LEVEL = re.compile(r"(.*, )?(class .+|.+ as .+|entry \d+)")


def class_level_rows(plan: Plan, store: Store, stated: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of classes and cells that published numbers are of.

    Parameters
    ----------
    plan, store
        Our runs.
    stated
        Numbers of a report, as `analysis.published.numbers.load_published` gives them.

    Returns
    -------
    rows
        ``data``, ``backbone`` and ``condition``, and for a class ``precision``, ``recall`` and ``f1`` with their
        ``_std``, for a cell ``clips``: the sum over folds of the mean over their seeds.
    """
    wanted = {condition for condition in stated["condition"] if CLASS_LEVEL.fullmatch(condition)}
    if not wanted:
        return []
    rows: list[dict[str, Any]] = []
    known: set[tuple[str, ...]] = set()
    for values, planned in plan.groups():
        where = dataset_and_backbone(planned[0])
        records = [record for one in planned if (record := store.finished(one.run))]
        if not records:
            continue
        listed = _list_lengths(stated, where["backbone"])
        found = _class_rows(records, listed) | _cell_rows(records)
        first = tuple(where.values()) not in known
        known.add(tuple(where.values()))
        for prefix in (f"{values['condition']}, ", *([""] if first else [])):
            rows += [{**where, "condition": prefix + of, **row} for of, row in found.items() if prefix + of in wanted]
    return rows


def _list_lengths(stated: pd.DataFrame, backbone: str) -> Mapping[str, int]:
    """Return how long a report's lists without classes are, by metric."""
    entries = stated[stated["condition"].map(lambda name: bool(ENTRY.fullmatch(name)))]
    lengths = entries[entries["backbone"] == backbone]["metric"].value_counts()
    return {str(metric): int(n) for metric, n in lengths.items()}


def _class_rows(records: Sequence[Record], listed: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    scored = [(record.run.data.fold, record.run.seed, record.per_class) for record in records]
    names = records[0].class_names
    found = {}
    for k, row in enumerate(per_class_rows({}, scored, names), start=1):
        found[f"class {row.pop('class')}"] = row
        whole = [score for score in SCORES if listed.get(score) == len(names)]
        found[f"entry {k}"] = {name: row[name] for score in whole for name in (score, f"{score}_std")}
    return found


def _cell_rows(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    by_fold: dict[int, list[Any]] = {}
    for record in records:
        by_fold.setdefault(record.run.data.fold, []).append(add_margins(record.confusion)[0])
    clips = sum(np.mean(matrices, axis=0) for matrices in by_fold.values())
    names = [*records[0].class_names, MARGIN_LABEL]
    return {
        f"{target} as {predicted}": {"clips": float(clips[i, j])}
        for i, target in enumerate(names)
        for j, predicted in enumerate(names)
    }
