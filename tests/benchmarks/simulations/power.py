"""Power of the corrected t test at the difference that a table names, and seeds that it names where none suffice."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.statistics.hypothesis_tests import FoldSizes, error_of_mean, t_test_p_value
from analysis.statistics.paired_comparisons import power_notes
from analysis.statistics.power import SPREAD_COLUMNS, min_detectable_difference, variance_components
from tests.benchmarks.comparison import Row
from tests.benchmarks.simulations import rate_row

FOLD_STD = SEED_STD = 0.02
TEST_CLIPS = 120


def measure() -> Iterator[Row]:
    """Yield the power for correlated and independent folds, and the rate of misleading numbers of seeds."""
    for folds in (3, 5, 10):
        for correlated in (True, False):
            what = (
                f"{folds} {'correlated' if correlated else 'independent'} folds: power at the difference that is named"
            )
            yield {"what": what, "ratio": simulate_power(folds, correlated=correlated), "target": 0.79}
    yield rate_row("5 folds x 2 seeds, no number of seeds suffices: a number is named", name_seeds(5, 2), 0.1)


def fold_sizes(folds: int) -> FoldSizes:
    """Return the sizes of folds of which all others are for training."""
    return FoldSizes((folds - 1) * TEST_CLIPS, TEST_CLIPS)


def simulate_power(folds: int, *, correlated: bool, level: float = 0.05, trials: int = 20_000) -> float:
    """Return the power of the test at `min_detectable_difference` for normal differences of folds.

    Their correlation is the one that Nadeau and Bengio assume, or 0. The standard deviation of the differences about
    their mean, which a study observes, is `FOLD_STD` in both cases.
    """
    sizes = fold_sizes(folds)
    rng = np.random.default_rng(folds)
    difference = min_detectable_difference(float(error_of_mean(FOLD_STD, folds, sizes)), folds, level=level)
    values = rng.normal(difference, FOLD_STD, (trials, folds))
    if correlated:  # covariance over variance about the mean is test / train
        values += rng.normal(0, FOLD_STD * np.sqrt(sizes.test_train_ratio), (trials, 1))
    return float(np.mean(t_test_p_value(values, sizes) < level))


def name_seeds(folds: int, seeds: int, *, trials: int = 400) -> float:
    """Return how often the note names a number of seeds if folds differ too much for any number of seeds."""
    rng = np.random.default_rng([folds, seeds])
    index = pd.MultiIndex.from_product([range(folds), range(seeds)])
    sizes = fold_sizes(folds)
    design = {"dataset": "simulated", "planned_folds": folds, "folds": folds, "seeds": seeds}
    named = 0
    for _ in range(trials):
        values = rng.normal(0, FOLD_STD, (folds, 1)) + rng.normal(0, SEED_STD, (folds, seeds))
        spread = zip(SPREAD_COLUMNS, variance_components(pd.Series(values.ravel(), index)), strict=True)
        row = design | {"train_clips": sizes.train, "test_clips": sizes.test} | dict(spread)
        [note] = power_notes(pd.DataFrame([row]))
        named += "seeds per fold" in note
    return named / trials
