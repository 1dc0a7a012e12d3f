"""Training by identity: frozen tensors stay, seeds repeat, a killed run ends in the same bits."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from core.config import Execution, Run
from core.datasets.table import Dataset
from core.models.assembly import make_backbone
from core.record import Clips
from core.session import Session
from core.store import FINISHED
from core.training import checkpoint, trainer
from core.training.prepare import prepare
from core.training.trainer import NonFiniteLoss, train


def weights_of(run: Run, dataset: Dataset, session: Session) -> dict[str, torch.Tensor]:
    train(run, dataset, session, label="run")
    return session.store.weights(run)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if torch.equal(one[name], other[name])]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def session(results: Path) -> Session:
    """Share images and activations between this module's tests."""
    return Session(Execution(results=results, device="cpu", threads=1))


def test_train_learns_and_writes_every_file(run: Run, dataset: Dataset, session: Session) -> None:
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


@pytest.mark.parametrize("freeze", ["stem", "block3", "block4"])
def test_frozen_tensors_are_bit_identical_and_the_others_move(
    run: Run, dataset: Dataset, session: Session, freeze: str
) -> None:
    run = run.replace(model__freeze=freeze)
    start = make_backbone(run, 3)
    frozen = {
        name.split(".", 1)[1].replace("/", ".") for name in start.state_dict() if name.split(".")[0] in start.frozen
    }
    after = weights_of(run, dataset, session)
    same = set(equal(start.original_state_dict(), after))
    assert frozen <= same
    moved = set(after) - frozen
    assert not {name for name in moved & same if "weight" in name or "running" in name}


def test_frozen_in_training_mode_moves_only_running_statistics(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(model__freeze="block1", model__frozen_batch_norm="train", training__epochs=1)
    start = make_backbone(run, 3)
    after = weights_of(run, dataset, session)
    same = set(equal(start.original_state_dict(), after))
    inside = {n.split(".", 1)[1].replace("/", ".") for n in start.state_dict() if n.split(".")[0] in ("stem", "block1")}
    moved = inside - same
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)


def test_same_seed_gives_the_same_bits_and_another_another(run: Run, dataset: Dataset, session: Session) -> None:
    first = weights_of(run, dataset, session)
    again = weights_of(run, dataset, session)
    assert len(equal(first, again)) == len(first)
    other = weights_of(run.replace(seed=1), dataset, session)
    assert len(equal(first, other)) < len(first) / 2


def test_two_seeds_start_with_the_same_body(run: Run) -> None:
    one, other = make_backbone(run, 3), make_backbone(run.replace(seed=1), 3)
    same = equal(one.original_state_dict(), other.original_state_dict())
    assert sorted(set(one.original_state_dict()) - set(same)) == ["classifier.bias", "classifier.weight"]


def test_killed_run_goes_on_and_ends_in_the_same_bits(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run.replace(training__epochs=4, training__optimizer="adamw", model__freeze="stem")
    straight = weights_of(run, dataset, session)
    history = session.store.history(run)
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 0.0)
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
    original = trainer.Fit._epoch
    monkeypatch.setattr(trainer.Fit, "_epoch", lambda self, rows: epochs.append(len(rows)) or original(self, rows))
    resumed = weights_of(run, dataset, session)
    assert epochs == [2, 3]
    assert len(equal(straight, resumed)) == len(straight)
    columns = ["epoch", "lr", "train_loss", "test_loss"]
    pd.testing.assert_frame_equal(session.store.history(run)[columns], history[columns])


@pytest.mark.parametrize("freeze", ["stem", "block2", "block4"])
def test_reused_prefix_gives_the_same_outputs(run: Run, dataset: Dataset, session: Session, freeze: str) -> None:
    run = run.replace(model__freeze=freeze)
    outputs = []
    for reuse in (True, False):
        prepared = prepare(run, dataset, session, reuse=reuse)
        assert prepared.prefix_reused is reuse
        with torch.inference_mode():
            x = next(prepared.source.batches(torch.arange(8), 8))
            outputs.append(prepared.network.eval()(x))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)


def test_non_finite_loss_stops_with_epoch_and_step(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(training__optimizer="sgd", training__lr=1e30, training__schedule="constant")
    with pytest.raises(NonFiniteLoss, match=r"epoch 1.*; try a lower --lr"):
        train(run, dataset, session, label="run")


def test_validation_clips_come_from_the_training_folds(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(data__validation=0.25, training__patience=1)
    train(run, dataset, session, label="run")
    record = session.store.record(run)
    assert record is not None
    assert record.clips.test == 6
    assert record.clips.validation + record.clips.train == 24
    assert record.clips.validation > 0
    assert record.metrics.validation_epoch >= 1


def test_augmented_epoch_has_each_clip_twice(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(training__augment="waveform", training__variants=2)
    prepared = prepare(run, dataset, session)
    rows = trainer.epoch_rows(prepared, 1, torch.Generator().manual_seed(0))
    n = prepared.source.n_clips
    assert sorted(rows.tolist()) == sorted([*prepared.split.train, *(prepared.split.train + 2 * n)])
    train(run, dataset, session, label="run")
    assert session.store.status(run) == FINISHED


def test_masked_images_train(run: Run, dataset: Dataset, session: Session) -> None:
    run = run.replace(training__time_mask=8, training__freq_mask=8, model__freeze="block2", training__epochs=1)
    assert not prepare(run, dataset, session).prefix_reused
    train(run, dataset, session, label="run")
    assert session.store.status(run) == FINISHED
