"""Folds and held-out shares that keep groups whole and classes in proportion; the same at every call."""

import numpy as np
import pandas as pd

from core.errors import UserError
from core.registry import Lazy

model_selection = Lazy("sklearn.model_selection")  # most of a second to import

FOLDS = 5
SEED = 0


def make_folds(labels: np.ndarray, groups: np.ndarray, *, n_folds: int = 0) -> np.ndarray:
    """Assign clips to folds by group, stratified by class.

    As many as asked for; or five, or as many as the class of the fewest groups has groups.

    Parameters
    ----------
    labels, groups
        Class and group of each clip, of shape (clips,), in a stable order.
    n_folds
        How many folds, 2 at least; 0: five, or fewer where a class has fewer groups.

    Returns
    -------
    np.ndarray
        Fold of each clip, from 1, of shape (clips,).

    Raises
    ------
    UserError
        For a class whose clips all belong to one group, or to fewer groups than the folds asked for.
    """
    by_class = pd.Series(groups).groupby(labels).nunique()
    for label in by_class.index[by_class < 2]:
        group = groups[labels == label][0]
        raise UserError(f"class '{label}' has clips of one group only ('{group}'), so it cannot be in two folds")
    if n_folds > (fewest := int(by_class.min())):
        raise UserError(
            f"--folds {n_folds}: class '{by_class.idxmin()}' has clips of {fewest} groups only; say --folds {fewest}"
        )
    n_folds = n_folds or min(FOLDS, fewest)
    if len(pd.unique(groups)) == len(groups):
        return _without_groups(pd.factorize(labels)[0], n_folds)
    numbers = pd.factorize(labels, sort=True)[0]  # sorted once: of hundreds of thousands of names it takes long
    folds = np.zeros(len(labels), dtype=np.int64)
    parts = model_selection.StratifiedGroupKFold(n_splits=n_folds, shuffle=True, random_state=SEED)
    for fold, (_, test) in enumerate(parts.split(numbers, numbers, groups), start=1):
        folds[test] = fold
    return folds


def _without_groups(numbers: np.ndarray, n_folds: int) -> np.ndarray:
    """Assign clips that are each a group to folds: those of scikit-learn's `StratifiedKFold`, which is slow to import.

    Clips come class by class and are dealt out in turn, which says how many of a class each fold has; which of them it
    has is drawn.

    Parameters
    ----------
    numbers
        Class of each clip, (clips,), numbered by first appearance.
    n_folds
        How many folds.
    """
    rng = np.random.RandomState(SEED)
    counts = np.bincount(numbers)
    dealt = np.repeat(np.arange(len(counts)), counts)
    shares = np.stack([np.bincount(dealt[fold::n_folds], minlength=len(counts)) for fold in range(n_folds)])
    folds = np.empty(len(numbers), dtype=np.int64)
    for label, share in enumerate(shares.T):  # of the class, clips of each fold
        drawn = np.repeat(np.arange(1, n_folds + 1), share)
        rng.shuffle(drawn)
        folds[numbers == label] = drawn
    return folds


def hold_out(labels: np.ndarray, groups: np.ndarray, *, share: float) -> np.ndarray:
    """Choose whole groups, so that about `share` of every class is held out.

    Groups come in a shuffled order, the largest first, and one is taken when that brings the classes' counts nearer to
    their shares. Every class stays in training. One of two groups or more is held out too, unless each of its groups
    would take the last clips of another class out of training.

    Parameters
    ----------
    labels, groups
        Class and group of each clip, of shape (clips,), in a stable order.
    share
        Share of the clips to hold out, above 0 and below 1.

    Returns
    -------
    np.ndarray
        True for the clips held out, of shape (clips,).
    """
    group_index, names = pd.factorize(groups)
    label_index, classes = pd.factorize(labels)
    counts = np.zeros((len(names), len(classes)), dtype=np.int64)  # clips of each group in each class
    np.add.at(counts, (group_index, label_index), 1)
    order = np.random.default_rng(SEED).permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    total = counts.sum(axis=0)
    wanted = share * total
    held_out = np.zeros_like(total)  # clips of each class taken so far
    taken = np.zeros(len(names), dtype=bool)
    for group in order:
        more = held_out + counts[group]
        if (more < total).all() and ((more - wanted) ** 2).sum() < ((held_out - wanted) ** 2).sum():
            taken[group], held_out = True, more
    for label in range(len(classes)):
        for group in order[::-1] if not held_out[label] else ():
            if counts[group, label] and (held_out + counts[group] < total).all():
                taken[group], held_out = True, held_out + counts[group]
                break
    return taken[group_index]
