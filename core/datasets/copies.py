"""Identical clips of a data set: keep them in one group, and report those that leak or have several labels."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from core.datasets.dataset import TRAIN_FOLD, Dataset
from core.datasets.metadata import MAX_NAMES, format_few
from core.registry import Lazy

csgraph = Lazy("scipy.sparse.csgraph")
sparse = Lazy("scipy.sparse")


def join_copies(dataset: Dataset) -> Dataset:
    """Put identical files, by `Dataset.digests`, into one group, and draw seeded folds again.

    If the folds are official, only files of the same fold are put into one group. Without identical files the data set
    is unchanged.

    Raises
    ------
    UserError
        If all clips of a class are copies of one recording, so that they cannot be in two folds.
    """
    joined = join_groups(dataset)
    return joined.deal_folds() if joined.has_seeded_folds and joined is not dataset else joined


def join_groups(dataset: Dataset) -> Dataset:
    """Put identical files into one group, as in `join_copies`; seeded folds are unchanged."""
    recordings = dataset.number_recordings()
    if recordings is None or not dataset.joins_copies:
        return dataset
    clips = dataset.clips
    if not dataset.has_seeded_folds:
        recordings = pd.factorize(pd.MultiIndex.from_arrays([recordings, clips["fold"]]))[0]
    return dataclasses.replace(dataset, clips=clips.assign(group=_merge(clips["group"], recordings)))


def _merge(groups: pd.Series, recordings: np.ndarray) -> np.ndarray:
    """Merge groups that contain the same recording; return the name of the first merged group for each clip."""
    numbers, names = pd.factorize(groups)
    size = len(names) + int(recordings.max()) + 1
    edges = sparse.coo_array((np.ones(len(numbers)), (numbers, len(names) + recordings)), shape=(size, size))
    component = csgraph.connected_components(edges, directed=False)[1][: len(names)]
    _, first = np.unique(component, return_index=True)
    return np.asarray(names, object)[first[pd.factorize(component, sort=True)[0]]][numbers]


def describe_copies(dataset: Dataset) -> list[str]:
    """Return one line for each problem of identical clips, with their number and examples; needs the digests.

    The problems are copies in training and test clips, copies with several labels, and other copies.
    """
    clips = dataset.clips
    if dataset.has_fixed_split:  # validation and test clips may share recordings
        clips = clips.assign(fold=np.where(clips["fold"] == TRAIN_FOLD, TRAIN_FOLD, TRAIN_FOLD + 1))
    clips = pd.concat([clips, dataset.holdout.assign(fold=-1)]) if len(dataset.holdout) else clips
    clips = clips.assign(digest=[dataset.digests.get(path) or path for path in clips["path"].tolist()])
    copies = clips[clips["digest"].duplicated(keep=False)]
    if copies.empty:
        return []
    what = "recordings" if dataset.vectors is None else "rows"
    found = copies.groupby("digest", sort=False)
    n_folds, n_labels = found["fold"].nunique(), found["label"].nunique()
    in_folds, relabelled = n_folds.index[n_folds > 1], n_labels.index[n_labels > 1]
    other = n_folds.index[(n_folds == 1) & (n_labels == 1)]
    lines = []
    if len(in_folds):
        where = "both training and test clips" if dataset.has_fixed_split else "more than one fold"
        where += " (held-out clips are one)" if len(dataset.holdout) else ""
        lines.append(
            f"identical {what} in {where}, so clips are trained on and tested: "
            f"{_count(copies, in_folds)}: {_name_pairs(copies, in_folds)}; keep one of each"
        )
    if len(relabelled):
        pairs = _name_pairs(copies, relabelled, class_names=dataset.class_names)
        lines.append(
            f"identical {what} with different labels: {_count(copies, relabelled)}: {pairs}; correct or remove them"
        )
    if len(other):
        lines.append(
            f"identical {what}, each in one fold but counted several times: {_count(copies, other)}: "
            f"{_name_pairs(copies, other)}; keep one of each"
        )
    return lines


def _count(copies: pd.DataFrame, digests: pd.Index) -> str:
    return f"{len(digests):,} in {copies['digest'].isin(digests).sum():,} clips"


def _name_pairs(copies: pd.DataFrame, digests: pd.Index, *, class_names: Sequence[str] = ()) -> str:
    """Return two file names of each copied recording as text, with their classes if `class_names` is given."""
    texts = [""] * len(digests)
    for number, digest in enumerate(digests[:MAX_NAMES]):
        rows = copies[copies["digest"] == digest]
        rows = (rows.drop_duplicates("label") if class_names else rows).head(2)
        labels = [f" ({class_names[label]})" if class_names else "" for label in rows["label"]]
        texts[number] = " = ".join(map("".join, zip(rows["path"], labels, strict=True)))
    return format_few(texts)
