"""Seeded folds and held-out parts: stratified by class, groups kept together, the same at every call."""

import numpy as np
import pandas as pd

from core.errors import UserError
from core.registry import Lazy

model_selection = Lazy("sklearn.model_selection")  # most of a second to import

DEFAULT_N_FOLDS = 5
FOLD_SEED = 0


def make_folds(
    labels: np.ndarray, groups: np.ndarray, *, n_folds: int = 0, recordings: np.ndarray | None = None
) -> np.ndarray:
    """Assign clips to folds by group, stratified by class, with scikit-learn's splitters.

    Parameters
    ----------
    labels, groups
        Class and group of each clip, (clips,), in a stable order.
    n_folds
        Number of folds, at least 2; 0: five, or fewer if a class has fewer groups.
    recordings
        Number of the recording of each clip, (clips,). Identical files have the same number and must be in the same
        group. None if all clips differ.
        The folds are those of the set without the copies, unless copies have several labels.

    Returns
    -------
    np.ndarray
        Fold of each clip, from 1, (clips,).

    Raises
    ------
    UserError
        If a class has only one group, or fewer groups than `n_folds`.
    """
    by_class = pd.Series(groups).groupby(labels).nunique()
    for label in by_class.index[by_class < 2]:
        group, only = groups[labels == label][0], "group"
        if recordings is not None and len(set(recordings[labels == label])) == 1:
            only = "recording, in identical files"
        raise UserError(f"class '{label}' has only one {only} ('{group}'), so it cannot be in two folds")
    if n_folds > (fewest := int(by_class.min())):
        raise UserError(
            f"--n-folds {n_folds}: class '{by_class.idxmin()}' has only {fewest} groups of clips; "
            f"use --n-folds {fewest}"
        )
    n_folds = n_folds or min(DEFAULT_N_FOLDS, fewest)
    numbers = pd.factorize(labels, sort=True)[0]  # splitting integers is much faster than splitting strings
    if recordings is None or pd.Series(numbers).groupby(recordings).nunique().max() > 1:
        return _split(numbers, groups, n_folds)
    number_of_recording, first_clips = np.unique(recordings, return_index=True)
    folds = np.zeros(int(number_of_recording[-1]) + 1, dtype=np.int64)
    first_clips = np.sort(first_clips)
    folds[recordings[first_clips]] = _split(numbers[first_clips], groups[first_clips], n_folds)
    return folds[recordings]


def _split(labels: np.ndarray, groups: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of each clip, from 1, (clips,)."""
    options = {"n_splits": n_folds, "shuffle": True, "random_state": FOLD_SEED}
    if len(pd.unique(groups)) == len(groups):  # StratifiedGroupKFold takes 25 s for 100,000 clips
        splits = model_selection.StratifiedKFold(**options).split(labels, labels)
    else:
        splits = model_selection.StratifiedGroupKFold(**options).split(labels, labels, groups)
    folds = np.zeros(len(labels), dtype=np.int64)
    for fold, (_, test) in enumerate(splits, start=1):
        folds[test] = fold
    return folds


def hold_out(labels: np.ndarray, groups: np.ndarray, *, share: float) -> np.ndarray:
    """Choose whole groups so that about a fraction `share` of every class is held out.

    Groups are visited in a shuffled order, the largest first, and taken if that brings the class counts closer to the
    target fractions. Every class keeps training clips. A class of two or more groups also gets held-out clips, unless
    each of its groups contains the last training clips of another class.

    Parameters
    ----------
    labels, groups
        Class and group of each clip, (clips,), in a stable order.
    share
        Fraction of clips to hold out, above 0 and below 1.

    Returns
    -------
    np.ndarray
        True for the held-out clips, (clips,).
    """
    group_index, names = pd.factorize(groups)
    label_index, classes = pd.factorize(labels)
    counts = np.zeros((len(names), len(classes)), dtype=np.int64)  # clips of each group in each class
    np.add.at(counts, (group_index, label_index), 1)
    order = np.random.default_rng(FOLD_SEED).permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    total = counts.sum(axis=0)
    target = share * total
    held_out = np.zeros_like(total)  # clips of each class taken so far
    taken = np.zeros(len(names), dtype=bool)
    for group in order:
        more = held_out + counts[group]
        if (more < total).all() and ((more - target) ** 2).sum() < ((held_out - target) ** 2).sum():
            taken[group], held_out = True, more
    for label in range(len(classes)):
        for group in order[::-1] if not held_out[label] else ():
            if counts[group, label] and (held_out + counts[group] < total).all():
                taken[group], held_out = True, held_out + counts[group]
                break
    return taken[group_index]
