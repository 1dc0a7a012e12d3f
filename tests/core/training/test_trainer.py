"""Training: frozen tensors stay unchanged, seeds are reproducible, resumed runs are bit-identical."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bf16 import needs_bf16

from core.config.execution import ExecutionOptions
from core.config.options import list_problems
from core.config.run import Run, Training
from core.datasets.dataset import Dataset
from core.models.build_network import build_network
from core.session import Session
from core.store.record import Clips
from core.store.run_store import FINISHED
from core.training import AUGMENTATIONS, LOSSES, OPTIMIZERS, SCHEDULES, STOPPING, checkpoint, trainer
from core.training.augmentations import Augmentation
from core.training.early_stopping import History
from core.training.epoch_order import shuffle_epoch_rows
from core.training.prepare import prepare
from core.training.step import NonFiniteLoss
from core.training.trainer import train

PLATEAU: dict[str, object] = {
    "training__epochs": 5,
    "training__lr": 0.01,
    "training__schedule": "plateau",
    "training__drop_patience": 1,
    "training__monitor": "accuracy",
    "data__validation": 0.25,
}


def weights_of(run: Run, dataset: Dataset, session: Session) -> dict[str, torch.Tensor]:
    train(run, dataset, session, label="run")
    return session.store.weights(run)


def written(run: Run, session: Session) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((session.store.folder(run) / "run.json").read_text())
    return record


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if torch.equal(one[name], other[name])]


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for all tests of this module, which share inputs and activations."""
    return tmp_path_factory.mktemp("results")


def test_train_learns_and_writes_all_files(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(training__epochs=8, frontend__n_mels=64, frontend__n_frames=64)
    train(run, dataset, session, label="run")
    folder = session.store.folder(run)
    expected = ["history.csv", "predictions.parquet", "run.json", "tensorboard", "weights.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == expected
    record = session.store.record(run)
    assert record is not None
    assert record.status == FINISHED
    assert record.metrics.accuracy >= 0.5  # chance is a third
    assert record.clips == Clips(train=24, validation=0, test=6)
    assert record.environment.threads == 1
    assert len(record.per_class.f1) == 3
    clips, targets, logits = session.store.predictions(run)
    assert (logits.argmax(1) == targets).mean() == record.metrics.accuracy
    assert clips == dataset.clips["path"].iloc[dataset.split(1).test].tolist()
    history = session.store.history(run)
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["train_accuracy"].iloc[-1] >= 0.9
    assert record.metrics.accuracy_best_epoch == history["test_accuracy"].max()
    _, _, best = session.store.predictions(run, best=True)
    assert (best.argmax(1) == targets).mean() == record.metrics.accuracy_best_epoch


def test_train_record_agrees_with_history(run: Run, dataset: Dataset, session: Session) -> None:
    for validation in (0.0, 0.25):
        made = run.replace(training__epochs=4, data__validation=validation)
        train(made, dataset, session, label="run")
        record, history = session.store.finished(made), session.store.history(made)
        assert record is not None
        scores = record.metrics
        best = int((history["validation_loss"] if validation else -history["test_accuracy"]).argmin()) + 1
        assert scores.time_to_converge == pytest.approx(history["train_seconds"][:best].sum())
        assert scores.prediction_ms == pytest.approx(1000 * history["test_seconds"].median() / record.clips.test)
        assert (history["test_seconds"] <= history["evaluation_seconds"]).all()
        assert scores.training_accuracy == history["train_accuracy"].iloc[-1]
        if validation:
            assert scores.validation_accuracy == history["validation_accuracy"].iloc[-1]
        else:
            assert np.isnan(scores.validation_accuracy)


def test_times_include_frozen_prefix(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    session = Session(ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1))
    for seed in (0, 1):  # the second finds the prefix in the cache
        frozen = run.replace(model__freeze="block4", training__epochs=2, seed=seed)
        train(frozen, dataset, session, label="run")
        record, history = session.store.finished(frozen), session.store.history(frozen)
        [manifest] = (session.store.cache / "activations").glob("*/manifest.json")
        prefix_ms = json.loads(manifest.read_text())["facts"]["ms_per_clip"]
        head_ms = 1000 * history["test_seconds"].median() / 6
        assert record is not None
        assert prefix_ms > 0
        scores = record.metrics
        assert scores.prediction_ms == pytest.approx(head_ms + prefix_ms)
        in_head = history["train_seconds"][: scores.best_epoch].sum()
        in_prefix = scores.best_epoch * record.clips.train * prefix_ms / 1000  # as if it was computed in every epoch
        assert scores.time_to_converge == pytest.approx(in_head + in_prefix)


@pytest.mark.parametrize("freeze", ["stem", "block4"])
def test_train_frozen_tensors_are_bit_identical(run: Run, dataset: Dataset, session: Session, freeze: str) -> None:
    run = run.replace(model__freeze=freeze)
    start = build_network(run, 3)
    frozen = {
        name.split(".", 1)[1].replace("/", ".") for name in start.state_dict() if name.split(".")[0] in start.frozen
    }
    after = weights_of(run, dataset, session)
    same = set(equal(start.original_state_dict(), after))
    assert frozen <= same
    moved = set(after) - frozen
    assert not {name for name in moved & same if "weight" in name or "running" in name}


def test_train_same_seed_is_bit_identical(run: Run, dataset: Dataset, session: Session) -> None:
    first = weights_of(run, dataset, session)
    again = weights_of(run, dataset, session)
    assert len(equal(first, again)) == len(first)
    other = weights_of(run.replace(seed=1), dataset, session)
    assert len(equal(first, other)) < len(first) / 2


@pytest.mark.parametrize(
    ("changes", "resumed_epochs"),
    [
        ({"training__epochs": 4, "training__optimizer": "adamw", "model__freeze": "stem"}, [2, 3]),
        (PLATEAU | {"training__augment": "rotate", "training__freq_mask": 4, "training__loss": "hinge"}, [2, 3, 4]),
        pytest.param(
            {"training__epochs": 4, "training__precision": "bf16", "model__freeze": "block2"}, [2, 3], marks=needs_bf16
        ),
    ],
    ids=["cosine", "plateau, hinge and batch augmentations", "bf16 and frozen"],
)
def test_train_resumed_run_is_bit_identical(
    run: Run,
    dataset: Dataset,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    resumed_epochs: list[int],
) -> None:
    run = run.replace(**changes)
    straight = weights_of(run, dataset, session)
    history = session.store.history(run)
    outputs = [session.store.predictions(run, best=best)[2] for best in (False, True)]
    monkeypatch.setattr(trainer, "CHECKPOINT_INTERVAL", 0.0)
    save = checkpoint.save
    saved = 0

    def save_then_die(*args: object) -> None:
        nonlocal saved
        save(*args)  # type: ignore[arg-type]
        saved += 1
        if saved == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(run, dataset, session, label="run")
    assert session.store.status(run) == "running"
    monkeypatch.setattr(checkpoint, "save", save)
    epochs: list[int] = []
    original = trainer.TrainingLoop._run_epoch
    monkeypatch.setattr(
        trainer.TrainingLoop, "_run_epoch", lambda self, rows: epochs.append(len(rows)) or original(self, rows)
    )
    resumed = weights_of(run, dataset, session)
    assert epochs == resumed_epochs
    assert len(equal(straight, resumed)) == len(straight)
    columns = ["epoch", "lr", "train_loss", "test_loss"]
    pd.testing.assert_frame_equal(session.store.history(run)[columns], history[columns])
    for best, logits in zip((False, True), outputs, strict=True):
        np.testing.assert_array_equal(session.store.predictions(run, best=best)[2], logits)
    if run.training.schedule == "plateau":
        assert history["lr"].nunique() > 1  # the schedule has dropped the rate


def test_train_non_finite_loss_raises(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(training__optimizer="sgd", training__lr=1e30, training__schedule="constant")
    with pytest.raises(NonFiniteLoss, match=r"epoch 1.*; try a lower --lr"):
        train(run, dataset, session, label="run")


def test_shuffle_epoch_rows_with_augmentation_has_each_clip_twice(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(training__augment="waveform", training__variants=2)
    prepared = prepare(run, dataset, session)
    rows = shuffle_epoch_rows(prepared, 1, torch.Generator().manual_seed(0))
    n = prepared.source.n_clips
    assert sorted(rows.tolist()) == sorted([*prepared.split.train, *(prepared.split.train + 2 * n)])
    train(run, dataset, session, label="run")
    assert session.store.status(run) == FINISHED


def test_train_records_stopping_rule(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(data__validation=0.25, training__epochs=6, training__lr=1e-6)
    ends = {}
    for changes in ({"stop_at": 0.01}, {"patience": 1, "monitor": "accuracy"}, {"epochs": 1}):
        stopped = run.replace(**{f"training__{name}": value for name, value in changes.items()})
        train(stopped, dataset, session, label="run")
        ends[written(stopped, session)["ended_by"]] = len(session.store.history(stopped))
    assert ends.keys() == {"stop-at", "patience", "epochs"}
    assert ends["epochs"] == 1
    assert ends["stop-at"] < 6
    assert 2 <= ends["patience"] < 6


def test_validation_epoch_uses_monitored_metric(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(data__validation=0.25, training__epochs=4, training__monitor="accuracy")
    train(run, dataset, session, label="run")
    scores = written(run, session)["metrics"]
    history = session.store.history(run)
    epoch = int(history["validation_accuracy"].to_numpy().argmax())
    assert scores["validation_epoch"] == epoch + 1
    assert scores["accuracy_validation_epoch"] == history["test_accuracy"][epoch]


# Entries that a user adds to the registries: one function each.


def brier(training: Training) -> torch.nn.Module:
    class Brier(torch.nn.Module):
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            wanted = torch.nn.functional.one_hot(labels, logits.shape[1])
            return ((logits.softmax(1) - wanted) ** 2).sum(1).mean()

    return Brier()


def halving(training: Training, epoch: int, history: History) -> float:
    return training.lr / 2**epoch


def second_epoch(training: Training, history: History) -> bool:
    return len(history) == 2


def plain_sgd(parameters: list[torch.nn.Parameter], training: Training) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=training.lr)


def backwards(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    return y[::-1].copy()


BACKWARDS = Augmentation(waveform=backwards)


def test_registries_accept_new_entries(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES.entries, "brier", f"{__name__}:brier")
    monkeypatch.setitem(SCHEDULES.entries, "halving", f"{__name__}:halving")
    monkeypatch.setitem(STOPPING.entries, "second-epoch", f"{__name__}:second_epoch")
    monkeypatch.setitem(OPTIMIZERS.entries, "plain-sgd", f"{__name__}:plain_sgd")
    monkeypatch.setitem(AUGMENTATIONS.entries, "backwards", f"{__name__}:BACKWARDS")
    names = {"loss": "brier", "schedule": "halving", "optimizer": "plain-sgd", "augment": "backwards"}
    run = run.replace(training__epochs=5, training__variants=1, **{f"training__{k}": v for k, v in names.items()})
    assert list_problems(run) == []
    train(run, dataset, session, label="run")
    history = session.store.history(run)
    assert history["lr"].tolist() == [run.training.lr, run.training.lr / 2]
    assert history["train_loss"].between(0, 2).all()
    assert written(run, session)["ended_by"] == "second-epoch"
    plain, changed = prepare(run, dataset, session).source.arrays
    assert not np.array_equal(plain, changed)
    assert list_problems(run.replace(training__loss="bier"))[0].startswith("--loss bier: did you mean 'brier'?")
