"""How often intervals hold the truth and tests find what is not there, by simulation: shares, not speeds.

Trials of one shape are drawn with a fixed seed, so that the shares are the same each time. Cross-validation is the real
thing: two classifiers on features of their own, drawn alike, so that none is better; training sets overlap as in any
study. There Student's t over folds is set beside Nadeau and Bengio's correction ("Inference for the Generalization
Error", 2003), which widens the interval for the overlap.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.hypothesis_tests import compare_pairs, mcnemar, mean_interval

SHAPES = [(10, 1), (5, 3), (3, 5), (1, 10), (10, 3), (6, 2)]  # folds, seeds
FOLD_SD, SEED_SD = 0.02, 0.01
TRIALS = 1000


def measure() -> list[dict[str, Any]]:
    """Return a row for each share; each must lie at or below, or at or above, its target."""
    rows = []
    for n in (2, 3, 5, 10):
        share = coverage(n, trials=5 * TRIALS)
        rows.append({"what": f"95 % interval of {n} values: covers the mean", "ratio": share, "target": 0.93})
    for folds, seeds in SHAPES:
        rows.append(_share(f"no effect, {folds} folds x {seeds} seeds: p below .05", false_positives(folds, seeds)))
    rows.append(_share("no effect, clips of recordings: McNemar by recording below .05", recordings(by_group=True)))
    for folds in (5, 10):
        shares = cross_validation(folds)
        named = {"t": "t interval leaves out 0", "corrected": "corrected t leaves out 0", "flips": "sign flips"}
        rows += [_share(f"no effect, real {folds}-fold cross-validation: {named[k]}", shares[k], 0.15) for k in named]
    return rows


def _share(what: str, share: float, target: float = 0.07) -> dict[str, Any]:
    return {"what": what, "ratio": share, "target": target, "at_most": True}


def coverage(n: int, *, trials: int) -> float:
    """Return how often the interval of n normal values holds their mean."""
    values = np.random.default_rng(n).normal(0.7, 0.03, (trials, n))
    shapes = [mean_interval(each) for each in values]
    return float(np.mean([shape.low <= 0.7 <= shape.high for shape in shapes]))


def false_positives(folds: int, seeds: int, *, trials: int = TRIALS) -> float:
    """Return how often p is below .05 without an effect, where runs of one fold err together."""
    rng = np.random.default_rng([folds, seeds])
    index = pd.MultiIndex.from_product([range(folds), range(seeds)])
    found = 0
    for _ in range(trials):
        difference = rng.normal(0, FOLD_SD, (folds, 1)) + rng.normal(0, SEED_SD, (folds, seeds))
        values = pd.Series(difference.ravel(), index=index)
        found += compare_pairs(values, 0 * values).p < 0.05
    return found / trials


def recordings(*, by_group: bool, trials: int = 400) -> float:
    """Return how often McNemar's p is below .05 for two networks equally good, each right or wrong by recording.

    30 recordings of 8 clips; a clip follows its recording in 9 of 10 cases.
    """
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(30), 8)
    found = 0
    for _ in range(trials):
        right = [np.where(rng.random(240) < 0.9, (rng.random(30) < 0.7)[groups], rng.random(240) < 0.7) for _ in "ab"]
        found += mcnemar(*right, groups=groups if by_group else None).p < 0.05
    return found / trials


def cross_validation(folds: int, *, trials: int = 1000, clips: int = 200, features: int = 10) -> dict[str, float]:
    """Return how often each method finds a difference between two nearest-mean classifiers of equal worth.

    Each sees features of its own, of the same distribution: over data sets, neither is better.
    """
    rng = np.random.default_rng(folds)
    found = dict.fromkeys(("t", "corrected", "flips"), 0)
    fold = np.arange(clips) % folds
    for _ in range(trials):
        target = rng.permutation(np.arange(clips) // folds % 2)
        x = rng.normal(size=(2, clips, features)) + 0.25 * target[:, None]
        right = np.empty((2, clips))
        for k in range(folds):
            test = fold == k
            means = np.stack([x[:, ~test & (target == c)].mean(1) for c in (0, 1)])  # (class, classifier, features)
            distance = ((x[None, :, test] - means[:, :, None]) ** 2).sum(-1)
            right[:, test] = (distance[1] < distance[0]) == target[test]
        difference = np.array([(right[0] - right[1])[fold == k].mean() for k in range(folds)])
        deviation = max(difference.std(ddof=1), 1e-12)
        limit = stats.t.ppf(0.975, folds - 1) * deviation
        found["t"] += abs(difference.mean()) > limit * (1 / folds) ** 0.5
        found["corrected"] += abs(difference.mean()) > limit * (1 / folds + 1 / (folds - 1)) ** 0.5
        values = pd.Series(difference)
        found["flips"] += compare_pairs(values, 0 * values).p < 0.05
    return {name: count / trials for name, count in found.items()}
