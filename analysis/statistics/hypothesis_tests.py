"""Confidence intervals of one condition, and hypothesis tests between two conditions.

The unit of analysis is the fold. Runs of one fold share their test clips and nearly all training clips, so seeds are
averaged within each fold first, and intervals and tests are over folds. With a single fold only the seed varies: the
interval is then over seeds and does not generalise to other clips, and no test is made.

The training sets of different folds overlap, so the folds are not independent. The standard error of a mean over folds
is therefore corrected with the sizes of training and test sets (`standard_error`); intervals, p-values and equivalence
tests all use it. ``python -m tests.benchmarks statistics`` measures the coverage of the intervals and the error rates
and power of this test and of others.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.registry import Lazy
from core.store.record import Record

stats = Lazy("scipy.stats")  # most of a second to import
contingency_tables = Lazy("statsmodels.stats.contingency_tables")  # half a second to import
MAX_SIGN_FLIPS = 2**16  # all distinct sign flips of up to 17 groups; a random sample for more groups
MIN_APPROXIMATE_MCNEMAR = 25  # discordant clips below which chi-squared is a poor approximation
SIGNIFICANCE_LEVEL = 0.05
OVERLAP_NOTE = (
    "The training sets of different folds overlap; the standard error over folds is corrected for this (Nadeau and "
    "Bengio, Inference for the Generalization Error, 2003). In simulated cross-validation, 95 % intervals contained "
    "the true mean in 96 to 100 % of studies; without the correction, in 87 to 97 %."
)

NAN = float("nan")


@dataclass(frozen=True)
class FoldSizes:
    """Mean number of training and test clips of the compared folds.

    Attributes
    ----------
    train, test
        Number of clips, above 0; an infinite `train` means that training sets do not overlap.
    """

    train: float
    test: float

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> Self | None:
        """Return the mean sizes of finished runs; None without runs."""
        clips = [(record.clips.train, record.clips.test) for record in records]
        return cls(*map(float, np.mean(clips, axis=0))) if clips else None

    @property
    def without_overlap(self) -> "FoldSizes":
        """Sizes for values without the correction for overlapping training sets, such as the seeds of one fold."""
        return FoldSizes(float("inf"), self.test)

    @property
    def test_train_ratio(self) -> float:
        """Number of test clips divided by number of training clips."""
        return self.test / self.train

    @property
    def resolution(self) -> float:
        """Change in accuracy by one test clip; it is the lower bound of the standard deviation between folds."""
        return 1 / self.test


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
        Two-sided p-value of the corrected t test (`t_test_p_value`); nan for a single fold.
    effect_size
        Cohen's d_z: mean divided by standard deviation of the differences.
    over
        Unit of the interval: "folds", or "seeds" for a single fold.
    equal_within
        Smallest margin within which the two are equivalent at level .05 (`equivalence_margin`); nan for a single fold.
    """

    difference: float
    low: float
    high: float
    n: int
    pairs: int
    unmatched: int
    p: float
    effect_size: float
    over: str
    equal_within: float


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
        Two-sided p-value of the hypothesis that both networks have the same accuracy.
    exact
        Whether p is exact; otherwise it is approximated (chi-squared, or a random sample of sign flips).
    units
        Number of units that the test treats as independent: clips, or groups of clips.
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
        One value per fold. With a single fold or a one-level index, the given values, without nan.
    """
    values = values.dropna()
    if values.index.nlevels == 1 or values.index.get_level_values(0).nunique() < 2:
        return values
    return values.groupby(level=0).mean()


def standard_error(values: npt.ArrayLike, sizes: FoldSizes | None = None) -> npt.NDArray[np.float64]:
    """Return the standard error of means.

    Parameters
    ----------
    values
        At least two values each, shape (..., n): of folds (`average_seeds`), or independent values.
    sizes
        Sizes of the folds; None for independent values, such as those of recordings.

    Returns
    -------
    ndarray
        Shape (...). Without `sizes`: s / sqrt(n), where s is the sample standard deviation. With `sizes`:
        max(s, 1 / test) * sqrt(1 / n + test / train).

    Notes
    -----
    Source of the factor: Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003,
    section 5 (corrected resampled t test). The lower bound 1 / test, one clip per fold, is for few folds that happen to
    have equal accuracies: equal values do not show that the true difference has no uncertainty.
    """
    values = np.asarray(values, dtype=np.float64)
    largest = np.abs(values).max(axis=-1)
    is_constant = np.ptp(values, axis=-1) <= 1e-12 * np.maximum(1.0, largest)  # equal up to rounding errors
    std = np.where(is_constant, 0.0, values.std(axis=-1, ddof=1))
    return error_of_mean(std, values.shape[-1], sizes)


def error_of_mean(std: npt.ArrayLike, n: int, sizes: FoldSizes | None = None) -> npt.NDArray[np.float64]:
    """Return the standard error of the mean of `n` values with the sample standard deviation `std`, shape (...).

    Formula and `sizes` as in `standard_error`.
    """
    std = np.asarray(std, dtype=np.float64)
    if sizes is None:
        return std / np.sqrt(n)
    return np.maximum(std, sizes.resolution) * np.sqrt(1 / n + sizes.test_train_ratio)


def t_test_p_value(values: npt.ArrayLike, sizes: FoldSizes | None = None) -> npt.NDArray[np.float64]:
    """Return two-sided p-values of the hypothesis that the mean is 0, shape (...).

    It is Student's t test with the standard error of `standard_error`; parameters as there. If the standard error is 0,
    p is 1 for a mean of 0, and nan otherwise.
    """
    values = np.asarray(values, dtype=np.float64)
    mean, error = np.abs(values.mean(axis=-1)), standard_error(values, sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(mean / error, values.shape[-1] - 1)
    return np.where(error > 0, p, np.where(mean == 0, 1.0, NAN))


def mean_interval(
    values: npt.ArrayLike,
    *,
    sizes: FoldSizes | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> MeanInterval:
    """Return mean, standard deviation and Student's t interval of the mean.

    Parameters
    ----------
    values
        Finite values, shape (n,): of folds (`average_seeds`), or independent values.
    sizes
        As in `standard_error`.
    confidence
        Confidence level, 0 to 1.
    bounds
        Smallest and largest possible value; the interval is cut off there.

    Returns
    -------
    MeanInterval
        For one value, standard deviation and bounds are nan; without a value, all numbers are nan. If all values are
        equal and `sizes` is None, both bounds are the mean.

    Raises
    ------
    ValueError
        If a value is not finite.

    Notes
    -----
    Source: Student, "The Probable Error of a Mean", 1908. For independent normal values the coverage is exact for every
    n. A bootstrap of 2, 3, 5 or 10 values has a coverage of 54, 70, 87 or 89 % instead of 95 %.
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
    std = float(standard_error(values)) * math.sqrt(n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * standard_error(values, sizes))
    return MeanInterval(mean, std, n, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def compare_pairs(
    values: "pd.Series[Any]",
    reference: "pd.Series[Any]",
    *,
    sizes: FoldSizes | None = None,
    confidence: float = 0.95,
) -> PairedComparison:
    """Compare a condition with its reference on the pairs of runs that both have.

    Parameters
    ----------
    values, reference
        One value per run, indexed by (fold, seed) or by fold, or independent values indexed by one level, such as
        recordings; nan for failed runs.
    sizes
        Sizes of the folds, if the values are accuracies of folds; the interval then ends at -1 and 1. None for
        independent values.
    confidence
        Confidence level, 0 to 1.

    Returns
    -------
    PairedComparison
        Without a common pair, all numbers are nan. The effect size is nan if all differences are equal. p and
        `equal_within` are nan for a single fold, where only the seed varies. Without `sizes`, they are also nan if all
        differences are equal, except that p is 1 if all are 0.

    Raises
    ------
    ValueError
        If an index occurs twice.

    Notes
    -----
    The test is Nadeau and Bengio's corrected t test (`standard_error`). Of the tests compared in
    ``tests/benchmarks/simulations/cross_validation.py``, it is the only one that keeps the level of .05 and can be
    significant with five folds: false positive rates are at most .04, those of Student's t test over folds .10, of sign
    flips over folds .09, and of sign flips per recording .33, because these ignore the variation between trainings.
    Sign flips over folds cannot reach .05 with fewer than six folds.
    Effect size: Lakens, "Calculating and reporting effect sizes", 2013, equation 6 (d_z).
    """
    for side in (values, reference):
        if side.index.has_duplicates:
            raise ValueError(f"more than one run for {side.index[side.index.duplicated()].tolist()[0]}")
    both = pd.concat([values, reference], axis=1, keys=["value", "reference"]).astype(np.float64)
    matched = both.dropna()
    unmatched = len(both) - len(matched)
    difference = average_seeds(matched["value"] - matched["reference"]).to_numpy()
    single = matched.index.nlevels > 1 and matched.index.get_level_values(0).nunique() < 2
    if single and sizes:
        sizes = sizes.without_overlap
    bounds = (-1.0, 1.0) if sizes else (-np.inf, np.inf)  # of a difference of accuracies
    interval = mean_interval(difference, sizes=sizes, confidence=confidence, bounds=bounds)
    has_test = not single and interval.n > 1
    return PairedComparison(
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        pairs=len(matched),
        unmatched=unmatched,
        p=float(t_test_p_value(difference, sizes)) if has_test else NAN,
        effect_size=interval.mean / interval.std if interval.std > 0 else NAN,
        over="seeds" if single else "folds",
        equal_within=equivalence_margin(difference, sizes) if has_test else NAN,
    )


def equivalence_p_value(
    difference: npt.ArrayLike, sizes: FoldSizes | None = None, *, margin: float
) -> npt.NDArray[np.float64]:
    """Return p-values of equivalence tests: two one-sided t tests (TOST) of mean differences.

    Parameters
    ----------
    difference, sizes
        As in `standard_error`.
    margin
        Equivalence margin, above 0, in the unit of `difference`.

    Returns
    -------
    ndarray
        Shape (...). A value below .05 shows that the absolute difference is smaller than the margin. nan for one
        difference and for a standard error of 0.

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
    values = np.asarray(difference, dtype=np.float64)
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], NAN)
    error = standard_error(values, sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.t.sf((margin - np.abs(values.mean(axis=-1))) / error, values.shape[-1] - 1)
    return np.where(error > 0, p, NAN)


def equivalence_margin(difference: npt.ArrayLike, sizes: FoldSizes | None = None) -> float:
    """Return the smallest margin at which `equivalence_p_value` is at most .05; nan for a standard error of 0.

    It is the larger absolute bound of the 90 % interval of the mean difference, shape (n,). With `sizes` it is at most
    1, the largest difference of accuracies.
    """
    interval = mean_interval(difference, sizes=sizes, confidence=1 - 2 * SIGNIFICANCE_LEVEL)
    if not interval.low < interval.high:
        return NAN
    margin = max(abs(interval.low), abs(interval.high))
    return min(margin, 1.0) if sizes else margin


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
            p, exact = _sign_flip_test(differences)
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


def _sign_flip_test(difference: npt.NDArray[np.float64]) -> tuple[float, bool]:
    """Return the two-sided p-value of the hypothesis that the sum is 0, and whether all sign flips were enumerated."""
    # A zero difference is the same under both signs, so it adds no distinct permutation.
    difference = difference[np.abs(difference) > 1e-12]
    if len(difference) < 2:
        return 1.0, True  # the only other permutation is the mirror image
    n = len(difference)
    exact = 2 ** (n - 1) <= MAX_SIGN_FLIPS
    if exact:  # half of the sign flips; the other half are mirror images
        sums = (1 - 2 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)) @ difference
    else:
        sums = _flipped_sums(difference)
    least = abs(difference.sum()) * (1 - 1e-12) - 1e-14  # values equal up to rounding count as extreme
    extreme = int(np.sum(np.abs(sums) >= least))
    return (extreme / len(sums), True) if exact else ((extreme + 1) / (MAX_SIGN_FLIPS + 1), False)


def _flipped_sums(difference: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sums (MAX_SIGN_FLIPS,) of differences (n,) under random signs; the random generator has a fixed seed.

    Signs of differences with the same absolute value are drawn together: the number of flipped signs is binomial. This
    needs little time and memory, because thousands of recordings have only a few distinct absolute values.
    """
    rng = np.random.default_rng(0)
    sums = np.zeros(MAX_SIGN_FLIPS)
    for size, count in zip(*np.unique(np.abs(difference), return_counts=True), strict=True):
        sums += size * (2.0 * rng.binomial(count, 0.5, MAX_SIGN_FLIPS) - count)
    return sums
