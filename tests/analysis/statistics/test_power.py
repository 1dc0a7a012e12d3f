"""Power of a paired t test: by simulation, against statsmodels, and in the footnotes."""

import math

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of, scored
from scipy import stats
from statsmodels.stats.power import TTestPower

from analysis.statistics.paired_comparisons import (
    compare_with_reference,
    comparison_footnotes,
    planned_power_note,
)
from analysis.statistics.power import (
    MAX_UNITS,
    compute_power,
    min_detectable_difference,
    required_folds,
    required_seeds,
    variance_components,
)
from core.config.run import Run
from core.store.runs import Store

FOLD_SD, SEED_SD = 0.02, 0.01


@pytest.mark.parametrize("folds", [3, 10])
def test_min_detectable_difference_in_simulation_has_power_of_80_percent(folds):
    difference = min_detectable_difference(0.02, folds)
    values = np.random.default_rng(folds).normal(difference, 0.02, (20_000, folds))
    detected = np.mean(stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05)
    assert detected == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("folds", [3, 100])
def test_power_equals_statsmodels(folds):
    assert compute_power(0.01, 0.02, folds) == pytest.approx(TTestPower().power(0.5, folds, 0.05), abs=1e-6)
    assert compute_power(0, 0.02, folds) == pytest.approx(0.05)


def test_min_detectable_difference_of_few_folds():
    assert min_detectable_difference(0.02, 2) > 0.2
    assert math.isnan(min_detectable_difference(0.02, 1))
    assert min_detectable_difference(0.0, 5) == 0.0


def test_required_folds_is_smallest_sufficient_number():
    folds = required_folds(0.02, 0.01)
    assert compute_power(0.01, 0.02, folds) >= 0.8 > compute_power(0.01, 0.02, folds - 1)
    assert required_folds(1.0, 1e-4) is None
    assert required_folds(0.0, 0.01) == 2
    assert 0.99 < compute_power(1.0, 1e-3, MAX_UNITS) <= 1.0


def test_variance_components_recover_simulated_folds_and_seeds():
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([range(2000), range(3)])
    values = rng.normal(0, FOLD_SD, (2000, 1)) + rng.normal(0, SEED_SD, (2000, 3))
    std, fold_std, seed_std = variance_components(pd.Series(values.ravel(), index=index))
    assert (fold_std, seed_std) == pytest.approx((FOLD_SD, SEED_SD), rel=0.05)
    assert std == pytest.approx(np.sqrt(FOLD_SD**2 + SEED_SD**2 / 3), rel=0.05)


def test_required_seeds_below_spread_of_folds_is_none():
    difference = min_detectable_difference(np.sqrt(FOLD_SD**2 + SEED_SD**2 / 4), 10)
    assert required_seeds(FOLD_SD, SEED_SD, 10, difference * (1 + 1e-9)) == 4
    assert required_seeds(FOLD_SD, SEED_SD, 10, min_detectable_difference(FOLD_SD, 10) * 0.99) is None


class Clips:
    """A data set in which every clip is its own recording."""

    clips = pd.DataFrame({"path": [f"{k}.wav" for k in range(1000)], "group": [str(k) for k in range(1000)]})


def design(store, correct):
    """Return a plan with one condition and the reference; `correct` clips of 1000 by condition and fold."""
    runs = {}
    for name, stage in (("none", "none"), ("block3", "block3")):
        runs[name] = [Run().replace(data__fold=fold, model__freeze=stage) for fold in range(len(correct["none"]))]
        for run, n in zip(runs[name], correct[name], strict=True):
            if n:
                finish(store, run, *scored(n, 1000), clips={"train": 4000, "validation": 0, "test": 1000})
    plan = plan_of(runs)
    return type(plan)(plan.ablation, plan.planned, {Run().data.content: Clips()})


def test_planned_power_note_uses_finished_pairs(tmp_path):
    store = Store(tmp_path)
    before = planned_power_note(design(store, {"none": [0] * 5, "block3": [0] * 5}), store)
    assert "5 folds and a standard deviation of 2.0 points" in before
    assert "assumed" in before
    after = planned_power_note(design(store, {"none": [800] * 5, "block3": [790, 800, 810, 795, 805]}), store)
    assert f"standard deviation of {np.std([-1, 0, 1, -0.5, 0.5], ddof=1):.1f} points" in after
    assert "assumed" not in after
    assert planned_power_note(design(store, {"none": [0], "block3": [0]}), store).startswith("Single fold")
    members = plan_of({"member 1": [Run()], "member 2": [Run(seed=1)]})
    assert planned_power_note(members, store) == ""  # nothing is compared


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
