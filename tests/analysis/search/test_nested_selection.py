"""Test accuracy of a search: none before the choice, and none that is too high after it."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of, scored

from analysis.output.output_folder import OutputFolder
from analysis.search.best_configurations import best_configuration_row, write_search_results
from analysis.search.nested_selection import choose_per_fold
from core.config.run import Run
from core.session import Session
from tests.benchmarks.simulations.searches import simulate_searches

CLIPS = 100
SPACE = {"training__lr": (0.1, 0.2)}
Scores = dict[float, dict[int, tuple[float, int]]]  # by learning rate and fold: validation accuracy, right test clips


def search_results(session: Session, scores: Scores) -> OutputFolder:
    """Return the output folder of a search with one run for each learning rate and fold."""
    session.execution = dataclasses.replace(session.execution, metric=("training_accuracy", "accuracy"))
    runs: dict[str, list[Run]] = {}
    for lr, by_fold in scores.items():
        for fold, (validation, right) in by_fold.items():
            run = Run().replace(data__fold=fold, data__validation=0.2, training__lr=lr)
            row = {
                "epoch": 1,
                "test_accuracy": right / CLIPS,
                "validation_accuracy": validation,
                "validation_loss": 1.0,
            }
            finish(session.store, run, *scored(right, CLIPS), history=[row])
            runs.setdefault(f"lr {lr:g}", []).append(run)
    return OutputFolder(plan_of(runs, ablation="tune"), session, session.store.results / "tune")


def test_choose_per_fold_takes_highest_accuracy_then_lowest_loss() -> None:
    scores = pd.DataFrame(
        [
            (2, "a", 0.5, 1.0),
            (2, "b", 0.5, 0.9),
            (1, "a", 0.4, 1.0),
            (1, "b", math.nan, math.nan),
            (3, "a", math.nan, math.nan),
        ],
        columns=["fold", "condition", "validation_accuracy", "validation_loss"],
    )
    assert choose_per_fold(scores)[["fold", "condition"]].to_numpy().tolist() == [[1, "a"], [2, "b"]]


def test_search_on_several_folds_reports_nested_test_accuracy(session: Session) -> None:
    """The mean over folds favours 0.1 (60 % and 50 % on the test folds); fold 2 alone favours 0.2 (30 %)."""
    results = search_results(session, {0.1: {1: (0.9, 60), 2: (0.4, 50)}, 0.2: {1: (0.2, 20), 2: (0.5, 30)}})
    frame = write_search_results(results, SPACE)
    assert frame["condition"].tolist() == ["lr 0.1", "lr 0.2"]
    folds = pd.read_csv(results.folder / "folds.csv")
    assert folds["lr"].tolist() == [0.1, 0.2]
    assert folds["validation_accuracy"].tolist() == [0.9, 0.5]
    assert folds["accuracy"].tolist() == [0.6, 0.3]
    (row,) = best_configuration_row(frame, results.plan, session.store, SPACE).to_dict("records")
    assert (row["lr"], row["accuracy"]) == (0.1, pytest.approx(0.45))
    notes = results.items[0]["footnotes"]
    assert "45.0%, standard deviation over folds 21.2 points" in notes[2]
    assert not any("55.0%" in note for note in notes)  # the test accuracy of 0.1 over both folds
    assert not any(f"{name}%" in note for note in notes for name in ("60.0", "50.0"))


def test_search_shows_test_accuracy_in_no_file_but_folds(session: Session) -> None:
    results = search_results(session, {0.1: {1: (0.9, 61), 2: (0.4, 53)}, 0.2: {1: (0.2, 17), 2: (0.5, 29)}})
    frame = write_search_results(results, SPACE)
    assert not {"accuracy", "macro_f1", "accuracy_best_epoch", "nll"} & set(frame)
    assert "training_accuracy" in frame
    for path in results.folder.glob("*.csv"):
        numbers = pd.read_csv(path).select_dtypes("number").to_numpy().ravel()
        shown = {0.61, 0.53, 0.17, 0.29, 0.57, 0.23} & set(np.round(numbers, 4))
        assert shown == ({0.61, 0.29} if path.stem == "folds" else set()), path.name


def test_search_on_one_fold_reports_test_accuracy_of_the_best(session: Session) -> None:
    results = search_results(session, {0.1: {1: (0.3, 60)}, 0.2: {1: (0.5, 20)}})
    frame = write_search_results(results, SPACE)
    (note,) = [note for note in results.items[0]["footnotes"] if note.startswith("Best: ")]
    assert note == "Best: lr 0.2; accuracy on the test fold, not used to select it: 20.0%."
    assert best_configuration_row(frame, results.plan, session.store, SPACE)["accuracy"].tolist() == [0.2]
    assert not (results.folder / "folds.csv").exists()


def test_nested_selection_of_equal_configurations_is_not_optimistic() -> None:
    """Choosing by the mean over folds makes the test accuracy about 2 points too high; the standard error is 0.12."""
    optimism = simulate_searches(0.8, 20, trials=300)
    assert optimism["pooled"] > 1.3
    assert abs(optimism["nested"]) < 0.5
