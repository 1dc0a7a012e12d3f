"""Heads trained together end as if each had been trained alone: weights, history, predictions, records, failures."""

import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from core import datasets, executor
from core.config.execution import ExecutionOptions
from core.config.run import Run, Training
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import ExecutionSummary, execute
from core.plan import Plan, PlannedRun, resolve
from core.session import Session
from core.store.run_store import FAILED, FINISHED, RUNNING, Store
from core.training import LOSSES, OPTIMIZERS
from core.training.heads.heads_trainer import HeadsTrainer
from core.training.trainer import train

HEAD: dict[str, Any] = {"model__freeze": "block4", "training__epochs": 3}
PERCEPTRON: dict[str, Any] = {"model__backbone": "mlp", "model__weights": "random", "training__epochs": 4}
IGNORED: dict[str, Any] = {  # parts of a record that differ between two trainings, or that are compared by tolerance
    "seconds": None, "files": {}, "sha256": {}, "metrics": None, "per_class": None, "confusion": (),
}  # fmt: skip


def execute_runs(runs: list[Run], dataset: Dataset, session: Session) -> ExecutionSummary:
    planned = tuple(PlannedRun("one", run, runs[0]) for run in runs)
    return execute(Plan("test", planned, {runs[0].data.content: dataset}), session)


def new_session(results: Path) -> Session:
    return Session(ExecutionOptions(results=results, device="cpu", threads=1))


def train_together(runs: list[Run], dataset: Dataset, results: Path) -> Session:
    def refuse(run: Run, *args: object, **kwargs: object) -> None:
        raise AssertionError(f"{run.id} was trained alone")

    session = new_session(results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "train", refuse)
        execute_runs(runs, dataset, session)
    return session


def train_alone(runs: list[Run], dataset: Dataset, results: Path) -> Session:
    session = new_session(results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "group_runs", lambda runs, datasets: [[run] for run in runs])
        execute_runs(runs, dataset, session)
    return session


def assert_same(runs: list[Run], dataset: Dataset, folder: Path, *, atol: float = 1e-5) -> None:
    """Train runs together and alone, and compare everything in the two stores but times."""
    one = train_together(runs, dataset, folder / "together").store
    other = train_alone(runs, dataset, folder / "alone").store
    for run in runs:
        assert_same_run(run, one, other, atol=atol)
    assert len({one.predictions(run)[2].tobytes() for run in runs}) == len(runs)


def assert_same_run(run: Run, one: Store, other: Store, *, atol: float) -> None:
    torch.testing.assert_close(one.weights(run), other.weights(run), atol=atol, rtol=1e-5)
    for best in (False, True):
        (clips, targets, logits), (clips_2, targets_2, logits_2) = (s.predictions(run, best=best) for s in (one, other))
        assert clips == clips_2
        np.testing.assert_array_equal(targets, targets_2)
        np.testing.assert_allclose(logits, logits_2, atol=atol, rtol=1e-5)
    histories = [store.history(run).filter(regex="^(?!.*seconds)") for store in (one, other)]
    pd.testing.assert_frame_equal(*histories, atol=atol, rtol=1e-5)
    records = [record for store in (one, other) if (record := store.finished(run))]
    untimed = [dataclasses.replace(r.metrics, time_to_converge=0.0, prediction_ms=0.0, prefix_ms=0.0) for r in records]
    numbers = [flatten([own, r.per_class, r.confusion]) for r, own in zip(records, untimed, strict=True)]
    assert numbers[0] == pytest.approx(numbers[1], abs=atol, nan_ok=True)
    facts = [dataclasses.replace(record, **IGNORED) for record in records]
    assert facts[0] == facts[1]
    assert all(r.metrics.prediction_ms > 0 and r.metrics.time_to_converge > 0 for r in records)
    names = [sorted(path.name for path in store.folder(run).iterdir()) for store in (one, other)]
    assert names[0] == names[1]


def flatten(numbers: Any) -> list[float]:
    """Return every number in nested data."""
    if dataclasses.is_dataclass(numbers):
        numbers = [getattr(numbers, field.name) for field in dataclasses.fields(numbers)]
    return [number for part in numbers for number in flatten(part)] if isinstance(numbers, list | tuple) else [numbers]


@pytest.fixture
def vectors(tmp_path: Path) -> tuple[Run, Dataset]:
    """Return a run of a perceptron on a table of 60 rows, and the table."""
    rng = np.random.default_rng(0)
    label = np.arange(60) % 3
    x = rng.standard_normal((60, 19)) + (label[:, None] == np.arange(19) % 3)
    frame = pd.DataFrame(x, columns=[f"f{k}" for k in range(19)])
    frame.insert(0, "filename", [f"{k}.wav" for k in range(60)])
    frame["label"] = np.array(["a", "b", "c"])[label]
    frame.to_csv(tmp_path / "features.csv", index=False)
    dataset = datasets.load_dataset("features", tmp_path / "features.csv")
    run = Run().replace(data__name="features", training__batch_size=10, **PERCEPTRON)
    return resolve(run, dataset, dataset.compute_fingerprint(tmp_path / "prints")), dataset


def vary(run: Run, **changes: Any) -> list[Run]:
    """Vary seed, fold, learning rate and weight decay, one or two at a time."""
    run = run.replace(**changes)
    return [
        run,
        run.replace(seed=1),
        run.replace(data__fold=2),
        run.replace(seed=1, data__fold=2, training__lr=3e-3),
        run.replace(training__weight_decay=0.1),
        run.replace(training__lr=3e-3),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__head": "32-16", "training__optimizer": "adamw", "training__loss": "hinge"},
        {"frontend__normalise": "train", "data__validation": 0.25, "training__schedule": "plateau"},
        {"training__augment": "waveform", "training__variants": 2, "training__label_smoothing": 0.1},
    ],
    ids=["defaults", "dense head", "normalised by fold", "waveforms augmented"],
)
def test_heads_equal_those_trained_alone(run: Run, dataset: Dataset, tmp_path: Path, changes: dict[str, Any]) -> None:
    runs = vary(run, **HEAD | changes)
    if "frontend__normalise" in changes:
        runs = [one for one in runs if one.data.fold == 1]  # the fold decides the frozen activations
    assert_same(runs, dataset, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__loss": "kullback-leibler", "training__label_smoothing": 0.1, "training__schedule": "step"},
        {"model__layers": "relu64-tanh48", "training__optimizer": "sgd", "training__clip_norm": 0.5},
        {"model__layers": "none", "frontend__pca": 5.0, "frontend__components": 5, "training__loss": "hinge"},
    ],
    ids=["defaults", "smoothed", "two layers", "logistic on components"],
)
def test_perceptrons_equal_those_trained_alone(
    vectors: tuple[Run, Dataset], tmp_path: Path, changes: dict[str, Any]
) -> None:
    run, dataset = vectors
    assert_same(vary(run, **changes), dataset, tmp_path)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_each_run_stops_when_it_would_alone(vectors: tuple[Run, Dataset], tmp_path: Path, schedule: str) -> None:
    run, dataset = vectors
    run = run.replace(data__validation=0.3, training__epochs=30, training__patience=2, training__schedule=schedule)
    if schedule == "plateau":  # the rates of runs that share an optimizer part
        run = run.replace(training__drop_patience=1)
    runs = [run.replace(training__lr=lr, seed=seed) for lr in (1e-4, 1e-2, 0.1) for seed in (0, 1)]
    assert_same(runs, dataset, tmp_path, atol=1e-3)
    store = new_session(tmp_path / "together").store
    assert len({len(store.history(run)) for run in runs}) > 1


def test_diverging_run_fails_and_the_others_do_not(vectors: tuple[Run, Dataset], tmp_path: Path) -> None:
    run, dataset = vectors
    runs = vary(run, training__optimizer="sgd")
    diverging = run.replace(training__lr=1e6, training__optimizer="sgd")
    one = train_together([*runs, diverging], dataset, tmp_path / "together").store
    other = train_alone([*runs, diverging], dataset, tmp_path / "alone").store
    records = [store.record(diverging) for store in (one, other)]
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].status == FAILED
    assert records[0].reason == records[1].reason
    assert "try a lower --lr" in records[0].reason
    assert "NonFiniteLoss" in (one.folder(diverging) / "error.txt").read_text()
    for each in runs:
        assert_same_run(each, one, other, atol=1e-5)


def test_every_seed_starts_from_a_loaded_classifier(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    first = train_together([run.replace(**HEAD), run.replace(**HEAD, seed=1)], dataset, tmp_path / "first").store
    file = first.folder(run.replace(**HEAD)) / "weights.safetensors"
    run = resolve(run.replace(**HEAD | {"model__weights": str(file)}), dataset, run.data.content)
    assert_same([run.replace(seed=seed) for seed in range(3)], dataset, tmp_path)


class UnknownOptimizer(torch.optim.Adam):
    """An optimizer that might treat a parameter as a whole."""


def unknown_optimizer(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    return UnknownOptimizer(parameters, lr=training.lr)


def loss_with_branch(training: Training) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a loss that `torch.vmap` does not take."""
    entropy = nn.CrossEntropyLoss()
    return lambda logits, labels: entropy(logits, labels) * (2 if logits.max().item() > 1 else 1)


@pytest.mark.parametrize("reason", ["optimizer", "network", "loss"])
def test_runs_that_cannot_be_stacked_are_trained_one_by_one(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    run, dataset = vectors
    if reason == "optimizer":
        monkeypatch.setitem(OPTIMIZERS.entries, "adam", f"{__name__}:unknown_optimizer")
    elif reason == "loss":
        monkeypatch.setitem(LOSSES.entries, "hinge", f"{__name__}:loss_with_branch")
        run = run.replace(training__loss="hinge")
    else:
        net = tmp_path / "net.py"
        net.write_text(
            "from torch import nn\n\n\ndef make(num_classes, input_shape):\n"
            "    blocks = nn.Sequential(nn.Linear(*input_shape, 8), nn.BatchNorm1d(8)), nn.Sequential(nn.ReLU())\n"
            "    return nn.Sequential(*blocks, nn.Sequential(nn.Linear(8, num_classes)))\n"
        )
        run = resolve(run.replace(model__backbone=f"{net}:make"), dataset, run.data.content)
    alone: list[str] = []
    monkeypatch.setattr(executor, "train", lambda run, *a, **k: (alone.append(run.id), train(run, *a, **k)))
    runs = vary(run, training__epochs=1)
    executed = execute_runs(runs, dataset, new_session(tmp_path / "results"))
    assert (executed.trained, executed.failed) == (6, 0)
    assert alone == [one.id for one in runs]


def test_full_disk_while_runs_are_written_ends_the_command(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dataset = vectors
    runs = vary(run, training__epochs=1)
    write = Store.write_weights

    def full(store: Store, run: Run, weights: dict[str, torch.Tensor]) -> None:
        if run.id == runs[1].id:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(store, run, weights)

    monkeypatch.setattr(Store, "write_weights", full)
    with pytest.raises(UserError, match=r"cannot write to .*runs.*No space left"):
        train_together(runs, dataset, tmp_path)
    store = new_session(tmp_path).store
    assert store.status(runs[1]) == RUNNING
    assert all(store.check_file(one, "weights.safetensors") == "" for one in runs if store.status(one) == FINISHED)


def test_killed_group_starts_again(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dataset = vectors
    runs = vary(run)
    train_epoch = HeadsTrainer._run_epoch

    def die(trainer: HeadsTrainer, epoch: int) -> dict[Any, Any]:
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(trainer, epoch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(HeadsTrainer, "_run_epoch", die)
        train_together(runs, dataset, tmp_path / "together")
    assert all(new_session(tmp_path / "together").store.status(one) == RUNNING for one in runs)
    assert_same(runs, dataset, tmp_path)
