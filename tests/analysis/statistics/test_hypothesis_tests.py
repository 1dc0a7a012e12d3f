"""Intervals and tests against SciPy, statsmodels, enumeration and simulation."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats import weightstats
from statsmodels.stats.multitest import multipletests

from analysis.statistics.hypothesis_tests import (
    average_seeds,
    compare_pairs,
    equivalence_margin,
    equivalence_p_value,
    holm,
    mcnemar,
    mean_interval,
)
from tests.benchmarks.simulations.folds import SHAPES, false_positives
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


def test_compare_pairs_p_equals_enumeration():
    difference = np.array([0.03, 0.01, -0.02, 0.04, 0.02, 0.05])
    means = [np.mean(difference * signs) for signs in product((1, -1), repeat=6)]
    expected = np.mean(np.abs(means) >= abs(difference.mean()) - 1e-12)
    reference = np.linspace(0.5, 0.6, 6)
    result = compare_pairs(runs(reference + difference), runs(reference))
    assert result.p == pytest.approx(expected)
    assert result.difference == pytest.approx(difference.mean())
    assert result.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert result.low < result.difference < result.high
    assert (result.n, result.unmatched, result.exact) == (6, 0, True)


def test_compare_pairs_in_any_order_matches_folds():
    values, reference = runs([0.7, 0.8, 0.9], folds=[0, 1, 2]), runs([0.6, 0.5, 0.4], folds=[3, 1, 0])
    result = compare_pairs(values, reference)
    assert (result.n, result.unmatched) == (2, 2)
    assert result.difference == pytest.approx(((0.7 - 0.4) + (0.8 - 0.5)) / 2)


def test_compare_pairs_with_failed_run_counts_it_as_unmatched():
    result = compare_pairs(runs([0.7, float("nan")]), runs([0.6, 0.6]))
    assert (result.n, result.unmatched) == (1, 1)
    assert np.isnan([result.low, result.high, result.effect_size, result.p, result.smallest_p]).all()
    alone = compare_pairs(pd.Series([0.7], index=["clip"]), pd.Series([0.6], index=["clip"]))
    assert alone.p == alone.smallest_p == 1


def test_compare_pairs_without_difference_or_pair():
    same = compare_pairs(runs([0.7, 0.8]), runs([0.7, 0.8]))
    assert (same.difference, same.p) == (0, 1)
    assert np.isnan(same.effect_size)
    apart = compare_pairs(runs([0.7], folds=[1]), runs([0.7], folds=[2]))
    assert (apart.n, apart.unmatched) == (0, 2)
    assert np.isnan([apart.p, apart.smallest_p, apart.difference]).all()


def test_compare_pairs_of_many_folds_samples_sign_flips():
    rng = np.random.default_rng(0)
    reference = rng.normal(0.6, 0.02, 30)
    values = reference + rng.normal(0.004, 0.02, 30)  # p is large enough for 65,536 flips
    result = compare_pairs(runs(values), runs(reference))
    assert not result.exact
    difference = values - reference
    library = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=2**14, vectorized=True, batch=2**12, rng=rng
    )
    assert result.p == pytest.approx(library.pvalue, abs=0.01)
    assert result.smallest_p < 1e-4
    assert result.p == pytest.approx(stats.ttest_rel(values, reference).pvalue, rel=0.1)  # close for normal values
    assert result == compare_pairs(runs(values), runs(reference))


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


@pytest.mark.parametrize(("folds", "seeds"), SHAPES)
def test_compare_pairs_without_effect_keeps_error_rate(folds, seeds):
    """With signs flipped per run, p is below .05 in 27 % (5 folds x 3 seeds) to 42 % (3 x 5)."""
    assert false_positives(folds, seeds, trials=300) <= 0.07


def test_compare_pairs_of_single_fold_makes_no_test():
    index = pd.MultiIndex.from_product([[1], range(10)])
    values = pd.Series(np.linspace(0.7, 0.8, 10), index=index)
    result = compare_pairs(values, values - np.linspace(0.01, 0.03, 10))
    assert np.isnan([result.p, result.smallest_p]).all()
    assert (result.over, result.n, result.pairs, result.contradicts) == ("seeds", 10, 10, False)
    assert 0.01 < result.low < 0.02 < result.high < 0.03


def test_compare_pairs_averages_seeds_within_folds():
    index = pd.MultiIndex.from_product([range(3), range(4)])
    values = pd.Series(np.random.default_rng(0).normal(0.02, 0.01, 12), index=index)
    result, means = compare_pairs(values, 0 * values), average_seeds(values)
    assert means.tolist() == pytest.approx(values.to_numpy().reshape(3, 4).mean(1).tolist())
    assert (result.n, result.pairs, result.smallest_p) == (3, 12, 0.25)
    assert (result.low, result.high) == pytest.approx(stats.t.interval(0.95, 2, means.mean(), stats.sem(means)))


def test_contradicts_if_interval_excludes_0_but_p_is_above_5_percent():
    five = compare_pairs(runs([0.81, 0.82, 0.83, 0.82, 0.81]), runs([0.7] * 5))
    assert five.low > 0
    assert five.p == 0.0625
    assert five.contradicts
    assert not compare_pairs(runs([0.81, 0.82, 0.83, 0.82, 0.81, 0.82]), runs([0.7] * 6)).contradicts


def test_equivalence_p_value_equals_statsmodels_tost():
    difference = np.random.default_rng(1).normal(0.002, 0.01, 10)
    assert equivalence_p_value(difference, margin=0.01) == pytest.approx(
        weightstats.DescrStatsW(difference).ttost_mean(-0.01, 0.01)[0]
    )
    assert equivalence_p_value(difference, margin=equivalence_margin(difference)) == pytest.approx(0.05)
    assert np.isnan(equivalence_p_value([0.01], margin=0.1))
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
