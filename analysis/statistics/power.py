"""How small a difference a design can show: the power of a paired t test over folds."""

import math

import numpy as np
import pandas as pd

from analysis.statistics.hypothesis_tests import SIGNIFICANCE_LEVEL, average_seeds
from core.registry import Lazy

optimize, stats = Lazy("scipy.optimize"), Lazy("scipy.stats")  # most of a second to import

TARGET_POWER = 0.8  # share of studies in which a difference that is there is found
MAX_UNITS = 10_000  # folds or seeds; what would take more is out of reach


def compute_power(difference: float, std: float, folds: int) -> float:
    """Return how often a two-sided paired t test over folds at .05 finds a true difference.

    Parameters
    ----------
    difference
        The true mean difference.
    std
        Deviation of the differences of single folds (seeds averaged), above 0, in the same unit.
    folds
        At least 2.
    """
    critical = stats.t.ppf(1 - SIGNIFICANCE_LEVEL / 2, folds - 1)
    shift = min(abs(difference) * math.sqrt(folds) / std, 50.0)  # beyond it nothing is missed
    wrong_way = stats.nct.cdf(-critical, folds - 1, shift) if shift < 5 else 0.0  # below 1e-8, where SciPy gives nan
    return float(stats.nct.sf(critical, folds - 1, shift) + wrong_way)


def min_detectable_difference(std: float, folds: int) -> float:
    """Return the smallest true difference that `folds` find in 80 of 100 studies, in the unit of `std`.

    nan for fewer than two folds; 0 where folds do not differ at all. Parameters are those of `compute_power`.
    """
    if folds < 2 or not math.isfinite(std):
        return math.nan
    if std == 0:
        return 0.0
    high = 2.0 * stats.t.ppf(1 - SIGNIFICANCE_LEVEL / 2, folds - 1) + 4
    shift = optimize.brentq(lambda d: compute_power(d, 1.0, folds) - TARGET_POWER, 0.0, high)
    return float(shift * std)


def required_folds(std: float, difference: float) -> int | None:
    """Return how many folds find a true difference in 80 of 100 studies; None where 10 000 do not.

    Parameters are those of `compute_power`.
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
    """Return how many seeds in each of so many folds find a true difference; None where no number does.

    Parameters
    ----------
    fold_std, seed_std
        As `variance_components` gives them.
    folds, difference
        As in `compute_power`.
    """
    most = difference / min_detectable_difference(1.0, folds)  # what the deviation of a fold's mean may be
    if fold_std >= most:
        return None
    seeds = max(1, math.ceil(seed_std**2 / (most**2 - fold_std**2)))
    return seeds if seeds <= MAX_UNITS else None


def variance_components(difference: "pd.Series[float]") -> tuple[float, float, float]:
    """Part the spread of a difference into that between folds and that between the seeds of a fold.

    Parameters
    ----------
    difference
        One number for each run, indexed by (fold, seed).

    Returns
    -------
    std
        Deviation of the folds' means.
    fold_std, seed_std
        Of folds with infinitely many seeds, at least 0, and of seeds within a fold; nan where no fold has two seeds.
        The variance of a fold's mean is that of folds and that of seeds divided by their number.
    """
    found = difference.dropna()
    if found.index.get_level_values(0).nunique() < 2:
        return math.nan, math.nan, math.nan
    std = float(average_seeds(found).std())
    by_fold = found.groupby(level=0)
    within = by_fold.var().dropna()
    if within.empty:
        return std, math.nan, math.nan
    share = float((1 / by_fold.size()).mean())  # of the seeds' variance that is left in a fold's mean
    return std, math.sqrt(max(0.0, std**2 - float(within.mean()) * share)), math.sqrt(float(within.mean()))


def root_mean_square(values: "pd.Series[float]") -> float:
    """Pool deviations; nan without any."""
    known = values.dropna().to_numpy()
    return float(np.sqrt(np.mean(known**2))) if len(known) else math.nan
