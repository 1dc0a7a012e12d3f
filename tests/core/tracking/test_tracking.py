"""Runs in MLflow and Weights & Biases: real commands, read back from the trackers' own files."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_runs import fill_options

from core import executor
from core.config.run import Run
from core.errors import UserError
from core.session import Session
from core.store.run_store import Store
from core.tracking import CLIENTS
from core.tracking.run_tracker import RunTracker, TrackerClient, name_run
from run_ablation import main


def freeze(sounds: Path, results: Path, *more: str) -> list[str]:
    words = ["--block", "3", "--data", "folder", "--data-root", str(sounds), "--epochs", "3"]
    return ["freeze", *fill_options([*words, "--results", str(results), *more])]


def test_mlflow_has_the_curves_options_and_metrics_of_the_store(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(freeze(sounds, tmp_path, "--track", "mlflow")) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("audio-ablation").experiment_id
    tracked = {run.data.tags["run_id"]: run for run in client.search_runs([experiment])}
    store = Store(tmp_path)
    records = {record.id: record for record in store.records()}
    assert len(tracked) == 2
    assert tracked.keys() == records.keys()
    for id, run in tracked.items():
        assert run.info.status == "FINISHED"
        assert run.info.run_name == name_run(records[id].run)
        assert run.data.params["lr"] == "0.001"
        assert run.data.params["freeze"] == records[id].run.model.freeze
        assert run.data.metrics["final/macro_f1"] == records[id].metrics.macro_f1
        for name in ("train_loss", "test_accuracy"):
            points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            history = store.history(id)
            assert points == list(zip(history["epoch"], history[name], strict=True))


def test_wandb_offline_has_every_epoch(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(freeze(sounds, tmp_path, "--track", "wandb")) == 0
    for record in Store(tmp_path).records():
        (file,) = tmp_path.glob(f"wandb/offline-run-*-{record.id}/run-{record.id}.wandb")
        content = file.read_bytes()
        assert content.count(b"train_loss") >= 3
        assert b"final/macro_f1" in content
        assert name_run(record.run).encode() in content


class BrokenClient(TrackerClient):
    """Fails at the second epoch."""

    def __init__(self, results: Path) -> None:
        self.epochs: list[int] = []

    def start(self, run_id: str, name: str, options: Mapping[str, Any]) -> set[int]:
        return set()

    def log(self, run_id: str, epoch: int, values: Mapping[str, float]) -> None:
        if epoch == 2:
            raise ConnectionError("the server is gone")

    def end(self, run_id: str, metrics: Mapping[str, float], failure: str) -> None:
        raise AssertionError("called after an error")


def test_error_of_tracker_is_one_line_and_training_continues(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CLIENTS.entries, "mlflow", f"{__name__}:BrokenClient")
    assert main(freeze(sounds, tmp_path, "--track", "mlflow")) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "--track" in line]
    assert lines == ["--track mlflow: the server is gone; training continues without tracking"]
    assert [record.status for record in Store(tmp_path).records()] == ["finished"] * 2


class ListClient(TrackerClient):
    """Keeps what it receives."""

    def __init__(self, results: Path) -> None:
        self.events: list[tuple[Any, ...]] = []

    def start(self, run_id: str, name: str, options: Mapping[str, Any]) -> set[int]:
        self.events.append(("start", run_id))
        return {1}

    def log(self, run_id: str, epoch: int, values: Mapping[str, float]) -> None:
        self.events.append(("log", epoch, *values))

    def end(self, run_id: str, metrics: Mapping[str, float], failure: str) -> None:
        self.events.append(("end", failure))


def test_failed_run_is_sent_with_its_reason(run: Run, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIENTS.entries, "list", f"{__name__}:ListClient")
    tracker = session.tracker = RunTracker("list", session.store, session.report.note)
    tracker.connect()
    tracker.log_epoch(run, {"epoch": 1, "lr": 0.1})  # an earlier command has sent it
    tracker.log_epoch(run, {"epoch": 2, "lr": 0.1, "train_loss": float("nan"), "time_total_s": 3.0})
    executor.record_failure(run, session, label="a", reason="the loss was NaN", trace="")
    client = tracker._client
    assert isinstance(client, ListClient)
    assert client.events == [("start", run.id), ("log", 2, "lr"), ("end", "the loss was NaN")]


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_missing_package_is_one_line_before_training(
    tracker: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)  # importing it raises ImportError
    monkeypatch.delitem(sys.modules, f"core.tracking.{tracker}_client", raising=False)
    message = (
        f"--track {tracker}: import of {tracker} halted; None in sys.modules; pip install 'audio-ablation[{tracker}]'"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        main(freeze(sounds, tmp_path, "--track", tracker))
    assert not list(Store(tmp_path).records())


def test_wandb_without_account_is_one_line(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    with pytest.raises(UserError, match="--track wandb: no account; run 'wandb login', or set WANDB_MODE=offline"):
        main(freeze(sounds, tmp_path, "--track", "wandb"))


def test_server_that_cannot_be_reached_is_one_line(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="--track mlflow: cannot use http://127.0.0.1:9"):
        main(freeze(sounds, tmp_path, "--track", "mlflow"))
    assert not list(Store(tmp_path).records())


@pytest.mark.slow
def test_mlflow_with_ray_has_every_epoch(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(freeze(sounds, tmp_path, "--track", "mlflow", "--ray", "local")) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("audio-ablation").experiment_id
    runs = client.search_runs([experiment])
    assert len(runs) == 2
    for run in runs:
        curve = pd.Series({point.step: point.value for point in client.get_metric_history(run.info.run_id, "lr")})
        assert list(curve.sort_index().index) == [1, 2, 3]
