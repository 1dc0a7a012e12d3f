"""Chance level of an accuracy, and tests against it."""

import numpy as np
import pytest
from finished_runs import finish, plan_of
from scipy import stats

from analysis.condition_report import make_footnotes, make_single_run_notes
from analysis.metrics.chance import above_chance_p_value, name_chance
from analysis.metrics.condition_summary import summarise_conditions
from analysis.statistics.paired_comparisons import compare_with_reference
from core.config.run import Run
from core.session import Session


def test_p_value_of_independent_clips_equals_binomial_test() -> None:
    correct = np.arange(120) < 19
    expected = stats.binomtest(19, 120, 0.1, alternative="greater").pvalue
    assert above_chance_p_value(correct, 0.1) == pytest.approx(expected)
    assert above_chance_p_value(correct, 0.1, groups=np.arange(120)) == pytest.approx(expected)


def test_p_value_of_recordings_has_few_false_positives() -> None:
    """With all clips of a recording right or wrong together, the test over clips rejects far too often."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 8)
    p = [
        (above_chance_p_value(correct, 0.2, groups=groups), above_chance_p_value(correct, 0.2))
        for correct in (np.repeat(rng.random(60) < 0.2, 8) for _ in range(400))
    ]
    by_recording, by_clip = np.mean(np.array(p) < 0.05, axis=0)
    assert by_recording < 0.07
    assert by_clip > 0.2


def test_report_names_conditions_not_above_chance(session: Session) -> None:
    """The largest class has half of the clips, so 56 % is not above chance although there are three classes."""
    targets = np.repeat([0, 1, 2], [50, 30, 20])
    runs = {"none": [Run()], "stem": [Run().replace(model__freeze="stem")]}
    finish(session.store, runs["none"][0], np.eye(3)[np.where(np.arange(100) < 80, targets, 2 - targets)], targets)
    finish(session.store, runs["stem"][0], np.eye(3)[np.where(np.arange(100) < 56, targets, 0)], targets)
    plan = plan_of(runs, groups=[str(k) for k in range(100)])
    frame = summarise_conditions(plan, session.store)
    assert (frame["chance"].tolist(), frame["n_classes"].tolist()) == ([0.5, 0.5], [3, 3])
    (note,) = [note for note in make_footnotes(plan, session.store) if "chance" in note]
    assert note.startswith("Accuracy not above chance, 50.0 % (largest class): stem. One-sided binomial")


def test_single_runs_have_mcnemar_p_values_below_the_table(session: Session) -> None:
    targets = np.arange(100) % 2
    runs = {"none": [Run()], "stem": [Run().replace(model__freeze="stem")]}
    for name, right in (("none", 90), ("stem", 72)):
        predicted = np.where(np.arange(100) < right, targets, 1 - targets)
        finish(session.store, runs[name][0], np.eye(2)[predicted], targets)
    plan = plan_of(runs, groups=[str(k) for k in range(100)])
    (note,) = make_single_run_notes(compare_with_reference(plan, session.store))
    expected = stats.binomtest(0, 18).pvalue
    assert expected < 0.0005
    assert "(Holm-corrected): stem p <.001. It compares" in note
    repeated = {name: [run[0], run[0].replace(seed=1)] for name, run in runs.items()}
    finish(session.store, repeated["none"][1], np.eye(2)[targets], targets)
    finish(session.store, repeated["stem"][1], np.eye(2)[targets], targets)
    plan = plan_of(repeated, groups=[str(k) for k in range(100)])
    assert make_single_run_notes(compare_with_reference(plan, session.store)) == []


def test_name_chance_of_equal_classes() -> None:
    assert name_chance(0.1, 10) == "10.0 % (1 / 10)"
    assert name_chance(0.11, 10) == "11.0 % (largest class)"
