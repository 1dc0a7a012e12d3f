"""Table of ensembles, from logits written to a store."""

import numpy as np
import pytest
from finished_runs import finish, plan_of, scored
from scipy import stats

from analysis.ensembles import write_ensemble_report
from analysis.output.output_folder import OutputFolder
from core.config.run import Run
from core.session import Session

CLIPS = 1000


def members(session: Session, correct: dict[tuple[int, int], int]) -> OutputFolder:
    """Return the output folder of a plan with `correct` clips of `CLIPS` by (fold, seed); 0 for a missing run."""
    runs = {key: Run(seed=key[1]).replace(data__fold=key[0]) for key in correct}
    for key, run in runs.items():
        if correct[key]:
            finish(session.store, run, *scored(correct[key], CLIPS))
    first = min(seed for _, seed in correct)
    by_member: dict[str, list[Run]] = {}
    for (_, seed), run in runs.items():
        by_member.setdefault(f"member {seed - first + 1}", []).append(run)
    return OutputFolder(plan_of(by_member, ablation="ensemble"), session, session.store.results / "ensemble")


def test_ensemble_report_standard_deviation_is_between_members(session: Session) -> None:
    """Over folds and members together it would be 6.0 points; the members differ by 0.05 points."""
    correct = {(1, 0): 837, (1, 1): 838, (1, 2): 838, (2, 0): 947, (2, 1): 947, (2, 2): 948}
    single, _ = write_ensemble_report(members(session, correct), title="Network").to_dict("records")
    assert np.std([n / CLIPS for n in correct.values()], ddof=1) == pytest.approx(0.060, abs=1e-4)
    assert single["accuracy_std"] == pytest.approx(0.0005)
    assert single["accuracy"] == pytest.approx(np.mean(list(correct.values())) / CLIPS)


def test_ensemble_report_change_is_over_folds_with_ensemble(session: Session) -> None:
    """Fold 2 has a single member left. With it, single networks have 90 % and a change of −5 points to the ensemble."""
    correct = {(1, 0): 850, (1, 1): 850, (2, 0): 950, (2, 1): 0}
    single, ensemble = write_ensemble_report(members(session, correct), title="Network").to_dict("records")
    assert (single["accuracy"], ensemble["accuracy"]) == pytest.approx((0.85, 0.85))
    assert ensemble["delta"] == 0.0
    assert single["accuracy_std"] == 0.0
    assert ensemble["missing"] == 1


def test_ensemble_report_with_missing_member_weights_folds_equally(session: Session) -> None:
    correct = {(1, 0): 850, (1, 1): 850, (1, 2): 850, (2, 0): 950, (2, 1): 950, (2, 2): 0}
    single, ensemble = write_ensemble_report(members(session, correct), title="Network").to_dict("records")
    assert single["accuracy"] == pytest.approx(0.9)
    assert single["accuracy_std"] == pytest.approx(0.0)
    assert ensemble["delta"] == pytest.approx(0.0)


def test_ensemble_report_tests_difference_to_mean_member_over_folds(session: Session) -> None:
    """In fold k each of three members errs on other 30 k clips, so that the ensemble is always correct."""
    results = members(session, {(fold, seed): 1 for fold in (1, 2, 3, 4) for seed in (0, 1, 2)})
    for run in results.plan.runs:
        logits, targets = scored(CLIPS, CLIPS)
        errors = run.seed * 300 + np.arange(30 * run.data.fold)
        logits[errors] = logits[errors][:, ::-1]
        finish(session.store, run, logits, targets, clips={"train": 6000, "validation": 0, "test": CLIPS})
    single, ensemble = write_ensemble_report(results, title="Network").to_dict("records")
    assert (single["accuracy"], ensemble["accuracy"], ensemble["delta"]) == pytest.approx((0.925, 1.0, 0.075))
    error = np.sqrt(0.0015) * np.sqrt(1 / 4 + CLIPS / 6000)  # variance of the differences 0.03, 0.06, 0.09, 0.12
    assert ensemble["high"] - ensemble["delta"] == pytest.approx(3.1824463 * error)  # t quantile, 3 degrees of freedom
    assert ensemble["delta"] - ensemble["low"] == pytest.approx(3.1824463 * error)
    assert ensemble["p"] == pytest.approx(2 * stats.t.sf(0.075 / error, 3))
    assert ensemble["p_holm"] == ensemble["p"] < 0.1
    assert np.isnan([single["low"], single["high"], single["p_holm"]]).all()
    text = (results.folder / "table.md").read_text()
    assert "**100.0**" in text
    assert "Missing members" not in text


def test_ensemble_report_of_one_fold_has_no_test_and_no_bold(session: Session) -> None:
    results = members(session, {(1, 0): 700, (1, 1): 800, (1, 2): 900})
    single, ensemble = write_ensemble_report(results, title="Network").to_dict("records")
    assert ensemble["delta"] == pytest.approx(0)
    assert ensemble["disagreement"] > 0
    assert np.isnan([ensemble["low"], ensemble["high"], ensemble["p"], ensemble["p_holm"]]).all()
    assert single["nll"] != ensemble["nll"]
    assert "**" not in (results.folder / "table.md").read_text().split("\n", 1)[1]


def test_ensemble_report_names_folds_that_lack_members(session: Session) -> None:
    correct = {(fold, seed): 800 + fold for fold in (1, 2, 3, 4) for seed in (0, 1, 2)}
    lacking = {(2, 0): 0, (3, 0): 0, (3, 1): 0, (4, 0): 0, (4, 1): 0, (4, 2): 0}
    results = members(session, correct | lacking)
    single, ensemble = write_ensemble_report(results, title="Network").to_dict("records")
    assert (single["folds"], ensemble["folds"], single["compared"]) == (2, 2, 5)
    assert single["accuracy"] == ensemble["accuracy"] == pytest.approx(0.8015)  # folds 1 and 2
    text = (results.folder / "table.md").read_text()
    assert (
        "Missing members: fold 2 has 2 of 3; fold 3 has 1 of 3; fold 4 has 0 of 3. An ensemble needs 2: fold 3, 4 left "
        "out of both rows." in text
    )
    assert "missing (6 of 12), 5 of 12 compared" in text


def test_ensemble_report_best_epoch_averages_outputs_of_best_epochs(session: Session) -> None:
    """At their best epochs two of three members are correct on each clip; at the last epoch all err on the same."""
    results = members(session, {(1, 0): 600, (1, 1): 600, (1, 2): 600})
    last, targets = scored(600, CLIPS)
    wrong = np.array_split(np.arange(CLIPS), 3)
    for run, clips in zip(results.plan.runs, wrong, strict=True):
        best, _ = scored(CLIPS, CLIPS)
        best[clips] = best[clips][:, ::-1]
        finish(session.store, run, last, targets, best=best)
    single, ensemble = write_ensemble_report(results, title="Network").to_dict("records")
    assert single["accuracy_best_epoch"] == pytest.approx(2 / 3, abs=1e-3)
    assert ensemble["accuracy_best_epoch"] == 1.0
    assert ensemble["delta_best_epoch"] == pytest.approx(1 / 3, abs=1e-3)
    assert (single["accuracy"], ensemble["accuracy"], ensemble["delta"]) == pytest.approx((0.6, 0.6, 0.0))
    finish(session.store, results.plan.runs[0], last, targets)  # without logits of the best epoch
    _, ensemble = write_ensemble_report(results, title="Network").to_dict("records")
    assert np.isnan([ensemble["accuracy_best_epoch"], ensemble["delta_best_epoch"]]).all()


def test_ensemble_report_without_finished_member_has_no_scores(session: Session) -> None:
    frame = write_ensemble_report(members(session, {(1, 0): 0, (1, 1): 0}), title="Network")
    assert frame[["accuracy", "accuracy_std", "macro_f1", "ece"]].isna().all(axis=None)
    assert frame["missing"].tolist() == [2, 2]
