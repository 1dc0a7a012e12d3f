import json
from pathlib import Path

import numpy as np
import pytest
import torch

from core.config import Run
from core.errors import UserError
from core.store import FAILED, FINISHED, RECORD, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def finish(store: Store, run: Run) -> None:
    store.folder(run).mkdir(exist_ok=True)
    store.write_history(run, [{"epoch": 1, "train_loss": 0.5}])
    store.write_record(run, FINISHED, {"metrics": {"accuracy": 0.5}}, files=("history.csv",))


def test_status_follows_a_run_from_missing_to_finished(store: Store) -> None:
    run = Run()
    assert store.status(run) == "missing"
    store.write_record(run, "running", {})
    assert store.status(run) == "running"
    finish(store, run)
    assert store.status(run) == FINISHED
    record = store.record(run)
    assert record is not None
    assert Run.from_dict(record["config"]) == run
    assert [r["id"] for r in store.records()] == [run.id]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / RECORD).write_text((folder / RECORD).read_text()[:-20]),
        lambda folder: (folder / RECORD).write_text((folder / RECORD).read_text().replace("0.5", "0.9")),
        lambda folder: (folder / RECORD).write_text("[]"),
        lambda folder: (folder / RECORD).write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "history.csv").write_text("epoch\n"),
        lambda folder: (folder / "history.csv").unlink(),
    ],
    ids=["cut short", "number changed", "not a record", "not text", "history cut", "history gone"],
)
def test_damaged_run_is_never_believed(store: Store, damage: object) -> None:
    run = Run()
    finish(store, run)
    damage(store.folder(run))  # type: ignore[operator]
    assert store.status(run) == "missing"
    assert list(store.records()) == []


def test_record_of_another_run_in_its_folder_is_not_believed(store: Store) -> None:
    run, other = Run(), Run(seed=1)
    finish(store, run)
    store.folder(run).rename(store.folder(other))
    assert store.status(other) == "missing"


def test_failed_run_keeps_its_reason(store: Store) -> None:
    store.write_record(Run(), FAILED, {"reason": "the loss was nan"})
    record = store.record(Run())
    assert record is not None
    assert (record["status"], record["reason"]) == (FAILED, "the loss was nan")


def test_predictions_and_weights_round_trip(store: Store) -> None:
    run = Run()
    store.folder(run).mkdir()
    logits = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    store.write_predictions(run, [f"{k}.wav" for k in range(5)], np.arange(5), logits)
    clips, targets, again = store.predictions(run)
    assert clips == [f"{k}.wav" for k in range(5)]
    np.testing.assert_array_equal(targets, np.arange(5))
    np.testing.assert_array_equal(again, logits)
    weights = {"a.weight": torch.randn(3, 4).t(), "n": torch.tensor(3)}
    store.write_weights(run, weights)
    back = store.weights(run)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_damaged_weights_raise(store: Store) -> None:
    store.folder(Run()).mkdir()
    (store.folder(Run()) / "weights.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match=r"weights.safetensors cannot be read .*delete its folder"):
        store.weights(Run())


def test_results_that_is_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*results \(.*\); choose another --results"):
        Store(tmp_path / "results")


def test_nothing_temporary_is_left(store: Store) -> None:
    finish(store, Run())
    assert sorted(p.name for p in store.folder(Run()).iterdir()) == ["history.csv", RECORD]
    assert json.loads((store.folder(Run()) / RECORD).read_text())["files"] == {"history.csv": 23}
