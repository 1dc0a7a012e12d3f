"""Reliability diagrams, and the figures of an ensemble report."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of

from analysis.ensembles import write_ensemble_report
from analysis.output.output_folder import OutputFolder
from analysis.plots.calibration import reliability_bins
from core.config.run import Run
from core.session import Session
from core.training import metrics


def ece_from_bins(bins: pd.DataFrame) -> float:
    gaps = (bins["accuracy"] - bins["confidence"]).abs() * bins["clips"]
    return float(gaps.sum() / bins["clips"].sum())


def test_ece_of_reliability_bins_is_that_of_the_metric() -> None:
    rng = np.random.default_rng(0)
    probs, targets = metrics.softmax(3 * rng.normal(size=(500, 4))), rng.integers(0, 4, 500)
    bins = reliability_bins(probs, targets)
    assert ece_from_bins(bins) == pytest.approx(metrics.ece(probs, targets))
    assert bins["clips"].sum() == 500
    filled = bins[bins["clips"] > 0]
    assert filled["confidence"].between(filled["above"], filled["to"] + 1e-12).all()


def test_reliability_bins_of_calibrated_network_have_ece_0() -> None:
    probs = np.tile([0.75, 0.25], (400, 1))
    targets = (np.arange(400) % 4 == 0).astype(int)  # three of four are correct
    bins = reliability_bins(probs, targets, bins=10)
    (row,) = bins[bins["clips"] > 0].to_dict("records")
    assert (row["above"], row["to"], row["confidence"], row["accuracy"]) == pytest.approx((0.7, 0.8, 0.75, 0.75))
    assert ece_from_bins(bins) == pytest.approx(0)


def test_ensemble_report_has_calibration_curves_and_confusion(session: Session, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = {seed: [Run(seed=seed).replace(data__fold=fold) for fold in (1, 2)] for seed in (0, 1)}
    targets = np.arange(60) % 3
    logits = {run.id: np.eye(3)[targets] + rng.normal(size=(60, 3)) for part in runs.values() for run in part}
    for part in runs.values():
        for run in part:
            finish(session.store, run, logits[run.id], targets)
    plan = plan_of({f"member {seed + 1}": part for seed, part in runs.items()}, ablation="ensemble")
    results = OutputFolder(plan, session, tmp_path / "ensemble")
    write_ensemble_report(results, title="Network")
    names = ["table", "metrics", "classes", "figure", "calibration", "learning", "confusion"]
    assert [item["name"] for item in results.items] == names
    bins = pd.read_csv(results.folder / "calibration.csv")
    assert bins.groupby("condition")["clips"].sum().to_dict() == {"ensemble": 120, "single": 240}
    outputs = [[session.store.predictions(part[fold])[2] for part in runs.values()] for fold in (0, 1)]
    ensemble_probs = np.concatenate([metrics.soft_vote(members) for members in outputs])
    assert ece_from_bins(bins[bins["condition"] == "ensemble"]) == pytest.approx(
        metrics.ece(ensemble_probs, np.tile(targets, 2))
    )
    table = pd.read_csv(results.folder / "table.csv").set_index("condition")
    assert table.loc["ensemble", "ece"] == pytest.approx(metrics.ece(ensemble_probs, np.tile(targets, 2)))
    pooled = [np.concatenate([metrics.softmax(fold[member]) for fold in outputs]) for member in (0, 1)]
    assert table.loc["single", "ece"] == pytest.approx(
        np.mean([metrics.ece(probs, np.tile(targets, 2)) for probs in pooled])
    )
    assert bins.groupby("condition")["ece"].first().to_dict() == table["ece"].to_dict()
    cells = pd.read_csv(results.folder / "confusion.csv")
    corner = cells[(cells["target"] == "All") & (cells["predicted"] == "All")].set_index("condition")
    assert corner["clips"].to_dict() == {"single": 240, "ensemble": 120}
    assert corner.loc["ensemble", "share"] == pytest.approx(metrics.accuracy(ensemble_probs, np.tile(targets, 2)))
