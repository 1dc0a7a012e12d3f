from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.statistics import describe, holm, mcnemar, paired


def runs(values, *, seeds=None):
    """Index values by (fold, seed), one fold."""
    pairs = [(1, seed) for seed in (seeds or range(len(values)))]
    return pd.Series(values, index=pd.MultiIndex.from_tuples(pairs, names=["fold", "seed"]), dtype=float)


def test_describe_by_hand():
    shape = describe([0.6, 0.7, 0.8])
    assert (shape.mean, shape.std, shape.n) == (pytest.approx(0.7), pytest.approx(0.1), 3)
    assert 0.6 <= shape.low < 0.7 < shape.high <= 0.8


def test_describe_interval_is_close_to_students_t_on_normal_values():
    values = np.random.default_rng(3).normal(0.7, 0.05, 200)
    shape = describe(values)
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert shape.low == pytest.approx(low, abs=1e-3)
    assert shape.high == pytest.approx(high, abs=1e-3)


def test_describe_is_repeatable_and_widens_with_confidence():
    values = [0.5, 0.6, 0.9, 0.7, 0.65]
    assert describe(values) == describe(values)
    assert describe(values, confidence=0.99).low < describe(values).low


def test_describe_one_equal_and_no_values():
    one = describe([0.5])
    assert (one.mean, one.n) == (0.5, 1)
    assert np.isnan([one.std, one.low, one.high]).all()
    equal = describe([0.1 + 0.2, 0.3, 0.3])  # equal but for rounding
    assert (equal.std, equal.low, equal.high) == (0, equal.mean, equal.mean)
    none = describe([])
    assert none.n == 0
    assert np.isnan([none.mean, none.std, none.low, none.high]).all()


def test_describe_refuses_failed_runs():
    with pytest.raises(ValueError, match="values must be finite: count failed runs apart"):
        describe([0.5, float("nan")])


def test_paired_p_equals_enumeration_by_hand():
    difference = np.array([0.03, 0.01, -0.02, 0.04, 0.02, 0.05])
    means = [np.mean(difference * signs) for signs in product((1, -1), repeat=6)]
    expected = np.mean(np.abs(means) >= abs(difference.mean()) - 1e-12)
    reference = np.linspace(0.5, 0.6, 6)
    result = paired(runs(reference + difference), runs(reference))
    assert result.p == pytest.approx(expected)
    assert result.difference == pytest.approx(difference.mean())
    assert result.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert result.low < result.difference < result.high
    assert (result.n, result.unmatched, result.exact) == (6, 0, True)


def test_five_pairs_cannot_fall_below_a_sixteenth():
    result = paired(runs([0.91, 0.92, 0.93, 0.95, 0.94]), runs([0.1] * 5))
    assert result.p == result.smallest_p == 0.0625


def test_a_pair_without_difference_does_not_lower_the_smallest_p():
    result = paired(runs([0.9, 0.8, 0.7, 0.6, 0.5]), runs([0.1, 0.1, 0.1, 0.1, 0.5]))
    assert result.p == result.smallest_p == 0.125


def test_paired_matches_pairs_whatever_their_order():
    values, reference = runs([0.7, 0.8, 0.9], seeds=[0, 1, 2]), runs([0.6, 0.5, 0.4], seeds=[3, 1, 0])
    result = paired(values, reference)
    assert (result.n, result.unmatched) == (2, 2)
    assert result.difference == pytest.approx(((0.7 - 0.4) + (0.8 - 0.5)) / 2)


def test_paired_counts_a_failed_run_as_unmatched():
    result = paired(runs([0.7, float("nan")]), runs([0.6, 0.6]))
    assert (result.n, result.unmatched) == (1, 1)
    assert np.isnan([result.low, result.high, result.effect_size]).all()
    assert result.p == result.smallest_p == 1


def test_paired_without_any_difference_or_pair():
    same = paired(runs([0.7, 0.8]), runs([0.7, 0.8]))
    assert (same.difference, same.p) == (0, 1)
    assert np.isnan(same.effect_size)
    apart = paired(runs([0.7], seeds=[1]), runs([0.7], seeds=[2]))
    assert (apart.n, apart.unmatched) == (0, 2)
    assert np.isnan([apart.p, apart.smallest_p, apart.difference]).all()


def test_paired_samples_the_sign_flips_of_many_pairs():
    rng = np.random.default_rng(0)
    reference = rng.normal(0.6, 0.02, 30)
    values = reference + rng.normal(0.008, 0.02, 30)
    result = paired(runs(values), runs(reference))
    assert not result.exact
    assert result.smallest_p < 1e-4
    assert result.p == pytest.approx(stats.ttest_rel(values, reference).pvalue, rel=0.1)  # close for normal values
    assert result == paired(runs(values), runs(reference))


def test_paired_refuses_a_run_twice():
    with pytest.raises(ValueError, match=r"more than one run for \(1, 7\)"):
        paired(runs([0.1, 0.2], seeds=[7, 7]), runs([0.1]))


def test_mcnemar_exact_is_the_binomial_test():
    a = np.array([1] * 9 + [0] * 2 + [1] * 20 + [0] * 5)
    b = np.array([0] * 9 + [1] * 2 + [1] * 20 + [0] * 5)
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b, result.n, result.exact) == (9, 2, 36, True)
    assert result.p == pytest.approx(stats.binomtest(2, 11).pvalue)


def test_mcnemar_of_many_is_chi_squared():
    a, b = np.array([1] * 40 + [0] * 20), np.array([0] * 40 + [1] * 20)
    result = mcnemar(a, b)
    assert not result.exact
    assert result.p == pytest.approx(stats.chi2.sf((abs(40 - 20) - 1) ** 2 / 60, 1))


def test_mcnemar_without_discordant_clips():
    assert mcnemar([True, False], [True, False]).p == 1


def test_mcnemar_refuses_different_clips():
    with pytest.raises(ValueError, match=r"correct_a \(2,\) and correct_b \(3,\) must be"):
        mcnemar([1, 0], [1, 0, 1])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.5, 0.9]) == pytest.approx((1.0, 1.0))


def test_holm_leaves_out_what_was_not_tested():
    corrected = holm([0.01, float("nan"), 0.04])
    assert corrected[::2] == pytest.approx((0.02, 0.04))
    assert np.isnan(corrected[1])
    assert holm([]) == ()
