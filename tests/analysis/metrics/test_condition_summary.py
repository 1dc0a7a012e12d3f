"""All metrics of a condition: read, averaged, written, drawn as bars, and blank if a record lacks them."""

import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of

from analysis.condition_report import DETAILED_METRICS, write_condition_report
from analysis.metrics.condition_summary import summarise_conditions
from analysis.metrics.registry import METRICS, check_metrics
from analysis.output import style
from analysis.output.output_folder import OutputFolder
from analysis.plots import by_condition
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.errors import UserError
from core.session import Session
from core.training import metrics
from run_ablation import main

TIMES = {(1, 0): 2.0, (1, 1): 4.0, (2, 0): 9.0}  # seconds by fold and seed


def finished(tmp_path: Path, *metric: str, timed: bool = True) -> OutputFolder:
    """Return the output folder of two conditions with two folds, the first with two seeds.

    `timed`: whether the records have times.
    """
    session = Session(ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1, metric=metric))
    rng = np.random.default_rng(0)
    runs = {key: Run(seed=key[1]).replace(data__fold=key[0]) for key in TIMES}
    frozen = {key: run.replace(model__freeze="stem") for key, run in runs.items()}
    for key, run in [*runs.items(), *frozen.items()]:
        logits, targets = rng.normal(size=(12, 3)), np.arange(12) % 3
        scores = metrics.summarise(logits, targets) | {"accuracy_best_epoch": 1.0, "best_epoch": 3, "epochs": 5}
        times = {"time_to_converge": TIMES[key], "prediction_ms": TIMES[key] / 10, "training_accuracy": 0.5}
        finish(session.store, run, logits, targets, metrics=scores | (times if timed else {}))
    conditions = {"none": list(runs.values()), "stem": list(frozen.values())}
    plan = plan_of(conditions, groups=[str(k) for k in range(12)])
    return OutputFolder(plan, session, tmp_path / "freeze")


def cells(results: OutputFolder, name: str) -> dict[str, str]:
    """Return the texts of the first row of a table by title."""
    (table,) = [item["cells"] for item in results.items if item["name"] == name]
    return dict(zip(table["header"], (cell["text"] for cell in table["rows"][0]), strict=True))


def test_summary_mean_std_and_interval_are_over_folds(tmp_path: Path) -> None:
    results = finished(tmp_path)
    store = results.session.store
    row = summarise_conditions(results.plan, store).to_dict("records")[0]
    by_fold = [3.0, 9.0]  # seeds of the first fold are averaged
    assert row["time_to_converge"] == pytest.approx(np.mean(by_fold))
    assert row["time_to_converge_std"] == pytest.approx(np.std(by_fold, ddof=1))
    assert (row["time_to_converge_low"] + row["time_to_converge_high"]) / 2 == pytest.approx(6.0)
    assert row["prediction_ms"] == pytest.approx(0.4)  # the median over all runs of the network
    assert (row["best_epoch"], row["epochs"], row["training_accuracy"]) == (3, 5, 0.5)
    f1 = [record.metrics.weighted_f1 for run in results.plan.runs[:3] if (record := store.finished(run))]
    assert row["f1"] == pytest.approx(np.mean([np.mean(f1[:2]), f1[2]]))


def test_report_of_records_without_metric_has_blank_cells(tmp_path: Path) -> None:
    results = finished(tmp_path, "prediction_ms", timed=False)
    frame = write_condition_report(results, title="Frozen", subject="Freezing through {condition}")
    assert math.isnan(frame.at[0, "prediction_ms"])
    shown = cells(results, "metrics")
    assert shown["Prediction ms"] == shown["To converge"] == shown["Validation %"] == "–"
    assert "±" in shown["Balanced %"]
    (bars,) = [item for item in results.items if item["name"] == "bars-prediction_ms"]
    assert bars["caption"].endswith("; median over all runs of a network; conditions without a result: 2.")


def test_report_shows_and_draws_requested_metrics(tmp_path: Path) -> None:
    results = finished(tmp_path, "f1", "time_to_converge", "f1", "accuracy")
    write_condition_report(results, title="Frozen", subject="Freezing through {condition}")
    by_name: dict[str, Any] = {item["name"]: item for item in results.items}
    assert by_name["metrics"]["cells"]["header"] == [
        "Frozen",
        *(METRICS[name].title for name in DETAILED_METRICS),
        "Runs",
    ]
    titles = by_name["table"]["cells"]["header"]
    assert titles.count("F1 %") == titles.count("To converge") == titles.count("Accuracy %") == 1
    assert cells(results, "table")["To converge"] == "6.0 s ± 4.2 s"
    assert {"bars-f1", "bars-time_to_converge", "bars-accuracy"} <= set(by_name)
    assert all((results.folder / f"metrics{suffix}").exists() for suffix in (".csv", ".md", ".tex"))


@pytest.mark.parametrize("metric", ["ece", "ece_calibrated"])
def test_report_of_ece_pools_folds_and_shows_value_if_calibrated(tmp_path: Path, metric: str) -> None:
    results = finished(tmp_path, metric)
    frame = write_condition_report(results, title="Frozen", subject="Freezing through {condition}")
    store, runs = results.session.store, results.plan.runs[:3]
    outputs = [store.predictions(run) for run in runs]  # folds 1, 1, 2 and seeds 0, 1, 0
    expected = {"ece": 0.0, "ece_calibrated": 0.0}
    for members in ((0, 2), (1,)):
        probs = np.concatenate([metrics.softmax(outputs[k][2]) for k in members])
        targets = np.concatenate([outputs[k][1] for k in members])
        expected["ece"] += metrics.ece(probs, targets) / 2
        expected["ece_calibrated"] += metrics.ece_calibrated(probs) / 2
    assert frame.loc[0, list(expected)].to_dict() == pytest.approx(expected)
    shown = cells(results, "table")
    assert {"ECE", "ECE if calibrated"} <= set(shown)
    assert "±" not in shown["ECE"]
    assert "Both are over the clips of all folds" in (results.folder / "table.md").read_text()
    (bars,) = [item for item in results.items if item["name"] == f"bars-{metric}"]
    assert "error bars" not in bars["caption"]
    assert ("; ECE if calibrated: 0." in bars["caption"]) == (metric == "ece")


def test_summary_reads_no_predictions_unless_ece_is_requested(tmp_path: Path) -> None:
    results = finished(tmp_path)
    assert "ece" not in summarise_conditions(results.plan, results.session.store, ["f1"])


@pytest.mark.parametrize("metric", ["accuracy", "nll", "trainable_parameters"])
def test_grouped_bars_of_metric_have_heights_and_intervals(metric: str) -> None:
    frame = pd.DataFrame({"condition": ["a", "b"], metric: [0.2, 0.4]})
    frame = frame.assign(**{f"{metric}_low": frame[metric] - 0.1, f"{metric}_high": frame[metric] + 0.3})
    ax = style.new_figure()[1]
    by_condition.draw_grouped_bars(frame, ax, x="condition", metric=metric)
    axis = METRICS[metric].axis
    scale = 100 if axis.endswith("(%)") else 1e-6 if axis.endswith("(millions)") else 1
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0.2 * scale, 0.4 * scale])
    (bars,) = [container for container in ax.containers if hasattr(container, "errorbar")]
    (errors,) = bars.errorbar.lines[2]
    np.testing.assert_allclose(errors.get_segments()[0][:, 1], [0.1 * scale, 0.5 * scale])
    assert ax.get_ylabel().replace("\n", " ") == f"{axis}, 95 % interval"
    assert ax.get_ylim()[0] == 0
    assert ax.get_legend() is None


def test_metric_of_held_out_clips_cannot_be_requested(tmp_path: Path) -> None:
    """Selecting with held-out clips would make their score optimistic."""
    with pytest.raises(UserError, match="^--metric holdout_accuracy: held-out clips are scored by predict"):
        main(["freeze", "--metric", "holdout_accuracy", "--results", str(tmp_path / "results")])


def test_unknown_metric_raises_before_results_are_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'balanced_acuracy': did you mean 'balanced_accuracy'"):
        main(["freeze", "--metric", "f1", "balanced_acuracy", "--results", str(tmp_path / "results")])
    assert not (tmp_path / "results").exists()


def test_metrics_in_help_exist() -> None:
    (text,) = [f.metadata["help"] for f in fields(ExecutionOptions) if f.name == "metric"]
    names = re.findall(r"\w+_\w+", text)
    assert len(names) > 3
    check_metrics(names)
