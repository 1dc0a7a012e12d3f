"""How sure a number is: spread and interval of one condition, and tests between two.

Accuracies of one condition come from runs over folds and seeds. Runs that share a fold share test clips and most of
their training clips, so they are not quite independent: intervals and p-values here treat them as if they were, and
are for that reason somewhat too narrow. Comparisons are always made within (fold, seed) pairs, which removes what
the fold and the seed contribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats import contingency_tables, multitest

BOOTSTRAP_RESAMPLES = 9999
SIGN_FLIPS = 2**16  # all of them up to 16 pairs, a random sample of them above
EXACT_MCNEMAR = 25  # discordant clips below which chi-squared is a poor approximation

NAN = float("nan")


@dataclass(frozen=True)
class Description:
    """Where the runs of one condition lie."""

    mean: float
    std: float  # sample deviation (n - 1); nan for one run
    n: int
    low: float  # bounds of the interval of the mean; nan for one run
    high: float


@dataclass(frozen=True)
class Paired:
    """One condition minus the reference, over the (fold, seed) pairs that both have."""

    difference: float  # mean of value - reference
    low: float  # bounds of its interval
    high: float
    n: int  # pairs compared
    unmatched: int  # pairs that only one side has, or where one side failed
    p: float  # two-sided sign-flip permutation test of "no difference"
    smallest_p: float  # what p is at the least with so many pairs that differ, however large the difference
    exact: bool  # all sign flips were enumerated
    effect_size: float  # Cohen's d_z: mean over standard deviation of the differences


@dataclass(frozen=True)
class McNemar:
    """Two networks on the same clips."""

    only_a: int  # clips that only the first one gets right
    only_b: int
    n: int
    p: float  # two-sided test that both are equally often right
    exact: bool  # binomial rather than chi-squared with continuity correction


def describe(values: npt.ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Description:
    """Give mean, deviation and a bootstrap interval of the mean.

    Parameters
    ----------
    values
        Shape (n,), finite. Failed runs are counted apart and do not belong here.
    confidence
        Level of the interval, 0 to 1.
    seed
        Seed of the resampling: the same values always give the same interval.

    Returns
    -------
    Description
        The interval is the bias-corrected and accelerated one. Nothing is known of the spread from one run: nan.
        Equal values give that value as both bounds, no values give nan throughout.

    Raises
    ------
    ValueError
        Where a value is not finite.

    Notes
    -----
    Source: Efron, "Better Bootstrap Confidence Intervals", 1987; `scipy.stats.bootstrap`.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        raise ValueError("values must be finite: count failed runs apart")
    n = len(values)
    if n == 0:
        return Description(NAN, NAN, 0, NAN, NAN)
    mean = float(values.mean())
    if n == 1:
        return Description(mean, NAN, 1, NAN, NAN)
    if _constant(values):
        return Description(mean, 0.0, n, mean, mean)
    interval = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=BOOTSTRAP_RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Description(mean, float(values.std(ddof=1)), n, float(interval.low), float(interval.high))


def paired(values: "pd.Series[Any]", reference: "pd.Series[Any]", *, confidence: float = 0.95, seed: int = 0) -> Paired:
    """Compare a condition with the reference on the pairs of runs that both have.

    Parameters
    ----------
    values, reference
        One number for each run, indexed by what pairs it, usually (fold, seed). nan stands for a failed run.
    confidence
        Level of the interval, 0 to 1.
    seed
        Seed of the bootstrap, and of the sign flips where there are too many to try them all.

    Returns
    -------
    Paired
        Without a common pair all numbers are nan; the effect size is nan too where all differences are equal.

    Raises
    ------
    ValueError
        Where an index occurs twice.

    Notes
    -----
    With k pairs that differ, the smallest two-sided p is 2 / 2^k: five pairs can never fall below 0.0625.
    Sources: Fisher, "The Design of Experiments", 1935; `scipy.stats.permutation_test`; Lakens, "Calculating and
    reporting effect sizes", 2013, equation 6 (d_z).
    """
    for side in (values, reference):
        if side.index.has_duplicates:
            raise ValueError(f"more than one run for {side.index[side.index.duplicated()].tolist()[0]}")
    both = pd.concat([values, reference], axis=1, keys=["value", "reference"]).astype(np.float64)
    matched = both.dropna()
    unmatched = len(both) - len(matched)
    difference = (matched["value"] - matched["reference"]).to_numpy()
    n = len(difference)
    if n == 0:
        return Paired(NAN, NAN, NAN, 0, unmatched, NAN, NAN, True, NAN)
    shape = describe(difference, confidence=confidence, seed=seed)
    effect = shape.mean / shape.std if n > 1 and shape.std > 0 else NAN
    p, smallest_p, exact = _sign_flip(difference, seed=seed)
    return Paired(shape.mean, shape.low, shape.high, n, unmatched, p, smallest_p, exact, effect)


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> McNemar:
    """Test whether two networks are equally often right, clip by clip.

    Parameters
    ----------
    correct_a, correct_b
        Shape (clips,): whether each is right, over the same clips in the same order.

    Raises
    ------
    ValueError
        Where the shapes differ.

    Notes
    -----
    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947;
    `statsmodels.stats.contingency_tables.mcnemar`, exact below 25 discordant clips.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"correct_a {a.shape} and correct_b {b.shape} must be (clips,), over the same clips")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    exact = only_a + only_b < EXACT_MCNEMAR
    table = [[int(np.sum(a & b)), only_a], [only_b, int(np.sum(~a & ~b))]]
    result = contingency_tables.mcnemar(table, exact=exact, correction=True)
    return McNemar(only_a, only_b, len(a), min(1.0, float(result.pvalue)), exact)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct p-values for their number; a nan (no test was possible) stays nan and does not count.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979; statsmodels' ``multipletests``.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    corrected = raw.copy()
    tested = np.isfinite(raw)
    if tested.any():
        corrected[tested] = multitest.multipletests(raw[tested], method="holm")[1]
    return tuple(corrected.tolist())


def _constant(values: npt.NDArray[np.float64]) -> bool:
    """Whether all values are equal but for rounding, where a bootstrap has nothing to resample."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def _sign_flip(difference: npt.NDArray[np.float64], *, seed: int) -> tuple[float, float, bool]:
    # A pair without a difference is the same under both signs: it adds no permutation that could be told apart.
    difference = difference[np.abs(difference) > 1e-12]
    if len(difference) < 2:
        return 1.0, 1.0, True  # one pair and its mirror image are all there is
    exact = 2 ** len(difference) <= SIGN_FLIPS
    test = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        n_resamples=SIGN_FLIPS,
        batch=2**12,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    smallest = 2 / 2 ** len(difference) if exact else 2 / (SIGN_FLIPS + 1)
    return float(test.pvalue), smallest, exact
