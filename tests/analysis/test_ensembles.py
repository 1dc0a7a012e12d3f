"""What a table says of ensembles, from outputs written to a store."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from finished_runs import finish, plan_of, scored

from analysis.ensembles import MAX_SUBSETS, _sample_subsets, write_ensemble_report
from analysis.output.folder import OutputFolder
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.session import Session

CLIPS = 1000


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1))


def members(session: Session, right: dict[tuple[int, int], int]) -> OutputFolder:
    """Return results over members, `right` clips of `CLIPS` by (fold, seed); 0 for a run that is missing."""
    runs = {key: Run(seed=key[1]).replace(data__fold=key[0]) for key in right}
    for key, run in runs.items():
        if right[key]:
            finish(session.store, run, *scored(right[key], CLIPS))
    first = min(seed for _, seed in right)
    by_member: dict[str, list[Run]] = {}
    for (_, seed), run in runs.items():
        by_member.setdefault(f"member {seed - first + 1}", []).append(run)
    return OutputFolder(plan_of(by_member, ablation="ensemble"), session, session.store.results / "ensemble")


def test_deviation_is_between_members_and_no_part_of_it_between_folds(session: Session) -> None:
    """Pooled over folds and members it was ±6.0 points here, where the members' means differ by 0.05."""
    right = {(1, 0): 837, (1, 1): 838, (1, 2): 838, (2, 0): 947, (2, 1): 947, (2, 2): 948}
    single, _ = write_ensemble_report(members(session, right), title="Network").to_dict("records")
    assert np.std([n / CLIPS for n in right.values()], ddof=1) == pytest.approx(0.060, abs=1e-4)
    assert single["accuracy_std"] == pytest.approx(0.0005)
    assert single["accuracy"] == pytest.approx(np.mean(list(right.values())) / CLIPS)


def test_change_is_over_the_folds_that_have_an_ensemble(session: Session) -> None:
    """Fold 2 has one member left: pooled with the others it made a change of −3.3 points out of nothing."""
    right = {(1, 0): 850, (1, 1): 850, (2, 0): 950, (2, 1): 0}
    single, ensemble = write_ensemble_report(members(session, right), title="Network").to_dict("records")
    assert (single["accuracy"], ensemble["accuracy"]) == pytest.approx((0.9, 0.85))
    assert ensemble["delta"] == 0.0
    assert np.isnan(single["accuracy_std"])  # one member alone has both folds
    assert ensemble["missing"] == 1


def test_folds_count_the_same_whatever_number_of_members_is_left(session: Session) -> None:
    right = {(1, 0): 850, (1, 1): 850, (1, 2): 850, (2, 0): 950, (2, 1): 950, (2, 2): 0}
    single, ensemble = write_ensemble_report(members(session, right), title="Network").to_dict("records")
    assert single["accuracy"] == pytest.approx(0.9)
    assert single["accuracy_std"] == pytest.approx(0.0)
    assert ensemble["delta"] == pytest.approx(0.0)


def test_an_ensemble_of_best_epochs_averages_their_outputs(session: Session) -> None:
    """Two members of three are right on every clip at their best epochs; at their last, all err on the same ones."""
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
    finish(session.store, results.plan.runs[0], last, targets)  # as a run of before has left it
    _, ensemble = write_ensemble_report(results, title="Network").to_dict("records")
    assert np.isnan([ensemble["accuracy_best_epoch"], ensemble["delta_best_epoch"]]).all()


def test_without_a_finished_member_nothing_is_claimed(session: Session) -> None:
    frame = write_ensemble_report(members(session, {(1, 0): 0, (1, 1): 0}), title="Network")
    assert frame[["accuracy", "accuracy_std", "macro_f1", "ece"]].isna().all(axis=None)
    assert frame["missing"].tolist() == [2, 2]


def test_of_many_members_some_subsets_stand_for_all():
    assert sorted(_sample_subsets(5, 3)) == sorted(itertools.combinations(range(5), 3))
    drawn = list(_sample_subsets(30, 15))
    assert len(drawn) == MAX_SUBSETS
    assert all(len(set(subset)) == 15 and set(subset) <= set(range(30)) for subset in drawn)
    assert len({tuple(sorted(subset)) for subset in drawn}) > 0.99 * MAX_SUBSETS
    assert drawn == list(_sample_subsets(30, 15))
