"""Conditions are compared over the folds and seeds that all of them have."""

from collections.abc import Mapping, Sequence

import pandas as pd
import pytest
from finished_runs import finish, plan_of, scored

from analysis.condition_report import write_condition_report
from analysis.metrics.condition_summary import summarise_conditions, summarise_groups
from analysis.metrics.shared_runs import describe_shared_runs, select_shared_runs
from analysis.output.output_folder import OutputFolder
from analysis.plots.multi_experiment import group_experiments
from core.config.run import Run
from core.session import Session

CLIPS = 50


def make_results(session: Session, accuracies: Mapping[str, Sequence[float | None]]) -> OutputFolder:
    """Return the output folder of conditions; accuracy of each fold by condition, None for a missing run."""
    runs = {}
    for name, values in accuracies.items():
        base = Run() if name == "none" else Run().replace(model__freeze=name)
        runs[name] = [base.replace(data__fold=fold) for fold in range(1, len(values) + 1)]
        for run, accuracy in zip(runs[name], values, strict=True):
            if accuracy is not None:
                logits, targets = scored(round(accuracy * CLIPS), CLIPS)
                history = [{"epoch": 1, "test_accuracy": accuracy}]
                finish(session.store, run, logits, targets, history=history)
    return OutputFolder(plan_of(runs, groups=[str(k) for k in range(CLIPS)]), session, session.store.results / "freeze")


def test_condition_without_the_hard_fold_is_not_better(session: Session) -> None:
    """Over its own folds the condition would have 78.0 % in bold, against 72.0 % of the reference."""
    results = make_results(session, {"none": [0.8, 0.8, 0.8, 0.8, 0.4], "block3": [0.78] * 4 + [None]})
    frame = write_condition_report(results, title="Frozen", subject="Freezing through {condition}")
    assert frame["accuracy"].tolist() == pytest.approx([0.8, 0.78])
    assert frame["delta"].tolist() == pytest.approx([0.0, -0.02])
    (table,) = [item for item in results.items if item["name"] == "table"]
    cells = [dict(zip(table["cells"]["header"], row, strict=True)) for row in table["cells"]["rows"]]
    assert [row["Accuracy %"]["bold"] for row in cells] == [True, False]
    assert [row["Runs"]["text"] for row in cells] == ["4 of 5 compared", "missing (1 of 5)"]
    assert any("that every compared condition has finished (4 of 5 runs" in note for note in table["footnotes"])
    assert "test folds 1–4" in table["footnotes"][0]
    curves = pd.read_csv(results.folder / "learning.csv")
    assert curves["mean"].tolist() == pytest.approx([0.8, 0.78])
    confusion = pd.read_csv(results.folder / "confusion.csv")
    total = confusion[(confusion["target"] == "All") & (confusion["predicted"] == "All")]
    assert total["share"].tolist() == pytest.approx([0.8, 0.78])
    classes = pd.read_csv(results.folder / "classes.csv")
    assert classes.groupby("condition")["recall"].mean().to_dict() == pytest.approx({"none": 0.8, "block3": 0.78})


def test_condition_with_few_runs_does_not_reduce_the_others(session: Session) -> None:
    accuracies = {"none": [0.8, 0.8, 0.8, 0.8, 0.4], "block3": [0.7] * 5, "block4": [0.9, None, None, None, None]}
    results = make_results(session, accuracies)
    frame = summarise_conditions(results.plan, session.store)
    assert frame["compared"].tolist() == [5, 5, 0]
    assert frame["accuracy"].tolist() == pytest.approx([0.72, 0.7, float("nan")], nan_ok=True)
    groups = results.plan.groups()
    text = describe_shared_runs(groups, select_shared_runs(groups, session.store))
    assert text == "Failed or missing runs: no finished runs, or too few to compare: block4."


def test_complete_plan_has_no_note(session: Session) -> None:
    groups = make_results(session, {"none": [0.8] * 3, "block3": [0.7] * 3}).plan.groups()
    shared = select_shared_runs(groups, session.store)
    assert [part for _, part in shared] == [part for _, part in groups]
    assert describe_shared_runs(groups, shared) == ""


def test_experiments_with_different_folds_keep_their_runs(session: Session) -> None:
    """Experiments of a study are drawn side by side, but not paired."""
    five = make_results(session, {"none": [0.8] * 5, "block3": [0.7] * 5}).plan
    one = make_results(session, {"none": [0.8]}).plan
    frame = summarise_groups(group_experiments([("five", five), ("one", one)]), session.store)
    assert frame["over"].tolist() == ["folds", "folds", "1 run"]
    assert frame["compared"].tolist() == [5, 5, 1]
