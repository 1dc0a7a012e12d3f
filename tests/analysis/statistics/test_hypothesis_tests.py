"""Intervals and tests against SciPy, statsmodels, enumeration and simulation."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats import weightstats
from statsmodels.stats.multitest import multipletests

from analysis.statistics.hypothesis_tests import (
    FoldSizes,
    average_seeds,
    compare_pairs,
    equivalence_margin,
    equivalence_p_value,
    holm,
    mcnemar,
    mean_interval,
)
from tests.benchmarks.simulations.cross_validation import STRONG, WEAK, Design, Studies
from tests.benchmarks.simulations.equivalence import NOT_EQUIVALENT, false_equivalence, misses_zero
from tests.benchmarks.simulations.intervals import coverage
from tests.benchmarks.simulations.recordings import recordings


def runs(values, *, folds=None):
    """Return values indexed by (fold, seed) with one seed."""
    pairs = [(fold, 0) for fold in (folds or range(len(values)))]
    return pd.Series(values, index=pd.MultiIndex.from_tuples(pairs, names=["fold", "seed"]), dtype=float)


def test_mean_interval_equals_scipy_t_interval():
    values = np.random.default_rng(3).normal(0.7, 0.05, 200)
    shape = mean_interval(values)
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert (shape.low, shape.high) == pytest.approx((low, high), abs=1e-12)


def test_mean_interval_of_one_equal_or_no_values():
    one = mean_interval([0.5])
    assert (one.mean, one.n) == (0.5, 1)
    assert np.isnan([one.std, one.low, one.high]).all()
    equal = mean_interval([0.1 + 0.2, 0.3, 0.3])  # equal up to rounding
    assert (equal.std, equal.low, equal.high) == (0, equal.mean, equal.mean)
    none = mean_interval([])
    assert none.n == 0
    assert np.isnan([none.mean, none.std, none.low, none.high]).all()


def test_compare_pairs_equals_corrected_t_test_of_nadeau_and_bengio():
    """The reference is `compute_corrected_ttest` of scikit-learn's example on comparing models with a grid search."""
    difference = np.array([0.03, 0.01, -0.02, 0.04, 0.02])
    reference = np.linspace(0.5, 0.6, 5)
    result = compare_pairs(runs(reference + difference), runs(reference), sizes=FoldSizes(train=360, test=120))
    corrected_std = np.sqrt(np.var(difference, ddof=1) * (1 / 5 + 120 / 360))
    t = difference.mean() / corrected_std
    assert result.p == pytest.approx(2 * stats.t.sf(t, df=4))
    assert (result.low, result.high) == pytest.approx(stats.t.interval(0.95, 4, difference.mean(), corrected_std))
    assert result.difference == pytest.approx(difference.mean())
    assert result.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert (result.n, result.unmatched, result.over) == (5, 0, "folds")


def test_compare_pairs_without_sizes_equals_scipy_paired_t_test():
    rng = np.random.default_rng(2)
    values, reference = pd.Series(rng.random(12)), pd.Series(rng.random(12))
    result, library = compare_pairs(values, reference), stats.ttest_rel(values, reference)
    assert result.p == pytest.approx(library.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(library.confidence_interval()))


def test_compare_pairs_of_five_folds_can_be_significant():
    values = runs([0.81, 0.82, 0.83, 0.82, 0.81])
    result = compare_pairs(values, values - [0.1, 0.12, 0.11, 0.1, 0.09], sizes=FoldSizes(480, 120))
    assert result.p < 0.001
    assert result.low > 0


@pytest.mark.parametrize("p", [0.01, 0.2])
def test_compare_pairs_interval_excludes_0_exactly_if_p_is_below_5_percent(p):
    sizes, difference = FoldSizes(480, 120), np.array([-0.01, 0.0, 0.01, 0.02, -0.02])
    error = difference.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    shifted = runs(difference + stats.t.isf(p / 2, 4) * error)
    result = compare_pairs(shifted, 0 * shifted, sizes=sizes)
    assert result.p == pytest.approx(p)
    assert (result.low > 0) == (p < 0.05)


def test_compare_pairs_in_any_order_matches_folds():
    values, reference = runs([0.7, 0.8, 0.9], folds=[0, 1, 2]), runs([0.6, 0.5, 0.4], folds=[3, 1, 0])
    result = compare_pairs(values, reference)
    assert (result.n, result.unmatched) == (2, 2)
    assert result.difference == pytest.approx(((0.7 - 0.4) + (0.8 - 0.5)) / 2)


def test_compare_pairs_with_failed_run_counts_it_as_unmatched():
    result = compare_pairs(runs([0.7, float("nan")]), runs([0.6, 0.6]))
    assert (result.n, result.unmatched) == (1, 1)
    assert np.isnan([result.low, result.high, result.effect_size, result.p, result.equal_within]).all()
    assert np.isnan(compare_pairs(pd.Series([0.7]), pd.Series([0.6])).p)


def test_compare_pairs_without_difference_or_pair():
    same = compare_pairs(runs([0.7, 0.8]), runs([0.7, 0.8]))
    assert (same.difference, same.p) == (0, 1)
    assert np.isnan(same.effect_size)
    apart = compare_pairs(runs([0.7], folds=[1]), runs([0.7], folds=[2]))
    assert (apart.n, apart.unmatched) == (0, 2)
    assert np.isnan([apart.p, apart.equal_within, apart.difference]).all()


def test_compare_pairs_of_equal_differences_has_lower_bound_of_one_clip():
    sizes, five = FoldSizes(train=480, test=120), runs([0.7] * 5)
    same, shifted = compare_pairs(five, five, sizes=sizes), compare_pairs(five + 0.1, five, sizes=sizes)
    error = 1 / 120 * np.sqrt(1 / 5 + 120 / 480)
    assert same.equal_within == pytest.approx(stats.t.ppf(0.95, 4) * error)
    assert same.high == -same.low == pytest.approx(stats.t.ppf(0.975, 4) * error)
    assert shifted.p == pytest.approx(2 * stats.t.sf(0.1 / error, 4))
    unknown = compare_pairs(five + 0.1, five)
    assert np.isnan([unknown.p, unknown.equal_within]).all()


def test_mean_interval_of_accuracies_lies_within_bounds():
    high, low = (mean_interval(values, bounds=(0, 1)) for values in ([0.98, 0.995], [0.02, 0.005]))
    assert (high.high, low.low) == (1.0, 0.0)
    assert 0.8 < high.low < high.mean
    assert mean_interval([0.98, 0.995]).high > 1


def test_compare_pairs_of_accuracies_ends_at_100_points():
    values, reference = runs([0.9, 0.1]), runs([0.1, 0.2])
    result = compare_pairs(values, reference, sizes=FoldSizes(100, 100))
    assert (result.low, result.high, result.equal_within) == (-1, 1, 1)
    unbounded = compare_pairs(values, reference)
    assert unbounded.high > 1
    assert unbounded.equal_within > 1


def test_mcnemar_of_few_clips_equals_binomial_test():
    a = np.array([1] * 9 + [0] * 2 + [1] * 20 + [0] * 5)
    b = np.array([0] * 9 + [1] * 2 + [1] * 20 + [0] * 5)
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b, result.n, result.exact) == (9, 2, 36, True)
    assert result.p == pytest.approx(stats.binomtest(2, 11).pvalue)


def test_mcnemar_of_many_clips_equals_chi_squared():
    a, b = np.array([1] * 40 + [0] * 20), np.array([0] * 40 + [1] * 20)
    result = mcnemar(a, b)
    assert not result.exact
    assert result.p == pytest.approx(stats.chi2.sf((abs(40 - 20) - 1) ** 2 / 60, 1))


@pytest.mark.parametrize("n", [1, 40])
def test_holm_equals_statsmodels(n):
    rng = np.random.default_rng(n)
    raw = np.round(rng.random(n) ** 3, 2)  # with small values and ties
    assert holm(raw.tolist()) == tuple(multipletests(raw, method="holm")[1])


def test_holm_ignores_nan():
    corrected = holm([0.01, float("nan"), 0.04])
    assert corrected[::2] == pytest.approx((0.02, 0.04))
    assert np.isnan(corrected[1])
    assert holm([]) == ()


@pytest.mark.parametrize("n", [2, 10])
def test_mean_interval_coverage_is_95_percent(n):
    """A bootstrap covers 54 % for 2 values and 89 % for 10 values."""
    assert 0.93 <= coverage(n, trials=2000) <= 0.97


@pytest.mark.parametrize("design", [Design(5, 1, 20, WEAK), Design(10, 3, 20, WEAK)], ids=str)
def test_corrected_t_test_of_overlapping_folds_keeps_error_rate(design):
    """An uncorrected t test finds a difference in 8 to 10 % of studies without one."""
    studies = Studies(design, 1000)
    assert studies.rejection_rate("corrected") <= 0.05
    assert studies.rejection_rate("t") > 0.06
    assert studies.coverage(corrected=True) >= 0.94 > studies.coverage(corrected=False)


def test_sign_flips_of_recordings_ignore_variation_between_trainings():
    studies = Studies(Design(5, 1, 120, STRONG), 400)
    assert studies.rejection_rate("recordings") > 0.1
    assert studies.rejection_rate("corrected") <= 0.05


def test_compare_pairs_equals_simulated_p_value():
    studies = Studies(Design(3, 1, 20, WEAK), 5)
    for difference, p in zip(studies.by_fold, studies.p_values("corrected"), strict=True):
        values = runs(difference)
        assert compare_pairs(values, 0 * values, sizes=studies.design.sizes).p == pytest.approx(p)


def test_compare_pairs_of_single_fold_makes_no_test():
    index = pd.MultiIndex.from_product([[1], range(10)])
    values = pd.Series(np.linspace(0.7, 0.8, 10), index=index)
    result = compare_pairs(values, values - np.linspace(0.01, 0.03, 10))
    assert np.isnan([result.p, result.equal_within]).all()
    assert (result.over, result.n, result.pairs) == ("seeds", 10, 10)
    assert 0.01 < result.low < 0.02 < result.high < 0.03
    sizes = FoldSizes(train=400, test=1000)  # seeds share a training set: no correction
    assert compare_pairs(values, values - np.linspace(0.01, 0.03, 10), sizes=sizes).low == pytest.approx(result.low)


def test_compare_pairs_averages_seeds_within_folds():
    index = pd.MultiIndex.from_product([range(3), range(4)])
    values = pd.Series(np.random.default_rng(0).normal(0.02, 0.01, 12), index=index)
    result, means = compare_pairs(values, 0 * values), average_seeds(values)
    assert means.tolist() == pytest.approx(values.to_numpy().reshape(3, 4).mean(1).tolist())
    assert (result.n, result.pairs) == (3, 12)
    assert (result.low, result.high) == pytest.approx(stats.t.interval(0.95, 2, means.mean(), stats.sem(means)))


def test_equivalence_p_value_equals_statsmodels_tost():
    difference = np.random.default_rng(1).normal(0.002, 0.01, 10)
    assert equivalence_p_value(difference, margin=0.01) == pytest.approx(
        weightstats.DescrStatsW(difference).ttost_mean(-0.01, 0.01)[0]
    )
    assert equivalence_p_value(difference, margin=equivalence_margin(difference)) == pytest.approx(0.05)
    sizes = FoldSizes(900, 100)
    assert equivalence_p_value(difference, sizes, margin=equivalence_margin(difference, sizes)) == pytest.approx(0.05)
    assert np.isnan(equivalence_p_value([0.01], margin=0.1))
    assert np.isnan(equivalence_p_value([0.01, 0.01], margin=0.1))
    with pytest.raises(ValueError, match="margin=0"):
        equivalence_p_value(difference, margin=0)


def test_mcnemar_with_one_clip_per_group_equals_exact_test():
    a, b = np.array([1] * 9 + [0] * 2 + [1] * 20 + [0] * 5), np.array([0] * 9 + [1] * 2 + [1] * 20 + [0] * 5)
    alone = np.arange(36)
    assert mcnemar(a, b, groups=alone) == mcnemar(a, b)
    two = np.where(alone >= 34, 34, alone)  # two clips that both networks misclassify
    assert mcnemar(a, b, groups=two).p == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert mcnemar(a, b, groups=two).units == 35


def test_mcnemar_with_groups_equals_enumeration():
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 8, 60)
    a, b = rng.random(60) < 0.8, rng.random(60) < 0.6
    surplus = [int(np.sum(a[groups == g])) - int(np.sum(b[groups == g])) for g in range(8)]
    sums = [abs(np.dot(surplus, signs)) for signs in product((1, -1), repeat=8)]
    assert mcnemar(a, b, groups=groups).p == pytest.approx(np.mean([s >= abs(sum(surplus)) for s in sums]))


@pytest.mark.parametrize("n", [5, 16, 17, 18, 20])
def test_mcnemar_of_groups_is_never_below_smallest_p(n):
    """With 17 groups and random sign flips, p was 1 / 65537."""
    groups = np.repeat(np.arange(n), 2)
    result = mcnemar(np.ones(2 * n), np.zeros(2 * n), groups=groups)
    assert result.p >= 2.0 ** (1 - n)
    assert result.exact == (n <= 17)
    assert result.p == pytest.approx(2.0 ** (1 - n), abs=0 if n <= 17 else 5e-5)


@pytest.mark.parametrize("design", NOT_EQUIVALENT[:2], ids=str)
def test_equivalence_of_few_clips_keeps_error_rate(design):
    """Without the lower bound, 20 to 40 % of pairs that are not equivalent pass, as their folds are equal by chance."""
    assert false_equivalence(*design) <= 0.05
    assert false_equivalence(*design, corrected=False) > 0.15


def test_interval_of_few_clips_contains_0_for_equal_networks():
    assert misses_zero(2, 20, 0.01) <= 0.05


def test_mcnemar_with_groups_of_dependent_clips_keeps_error_rate():
    """Without groups, p is below .05 in more than 30 % of cases without a difference."""
    assert recordings(by_group=False, trials=200) > 0.3
    assert recordings(by_group=True, trials=200) <= 0.08


def test_mcnemar_of_many_groups_approximates_exact_test():
    size = np.repeat([1, 2], [1000, 200])  # clips per recording, all correct or all wrong
    up = np.arange(len(size)) % 2 == 0
    up[:40] = True
    groups = np.repeat(np.arange(len(size)), size)
    right = up[groups]
    result = mcnemar(right, ~right, groups=groups)
    ones, twos = stats.binom(1000, 0.5).pmf(np.arange(1001)), stats.binom(200, 0.5).pmf(np.arange(201))
    sums = np.abs(np.add.outer(2 * np.arange(1001) - 1000, 2 * (2 * np.arange(201) - 200)))
    exact = float(np.outer(ones, twos)[sums >= abs(int(size[up].sum() - size[~up].sum()))].sum())
    assert result.p == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 2**16) ** 0.5)
    assert not result.exact
