"""The table of classes, against scikit-learn's classification report."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of
from sklearn.metrics import classification_report

from analysis.metrics.per_class import per_class_rows, write_per_class
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from core.config.run import Run
from core.session import Session
from core.training import metrics

NAMES = ("class 0", "class 1", "class 2")


@pytest.fixture
def results(session: Session, tmp_path: Path) -> OutputFolder:
    """Return the output folder of two folds with two seeds each; the second fold has no clip of the third class."""
    runs = [Run(seed=seed).replace(data__fold=fold) for fold in (1, 2) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    for run in runs:
        targets = np.arange(30) % (3 if run.data.fold == 1 else 2)
        finish(session.store, run, rng.normal(size=(30, 3)) + np.eye(3)[targets], targets)
    return OutputFolder(plan_of({"none": runs}), session, tmp_path / "freeze")


def test_per_class_scores_equal_scikit_learn(results: OutputFolder) -> None:
    write_per_class(results, results.plan.groups(), [Column("condition", "Frozen")], caption="Freeze")
    frame = pd.read_csv(results.folder / "classes.csv").set_index("class")
    reports: dict[int, list[dict]] = {1: [], 2: []}
    for run in results.plan.runs:
        _, targets, logits = results.session.store.predictions(run)
        options = {"labels": range(3), "target_names": NAMES, "output_dict": True, "zero_division": 0}
        reports[run.data.fold].append(classification_report(targets, logits.argmax(axis=1), **options))
    for name in NAMES:
        folds = [1, 2] if name != "class 2" else [1]
        for ours, theirs in {"precision": "precision", "recall": "recall", "f1": "f1-score"}.items():
            by_fold = [np.mean([report[name][theirs] for report in reports[fold]]) for fold in folds]
            assert frame.at[name, ours] == pytest.approx(np.mean(by_fold))
            if len(folds) > 1:
                assert frame.at[name, f"{ours}_std"] == pytest.approx(np.std(by_fold, ddof=1))
    assert np.isnan(frame.at["class 2", "recall_std"])
    assert frame["clips"].tolist() == [10 + 15, 10 + 15, 10]  # not multiplied by seeds
    assert "class 2" in (results.folder / "classes.md").read_text()
    assert results.console_output == []  # the table is too long for a terminal


def test_per_class_rows_of_single_fold_have_std_over_seeds() -> None:
    scored = [(1, 0, metrics.per_class(np.eye(2), [0, 1])), (1, 1, metrics.per_class(np.eye(2)[[0, 0]], [0, 1]))]
    first, second = per_class_rows({"condition": "a"}, scored, ("x", "y"))
    assert (second["recall"], second["recall_std"]) == (0.5, pytest.approx(np.std([1, 0], ddof=1)))
    assert (first["recall"], first["precision"], first["clips"]) == (1.0, 0.75, 1)
