"""Power of the corrected t test: by simulation, against statsmodels, and in the footnotes."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of, scored
from scipy import stats
from statsmodels.stats.power import TTestPower

from analysis.statistics.hypothesis_tests import FoldSizes, error_of_mean
from analysis.statistics.paired_comparisons import (
    compare_with_reference,
    comparison_footnotes,
    planned_power_note,
    power_notes,
)
from analysis.statistics.power import (
    SPREAD_COLUMNS,
    compute_power,
    min_detectable_difference,
    pool_components,
    required_seeds,
    variance_components,
)
from core.config.run import Run
from core.datasets.dataset import Split
from core.store.run_store import Store
from tests.benchmarks.simulations.power import name_seeds, simulate_power

FOLD_SD, SEED_SD = 0.02, 0.01


@pytest.mark.parametrize(("folds", "comparisons"), [(3, 1), (10, 1), (5, 4)])
def test_corrected_t_test_at_min_detectable_difference_has_power_of_80_percent(folds, comparisons):
    """In 3 to 10 folds that are correlated as Nadeau and Bengio assume; with independent folds the power is higher."""
    level = 0.05 / comparisons
    assert simulate_power(folds, correlated=True, level=level) == pytest.approx(0.8, abs=0.015)
    assert simulate_power(folds, correlated=False, level=level) > 0.8


@pytest.mark.parametrize("folds", [3, 100])
def test_power_equals_statsmodels(folds):
    assert compute_power(0.01, 0.02 / np.sqrt(folds), folds) == pytest.approx(TTestPower().power(0.5, folds, 0.05))
    assert compute_power(0.01, 0.02 / np.sqrt(folds), folds, level=0.01) == pytest.approx(
        TTestPower().power(0.5, folds, 0.01)
    )
    assert compute_power(0, 0.02, folds) == pytest.approx(0.05)


@pytest.mark.parametrize("folds", [2, 5, 9999])
@pytest.mark.parametrize("level", [0.05, 0.0005])
def test_min_detectable_difference_of_any_design_has_power_of_80_percent(folds, level):
    difference = min_detectable_difference(0.02, folds, level=level)
    assert compute_power(difference, 0.02, folds, level=level) == pytest.approx(0.8)
    assert compute_power(1.0, 1e-5, folds, level=level) == pytest.approx(1.0)


def test_min_detectable_difference_of_few_folds():
    assert min_detectable_difference(0.02, 2) > 0.2
    assert math.isnan(min_detectable_difference(0.02, 1))
    assert min_detectable_difference(0.0, 5) == 0.0


def test_variance_components_recover_simulated_folds_and_seeds():
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([range(2000), range(3)])
    values = rng.normal(0, FOLD_SD, (2000, 1)) + rng.normal(0, SEED_SD, (2000, 3))
    std, fold_std, seed_std = variance_components(pd.Series(values.ravel(), index=index))
    assert (fold_std, seed_std) == pytest.approx((FOLD_SD, SEED_SD), rel=0.05)
    assert std == pytest.approx(np.sqrt(FOLD_SD**2 + SEED_SD**2 / 3), rel=0.05)


def test_required_seeds_below_spread_of_folds_is_none():
    sizes = FoldSizes(9000, 1000)
    error = error_of_mean(np.array([np.sqrt(FOLD_SD**2 + SEED_SD**2 / 4), FOLD_SD]), 10, sizes)
    difference, least = (min_detectable_difference(value, 10) for value in error)
    assert required_seeds(FOLD_SD, SEED_SD, 10, sizes, difference * (1 + 1e-9)) == 4
    assert required_seeds(FOLD_SD, SEED_SD, 10, sizes, least * 0.99) is None
    few_clips = FoldSizes(180, 20)  # one clip is 5 points
    assert required_seeds(FOLD_SD, SEED_SD, 10, few_clips, difference * (1 + 1e-9)) is None


def test_pool_components_uses_the_same_rows():
    rows = pd.DataFrame([[0.05, np.nan, np.nan], [0.03, 0.02, 0.04], [0.05, 0.04, 0.03]], columns=SPREAD_COLUMNS)
    mean_square = ((np.array([[0.03, 0.02, 0.04], [0.05, 0.04, 0.03]]) ** 2).mean(axis=0)) ** 0.5
    assert pool_components(rows) == pytest.approx(mean_square)
    assert pool_components(rows[:1]) == pytest.approx((0.05, np.nan, np.nan), nan_ok=True)
    assert np.isnan(pool_components(rows[:0])).all()


def comparison(differences, *, test=1000, dataset="instruments"):
    """Return the row of `power_notes` for differences of shape (folds, seeds)."""
    folds, seeds = np.shape(differences)
    index = pd.MultiIndex.from_product([range(folds), range(seeds)])
    spread = variance_components(pd.Series(np.ravel(differences), index=index, dtype=float))
    sizes = {"train_clips": (folds - 1) * test, "test_clips": test}
    return (
        {"dataset": dataset, "planned_folds": folds, "folds": folds, "seeds": seeds}
        | sizes
        | dict(zip(SPREAD_COLUMNS, spread, strict=True))
    )


def test_power_note_never_names_fewer_seeds_than_there_are():
    """The number came from standard deviations of different rows: 1 seed for a study with two seeds."""
    rng = np.random.default_rng(1)
    named = []
    for seeds in (1, 2, 3, 5):
        for _ in range(15):
            several = rng.normal(0, 0.01, (10, 1)) + rng.normal(0, 0.03, (10, seeds))
            one_seed = rng.normal(0, 0.08, (10, 1))
            [note] = power_notes(pd.DataFrame([comparison(one_seed), comparison(several)]))
            numbers = [int(number) for number in re.findall(r"about (\d+) seeds per fold", note)]
            assert all(number > seeds for number in numbers), note
            named += numbers
    assert len(named) >= 5


def test_power_note_if_no_number_of_seeds_suffices_rarely_names_one():
    """It named one in 25 % of studies, whenever the estimated standard deviation between folds was 0."""
    assert name_seeds(5, 2, trials=60) <= 0.1


def test_power_notes_per_data_set_state_power_before_and_after_correction():
    rng = np.random.default_rng(2)
    five, two = rng.normal(0, 0.05, (5, 1)), rng.normal(0, 0.05, (2, 1))
    rows = [comparison(five, test=120, dataset="esc50"), comparison(two, test=120, dataset="gtzan")]
    first, second = power_notes(pd.DataFrame(rows))
    error = float(error_of_mean(five.std(ddof=1), 5, FoldSizes(480, 120)))
    before, after = (100 * min_detectable_difference(error, 5, level=level) for level in (0.05, 0.025))
    assert first.startswith("Power on esc50: with 5 folds of 120 test clips")
    assert f"detects a true difference of {before:.1f} points at p < .05 in 80 % of studies" in first
    assert f"in the first of 2 steps of Holm's correction, a true difference of {after:.1f} points." in first
    assert "detects no true difference of up to 100 points at p" in second  # two folds


def test_power_note_of_equal_differences_has_lower_bound_of_one_clip():
    [note] = power_notes(pd.DataFrame([comparison(np.full((5, 1), 0.1), test=100)]))
    assert "a standard deviation of 1.0 points" in note


class Clips:
    """A data set with the same number of clips in each of five folds; every clip is its own recording."""

    def __init__(self, test=1000):
        self.test = test
        self.clips = pd.DataFrame({"path": [f"{k}.wav" for k in range(test)], "group": [str(k) for k in range(test)]})

    def split(self, fold, *, validation):
        assert validation == 0
        return Split(np.arange(4 * self.test), np.arange(0), np.arange(self.test))


def design(store, correct, *, test=1000):
    """Return a plan with one condition and the reference; number of correct clips by condition and fold."""
    runs = {}
    for name, stage in (("none", "none"), ("block3", "block3")):
        runs[name] = [Run().replace(data__fold=k + 1, model__freeze=stage) for k in range(len(correct["none"]))]
        for run, n in zip(runs[name], correct[name], strict=True):
            if n:
                finish(store, run, *scored(n, test), clips={"train": 4 * test, "validation": 0, "test": test})
    plan = plan_of(runs)
    return type(plan)(plan.ablation, plan.planned, {Run().data.content: Clips(test)})


def test_planned_power_note_uses_finished_pairs(tmp_path):
    store = Store(tmp_path)
    nothing = {"none": [0] * 5, "block3": [0] * 5}
    for test, points in ((1000, 1.6), (120, 4.6)):  # square root of .25 / test
        before = planned_power_note(design(store, nothing, test=test), store)
        assert f"5 folds of {test} test clips and an assumed standard deviation of {points} points" in before
        assert "two networks differ in 25 % of the test clips" in before
    after = planned_power_note(design(store, {"none": [800] * 5, "block3": [790, 800, 810, 795, 805]}), store)
    assert f"a standard deviation of {np.std([-1, 0, 1, -0.5, 0.5], ddof=1):.1f} points" in after
    assert "assumed" not in after
    assert planned_power_note(design(store, {"none": [0], "block3": [0]}), store).startswith("Single fold")
    members = plan_of({"member 1": [Run()], "member 2": [Run(seed=1)]})
    assert planned_power_note(members, store) == ""  # nothing is compared


def test_comparison_footnotes_of_few_recordings_state_smallest_corrected_p(tmp_path):
    store = Store(tmp_path)
    plan = design(store, {"none": [1, 1, 1], "block3": [0, 2, 2]}, test=4)
    finish(store, plan.planned[3].run, *scored(0, 4), clips={"train": 16, "validation": 0, "test": 4})
    plan.datasets[""].clips["group"] = ["a", "a", "b", "b"]
    frame = compare_with_reference(plan, store)
    assert frame["mcnemar_units"].tolist() == [2]
    smallest = "McNemar p (Holm) cannot be below 0.500, because there are only 2 independent clips or groups."
    assert smallest in comparison_footnotes(frame)
    doubled = pd.concat([frame, frame], ignore_index=True)  # two rows: the smallest p is corrected as well
    assert smallest.replace("0.500", "1.000") in comparison_footnotes(doubled)
    assert not any("cannot be below" in note for note in comparison_footnotes(frame.assign(mcnemar_units=20)))


@pytest.mark.parametrize(("margin", "equivalent"), [(0.03, "block3."), (0.001, "none.")])
def test_comparison_footnotes_name_equivalent_conditions(tmp_path, margin, equivalent):
    store = Store(tmp_path)
    plan = design(store, {"none": [800] * 5, "block3": [790, 800, 810, 795, 805]})
    frame = compare_with_reference(plan, store, margin=margin)
    (note,) = [note for note in comparison_footnotes(frame, margin=margin) if "equivalent to the reference" in note]
    assert f"within {100 * margin:g} points" in note
    assert note.endswith(equivalent)
    difference = np.array([-0.01, 0, 0.01, -0.005, 0.005])
    error = difference.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    p = stats.t.sf((margin - abs(difference.mean())) / error, 4)
    assert frame["equivalence_p"].tolist() == pytest.approx([p])
    assert any(note.startswith("Power: ") for note in comparison_footnotes(frame))
    assert "equivalence_p" not in compare_with_reference(plan, store)
