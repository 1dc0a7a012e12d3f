"""Our numbers for single classes and for cells of confusion matrices, to compare with published ones.

In ``published.csv`` the column ``condition`` of such a number is one of these:

- ``class NAME``: a class;
- ``NAME as NAME``: a cell, with target and prediction, where ``All`` is a sum over classes;
- ``entry K``: the K-th number of a list without class names.

The name of one of our conditions and a comma can precede it, for example ``block3, class dog``. Otherwise, the number
belongs to the first condition of the data set and backbone.
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
from core.store.run_store import Record, Store

ENTRY_NOTE = (
    "Entry: a number of a published list without class names. Ours is the class at that position in the order of "
    "names, if the list has as many entries as there are classes."
)
BASE_CONDITION = "base"  # condition name of an unchanged network
ROW_SEPARATOR, BACKBONE_SEPARATOR = ";", " / "  # in the column ``compared-with`` of ``published.csv``
ENTRY = re.compile(r"entry \d+")
CLASS_LEVEL = re.compile(r"(?:(.*), )?(class .+|.+ as .+|entry \d+)")


def split_compared(text: str) -> list[tuple[str, str]]:
    """Return backbone ("" for the same one) and condition of each row that a statement is compared with."""
    parts = [part.strip().rpartition(BACKBONE_SEPARATOR) for part in text.split(ROW_SEPARATOR) if part.strip()]
    return [(backbone, condition) for backbone, _, condition in parts]


def split_class(condition: str) -> tuple[str, str]:
    """Return the condition of our runs and the class or cell that a published condition names; "" for none."""
    match = CLASS_LEVEL.fullmatch(condition)
    return (match[1] or "", match[2]) if match else (condition, "")


def describe_subject(published: Mapping[Any, Any], *, several_sets: bool) -> str:
    """Return data set, backbone and condition of a published number, such as "esc50, densenet201, block3".

    The data set is named only if `several_sets` is True. Classes, cells, and the condition of an unchanged network are
    not named.
    """
    condition, _ = split_class(published["condition"])
    words = [published["data"] * several_sets, published["backbone"], condition * (condition != BASE_CONDITION)]
    return ", ".join(filter(None, words)) or published["data"]


def class_level_rows(plan: Plan, store: Store, published: pd.DataFrame) -> list[dict[str, Any]]:
    """Return our numbers for the classes and cells that a report has numbers for.

    Parameters
    ----------
    plan, store
        Our runs and their store.
    published
        Published numbers, a result of `analysis.published.numbers.load_published`.

    Returns
    -------
    rows
        One dictionary for each class or cell, with ``data``, ``backbone``, ``condition`` and ``run_ids``. Classes have
        ``precision``, ``recall`` and ``f1`` with their ``_std``. Cells have ``clips``: the number of clips, averaged
        over seeds and summed over folds.
    """
    compared = (name for text in published["compared-with"] for _, name in split_compared(text))
    conditions = {condition for condition in (*published["condition"], *compared) if CLASS_LEVEL.fullmatch(condition)}
    if not conditions:
        return []
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, ...]] = set()
    for values, planned in plan.groups():
        keys = dataset_and_backbone(planned[0])
        records = [record for each in planned if (record := store.finished(each.run))]
        if not records:
            continue
        by_condition = _class_rows(records, _list_lengths(published, keys["backbone"])) | _cell_rows(records)
        is_first = tuple(keys.values()) not in seen
        seen.add(tuple(keys.values()))
        for prefix in (f"{values['condition']}, ", *([""] if is_first else [])):
            rows += [
                {**keys, "condition": prefix + name, **row, "run_ids": [record.id for record in records]}
                for name, row in by_condition.items()
                if prefix + name in conditions
            ]
    return rows


def _list_lengths(published: pd.DataFrame, backbone: str) -> Mapping[str, int]:
    """Return the lengths of published lists without class names, by metric."""
    entries = published[published["condition"].map(lambda name: bool(ENTRY.fullmatch(name)))]
    lengths = entries[entries["backbone"] == backbone]["metric"].value_counts()
    return {str(metric): int(n) for metric, n in lengths.items()}


def _class_rows(records: Sequence[Record], list_lengths: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Return the scores of each class, by ``class NAME`` and ``entry K``."""
    scores = [(record.run.data.fold, record.run.seed, record.per_class) for record in records]
    names = records[0].class_names
    rows = {}
    for k, row in enumerate(per_class_rows({}, scores, names), start=1):
        rows[f"class {row.pop('class')}"] = row
        complete = [score for score in SCORES if list_lengths.get(score) == len(names)]
        rows[f"entry {k}"] = {name: value for name, value in row.items() if name.startswith(tuple(complete))}
    return rows


def _cell_rows(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return the clips of each cell of the confusion matrix with margins, by ``TARGET as PREDICTION``."""
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
