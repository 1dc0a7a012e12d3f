"""Learning curves: averages, and histories of different lengths."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of, scored

from analysis.condition_report import add_grid_label, write_condition_report
from analysis.metrics.condition_summary import summarise_conditions
from analysis.output import style
from analysis.output.output_folder import OutputFolder
from analysis.plots.confusion import sum_confusion_matrices
from analysis.plots.learning_curves import average_histories, write_learning_curves
from analysis.plots.multi_experiment import group_experiments
from core.config.run import Run
from core.errors import UserError
from core.plan import Plan
from core.session import Session
from core.training import metrics
from run_ablation import main

PARTS = ("train", "validation", "test")
CORRECT = {(1, 0): [40, 60], (1, 1): [50, 70], (2, 0): [70, 90], (2, 1): [60, 80]}  # clips of 100, by epoch


def learned(session: Session, correct: dict[tuple[int, int], list[int]]) -> OutputFolder:
    """Return the output folder of one condition; `correct` clips of 100 per epoch by (fold, seed)."""
    runs = []
    for (fold, seed), clips in correct.items():
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


def test_average_histories_of_last_epoch_equals_summary(session: Session) -> None:
    results = learned(session, CORRECT)
    curves, unreadable = average_histories(results.plan.groups(), session.store)
    (row,) = summarise_conditions(results.plan, session.store).to_dict("records")
    last = curves[(curves["epoch"] == 2) & (curves["measure"] == "test_accuracy")].iloc[0]
    assert (last["mean"], last["std"]) == pytest.approx((row["accuracy"], row["accuracy_std"]))
    assert last["std"] == pytest.approx(np.std([0.65, 0.85], ddof=1))  # over folds, not over runs
    assert unreadable == 0


def test_average_histories_of_single_fold_has_std_over_seeds(session: Session) -> None:
    results = learned(session, {key: clips for key, clips in CORRECT.items() if key[0] == 1})
    curves, _ = average_histories(results.plan.groups(), session.store)
    first = curves[curves["measure"] == "test_accuracy"].iloc[0]
    assert (first["mean"], first["std"]) == pytest.approx((0.45, np.std([0.4, 0.5], ddof=1)))


def test_learning_curves_of_ended_and_missing_runs(session: Session) -> None:
    results = learned(session, {(1, 0): [40, 60, 61], (1, 1): [50], (2, 0): []})
    write_learning_curves(results, results.plan.groups(), caption="Freeze")
    frame = pd.read_csv(results.folder / "learning.csv")
    accuracy = frame[frame["measure"] == "test_accuracy"]
    assert accuracy["runs"].tolist() == [2, 1, 1]
    assert accuracy["ended"].tolist() == [0, 1, 1]
    assert accuracy["mean"].tolist() == pytest.approx([0.45, 0.6, 0.61])
    (item,) = results.items
    assert item["caption"].startswith("Freeze: test accuracy and training loss by epoch; mean, and band of")
    assert "over the seeds of one fold; " in item["caption"]
    assert "dotted: " in item["caption"]
    assert item["caption"].endswith("(2 of 3 runs of a condition).")


def test_figures_of_a_grid_name_the_option(session: Session) -> None:
    runs = {lr: Run().replace(training__lr=lr) for lr in (0.001, 0.01)}
    for run in runs.values():
        frozen = run.replace(model__freeze="stem")
        for each in (run, frozen):
            finish(session.store, each, *scored(40, 100))
    plans = [plan_of({"none": [run], "stem": [run.replace(model__freeze="stem")]}) for run in runs.values()]
    plan = Plan("freeze", tuple(planned for plan in plans for planned in plan.planned), {})
    frame = summarise_conditions(plan, session.store)
    labelled, column = add_grid_label(frame, ["lr"])
    assert labelled[column].unique().tolist() == ["lr 0.001", "lr 0.01"]
    matrices = sum_confusion_matrices(plan.groups(), session.store)
    assert [matrix.title for matrix in matrices] == [f"lr {lr:g}, {name}" for lr in runs for name in ("none", "stem")]
    groups = group_experiments([("Freeze", plan)])
    assert [values["condition"] for values, _ in groups] == [matrix.title for matrix in matrices]


def test_learning_curves_without_finished_run_write_nothing(session: Session) -> None:
    results = learned(session, {(1, 0): []})
    write_learning_curves(results, results.plan.groups(), caption="Freeze")
    assert results.files == []


def test_condition_report_of_one_condition_has_no_figure_of_conditions(session: Session) -> None:
    results = learned(session, CORRECT)
    write_condition_report(results, title="Frozen", subject="Freezing through {condition}")
    names = [item["name"] for item in results.items]
    assert names == ["table", "metrics", "classes", "learning", "confusion"]


def test_learning_curves_of_many_conditions_have_rows_of_panels(session: Session) -> None:
    results = learned(session, {(1, 0): [40, 60]})
    run = results.plan.runs[0]
    groups = plan_of({f"{k}": [run] for k in range(14)}).groups()
    panels: list[list[str]] = []
    legends: list[str] = []
    marks: list[str] = []

    def count_lines(
        name: str, data: pd.DataFrame, draw: Callable[..., None], *, options: dict[str, Any], **more: Any
    ) -> None:
        figure, ax = style.new_figure()
        draw(data, ax, **options)
        legends.extend(each.get_legend().get_title().get_text() for each in figure.axes if each.get_legend())
        marks.append(figure.axes[1].get_title(loc="right"))
        panels.extend([line.get_label() for line in each.lines if line.get_label()[0] != "_"] for each in figure.axes)

    results.write_figure = count_lines  # type: ignore[method-assign]
    write_learning_curves(results, groups, caption="Compare", title="Batch size")
    names = [str(k) for k in range(14)]
    assert panels == [part for part in (names[:5], names[5:10], names[10:]) for _ in range(2)]
    assert legends == ["Batch size"] * 3
    write_learning_curves(results, groups[:1], caption="Compare", title="Batch size")
    assert marks == ["1 run per condition", "1 run"]


def test_learning_curves_of_all_measures_have_one_axis_per_quantity(session: Session) -> None:
    """Accuracies and losses have a row each; the scales of a row are equal, so that its panels can be compared."""
    results = learned(session, {})
    run = Run()
    measures = {f"{part}_{kind}": [0.1 * k, 0.1] for k, part in enumerate(PARTS, 1) for kind in ("accuracy", "loss")}
    history = [{"epoch": k + 1} | {name: values[k] for name, values in measures.items()} for k in range(2)]
    finish(session.store, run, *scored(1, 10), history=history)
    grid: list[list[tuple[str, tuple[float, float], list[float]]]] = []

    def read_panels(
        name: str, data: pd.DataFrame, draw: Callable[..., None], *, options: dict[str, Any], caption: str, **more: Any
    ) -> None:
        figure, ax = style.new_figure()
        draw(data, ax, **options)
        panels = [(each.get_ylabel(), each.get_ylim(), list(each.lines[0].get_ydata())) for each in figure.axes]
        grid.extend([panels[:3], panels[3:]])
        assert "training curves are means over the batches of an epoch" in caption

    results.write_figure = read_panels  # type: ignore[method-assign]
    write_learning_curves(results, plan_of({"none": [run]}).groups(), caption="Freeze", measures=tuple(measures))
    parts = ["Test", "Validation", "Training"]
    assert [label for label, _, _ in grid[0]] == [f"{part} accuracy (%)" for part in parts]
    assert sorted(label for label, _, _ in grid[1]) == sorted(f"{part} loss" for part in parts)
    for row in grid:
        assert len({limits for _, limits, _ in row}) == 1
    values = {label: y for row in grid for label, _, y in row}
    assert values["Training accuracy (%)"] == pytest.approx([10, 10])
    assert values["Validation loss"] == pytest.approx([0.2, 0.1])
    assert values["Test loss"] == pytest.approx([0.3, 0.1])


def test_unknown_curve_raises_before_results_are_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'train_acuracy': did you mean 'train_accuracy'"):
        main(["freeze", "--curves", "train_acuracy", "--results", str(tmp_path / "results")])
    assert not (tmp_path / "results").exists()
