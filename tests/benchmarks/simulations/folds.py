"""Tests over folds: false positives with correlated runs of a fold, and with overlapping training sets.

Cross-validation is simulated with two equally good classifiers, whose training sets overlap as in any study. There
Student's t over folds is compared with the correction of Nadeau and Bengio ("Inference for the Generalization Error",
2003), which widens the interval because of the overlap.
"""

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.hypothesis_tests import compare_pairs
from tests.benchmarks.comparison import Row
from tests.benchmarks.simulations import rate_row

SHAPES = [(10, 1), (5, 3), (3, 5), (1, 10), (10, 3), (6, 2)]  # folds, seeds
FOLD_SD, SEED_SD = 0.02, 0.01
TRIALS = 1000


def measure() -> list[Row]:
    """Return false positive rates by design and test."""
    rows = []
    for folds, seeds in SHAPES:
        rows.append(rate_row(f"no effect, {folds} folds x {seeds} seeds: p below .05", false_positives(folds, seeds)))
    for folds in (5, 10):
        rates = cross_validation(folds)
        labels = {
            "t": "t interval excludes 0",
            "corrected": "corrected t interval excludes 0",
            "flips": "sign flips below .05",
        }
        rows += [rate_row(f"no effect, {folds}-fold cross-validation: {labels[k]}", rates[k], 0.10) for k in labels]
    return rows


def false_positives(folds: int, seeds: int, *, trials: int = TRIALS) -> float:
    """Return how often p is below .05 without an effect, if the errors of runs of one fold are correlated."""
    rng = np.random.default_rng([folds, seeds])
    index = pd.MultiIndex.from_product([range(folds), range(seeds)])
    significant = 0
    for _ in range(trials):
        difference = rng.normal(0, FOLD_SD, (folds, 1)) + rng.normal(0, SEED_SD, (folds, seeds))
        values = pd.Series(difference.ravel(), index=index)
        significant += compare_pairs(values, 0 * values).p < 0.05
    return significant / trials


def cross_validation(folds: int, *, trials: int = 1000, clips: int = 200, features: int = 10) -> dict[str, float]:
    """Return how often each method finds a difference between two nearest-mean classifiers that are equally good.

    Their features are independent and have the same distribution.
    """
    rng = np.random.default_rng(folds)
    counts = dict.fromkeys(("t", "corrected", "flips"), 0)
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
        counts["t"] += abs(difference.mean()) > limit * (1 / folds) ** 0.5
        counts["corrected"] += abs(difference.mean()) > limit * (1 / folds + 1 / (folds - 1)) ** 0.5
        values = pd.Series(difference)
        counts["flips"] += compare_pairs(values, 0 * values).p < 0.05
    return {name: count / trials for name, count in counts.items()}
