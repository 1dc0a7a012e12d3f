"""Power analysis: power and smallest detectable difference of a paired t test over folds."""

import math

import numpy as np
import pandas as pd

from analysis.statistics.hypothesis_tests import SIGNIFICANCE_LEVEL, average_seeds
from core.registry import Lazy

optimize, stats = Lazy("scipy.optimize"), Lazy("scipy.stats")  # most of a second to import

TARGET_POWER = 0.8  # probability of detecting a true difference
MAX_UNITS = 10_000  # largest number of folds or seeds considered


def compute_power(difference: float, std: float, folds: int) -> float:
    """Return the power of a two-sided paired t test over folds at .05.

    Parameters
    ----------
    difference
        True mean difference.
    std
        Standard deviation of the differences of folds (seeds averaged), above 0, in the unit of `difference`.
    folds
        Number of folds, at least 2.
    """
    critical = stats.t.ppf(1 - SIGNIFICANCE_LEVEL / 2, folds - 1)
    shift = min(abs(difference) * math.sqrt(folds) / std, 50.0)  # power is 1 beyond this shift
    wrong_way = (
        stats.nct.cdf(-critical, folds - 1, shift) if shift < 5 else 0.0
    )  # below 1e-8 for larger shifts, where SciPy returns nan
    return float(stats.nct.sf(critical, folds - 1, shift) + wrong_way)


def min_detectable_difference(std: float, folds: int) -> float:
    """Return the smallest true difference with a power of 80 %, in the unit of `std`.

    nan for fewer than two folds; 0 if `std` is 0. Parameters as in `compute_power`.
    """
    if folds < 2 or not math.isfinite(std):
        return math.nan
    if std == 0:
        return 0.0
    high = 2.0 * stats.t.ppf(1 - SIGNIFICANCE_LEVEL / 2, folds - 1) + 4
    shift = optimize.brentq(lambda d: compute_power(d, 1.0, folds) - TARGET_POWER, 0.0, high)
    return float(shift * std)


def required_folds(std: float, difference: float) -> int | None:
    """Return the number of folds needed for a power of 80 %; None if it is above `MAX_UNITS`.

    Parameters as in `compute_power`.
    """
    if std == 0:
        return 2
    low, high = 1, MAX_UNITS
    if compute_power(difference, std, high) < TARGET_POWER:
        return None
    while high - low > 1:  # power grows with the folds
        middle = (low + high) // 2
        low, high = (low, middle) if compute_power(difference, std, middle) >= TARGET_POWER else (middle, high)
    return high


def required_seeds(fold_std: float, seed_std: float, folds: int, difference: float) -> int | None:
    """Return the number of seeds per fold needed for a power of 80 %; None if no number suffices.

    Parameters
    ----------
    fold_std, seed_std
        Standard deviations from `variance_components`.
    folds, difference
        As in `compute_power`.
    """
    max_std = difference / min_detectable_difference(1.0, folds)  # of the means of folds
    if fold_std >= max_std:
        return None
    seeds = max(1, math.ceil(seed_std**2 / (max_std**2 - fold_std**2)))
    return seeds if seeds <= MAX_UNITS else None


def variance_components(difference: "pd.Series[float]") -> tuple[float, float, float]:
    """Split the variance of a difference into components between folds and between seeds.

    Parameters
    ----------
    difference
        One difference per run, indexed by (fold, seed).

    Returns
    -------
    std
        Standard deviation of the means of folds; nan for fewer than two folds.
    fold_std
        Standard deviation between folds without the seeds' contribution, at least 0; nan if no fold has two seeds.
    seed_std
        Standard deviation between the seeds of a fold; nan if no fold has two seeds.
    """
    values = difference.dropna()
    if values.index.get_level_values(0).nunique() < 2:
        return math.nan, math.nan, math.nan
    std = float(average_seeds(values).std())
    by_fold = values.groupby(level=0)
    within = by_fold.var().dropna()
    if within.empty:
        return std, math.nan, math.nan
    share = float((1 / by_fold.size()).mean())  # fraction of the seed variance in the mean of a fold
    return std, math.sqrt(max(0.0, std**2 - float(within.mean()) * share)), math.sqrt(float(within.mean()))


def root_mean_square(values: "pd.Series[float]") -> float:
    """Return the root mean square of the values that are not nan; nan without any."""
    finite = values.dropna().to_numpy()
    return float(np.sqrt(np.mean(finite**2))) if len(finite) else math.nan
