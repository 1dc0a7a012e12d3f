"""Select from a data set: other labels, other folds, a held-out part, fewer clips per class."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from core.config.options import parse_whole_number
from core.datasets.copies import join_groups
from core.datasets.dataset import Dataset
from core.datasets.feature_columns import check_features
from core.datasets.folds import hold_out
from core.datasets.metadata import format_few
from core.datasets.recording_groups import PREFIX, find_leaking_groups, find_prefixes
from core.errors import UserError, unknown_name_error


def select(
    dataset: Dataset,
    *,
    label: str = "",
    group: str = "",
    folds: int = 0,
    leave_one_group_out: bool = False,
    set_aside: float = 0.0,
    per_class: int = 0,
) -> Dataset:
    """Relabel and group the clips, hold out a part, make folds of the others, and limit the clips per class.

    Held-out clips are not in `Dataset.clips` of the result, so no split contains them. The result is the same at every
    call.

    Parameters
    ----------
    dataset
        Data set to select from.
    label
        Column of `Dataset.attributes` that gives the classes; "": the original classes. Folds are unchanged.
    group
        Column of `Dataset.attributes` that gives the groups, or the one that names the clips (every clip is a group),
        or ``prefix`` (`core.datasets.recording_groups.find_prefixes`); seeded folds are drawn again. "": the original
        groups.
    folds
        Number of seeded folds, stratified by class, with groups kept together; 0: the set's own folds.
    leave_one_group_out
        Whether every group is a fold, in the order of their names; `Dataset.fold_names` names them.
    set_aside
        Fraction of clips held out, 0 to below 1, stratified by class, with groups kept together
        (`core.datasets.folds.hold_out`).
    per_class
        Maximum number of clips per class in each of the training, test and validation parts; 0: all. A smaller number
        selects a subset of a larger one.

    Raises
    ------
    UserError
        If a column is unknown, the set has official folds, a group is in several of them, a class has fewer groups than
        folds, or a fold or class would have no clips.
    """
    if folds and not dataset.has_seeded_folds:
        raise _official_folds_error(dataset, f"--n-folds {folds}")
    if label:
        dataset = _relabel(dataset, label)
    if group:
        dataset = _regroup(dataset, group)
    if set_aside:
        dataset = _hold_out(dataset, set_aside)
    if dataset.has_seeded_folds and (folds or set_aside or group):
        dataset = dataset.deal_folds(folds)
    if leave_one_group_out:
        dataset = _leave_one_group_out(dataset)
    return _limit(dataset, per_class) if per_class else dataset


def _official_folds_error(dataset: Dataset, option: str) -> UserError:
    own = "an official split" if dataset.has_fixed_split else f"{len(dataset.list_folds())} official folds"
    return UserError(f"{option}: {dataset.name} has {own} already; leave {option.partition(' ')[0]} out")


def _leave_one_group_out(dataset: Dataset) -> Dataset:
    """Make every group a fold; raise UserError if there are no groups, or a class has clips of one group only."""
    if not dataset.has_seeded_folds:
        raise _official_folds_error(dataset, "--leave-one-group-out")
    if not dataset.grouped_by:
        raise UserError(f"--leave-one-group-out: {dataset.name} has no groups; give --group COLUMN or --group {PREFIX}")
    groups = dataset.clips["group"]
    by_class = groups.groupby(dataset.clips["label"]).nunique()
    if single := [dataset.class_names[label] for label in by_class.index[by_class < 2]]:
        raise UserError(
            f"--leave-one-group-out: only one group has clips of {format_few(single)}, so nothing is left to train on "
            "when it is tested; add clips, or use --n-folds"
        )
    names = sorted(groups.unique(), key=_number_or_text)
    numbers = {name: fold for fold, name in enumerate(names, start=1)}
    return dataclasses.replace(
        dataset, clips=dataset.clips.assign(fold=groups.map(numbers).astype("int64")), fold_names=tuple(names)
    )


def _relabel(dataset: Dataset, label: str) -> Dataset:
    """Use an attribute as label, and drop classes with a single clip.

    Raises
    ------
    UserError
        If the set does not have the attribute, a value is empty, or there are fewer than two classes.
    """
    values = _read_column(dataset, label, "label")
    is_single = ~values.duplicated(keep=False)
    names = sorted(values[~is_single].unique(), key=_number_or_text)
    if len(names) < 2:
        raise UserError(
            f"--label {label}: {len(names)} classes have two or more clips; at least two such classes are needed"
        )
    numbers = {name: number for number, name in enumerate(names)}
    changes: dict[str, Any] = {"class_names": tuple(names), "used_columns": _replace_used(dataset, "label", label)}
    if is_single.any():
        remark = f"{is_single.sum():,} clips left out, each the only one of its {label}"
        changes["remarks"] = (*dataset.remarks, remark)
        changes["left_out"] = dataset.left_out.union(dataset.clips["path"][is_single])
    relabelled = _drop_feature(dataset, label).subset(~is_single.to_numpy(), **changes)
    labels = values[~is_single].map(numbers).to_numpy(np.int64)
    if relabelled.vectors is not None:
        check_features(f"--label {label}", relabelled.columns, relabelled.vectors, labels)
    return dataclasses.replace(relabelled, clips=relabelled.clips.assign(label=labels))


def _regroup(dataset: Dataset, column: str) -> Dataset:
    """Use an attribute as group; seeded folds are unchanged.

    Raises
    ------
    UserError
        If the set does not have the attribute, a value is empty, or a group is in several official folds.
    """
    if column in dataset.used_columns[:1]:
        values = dataset.clips["path"]  # every clip is its own group
    elif column == "group" and column in dataset.used_columns:
        values = dataset.clips["group"]
    elif column == PREFIX and PREFIX not in dataset.attributes:
        return _group_by_prefix(dataset)
    else:
        values = _read_column(dataset, column, "group")
    regrouped = dataclasses.replace(
        _drop_feature(dataset, column),
        clips=dataset.clips.assign(group=values.to_numpy(object)),
        grouped_by=f"column {column}",
        used_columns=_replace_used(dataset, "group", column),
    )
    return _check_groups(regrouped, column)


def _group_by_prefix(dataset: Dataset) -> Dataset:
    """Use the prefix of the file names as group; a clip without one is its own group."""
    if (prefixes := find_prefixes(dataset)) is None:
        raise UserError(
            f"--group {PREFIX}: the file names of {dataset.name} share no prefixes (such as george_) that divide "
            "every class; name the groups in a column of a CSV file"
        )
    names = prefixes.str.rstrip("/._ -").where(prefixes != "", dataset.clips["path"])
    regrouped = dataclasses.replace(
        dataset, clips=dataset.clips.assign(group=names), grouped_by=f"{PREFIX} of the file name"
    )
    return _check_groups(regrouped, PREFIX)


def _check_groups(regrouped: Dataset, column: str) -> Dataset:
    """Return the data set with identical files in one group; raise UserError for groups in several official folds."""
    dataset = regrouped
    if not dataset.has_seeded_folds and (leaks := find_leaking_groups(regrouped)):
        raise UserError(
            f"--group {column}: in more than one fold of {dataset.name}: {format_few(leaks)}; put all clips of a group "
            "into one fold, or leave out the column fold"
        )
    return join_groups(regrouped)


def _read_column(dataset: Dataset, column: str, use: str) -> pd.Series:
    """Return an attribute of each clip as text, (clips,); `use` is ``label`` or ``group``, the option in messages."""
    if column not in dataset.attributes:
        if dataset.attributes.columns.empty:
            raise UserError(f"--{use} {column}: {dataset.name} has no other {use}s; leave it out")
        raise unknown_name_error(f"{use} of {dataset.name}:", column, dataset.attributes.columns)
    values = dataset.attributes[column].astype(str)
    if (empty := values == "").any():
        raise UserError(f"--{use} {column}: {dataset.clips['path'][empty].iloc[0]} has no value; fill in every row")
    return values


def _replace_used(dataset: Dataset, old: str, new: str) -> tuple[str, ...]:
    """Return the used columns with column `new` in place of `old`; none for a data set without a table."""
    if not dataset.used_columns:
        return ()
    return tuple(dict.fromkeys([*(name for name in dataset.used_columns if name != old), new]))


def _drop_feature(dataset: Dataset, column: str) -> Dataset:
    """Return a feature table without the feature `column`; unchanged if it has no such feature."""
    if dataset.vectors is None or column not in dataset.columns:
        return dataset
    place = dataset.columns.index(column)
    columns = dataset.columns[:place] + dataset.columns[place + 1 :]
    if not columns:
        raise UserError(f"{dataset.name} has no features except {column}; add features")
    return dataclasses.replace(dataset, vectors=np.delete(dataset.vectors, place, axis=1), columns=columns, digests={})


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
    if dataset.has_seeded_folds:
        before, after = (frame.groupby("label")["group"].nunique() for frame in (clips, clips[~mask]))
        for label in after.index[(after < 2) & (before > 1)]:
            raise UserError(
                f"--holdout {share:g}: class '{dataset.class_names[label]}' of {dataset.name} has {before[label]} "
                "groups of clips, and only one would be left to train and test; use a smaller fraction or add clips"
            )
    vectors = None if dataset.vectors is None else dataset.vectors[mask]
    return dataset.subset(~mask, holdout=clips[mask].reset_index(drop=True), holdout_vectors=vectors)


def _limit(dataset: Dataset, per_class: int) -> Dataset:
    """Limit the clips per class, and drop clips that no split uses, so their inputs are not computed."""
    limited = dataclasses.replace(dataset, per_class=per_class)
    taken = np.zeros(len(dataset.clips), dtype=bool)
    for fold in limited.list_folds():
        for part in limited.split(fold, validation=0.5 if limited.has_fixed_split else 0.0):
            taken[part] = True
    dropped = dataset.left_out.union(dataset.clips.loc[~taken, "path"])
    return limited.subset(taken, left_out=dropped)
