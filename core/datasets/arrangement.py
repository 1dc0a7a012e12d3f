"""What a user asks of a data set beyond its own folds: folds of another number, a part set aside, fewer clips."""

import dataclasses

import numpy as np

from core.datasets.folds import hold_out, make_folds
from core.datasets.table import Dataset
from core.errors import UserError


def arrange(dataset: Dataset, *, folds: int = 0, set_aside: float = 0.0, per_class: int = 0) -> Dataset:
    """Set a part aside, fold what is left, and limit the clips of a class.

    Clips set aside are in no split of the result, nor among its clips: nothing that trains or analyses can look at
    them. The same at every call.

    Parameters
    ----------
    folds
        Number of seeded folds, stratified by class, groups whole; 0: as the set comes.
    set_aside
        Share of the clips set aside, 0 to below 1, stratified by class, groups whole (`core.datasets.folds.hold_out`).
    per_class
        Most clips of a class in a training part, in a test part and in a validation list, each; 0: all. Those taken
        at a smaller number are among those taken at a larger one.

    Raises
    ------
    UserError
        For folds where the set has its own, more folds than a class has groups, and a share that leaves a fold without
        clips or cannot be taken.
    """
    if folds and not dataset.seeded_folds:
        own = "a split" if dataset.fixed_split else f"{len(dataset.fold_numbers())} folds"
        raise UserError(f"--folds {folds}: {dataset.name} has {own} of its own; leave --folds out")
    if set_aside:
        dataset = _set_aside(dataset, set_aside)
    clips = dataset.clips
    if dataset.seeded_folds and (folds or set_aside):
        names = np.array(dataset.class_names)[clips["label"]]
        made = make_folds(names, clips["group"].to_numpy(), n_folds=folds)
        dataset = dataclasses.replace(dataset, clips=clips.assign(fold=made))
    return _limited(dataset, per_class) if per_class else dataset


def _set_aside(dataset: Dataset, share: float) -> Dataset:
    clips = dataset.clips
    mask = hold_out(clips["label"].to_numpy(), clips["group"].to_numpy(), share=share)
    if not mask.any():
        raise UserError(f"--set-aside {share:g}: every class of {dataset.name} has one group, which has to train")
    if not dataset.seeded_folds and (emptied := sorted(set(clips["fold"]) - set(clips["fold"][~mask]))):
        raise UserError(f"--set-aside {share:g}: leaves nothing in fold {emptied[0]} of {dataset.name}; give less")
    return dataset.only(~mask, aside=clips[mask].reset_index(drop=True))


def _limited(dataset: Dataset, per_class: int) -> Dataset:
    """Limit the clips of a class, and drop those that no split takes, so that their inputs are never made."""
    limited = dataclasses.replace(dataset, per_class=per_class)
    taken = np.zeros(len(dataset.clips), dtype=bool)
    for fold in limited.fold_numbers():
        for part in limited.split(fold, validation=0.5 if limited.fixed_split else 0.0):
            taken[part] = True
    dropped = dataset.left_out.union(dataset.clips.loc[~taken, "path"])
    return limited.only(taken, left_out=dropped)
