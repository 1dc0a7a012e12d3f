"""How sure a number is: spread and interval of one condition, and tests between two.

The unit of evidence is the fold. Runs of one fold share their test clips and nearly all of their training clips, so
seeds are averaged within a fold first, and intervals and tests count folds. With a single fold only the seed varies:
the interval is then over seeds, says nothing of other clips, and there is no test. The training sets of two folds
overlap as well, which no test over folds can see: intervals are somewhat too narrow (`OVERLAP_NOTE` says so under every
table). How often intervals hold and tests err is measured by ``python -m tests.benchmarks statistics``.
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
MAX_SIGN_FLIPS = 2**16  # all of them up to 16 folds, a random sample of them above
MIN_APPROXIMATE_MCNEMAR = 25  # discordant clips below which chi-squared is a poor approximation
SIGNIFICANCE_LEVEL = 0.05
OVERLAP_NOTE = (
    "The training clips of folds overlap, so intervals are somewhat too narrow and p-values somewhat too small."
)

NAN = float("nan")


@dataclass(frozen=True)
class MeanInterval:
    """Where the values of one condition lie."""

    mean: float
    std: float  # sample deviation (n - 1); nan for one value
    n: int
    low: float  # bounds of the interval of the mean; nan for one value
    high: float


@dataclass(frozen=True)
class PairedComparison:
    """One condition minus the reference, over the (fold, seed) pairs that both have, seeds averaged within a fold."""

    difference: float  # mean of value - reference
    low: float  # bounds of its interval
    high: float
    n: int  # units compared: folds, or the seeds of a single fold
    pairs: int  # (fold, seed) pairs compared
    unmatched: int  # pairs that only one side has, or where one side failed
    p: float  # two-sided sign-flip permutation test of "no difference" over folds; nan for a single fold
    smallest_p: float  # what p is at the least with so many folds that differ, however large the difference
    exact: bool  # all sign flips were enumerated
    effect_size: float  # Cohen's d_z: mean over standard deviation of the differences
    over: str  # what the interval is over: folds, or the seeds of a single fold
    equal_within: float  # smallest margin within which both are shown to be equal at .05; nan for a single fold

    @property
    def contradicts(self) -> bool:
        """Whether the interval leaves out 0 although p does not reach .05, or the other way round."""
        return bool(np.isfinite(self.p)) and (self.low > 0 or self.high < 0) != (self.p < SIGNIFICANCE_LEVEL)


@dataclass(frozen=True)
class McNemarResult:
    """Two networks on the same clips."""

    only_a: int  # clips that only the first one gets right
    only_b: int
    n: int
    p: float  # two-sided test that both are equally often right
    exact: bool  # binomial rather than chi-squared with continuity correction
    units: int  # what was taken as independent: clips, or groups of clips


def average_seeds(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Average seeds within a fold; the seeds themselves where there is a single fold.

    Parameters
    ----------
    values
        One number for each run, indexed by (fold, seed) or, with nothing to average over, by one level. nan stands for
        a failed run and is left out.

    Returns
    -------
    Series
        One number for each unit of evidence.
    """
    values = values.dropna()
    if values.index.nlevels == 1 or values.index.get_level_values(0).nunique() < 2:
        return values
    return values.groupby(level=0).mean()


def mean_interval(values: npt.ArrayLike, *, confidence: float = 0.95) -> MeanInterval:
    """Give mean, deviation and Student's t interval of the mean.

    Parameters
    ----------
    values
        Shape (n,), finite; independent of each other, such as the means of folds (`average_seeds`). Failed runs are
        counted apart and do not belong here.
    confidence
        Level of the interval, 0 to 1.

    Returns
    -------
    Description
        Nothing is known of the spread from one value: nan. Equal values give that value as both bounds, no values give
        nan throughout.

    Raises
    ------
    ValueError
        Where a value is not finite.

    Notes
    -----
    Source: Student, "The Probable Error of a Mean", 1908. For normal values it covers the mean at the level given for
    every n; a bootstrap of 2, 3, 5 or 10 values covers 54, 70, 87 and 89 % instead of 95.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        raise ValueError("values must be finite: count failed runs apart")
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
    """Compare a condition with the reference on the pairs of runs that both have.

    Parameters
    ----------
    values, reference
        One number for each run, indexed by (fold, seed), or by one level whose entries are independent, such as clips.
        nan stands for a failed run.
    confidence
        Level of the interval, 0 to 1.
    seed
        Of the sign flips where there are too many to try them all.

    Returns
    -------
    Paired
        Without a common pair all numbers are nan; the effect size is nan too where all differences are equal, and
        what is tested (p, the margin of equivalence) where there is a single fold, for then nothing but the seed
        varies.

    Raises
    ------
    ValueError
        Where an index occurs twice.

    Notes
    -----
    Signs are flipped fold by fold: flipped run by run, 5 folds of 3 seeds without any effect pass .05 in 27 of 100
    cases, for the runs of a fold err together. With k folds that differ, the smallest two-sided p is 2 / 2^k: five
    folds can never fall below 0.0625.
    Sources: Fisher, "The Design of Experiments", 1935; Lakens, "Calculating and
    reporting effect sizes", 2013, equation 6 (d_z).
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
    """Test whether a mean difference lies within a margin to both sides: the p of two one-sided t tests.

    Parameters
    ----------
    difference
        Shape (n,): one for each fold (`average_seeds`).
    margin
        The largest difference that does not matter, above 0, in the unit of `difference`.

    Returns
    -------
    float
        Below .05, the difference is shown to be smaller than the margin; a large p shows nothing. nan for one value.

    Notes
    -----
    Source: Schuirmann, "A comparison of the two one-sided tests procedure ...", 1987.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin!r}: give a difference above 0")
    values = np.asarray(difference, dtype=np.float64).ravel()
    if len(values) < 2:
        return NAN
    if _is_constant(values):
        return 0.0 if abs(values.mean()) < margin else 1.0
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def equivalence_margin(difference: npt.ArrayLike) -> float:
    """Return the smallest margin with `equivalence_p_value` of at most .05.

    It is the larger absolute bound of the 90 % interval of the mean.
    """
    shape = mean_interval(difference, confidence=1 - 2 * SIGNIFICANCE_LEVEL)
    return max(abs(shape.low), abs(shape.high))


def mcnemar(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, *, groups: npt.ArrayLike | None = None
) -> McNemarResult:
    """Test whether two networks are equally often right, clip by clip.

    Parameters
    ----------
    correct_a, correct_b
        Shape (clips,): whether each is right, over the same clips in the same order.
    groups
        Shape (clips,): what each clip was cut from. Clips of one recording are right or wrong together: the test is
        then over the recordings.

    Raises
    ------
    ValueError
        Where the shapes differ.

    Notes
    -----
    By clip: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947;
    `statsmodels.stats.contingency_tables.mcnemar`, exact below 25 discordant clips. By group: under no difference each
    group's surplus of clips that one network alone gets right has either sign equally often, so the signs are flipped
    group by group; with one clip in each group that is McNemar's exact test. (Durkalski et al., "Analysis of clustered
    matched-pair data", 2003, take the normal limit of such a sum.)
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"correct_a {a.shape} and correct_b {b.shape} must be (clips,), over the same clips")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    if groups is not None:
        of = np.asarray(groups)
        if of.shape != a.shape:
            raise ValueError(f"groups {of.shape} must be (clips,), one for each of the {len(a)} clips")
        number, place = np.unique(of, return_inverse=True)
        if len(number) < len(a):
            surplus = np.bincount(place, weights=a.astype(float) - b).astype(np.float64)
            p, _, exact = _sign_flip_test(surplus, seed=0)
            return McNemarResult(only_a, only_b, len(a), p, exact, len(number))
    exact = only_a + only_b < MIN_APPROXIMATE_MCNEMAR
    table = [[int(np.sum(a & b)), only_a], [only_b, int(np.sum(~a & ~b))]]
    result = contingency_tables.mcnemar(table, exact=exact, correction=True)
    return McNemarResult(only_a, only_b, len(a), min(1.0, float(result.pvalue)), exact, len(a))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct p-values for their number; a nan (no test was possible) stays nan and does not count.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979. It is that of statsmodels'
    ``multipletests``, which goes through all objects in memory at every call, half a second over 10,000 runs.
    """
    corrected = np.array(p_values, dtype=np.float64)
    ranked = np.argsort(corrected, kind="stable")[: np.isfinite(corrected).sum()]  # nan comes last
    times = np.arange(len(ranked), 0, -1)
    corrected[ranked] = np.minimum(1.0, np.maximum.accumulate(corrected[ranked] * times))
    return tuple(corrected.tolist())


def _is_constant(values: npt.NDArray[np.float64]) -> bool:
    """Whether all values are equal but for rounding, where rounding alone would make an interval."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def _sign_flip_test(difference: npt.NDArray[np.float64], *, seed: int) -> tuple[float, float, bool]:
    # A unit without a difference is the same under both signs: it adds no permutation that could be told apart.
    difference = difference[np.abs(difference) > 1e-12]
    if len(difference) < 2:
        return 1.0, 1.0, True  # one and its mirror image are all there is
    n = len(difference)
    exact = 2**n <= MAX_SIGN_FLIPS
    if exact:  # half of them: those with the first sign turned are their mirror images
        sums = (1 - 2 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)) @ difference
    else:
        sums = _flipped_sums(difference, seed=seed)
    least = abs(difference.sum()) * (1 - 1e-12) - 1e-14  # equal but for rounding is as extreme
    extreme = int(np.sum(np.abs(sums) >= least))
    if exact:
        return extreme / len(sums), 2 / 2**n, True
    return (extreme + 1) / (MAX_SIGN_FLIPS + 1), 2 / (MAX_SIGN_FLIPS + 1), False


def _flipped_sums(difference: npt.NDArray[np.float64], *, seed: int) -> npt.NDArray[np.float64]:
    """Return sums (SIGN_FLIPS,) of differences (n,) under random signs; memory does not grow with n.

    Of those of one size only how many are turned matters, a binomial number: thousands of recordings have a few sizes.
    """
    rng = np.random.default_rng(seed)
    sums = np.zeros(MAX_SIGN_FLIPS)
    for size, count in zip(*np.unique(np.abs(difference), return_counts=True), strict=True):
        sums += size * (2.0 * rng.binomial(count, 0.5, MAX_SIGN_FLIPS) - count)
    return sums
