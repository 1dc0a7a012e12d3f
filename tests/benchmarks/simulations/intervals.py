"""Coverage of the interval of one condition."""

import numpy as np

from analysis.statistics.hypothesis_tests import mean_interval
from tests.benchmarks.comparison import Row

TRIALS = 5000


def measure() -> list[Row]:
    """Return the coverage for each number of values."""
    return [
        {"what": f"95 % interval of {n} values: covers the mean", "ratio": coverage(n, trials=TRIALS), "target": 0.93}
        for n in (2, 3, 5, 10)
    ]


def coverage(n: int, *, trials: int) -> float:
    """Return how often the 95 % interval of n normal values contains their mean."""
    values = np.random.default_rng(n).normal(0.7, 0.03, (trials, n))
    intervals = [mean_interval(sample) for sample in values]
    return float(np.mean([interval.low <= 0.7 <= interval.high for interval in intervals]))
