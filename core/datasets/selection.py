"""What a user asks of a data set beyond its own: other classes, other folds, a part set aside, fewer clips."""

import dataclasses
from typing import Any

import numpy as np

from core.config.options import whole_number
from core.datasets.dataset import Dataset
from core.datasets.folds import hold_out, make_folds
from core.errors import UserError, unknown


def arrange(
    dataset: Dataset, *, label: str = "", folds: int = 0, set_aside: float = 0.0, per_class: int = 0
) -> Dataset:
    """Give the clips other classes, set a part aside, fold what is left, and limit the clips of a class.

    Clips set aside are in no split of the result, nor among its clips: nothing that trains or analyses can look at
    them. The same at every call.

    Parameters
    ----------
    label
        Which of the set's facts the classes are; "": its own classes. Folds that the set has stay as they are.
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
        For a label that the set does not have, folds where the set has its own, more folds than a class has groups,
        and a share that leaves a fold without clips or cannot be taken.
    """
    if folds and not dataset.seeded_folds:
        own = "a split" if dataset.fixed_split else f"{len(dataset.fold_numbers())} folds"
        raise UserError(f"--folds {folds}: {dataset.name} has {own} of its own; leave --folds out")
    if label:
        dataset = _labelled(dataset, label)
    if set_aside:
        dataset = _set_aside(dataset, set_aside)
    clips = dataset.clips
    if dataset.seeded_folds and (folds or set_aside):
        names = np.array(dataset.class_names)[clips["label"]]
        made = make_folds(names, clips["group"].to_numpy(), n_folds=folds)
        dataset = dataclasses.replace(dataset, clips=clips.assign(fold=made))
    return _limited(dataset, per_class) if per_class else dataset


def _labelled(dataset: Dataset, label: str) -> Dataset:
    """Take a fact for the label. Clips alone in their class, which cannot be both trained and tested on, are left out.

    Raises
    ------
    UserError
        For a fact that the set does not have, an empty one, and one that leaves fewer than two classes.
    """
    if label not in dataset.facts:
        if dataset.facts.columns.empty:
            raise UserError(f"--label {label}: {dataset.name} says nothing of its clips but their class; leave it out")
        raise unknown(f"label of {dataset.name}:", label, dataset.facts.columns)
    values = dataset.facts[label].astype(str)
    if (empty := values == "").any():
        raise UserError(f"--label {label}: {dataset.clips['path'][empty].iloc[0]} has none; fill in every row")
    alone = ~values.duplicated(keep=False)
    names = sorted(values[~alone].unique(), key=_number_or_text)
    if len(names) < 2:
        raise UserError(f"--label {label}: {len(names)} classes of two clips or more; it takes two to tell")
    numbers = {name: number for number, name in enumerate(names)}
    changes: dict[str, Any] = {"class_names": tuple(names)}
    if alone.any():
        said = f"{alone.sum():,} clips left out, each the only one of its {label}"
        changes["remarks"] = (*dataset.remarks, said)
        changes["left_out"] = dataset.left_out.union(dataset.clips["path"][alone])
    kept = dataset.only(~alone.to_numpy(), **changes)
    new = values[~alone].map(numbers).to_numpy(np.int64)
    return dataclasses.replace(kept, clips=kept.clips.assign(label=new))


def _number_or_text(name: str) -> tuple[bool, float, str]:
    """Sort numbers by size, before texts."""
    number = whole_number(name)
    return number is None, number or 0, name


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
