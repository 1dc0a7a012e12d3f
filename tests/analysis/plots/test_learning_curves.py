"""Learning curves: what is averaged over what, and how histories of different lengths are told."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of, scored

from analysis.conditions import write_condition_report
from analysis.metrics.condition_summary import summarise_conditions
from analysis.output.folder import OutputFolder
from analysis.plots.learning_curves import average_histories, write_learning_curves
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.session import Session
from core.training import metrics

RIGHT = {(1, 0): [40, 60], (1, 1): [50, 70], (2, 0): [70, 90], (2, 1): [60, 80]}  # clips of 100, by epoch


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1))


def learned(session: Session, right: dict[tuple[int, int], list[int]]) -> OutputFolder:
    """Return results of one condition, whose runs by (fold, seed) have `right` clips of 100 epoch by epoch."""
    runs = []
    for (fold, seed), clips in right.items():
        runs.append(Run(seed=seed).replace(data__fold=fold))
        logits, targets = scored(clips[-1] if clips else 0, 100)
        history = [
            {"epoch": k + 1, "test_accuracy": n / 100, "train_loss": 1 / (k + 1), "lr": 0.1}
            for k, n in enumerate(clips)
        ]
        if clips:
            finish(session.store, runs[-1], logits, targets, history=history)
            assert metrics.accuracy(logits, targets) == history[-1]["test_accuracy"]
    return OutputFolder(plan_of({"none": runs}), session, session.store.results / "freeze")


def test_the_last_epoch_is_the_table_s_mean_and_deviation(session: Session) -> None:
    results = learned(session, RIGHT)
    curves, lost = average_histories(results.plan.groups(), session.store)
    (row,) = summarise_conditions(results.plan, session.store).to_dict("records")
    last = curves[(curves["epoch"] == 2) & (curves["measure"] == "test_accuracy")].iloc[0]
    assert (last["mean"], last["std"]) == pytest.approx((row["accuracy"], row["accuracy_std"]))
    assert last["std"] == pytest.approx(np.std([0.65, 0.85], ddof=1))  # of folds, not of the four runs
    assert lost == 0


def test_a_single_fold_has_the_deviation_of_its_seeds(session: Session) -> None:
    results = learned(session, {key: clips for key, clips in RIGHT.items() if key[0] == 1})
    curves, _ = average_histories(results.plan.groups(), session.store)
    first = curves[curves["measure"] == "test_accuracy"].iloc[0]
    assert (first["mean"], first["std"]) == pytest.approx((0.45, np.std([0.4, 0.5], ddof=1)))


def test_histories_end_where_they_end_and_a_missing_run_is_counted(session: Session) -> None:
    results = learned(session, {(1, 0): [40, 60, 61], (1, 1): [50], (2, 0): []})
    write_learning_curves(results, results.plan.groups(), caption="Freeze")
    frame = pd.read_csv(results.folder / "learning.csv")
    accuracy = frame[frame["measure"] == "test_accuracy"]
    assert accuracy["runs"].tolist() == [2, 1, 1]
    assert accuracy["ended"].tolist() == [0, 1, 1]
    assert accuracy["mean"].tolist() == pytest.approx([0.45, 0.6, 0.61])
    (item,) = results.items
    assert item["caption"].startswith("Freeze: test accuracy and training loss by epoch; mean over")
    assert "dotted from where the first run of a condition ended early" in item["caption"]
    assert "1 run is left out, which failed or is missing." in item["caption"]


def test_without_a_finished_run_there_is_no_figure(session: Session) -> None:
    results = learned(session, {(1, 0): []})
    write_learning_curves(results, results.plan.groups(), caption="Freeze")
    assert results.files == []


def test_every_comparison_has_learning_curves_and_confusion_matrices(session: Session) -> None:
    results = learned(session, RIGHT)
    write_condition_report(results, title="Frozen")
    names = [item["name"] for item in results.items]
    assert names == ["table", "figure", "metrics", "classes", "learning", "confusion"]
