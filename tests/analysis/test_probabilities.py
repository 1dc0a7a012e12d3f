"""The hinge loss gives no probabilities: no table, figure or page shows any for its networks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of

from analysis.attribution import AttributionMaps
from analysis.metrics.condition_summary import summarise_conditions
from analysis.output.output_folder import OutputFolder
from analysis.predictions import NO_PROBABILITIES_NOTE, Predictions, write_predictions, write_scores
from analysis.report.run_details import make_run_detail
from core.config.run import Run
from core.session import Session
from core.store.record import Record

LOSSES = ("cross-entropy", "hinge")
HISTORY = [{"epoch": k, "train_loss": 0.5, "test_loss": 0.9, "test_accuracy": 0.5} for k in (1, 2)]


@pytest.fixture
def records(session: Session) -> dict[str, Record]:
    """Return the record of a finished run of each loss."""
    rng = np.random.default_rng(0)
    found = {}
    for loss in LOSSES:
        run = Run().replace(training__loss=loss)
        finish(session.store, run, rng.normal(size=(40, 3)), rng.integers(0, 3, 40), history=HISTORY)
        record = session.store.finished(run)
        assert record
        found[loss] = record
    return found


def test_summary_of_hinge_loss_has_no_metrics_of_probabilities(session: Session, records: dict[str, Record]) -> None:
    plan = plan_of({loss: [record.run] for loss, record in records.items()})
    scores = ["nll", "brier", "ece", "ece_calibrated"]
    frame = summarise_conditions(plan, session.store, ["ece"]).set_index("condition")[scores]
    assert frame.loc["cross-entropy"].notna().all()
    assert frame.loc["hinge"].isna().all()


def predictions_of(session: Session, *records: Record) -> tuple[OutputFolder, pd.DataFrame, pd.DataFrame]:
    """Return the written folder, the predictions and the scores of the runs on their test clips."""
    outputs = [session.store.predictions(record.run) for record in records]
    paths, targets = outputs[0][:2]
    plan = plan_of({record.id: [record.run] for record in records})
    results = OutputFolder(plan, session, session.store.results / "predict")
    predictions = Predictions(records, paths, [logits for *_, logits in outputs], targets)
    return results, write_predictions(results, predictions), write_scores(results, predictions, caption="", notes=[])


def test_predictions_of_hinge_loss_have_softmax_outputs(session: Session, records: dict[str, Record]) -> None:
    for chosen in (("hinge",), LOSSES):
        results, frame, scores = predictions_of(session, *(records[loss] for loss in chosen))
        assert [name for name in frame if name.startswith(("p", "softmax"))] == [
            "predicted",
            *(f"softmax_class {k}" for k in range(3)),
        ]
        assert "probability" not in pd.read_csv(results.folder / "counts.csv")
        assert NO_PROBABILITIES_NOTE in (results.folder / "table.md").read_text()
        assert scores.filter(["nll", "brier", "ece"]).notna().any(axis=1).tolist() == [
            *(loss != "hinge" for loss in chosen),
            *([False] if len(chosen) > 1 else []),  # the average of both
        ]
    results, frame, scores = predictions_of(session, records["cross-entropy"])
    assert "probability" in frame
    assert scores[["nll", "brier", "ece"]].notna().all(axis=None)


def test_run_page_of_hinge_loss_has_no_metrics_of_probabilities(session: Session, records: dict[str, Record]) -> None:
    details = {loss: make_run_detail(record, session.store, id="r", analyses=[]) for loss, record in records.items()}
    assert details["hinge"].facts["NLL, Brier, ECE"] == "not defined: the hinge loss gives no probabilities"
    assert details["cross-entropy"].facts["NLL, Brier, ECE"].count(".") == 4
    losses = {loss: detail.curves[1] for loss, detail in details.items()}
    assert [line.name for line in losses["cross-entropy"].lines] == ["train", "test"]
    assert [line.name for line in losses["hinge"].lines] == ["train"]  # the test loss is a cross-entropy


def test_describe_class_has_probability_unless_loss_is_hinge() -> None:
    x, logits = np.zeros((1, 3, 2, 2)), np.log([[0.25, 0.75]])
    values: tuple[Any, ...] = ("m", "b", x, x[:, None], x, None, np.zeros(1, int), logits, *[np.zeros(1)] * 4)
    assert AttributionMaps(*values).describe_class(0, 1, ("a", "b")) == "b 75%"
    assert AttributionMaps(*values, has_probabilities=False).describe_class(0, 1, ("a", "b")) == "b"
