"""Runs trained together end as each would have ended alone: weights, logits, curves, records, failures, checkpoints."""

import dataclasses
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import Timeout
from torch import nn

from core import datasets, executor
from core.config.execution import Execution
from core.config.run import Run, Training
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import Executed, execute
from core.plan import Plan, Planned, resolve
from core.session import Session
from core.store.runs import FAILED, FINISHED, RUNNING, Store
from core.training import LOSSES, OPTIMIZERS, checkpoint
from core.training.heads import groups as lots_
from core.training.heads import head_runs, heads_trainer
from core.training.heads.groups import LOT, lots
from core.training.prepare import prepare
from core.training.step import Step
from core.training.trainer import train

HEAD: dict[str, Any] = {"model__freeze": "block4", "training__epochs": 3}
SMALL: dict[str, Any] = {"model__backbone": "mlp", "model__weights": "random", "training__epochs": 4}
TIMES: dict[str, Any] = {  # of a record: what differs between two trainings, and what `assert_same` compares apart
    "seconds": None, "files": {}, "sha256": {}, "metrics": None, "per_class": None, "confusion": (),
}  # fmt: skip
FEATURES = 19  # no multiple of what a processor takes at once


def plan_of(runs: list[Run], dataset: Dataset) -> Plan:
    return Plan("test", tuple(Planned("one", run, runs[0]) for run in runs), {runs[0].data.content: dataset})


def trained(
    runs: list[Run], dataset: Dataset, results: Path, *, alone: bool = False, threads: int = 1
) -> tuple[Executed, Session]:
    """Train runs together, where none may be trained alone, or alone."""
    session = Session(Execution(results=results, device="cpu", threads=threads))
    with pytest.MonkeyPatch.context() as patch:
        if alone:
            patch.setattr(executor, "lots", lambda runs, datasets: [[run] for run in runs])
        else:
            patch.setattr(executor, "train", refuse)
        return execute(plan_of(runs, dataset), session), session


def refuse(run: Run, *given: object, **named: object) -> None:
    raise AssertionError(f"{run.id} was trained alone")


def assert_same(runs: list[Run], one: Session, other: Session) -> None:
    """Compare all that runs have left in two stores, but for times; no two runs are the same."""
    for run in runs:
        torch.testing.assert_close(one.store.weights(run), other.store.weights(run), atol=1e-5, rtol=1e-5)
        (clips, targets, logits), (others, their_targets, theirs) = (s.store.predictions(run) for s in (one, other))
        assert clips == others
        np.testing.assert_array_equal(targets, their_targets)
        np.testing.assert_allclose(logits, theirs, atol=1e-5, rtol=1e-5)
        best = [session.store.predictions(run, best=True)[2] for session in (one, other)]
        np.testing.assert_allclose(*best, atol=1e-5, rtol=1e-5)
        assert best[0].shape == logits.shape
        curves = [session.store.history(run).filter(regex="^(?!.*seconds)") for session in (one, other)]
        pd.testing.assert_frame_equal(*curves, atol=1e-5, rtol=1e-5)
        records = [record for session in (one, other) if (record := session.store.finished(run))]
        untimed = [dataclasses.replace(r.metrics, time_to_converge=0.0, prediction_ms=0.0) for r in records]
        scores = [flat([own, r.per_class, r.confusion]) for r, own in zip(records, untimed, strict=True)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5, nan_ok=True)
        facts = [dataclasses.replace(record, **TIMES) for record in records]
        assert facts[0] == facts[1]
        assert all(r.metrics.prediction_ms > 0 and r.metrics.time_to_converge > 0 for r in records)
        assert names_in(one, run) == names_in(other, run)
    assert len({one.store.predictions(run)[2].tobytes() for run in runs}) == len(runs)


def flat(scores: Any) -> list[float]:
    """Return every number in scores."""
    if dataclasses.is_dataclass(scores):
        scores = [getattr(scores, field.name) for field in dataclasses.fields(scores)]
    return [number for part in scores for number in flat(part)] if isinstance(scores, list | tuple) else [scores]


def names_in(session: Session, run: Run) -> list[str]:
    return sorted(path.name for path in session.store.folder(run).iterdir())


@pytest.fixture
def vectors(tmp_path: Path) -> tuple[Run, Dataset]:
    """Return a run of a perceptron on a table of 60 rows, and the table."""
    rng = np.random.default_rng(0)
    label = np.arange(60) % 3
    x = rng.standard_normal((60, FEATURES)) + (label[:, None] == np.arange(FEATURES) % 3)
    frame = pd.DataFrame(x, columns=[f"f{k}" for k in range(FEATURES)])
    frame.insert(0, "filename", [f"{k}.wav" for k in range(60)])
    frame["label"] = np.array(["a", "b", "c"])[label]
    frame.to_csv(tmp_path / "features.csv", index=False)
    dataset = datasets.load("features", tmp_path / "features.csv")
    run = Run().replace(data__name="features", training__batch_size=10, **SMALL)
    return resolve(run, dataset, dataset.fingerprint(tmp_path / "prints")), dataset


def several(run: Run, **changes: Any) -> list[Run]:
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
        {"model__dropout": 0.0, "training__optimizer": "sgd", "training__clip_norm": 0.5},
        {"model__head": "32-16", "training__optimizer": "adamw", "training__loss": "hinge"},
        {"frontend__normalise": "train", "data__validation": 0.25, "training__schedule": "plateau"},
        {"training__augment": "waveform", "training__variants": 2, "training__label_smoothing": 0.1},
    ],
    ids=["as it is", "sgd", "dense head", "normalised by fold", "waveforms augmented"],
)
def test_heads_end_as_they_would_alone(run: Run, dataset: Dataset, tmp_path: Path, changes: dict[str, Any]) -> None:
    runs = several(run, **HEAD | changes)
    _, one = trained(runs, dataset, tmp_path / "together")
    executed, other = trained(runs, dataset, tmp_path / "alone", alone=True)
    assert executed.trained == len(runs)
    assert_same(runs, one, other)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__loss": "kullback-leibler", "training__label_smoothing": 0.1, "training__schedule": "step"},
        {"model__layers": "relu64-tanh48", "training__optimizer": "sgd", "training__clip_norm": 0.5},
        {"model__layers": "none", "frontend__pca": 5.0, "frontend__components": 5, "training__loss": "hinge"},
        {"model__layers": "relu32-relu32", "model__freeze": "stem", "training__optimizer": "adamw"},
    ],
    ids=["as it is", "smoothed", "two layers", "logistic on components", "frozen stem"],
)
def test_perceptrons_end_as_they_would_alone(
    vectors: tuple[Run, Dataset], tmp_path: Path, changes: dict[str, Any]
) -> None:
    run, dataset = vectors
    runs = several(run, **changes)
    if "model__freeze" in changes:  # what is frozen is drawn from the seed, and standardised by the fold
        runs = [one for one in runs if one.seed == 0 and one.data.fold == 1]
    _, one = trained(runs, dataset, tmp_path / "together")
    _, other = trained(runs, dataset, tmp_path / "alone", alone=True)
    assert_same(runs, one, other)


def test_heads_of_one_layer_have_the_bits_they_would_have_alone(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    """What is frozen has them anyway, and batch order and dropout; products and sums on the CPUs that were tried."""
    runs = several(run, **HEAD)
    _, one = trained(runs, dataset, tmp_path / "together")
    _, other = trained(runs, dataset, tmp_path / "alone", alone=True)
    for each in runs:
        mine, theirs = one.store.weights(each), other.store.weights(each)
        same = {name for name in mine if torch.equal(mine[name], theirs[name])}
        assert set(mine) - same <= {"classifier.weight", "classifier.bias"}
        assert mine["classifier.weight"].sub(theirs["classifier.weight"]).abs().max() < 1e-6


def test_each_stops_when_it_would_alone(vectors: tuple[Run, Dataset], tmp_path: Path) -> None:
    run, dataset = vectors
    run = run.replace(data__validation=0.3, training__epochs=30, training__patience=2)
    rates = [run.replace(training__lr=lr) for lr in (1e-4, 1e-2, 0.1, 0.5)]
    reached = run.replace(training__monitor="accuracy", training__patience=0, training__stop_at=0.6)
    runs = [*rates, *(reached.replace(training__lr=one.training.lr) for one in rates)]
    _, one = trained(runs, dataset, tmp_path / "together")
    _, other = trained(runs, dataset, tmp_path / "alone", alone=True)
    for each in runs:
        assert len(one.store.history(each)) == len(other.store.history(each))
        np.testing.assert_allclose(
            one.store.predictions(each)[2], other.store.predictions(each)[2], rtol=1e-4, atol=1e-4
        )
    assert len({len(one.store.history(each)) for each in rates}) > 1


def test_one_that_fails_fails_alone_and_says_the_same(vectors: tuple[Run, Dataset], tmp_path: Path) -> None:
    run, dataset = vectors
    runs = several(run)
    runs.insert(2, run.replace(training__lr=1e30, training__optimizer="sgd"))
    runs = [one.replace(training__optimizer="sgd") for one in runs]
    executed, one = trained(runs, dataset, tmp_path / "together")
    assert (executed.trained, executed.failed) == (6, 1)
    _, other = trained(runs, dataset, tmp_path / "alone", alone=True)
    failed = [session.store.record(runs[2]) for session in (one, other)]
    assert failed[0]
    assert failed[1]
    assert failed[0].status == FAILED
    assert failed[0].reason == failed[1].reason
    assert "try a lower --lr" in failed[0].reason
    assert "NonFiniteLoss" in (one.store.folder(runs[2]) / "error.txt").read_text()
    assert_same([each for each in runs if each is not runs[2]], one, other)


@pytest.mark.parametrize("alone_first", [False, True], ids=["together, then alone", "alone, then together"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_killed_runs_go_on_either_way(
    vectors: tuple[Run, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone_first: bool,
    optimizer: str,
) -> None:
    run, dataset = vectors
    runs = several(run, training__optimizer=optimizer, training__epochs=6)
    _, straight = trained(runs, dataset, tmp_path / "straight", alone=True)
    monkeypatch.setattr(heads_trainer, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr("core.training.trainer.CHECKPOINT_EVERY", 0.0)
    save, saved = checkpoint.save, 0

    def save_then_die(*given: Any) -> None:
        nonlocal saved
        save(*given)
        saved += 1
        if saved == 2 * len(runs):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            trained(runs, dataset, tmp_path / "killed", alone=alone_first)
    left = Session(Execution(results=tmp_path / "killed", device="cpu", threads=1)).store
    assert any(left.checkpoint(one).exists() for one in runs)
    executed, session = trained(runs, dataset, tmp_path / "killed", alone=not alone_first)
    assert executed.failed == 0
    assert_same(runs, session, straight)


def test_killed_runs_go_on_where_they_were(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dataset = vectors
    runs = several(run)
    monkeypatch.setattr(heads_trainer, "CHECKPOINT_EVERY", 0.0)
    epochs: list[int] = []
    train_epoch = heads_trainer.Lot._epoch

    def counted(lot: heads_trainer.Lot) -> None:
        epochs.append(len(lot.members[0].history))
        if epochs == [0, 1, 2]:
            raise KeyboardInterrupt
        train_epoch(lot)

    monkeypatch.setattr(heads_trainer.Lot, "_epoch", counted)
    with pytest.raises(KeyboardInterrupt):
        trained(runs, dataset, tmp_path)
    trained(runs, dataset, tmp_path)
    assert epochs == [0, 1, 2, 2, 3]


def test_what_may_be_trained_together(run: Run, dataset: Dataset, vectors: tuple[Run, Dataset]) -> None:
    def parts(*runs: Run) -> list[int]:
        return [len(lot) for lot in lots(runs, {run.data.content: dataset, vectors[0].data.content: vectors[1]})]

    head = run.replace(model__freeze="block4")
    assert parts(*several(head)) == [6]
    assert parts(*several(head, model__cut="block2", model__freeze="block2")) == [6]
    assert parts(*several(vectors[0])) == [6]
    for alone in (
        run,
        run.replace(model__freeze="block3"),
        head.replace(model__frozen_batch_norm="train"),
        head.replace(training__augment="rotate"),
        head.replace(training__augment="segment", training__live=True),
        head.replace(training__time_mask=2),
        head.replace(training__compile=True),
        head.replace(training__precision="bf16"),
        run.replace(model__cut="block2", model__freeze="block1"),
    ):
        assert parts(*several(alone)) == [1] * 6, alone
    seeds = [head.replace(seed=seed, data__fold=fold) for seed in (0, 1) for fold in (1, 2)]
    assert parts(*seeds) == [4]
    assert parts(*(one.replace(model__weights="random") for one in seeds)) == [2, 2]  # by seed
    assert parts(*(one.replace(model__fuse="block2") for one in seeds)) == [2, 2]
    assert parts(*(one.replace(frontend__normalise="train") for one in seeds)) == [2, 2]  # by fold
    assert parts(*(one.replace(model__dropout=0.1 * (k + 1)) for k, one in enumerate(seeds))) == [1] * 4
    assert sum(parts(*(head.replace(seed=seed) for seed in range(2 * LOT + 1)))) == 2 * LOT + 1
    assert max(parts(*(head.replace(seed=seed) for seed in range(2 * LOT + 1)))) <= LOT


def test_order_is_kept_and_nothing_is_lost(run: Run, dataset: Dataset) -> None:
    runs = [run.replace(seed=seed, model__freeze=freeze) for seed in range(3) for freeze in ("none", "block4")]
    found = lots(runs, {run.data.content: dataset})
    assert found == [[runs[0]], [runs[1], runs[3], runs[5]], [runs[2]], [runs[4]]]


class Norm(torch.optim.Adam):
    """An optimizer that may look at a parameter as a whole."""


@pytest.mark.parametrize("what", ["optimizer", "network", "broken"])
def test_what_cannot_be_trained_together_is_trained_alone(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run, dataset = vectors
    if what == "optimizer":
        monkeypatch.setitem(OPTIMIZERS.entries, "adam", f"{__name__}:norm")
    elif what == "network":
        net = tmp_path / "net.py"
        net.write_text(
            "from torch import nn\n\n\ndef make(num_classes, input_shape):\n"
            "    blocks = nn.Sequential(nn.Linear(*input_shape, 8), nn.BatchNorm1d(8)), nn.Sequential(nn.ReLU())\n"
            "    return nn.Sequential(*blocks, nn.Sequential(nn.Linear(8, num_classes)))\n"
        )
        run = resolve(run.replace(model__backbone=f"{net}:make"), dataset, run.data.content)
    else:
        monkeypatch.setattr(heads_trainer.Lot, "_train", _raise)
    alone: list[str] = []
    monkeypatch.setattr(executor, "train", lambda run, *a, **k: (alone.append(run.id), train(run, *a, **k)))
    session = Session(Execution(results=tmp_path / "results", device="cpu", threads=1))
    runs = several(run, training__epochs=1)
    executed = execute(plan_of(runs, dataset), session)
    assert (executed.trained, executed.failed) == (6, 0)
    assert alone == [one.id for one in runs]


def norm(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    return Norm(parameters, lr=training.lr)


def _raise(*given: object) -> None:
    raise RuntimeError("something unforeseen")


def test_a_strangers_loss_is_trained_together(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES.entries, "hinge", f"{__name__}:doubtful")
    run, dataset = vectors
    runs = several(run, training__loss="hinge")
    _, one = trained(runs, dataset, tmp_path / "together")
    _, other = trained(runs, dataset, tmp_path / "alone", alone=True)
    assert_same(runs, one, other)


def doubtful(training: Training) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a loss that looks at a value, which no transformation of torch's allows."""
    entropy = nn.CrossEntropyLoss()
    return lambda logits, labels: entropy(logits, labels) * (2 if logits.max().item() > 1 else 1)


def test_a_classifier_that_was_loaded_is_where_every_seed_starts(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    _, session = trained([run.replace(**HEAD), run.replace(**HEAD, seed=1)], dataset, tmp_path / "first")
    file = session.store.folder(run.replace(**HEAD)) / "weights.safetensors"
    run = resolve(run.replace(**HEAD | {"model__weights": str(file)}), dataset, run.data.content)
    runs = [run.replace(seed=seed) for seed in range(3)]
    _, one = trained(runs, dataset, tmp_path / "together")
    _, other = trained(runs, dataset, tmp_path / "alone", alone=True)
    assert_same(runs, one, other)


def test_a_disk_that_fills_up_while_runs_are_written_ends_the_command(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dataset = vectors
    runs = several(run, training__epochs=1)
    write = Store.write_weights

    def full(store: Store, run: Run, weights: dict[str, torch.Tensor]) -> None:
        if run.id == runs[1].id:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(store, run, weights)

    monkeypatch.setattr(Store, "write_weights", full)
    with pytest.raises(UserError, match=r"cannot write to .*runs.*No space left"):
        trained(runs, dataset, tmp_path)
    left = Session(Execution(results=tmp_path, device="cpu", threads=1)).store
    assert left.status(runs[1]) == RUNNING
    assert not list(left.folder(runs[1]).glob(".*"))
    assert all(left.check(one, "weights.safetensors") == "" for one in runs if left.status(one) == FINISHED)


def test_a_head_that_is_left_alone_is_trained_as_it_is_among_others(
    run: Run, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one thread: of a command that is given again it may be all that is left, and the bits are to be the same."""
    threads: list[int] = []
    monkeypatch.setattr(Step, "__call__", watched(Step.__call__, threads))
    head, whole = run.replace(**HEAD), run.replace(training__epochs=1)
    _, one = trained([head], dataset, tmp_path / "alone", alone=True, threads=2)
    assert set(threads) == {1}
    threads.clear()
    trained([whole], dataset, tmp_path / "whole", alone=True, threads=2)
    assert set(threads) == {2}
    _, other = trained([head, head.replace(seed=1)], dataset, tmp_path / "together", threads=2)
    weights, same = one.store.weights(head), other.store.weights(head)
    assert all(torch.equal(weights[name], same[name]) for name in weights | same)


def watched(function: Callable[..., Any], threads: list[int]) -> Callable[..., Any]:
    return lambda *given: (threads.append(torch.get_num_threads()), function(*given))[1]


def test_what_lots_start_from_is_prepared_once(
    run: Run, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lots_, "LOT", 2)
    prepared: list[str] = []
    monkeypatch.setattr(head_runs, "prepare", lambda run, *a: (prepared.append(run.id), prepare(run, *a))[1])
    head = run.replace(**HEAD | {"training__epochs": 2})
    other = head.replace(model__weights="random")
    runs = [*(head.replace(seed=seed) for seed in range(6)), *(other.replace(training__lr=lr) for lr in (1e-2, 1e-3))]
    _, one = trained(runs, dataset, tmp_path / "together")
    assert prepared == [runs[0].id, runs[6].id]
    _, alone = trained(runs, dataset, tmp_path / "alone", alone=True)
    assert_same(runs, one, alone)


def test_perceptrons_are_prepared_once_for_each_fold(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they start is all that their seeds decide; it is drawn for each."""
    monkeypatch.setattr(lots_, "LOT", 4)
    prepared: list[int] = []
    monkeypatch.setattr(head_runs, "prepare", lambda run, *a: (prepared.append(run.data.fold), prepare(run, *a))[1])
    run, dataset = vectors
    runs = [run.replace(seed=seed, data__fold=fold) for seed in range(4) for fold in (1, 2)]
    _, one = trained(runs, dataset, tmp_path / "together")
    assert prepared == [1, 2]
    _, alone = trained(runs, dataset, tmp_path / "alone", alone=True)
    assert_same(runs, one, alone)


def test_a_lot_is_written_while_the_next_is_trained_and_held_until_then(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lots_, "LOT", 3)
    run, dataset = vectors
    runs = several(run)
    training, epoch, write = threading.Event(), heads_trainer.Lot._epoch, Store.write_weights
    statuses: list[str] = []

    def watched(lot: heads_trainer.Lot) -> None:
        if lot.members[0].run is runs[3]:
            other = Session(Execution(results=tmp_path, device="cpu", threads=1)).store
            with pytest.raises(Timeout):
                other.lock(runs[0]).acquire(blocking=False)
            statuses.append(other.status(runs[0]))
            training.set()
        epoch(lot)

    def patient(store: Store, run: Run, weights: Any) -> None:
        assert run in runs[3:] or training.wait(20)
        write(store, run, weights)

    monkeypatch.setattr(heads_trainer.Lot, "_epoch", watched)
    monkeypatch.setattr(Store, "write_weights", patient)
    executed, session = trained(runs, dataset, tmp_path)
    assert (executed.trained, executed.failed) == (6, 0)
    assert statuses[0] == RUNNING
    for one in runs:
        session.store.lock(one).acquire(blocking=False).lock.release()


def test_a_run_that_cannot_be_written_is_trained_alone_and_the_others_are_not(
    vectors: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dataset = vectors
    runs, write, alone = several(run, training__epochs=1), Store.write_weights, []

    def odd(store: Store, run: Run, weights: Any) -> None:
        if run.id == runs[1].id and run.id not in alone:
            raise ValueError("something unforeseen")
        write(store, run, weights)

    monkeypatch.setattr(Store, "write_weights", odd)
    monkeypatch.setattr(executor, "train", lambda run, *a, **k: (alone.append(run.id), train(run, *a, **k)))
    session = Session(Execution(results=tmp_path, device="cpu", threads=1))
    executed = execute(plan_of(runs, dataset), session)
    assert (executed.trained, executed.failed, alone) == (6, 0, [runs[1].id])
    assert all(session.store.status(one) == FINISHED for one in runs)


def test_what_is_settled_or_held_elsewhere_is_left_out(vectors: tuple[Run, Dataset], tmp_path: Path) -> None:
    run, dataset = vectors
    runs = several(run)
    _, session = trained(runs[:2], dataset, tmp_path)
    before = (session.store.folder(runs[0]) / "weights.safetensors").stat().st_mtime_ns
    executed, _ = trained(runs, dataset, tmp_path)
    assert executed == Executed(4, 2, 0, frozenset(one.id for one in runs[2:]))
    assert (session.store.folder(runs[0]) / "weights.safetensors").stat().st_mtime_ns == before
    assert all(session.store.status(one) == FINISHED for one in runs)
