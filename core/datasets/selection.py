"""Select from a data set: other labels, other folds, a held-out part, fewer clips per class."""

import dataclasses
from typing import Any

import numpy as np

from core.config.options import parse_whole_number
from core.datasets.dataset import Dataset
from core.datasets.folds import hold_out, make_folds
from core.errors import UserError, unknown_name_error


def select(dataset: Dataset, *, label: str = "", folds: int = 0, set_aside: float = 0.0, per_class: int = 0) -> Dataset:
    """Relabel the clips, hold out a part, make folds of the others, and limit the clips per class, in this order.

    Held-out clips are not in `Dataset.clips` of the result, so no split contains them. The result is the same at every
    call.

    Parameters
    ----------
    dataset
        Data set to select from.
    label
        Column of `Dataset.attributes` that gives the classes; "": the original classes. Folds are unchanged.
    folds
        Number of seeded folds, stratified by class, with groups kept together; 0: the set's own folds.
    set_aside
        Fraction of clips held out, 0 to below 1, stratified by class, with groups kept together
        (`core.datasets.folds.hold_out`).
    per_class
        Maximum number of clips per class in each of the training, test and validation parts; 0: all. A smaller number
        selects a subset of a larger one.

    Raises
    ------
    UserError
        If the label is unknown, the set has official folds, a class has fewer groups than folds, or a fold or class
        would have no clips.
    """
    if folds and not dataset.has_seeded_folds:
        own = "an official split" if dataset.has_fixed_split else f"{len(dataset.list_folds())} official folds"
        raise UserError(f"--n-folds {folds}: {dataset.name} has {own} already; leave --n-folds out")
    if label:
        dataset = _relabel(dataset, label)
    if set_aside:
        dataset = _hold_out(dataset, set_aside)
    clips = dataset.clips
    if dataset.has_seeded_folds and (folds or set_aside):
        names = np.array(dataset.class_names)[clips["label"]]
        new_folds = make_folds(names, clips["group"].to_numpy(), n_folds=folds)
        dataset = dataclasses.replace(dataset, clips=clips.assign(fold=new_folds))
    return _limit(dataset, per_class) if per_class else dataset


def _relabel(dataset: Dataset, label: str) -> Dataset:
    """Use an attribute as label, and drop classes with a single clip.

    Raises
    ------
    UserError
        If the set does not have the attribute, a value is empty, or there are fewer than two classes.
    """
    if label not in dataset.attributes:
        if dataset.attributes.columns.empty:
            raise UserError(f"--label {label}: {dataset.name} has no other labels; leave it out")
        raise unknown_name_error(f"label of {dataset.name}:", label, dataset.attributes.columns)
    values = dataset.attributes[label].astype(str)
    if (empty := values == "").any():
        raise UserError(f"--label {label}: {dataset.clips['path'][empty].iloc[0]} has no value; fill in every row")
    is_single = ~values.duplicated(keep=False)
    names = sorted(values[~is_single].unique(), key=_number_or_text)
    if len(names) < 2:
        raise UserError(f"--label {label}: {len(names)} classes of two clips or more; at least two classes are needed")
    numbers = {name: number for number, name in enumerate(names)}
    changes: dict[str, Any] = {"class_names": tuple(names)}
    if is_single.any():
        remark = f"{is_single.sum():,} clips left out, each the only one of its {label}"
        changes["remarks"] = (*dataset.remarks, remark)
        changes["left_out"] = dataset.left_out.union(dataset.clips["path"][is_single])
    relabelled = dataset.subset(~is_single.to_numpy(), **changes)
    labels = values[~is_single].map(numbers).to_numpy(np.int64)
    return dataclasses.replace(relabelled, clips=relabelled.clips.assign(label=labels))


def _number_or_text(name: str) -> tuple[bool, float, str]:
    """Return a sort key that puts numbers, by value, before texts."""
    number = parse_whole_number(name)
    return number is None, number or 0, name


def _hold_out(dataset: Dataset, share: float) -> Dataset:
    clips = dataset.clips
    mask = hold_out(clips["label"].to_numpy(), clips["group"].to_numpy(), share=share)
    if not mask.any():
        raise UserError(f"--holdout {share:g}: no class of {dataset.name} has a second group; leave it out")
    if not dataset.has_seeded_folds and (emptied := sorted(set(clips["fold"]) - set(clips["fold"][~mask]))):
        raise UserError(
            f"--holdout {share:g}: no clips left in fold {emptied[0]} of {dataset.name}; use a smaller fraction"
        )
    return dataset.subset(~mask, holdout=clips[mask].reset_index(drop=True))


def _limit(dataset: Dataset, per_class: int) -> Dataset:
    """Limit the clips per class, and drop clips that no split uses, so their inputs are not computed."""
    limited = dataclasses.replace(dataset, per_class=per_class)
    taken = np.zeros(len(dataset.clips), dtype=bool)
    for fold in limited.list_folds():
        for part in limited.split(fold, validation=0.5 if limited.has_fixed_split else 0.0):
            taken[part] = True
    dropped = dataset.left_out.union(dataset.clips.loc[~taken, "path"])
    return limited.subset(taken, left_out=dropped)
