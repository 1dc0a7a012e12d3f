"""Confidence intervals of one condition, and hypothesis tests between two conditions.

The unit of analysis is the fold. Runs of one fold share their test clips and nearly all training clips, so seeds are
averaged within each fold first, and intervals and tests are over folds. With a single fold only the seed varies: the
interval is then over seeds and does not generalise to other clips, and no test is made. The training sets of different
folds overlap, so the folds are not independent and intervals are somewhat too narrow (`OVERLAP_NOTE`). ``python -m
tests.benchmarks statistics`` measures the coverage of the intervals and the error rates of the tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.registry import Lazy

stats = Lazy("scipy.stats")  # most of a second to import
contingency_tables = Lazy("statsmodels.stats.contingency_tables")  # half a second to import
MAX_SIGN_FLIPS = 2**16  # all sign flips of up to 16 folds; a random sample for more folds
MIN_APPROXIMATE_MCNEMAR = 25  # discordant clips below which chi-squared is a poor approximation
SIGNIFICANCE_LEVEL = 0.05
OVERLAP_NOTE = (
    "Training sets of different folds overlap, so intervals are somewhat too narrow and p-values somewhat too small."
)

NAN = float("nan")


@dataclass(frozen=True)
class MeanInterval:
    """Mean, standard deviation and confidence interval of one condition.

    Attributes
    ----------
    mean
        Mean of the values.
    std
        Sample standard deviation (n - 1); nan for one value.
    n
        Number of values.
    low, high
        Bounds of the confidence interval of the mean; nan for one value.
    """

    mean: float
    std: float
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class PairedComparison:
    """Difference between a condition and its reference over the (fold, seed) pairs that both have.

    Attributes
    ----------
    difference
        Mean of condition minus reference; seeds are averaged within each fold first.
    low, high
        Bounds of the confidence interval of the difference.
    n
        Number of compared units: folds, or the seeds of a single fold.
    pairs
        Number of compared (fold, seed) pairs.
    unmatched
        Number of pairs without a result of the condition or of the reference.
    p
        p-value of a two-sided sign-flip permutation test over folds; nan for a single fold.
    smallest_p
        Smallest p-value that the test can give with this number of folds.
    exact
        Whether all sign flips were enumerated.
    effect_size
        Cohen's d_z: mean divided by standard deviation of the differences.
    over
        Unit of the interval: "folds", or "seeds" for a single fold.
    equal_within
        Smallest equivalence margin at level .05 (`equivalence_margin`); nan for a single fold.
    """

    difference: float
    low: float
    high: float
    n: int
    pairs: int
    unmatched: int
    p: float
    smallest_p: float
    exact: bool
    effect_size: float
    over: str
    equal_within: float

    @property
    def contradicts(self) -> bool:
        """Whether interval and p-value disagree: 0 outside the interval but p >= .05, or the reverse."""
        return bool(np.isfinite(self.p)) and (self.low > 0 or self.high < 0) != (self.p < SIGNIFICANCE_LEVEL)


@dataclass(frozen=True)
class McNemarResult:
    """Result of McNemar's test of two networks on the same clips.

    Attributes
    ----------
    only_a, only_b
        Number of clips that only the first or only the second network classifies correctly.
    n
        Number of clips.
    p
        Two-sided p-value of equal accuracy.
    exact
        Whether p is exact, rather than approximated (chi-squared, or a random sample of sign flips).
    units
        Number of independent units: clips, or groups of clips.
    """

    only_a: int
    only_b: int
    n: int
    p: float
    exact: bool
    units: int


def average_seeds(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Average seeds within each fold.

    Parameters
    ----------
    values
        One value per run, indexed by (fold, seed) or by one level; nan for failed runs.

    Returns
    -------
    Series
        One value per fold. With a single fold or a one-level index, the values without nan.
    """
    values = values.dropna()
    if values.index.nlevels == 1 or values.index.get_level_values(0).nunique() < 2:
        return values
    return values.groupby(level=0).mean()


def mean_interval(values: npt.ArrayLike, *, confidence: float = 0.95) -> MeanInterval:
    """Return mean, standard deviation and Student's t interval of the mean.

    Parameters
    ----------
    values
        Independent finite values, shape (n,), such as the means of folds (`average_seeds`).
    confidence
        Confidence level, 0 to 1.

    Returns
    -------
    MeanInterval
        Spread and bounds are nan for one value, everything is nan for no value. For equal values both bounds are the
        mean.

    Raises
    ------
    ValueError
        If a value is not finite.

    Notes
    -----
    Source: Student, "The Probable Error of a Mean", 1908. For normal values the coverage is exact for every n. A
    bootstrap of 2, 3, 5 or 10 values has a coverage of 54, 70, 87 or 89 % instead of 95 %.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        raise ValueError("values must be finite: leave failed runs out")
    n = len(values)
    if n == 0:
        return MeanInterval(NAN, NAN, 0, NAN, NAN)
    mean = float(values.mean())
    if n == 1:
        return MeanInterval(mean, NAN, 1, NAN, NAN)
    if _is_constant(values):
        return MeanInterval(mean, 0.0, n, mean, mean)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * stats.sem(values))
    return MeanInterval(mean, float(values.std(ddof=1)), n, mean - half, mean + half)


def compare_pairs(
    values: "pd.Series[Any]", reference: "pd.Series[Any]", *, confidence: float = 0.95, seed: int = 0
) -> PairedComparison:
    """Compare a condition with its reference on the pairs of runs that both have.

    Parameters
    ----------
    values, reference
        One value per run, indexed by (fold, seed), or by one level with independent entries, such as clips; nan for
        failed runs.
    confidence
        Confidence level, 0 to 1.
    seed
        Seed of the random sign flips, which are used if there are too many to enumerate.

    Returns
    -------
    PairedComparison
        All numbers are nan without a common pair. The effect size is nan if all differences are equal. p and the
        equivalence margin are nan for a single fold, where only the seed varies.

    Raises
    ------
    ValueError
        If an index occurs twice.

    Notes
    -----
    Signs are flipped per fold, because the runs of a fold are not independent: with signs flipped per run, 5 folds of 3
    seeds without an effect give p < .05 in 27 % of cases. With k differing folds, the smallest two-sided p is 2 / 2^k:
    0.0625 for five folds.
    Sources: Fisher, "The Design of Experiments", 1935; Lakens, "Calculating and reporting effect sizes", 2013, equation
    6 (d_z).
    """
    for side in (values, reference):
        if side.index.has_duplicates:
            raise ValueError(f"more than one run for {side.index[side.index.duplicated()].tolist()[0]}")
    both = pd.concat([values, reference], axis=1, keys=["value", "reference"]).astype(np.float64)
    matched = both.dropna()
    unmatched = len(both) - len(matched)
    difference = average_seeds(matched["value"] - matched["reference"])
    single = matched.index.nlevels > 1 and matched.index.get_level_values(0).nunique() < 2
    over = "seeds" if single else "folds"
    if len(difference) == 0:
        return PairedComparison(NAN, NAN, NAN, 0, 0, unmatched, NAN, NAN, True, NAN, over, NAN)
    numbers = difference.to_numpy()
    shape = mean_interval(numbers, confidence=confidence)
    effect = shape.mean / shape.std if shape.n > 1 and shape.std > 0 else NAN
    p, smallest_p, exact = (NAN, NAN, True) if single else _sign_flip_test(numbers, seed=seed)
    within = NAN if single else equivalence_margin(numbers)
    pairs = len(matched)
    return PairedComparison(
        shape.mean, shape.low, shape.high, shape.n, pairs, unmatched, p, smallest_p, exact, effect, over, within
    )


def equivalence_p_value(difference: npt.ArrayLike, *, margin: float) -> float:
    """Return the p-value of an equivalence test: two one-sided t tests (TOST) of a mean difference.

    Parameters
    ----------
    difference
        One difference per fold, shape (n,) (`average_seeds`).
    margin
        Equivalence margin, above 0, in the unit of `difference`.

    Returns
    -------
    float
        A value below .05 shows that the absolute difference is smaller than the margin. nan for one difference.

    Raises
    ------
    ValueError
        If `margin` is not above 0.

    Notes
    -----
    Source: Schuirmann, "A comparison of the two one-sided tests procedure ...", 1987.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin!r}: give a margin above 0")
    values = np.asarray(difference, dtype=np.float64).ravel()
    if len(values) < 2:
        return NAN
    if _is_constant(values):
        return 0.0 if abs(values.mean()) < margin else 1.0
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def equivalence_margin(difference: npt.ArrayLike) -> float:
    """Return the smallest margin at which `equivalence_p_value` is at most .05.

    It is the larger absolute bound of the 90 % interval of the mean difference.
    """
    shape = mean_interval(difference, confidence=1 - 2 * SIGNIFICANCE_LEVEL)
    return max(abs(shape.low), abs(shape.high))


def mcnemar(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, *, groups: npt.ArrayLike | None = None
) -> McNemarResult:
    """Test whether two networks have the same accuracy on the same clips.

    Parameters
    ----------
    correct_a, correct_b
        Whether each clip is classified correctly, shape (clips,), in the same order.
    groups
        Group of each clip, such as its recording, shape (clips,). Clips of a group are not independent, so the test is
        then over groups.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    Without groups: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947, by
    `statsmodels.stats.contingency_tables.mcnemar`, exact below 25 discordant clips. With groups: a sign-flip test over
    the differences of correct clips per group; with one clip per group this is McNemar's exact test. Durkalski et al.,
    "Analysis of clustered matched-pair data", 2003, use the normal limit of the same sum.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"correct_a {a.shape} and correct_b {b.shape} must have the same shape (clips,)")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    if groups is not None:
        labels = np.asarray(groups)
        if labels.shape != a.shape:
            raise ValueError(f"groups {labels.shape} must have the shape (clips,) of {len(a)} clips")
        names, index = np.unique(labels, return_inverse=True)
        if len(names) < len(a):
            differences = np.bincount(index, weights=a.astype(float) - b).astype(np.float64)
            p, _, exact = _sign_flip_test(differences, seed=0)
            return McNemarResult(only_a, only_b, len(a), p, exact, len(names))
    exact = only_a + only_b < MIN_APPROXIMATE_MCNEMAR
    table = [[int(np.sum(a & b)), only_a], [only_b, int(np.sum(~a & ~b))]]
    result = contingency_tables.mcnemar(table, exact=exact, correction=True)
    return McNemarResult(only_a, only_b, len(a), min(1.0, float(result.pvalue)), exact, len(a))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm-corrected p-values; nan values are ignored and stay nan.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979. ``multipletests`` of statsmodels
    gives the same values but takes half a second per call with 10,000 runs in memory.
    """
    corrected = np.array(p_values, dtype=np.float64)
    ranked = np.argsort(corrected, kind="stable")[: np.isfinite(corrected).sum()]  # nan comes last
    times = np.arange(len(ranked), 0, -1)
    corrected[ranked] = np.minimum(1.0, np.maximum.accumulate(corrected[ranked] * times))
    return tuple(corrected.tolist())


def _is_constant(values: npt.NDArray[np.float64]) -> bool:
    """Return whether all values are equal up to rounding errors."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def _sign_flip_test(difference: npt.NDArray[np.float64], *, seed: int) -> tuple[float, float, bool]:
    """Return p-value, smallest possible p-value, and whether all sign flips were enumerated."""
    # A zero difference is the same under both signs, so it adds no distinct permutation.
    difference = difference[np.abs(difference) > 1e-12]
    if len(difference) < 2:
        return 1.0, 1.0, True  # the only other permutation is the mirror image
    n = len(difference)
    exact = 2**n <= MAX_SIGN_FLIPS
    if exact:  # half of them; the other half are mirror images
        sums = (1 - 2 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)) @ difference
    else:
        sums = _flipped_sums(difference, seed=seed)
    least = abs(difference.sum()) * (1 - 1e-12) - 1e-14  # values equal up to rounding count as extreme
    extreme = int(np.sum(np.abs(sums) >= least))
    if exact:
        return extreme / len(sums), 2 / 2**n, True
    return (extreme + 1) / (MAX_SIGN_FLIPS + 1), 2 / (MAX_SIGN_FLIPS + 1), False


def _flipped_sums(difference: npt.NDArray[np.float64], *, seed: int) -> npt.NDArray[np.float64]:
    """Return the sums (MAX_SIGN_FLIPS,) of differences (n,) under random signs.

    Differences of the same absolute size are drawn together: the number of flipped ones is binomial. This is fast and
    small, because thousands of recordings have only a few distinct sizes.
    """
    rng = np.random.default_rng(seed)
    sums = np.zeros(MAX_SIGN_FLIPS)
    for size, count in zip(*np.unique(np.abs(difference), return_counts=True), strict=True):
        sums += size * (2.0 * rng.binomial(count, 0.5, MAX_SIGN_FLIPS) - count)
    return sums
