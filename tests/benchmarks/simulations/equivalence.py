"""Error rates of equivalence tests and intervals over few folds of few clips, whose differences are often equal."""

from collections.abc import Iterator

import numpy as np
from scipy import stats

from analysis.statistics.hypothesis_tests import FoldSizes, equivalence_p_value, standard_error
from tests.benchmarks.comparison import Row
from tests.benchmarks.simulations import rate_row

TRIALS = 4000
# Folds, clips per fold, true difference, equivalence margin, fraction of the clips in which the networks differ.
NOT_EQUIVALENT = [
    (5, 20, 0.01, 0.005, 0.01),
    (5, 120, 0.0025, 0.001, 0.0025),
    *((folds, clips, 0.02, 0.02, 0.1) for folds in (2, 5, 10) for clips in (20, 120)),
    (5, 120, 0.02, 0.02, 0.02),
]


def measure() -> Iterator[Row]:
    """Yield error rates at a nominal level of .05."""
    for folds, clips, difference, margin, discordant in NOT_EQUIVALENT:
        what = f"{folds} folds of {clips} clips, true difference {100 * difference:g} points: equivalent within "
        rate = false_equivalence(folds, clips, difference, margin, discordant)
        yield rate_row(f"{what}{100 * margin:g} points", rate, 0.06)
    for folds, clips in ((2, 20), (2, 40), (5, 20), (5, 40)):
        what = f"{folds} folds of {clips} clips, equal networks that differ in 1 % of the clips: interval misses 0"
        yield rate_row(what, misses_zero(folds, clips, 0.01), 0.05)


def fold_sizes(folds: int, clips: int) -> FoldSizes:
    """Return the sizes of folds of which all others are for training."""
    return FoldSizes((folds - 1) * clips, clips)


def false_equivalence(
    folds: int, clips: int, difference: float, margin: float, discordant: float, *, corrected: bool = True
) -> float:
    """Return how often two networks with a difference of at least the margin are called equivalent.

    Parameters
    ----------
    folds, clips
        Number of folds, and of clips per fold.
    difference, margin
        True difference in accuracy, and equivalence margin.
    discordant
        Fraction of the clips that only one of the networks classifies correctly.
    corrected
        Whether the test uses the sizes of the folds.
    """
    values = simulate_differences(folds, clips, difference, discordant)
    sizes = fold_sizes(folds, clips) if corrected else None
    p = equivalence_p_value(values, sizes, margin=margin)
    if not corrected:  # without a lower bound, equal differences of folds pass at any margin above them
        p = np.where(np.isnan(p), np.where(np.abs(values.mean(axis=1)) < margin, 0.0, 1.0), p)
    return float(np.mean(p < 0.05))


def misses_zero(folds: int, clips: int, discordant: float) -> float:
    """Return how often the 95 % interval of the difference excludes 0 for networks that are equally good."""
    values = simulate_differences(folds, clips, 0.0, discordant)
    half = stats.t.ppf(0.975, folds - 1) * standard_error(values, fold_sizes(folds, clips))
    return float(np.mean(np.abs(values.mean(axis=1)) > half))


def simulate_differences(folds: int, clips: int, difference: float, discordant: float) -> np.ndarray:
    """Return differences in accuracy, shape (trials, folds); `discordant` is at least `difference`."""
    rng = np.random.default_rng([folds, clips])
    better, worse = (discordant + difference) / 2, (discordant - difference) / 2
    counts = rng.multinomial(clips, (better, worse, 1 - better - worse), (TRIALS, folds))
    return (counts[..., 0] - counts[..., 1]) / clips
