"""False positives of McNemar's test if clips of a recording are correlated."""

import numpy as np

from analysis.statistics.hypothesis_tests import mcnemar
from tests.benchmarks.comparison import Row
from tests.benchmarks.simulations import rate_row


def measure() -> list[Row]:
    """Return the rate of the test by recording."""
    rate = recordings(by_group=True)
    return [rate_row("no effect, clips of recordings: McNemar by recording below .05", rate)]


def recordings(*, by_group: bool, trials: int = 400) -> float:
    """Return how often McNemar's p is below .05 for two equally good networks, if clips of a recording are correlated.

    There are 30 recordings of 8 clips; 9 of 10 clips are right if their recording is.
    """
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(30), 8)
    significant = 0
    for _ in range(trials):
        right = [np.where(rng.random(240) < 0.9, (rng.random(30) < 0.7)[groups], rng.random(240) < 0.7) for _ in "ab"]
        significant += mcnemar(*right, groups=groups if by_group else None).p < 0.05
    return significant / trials
