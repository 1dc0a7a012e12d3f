"""Power analysis: power and smallest detectable difference of the corrected t test over folds."""

import math

import numpy as np
import pandas as pd

from analysis.statistics.hypothesis_tests import SIGNIFICANCE_LEVEL, FoldSizes, average_seeds, error_of_mean
from core.registry import Lazy

optimize, stats = Lazy("scipy.optimize"), Lazy("scipy.stats")  # most of a second to import

TARGET_POWER = 0.8  # probability of detecting a true difference
MAX_SEEDS = 1000  # largest number of seeds that `required_seeds` returns
SPREAD_COLUMNS = ["std", "fold_std", "seed_std"]  # names of the results of `variance_components`


def compute_power(difference: float, error: float, folds: int, *, level: float = SIGNIFICANCE_LEVEL) -> float:
    """Return the power of the two-sided t test over folds of `analysis.statistics.hypothesis_tests.compare_pairs`.

    Parameters
    ----------
    difference
        True mean difference.
    error
        Standard error of the mean difference (`analysis.statistics.hypothesis_tests.error_of_mean`), above 0, in the
        unit of `difference`.
    folds
        Number of folds, at least 2.
    level
        Significance level.

    Notes
    -----
    Exact for normal differences whose correlation is test / (test + train), as Nadeau and Bengio assume. With a weaker
    correlation the power is higher wherever it is above one half.
    """
    critical = stats.t.ppf(1 - level / 2, folds - 1)
    shift = min(abs(difference) / error, 10 * critical + 50)  # power is 1 beyond this shift
    wrong_way = np.nan_to_num(stats.nct.cdf(-critical, folds - 1, shift))  # SciPy returns nan where it is below 1e-8
    return float(stats.nct.sf(critical, folds - 1, shift) + wrong_way)


def min_detectable_difference(error: float, folds: int, *, level: float = SIGNIFICANCE_LEVEL) -> float:
    """Return the smallest true difference with a power of 80 %, in the unit of `error`.

    nan for fewer than two folds; 0 if `error` is 0. Parameters as in `compute_power`.
    """
    if folds < 2 or not math.isfinite(error):
        return math.nan
    if error == 0:
        return 0.0
    high = 2.0 * stats.t.ppf(1 - level / 2, folds - 1) + 4
    shift = optimize.brentq(lambda d: compute_power(d, 1.0, folds, level=level) - TARGET_POWER, 0.0, high)
    return float(shift * error)


def required_seeds(fold_std: float, seed_std: float, folds: int, sizes: FoldSizes, difference: float) -> int | None:
    """Return the number of seeds per fold needed for a power of 80 %; None if no number up to `MAX_SEEDS` suffices.

    Parameters
    ----------
    fold_std, seed_std
        Standard deviations from `variance_components`.
    folds, difference
        As in `compute_power`.
    sizes
        Sizes of the folds.
    """
    max_error = difference / min_detectable_difference(1.0, folds)
    max_std = max_error / float(error_of_mean(1.0, folds, sizes))  # of the means of folds
    if max(fold_std, sizes.resolution) >= max_std:
        return None
    seeds = max(1, math.ceil(seed_std**2 / (max_std**2 - fold_std**2)))
    return seeds if seeds <= MAX_SEEDS else None


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
        Standard deviation between folds after subtracting the variance due to seeds, at least 0; nan if no fold has two
        seeds.
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


def pool_components(components: pd.DataFrame) -> tuple[float, float, float]:
    """Return the root mean squares of the columns `SPREAD_COLUMNS` over the same rows.

    Only rows with all three values are used. If there are none, the first result is computed from the rows with a
    value of ``std``, and the other two are nan. Without such rows, all three are nan.
    """
    spread = components[SPREAD_COLUMNS].astype(float)
    complete = spread.dropna() if spread.notna().all(axis=1).any() else spread.dropna(subset="std")
    std, fold_std, seed_std = np.sqrt((complete**2).mean())
    return float(std), float(fold_std), float(seed_std)
