"""Training on inputs computed on the fly equals training on stored inputs; random crops are reproducible."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from recordings import decode

from core.config.options import list_problems
from core.config.run import Run
from core.datasets import load_dataset
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.finished.open_run import open_run
from core.inputs.store import stored_waveforms
from core.inputs.store.compute import LazyWaveforms
from core.plan import resolve
from core.session import Session
from core.training import checkpoint, trainer
from core.training.batches import WaveformSource
from core.training.prepare import prepare
from core.training.trainer import TrainingLoop, train
from run_ablation import main

SR, SECONDS = 8000, 2.0
ONE = {"frontend__channels": "replicate"}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "colour": {**ONE, "frontend__colour": "viridis"},
    "train, mfcc": {**ONE, "frontend__kind": "mfcc", "frontend__normalise": "train", "frontend__n_mfcc": 20},
    "frozen": {"model__freeze": "block2"},
    "waveform": {"training__augment": "waveform", "training__variants": 2},
    "rotate and masks": {"training__augment": "rotate", "training__time_mask": 8, "training__freq_mask": 4},
    "stretch, waveform": {"clip__fit": "stretch", "training__augment": "waveform", "training__variants": 1},
}
SEGMENTS: dict[str, Any] = {"training__live": True, "training__augment": "segment"}


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for all tests of this module, which share their store."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return two classes of eight recordings of two seconds, in which every sample has a unique value."""
    root = tmp_path_factory.mktemp("recordings")
    for label, hertz in (("low", 300), ("high", 2500)):
        (root / label).mkdir()
        for k in range(8):
            rng = np.random.default_rng(k + hertz)
            t = np.arange(round(SR * (SECONDS if k else 0.3))) / SR  # the first is shorter than a crop
            y = 0.3 * np.sin(2 * np.pi * hertz * t) + 0.1 * rng.standard_normal(len(t))
            soundfile.write(root / label / f"{k}.wav", y, SR, subtype="FLOAT")
    return load_dataset("folder", root)


@pytest.fixture
def segments(run: Run, recordings: Dataset, tmp_path: Path) -> Run:
    """Return a run on random crops of half a second."""
    blank = run.replace(data__content="", **SEGMENTS)
    return resolve(blank, recordings, recordings.compute_fingerprint(tmp_path / "fingerprints"))


def outcome(run: Run, dataset: Dataset, session: Session) -> tuple[dict[str, torch.Tensor], np.ndarray, pd.DataFrame]:
    train(run, dataset, session, label="run")
    history = session.store.history(run)
    columns = [name for name in history if not name.endswith("seconds")]
    return session.store.weights(run), session.store.predictions(run)[2], history[columns]


@pytest.mark.parametrize("way", WAYS)
def test_on_the_fly_training_equals_stored_inputs(run: Run, dataset: Dataset, session: Session, way: str) -> None:
    run = run.replace(training__epochs=1, **WAYS[way])
    assert not list_problems(run.replace(training__live=True))
    weights, logits, history = outcome(run, dataset, session)
    live_weights, live_logits, live_history = outcome(run.replace(training__live=True), dataset, session)
    assert all(torch.equal(weights[name], live_weights[name]) for name in weights.keys() | live_weights.keys())
    np.testing.assert_array_equal(live_logits, logits)
    pd.testing.assert_frame_equal(live_history, history)


@pytest.mark.parametrize("way", ["stretch, waveform"])
def test_on_the_fly_training_on_long_recordings_is_bit_identical(
    run: Run, dataset: Dataset, session: Session, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_waveforms, "MAX_SAMPLES_TOGETHER", 0)
    source = prepare(run.replace(training__live=True, **WAYS[way]), dataset, session).source
    assert isinstance(next(source.batches(torch.arange(4), 4)), LazyWaveforms)
    test_on_the_fly_training_equals_stored_inputs(run.replace(seed=1), dataset, session, way)


def drawn(run: Run, dataset: Dataset, session: Session, *epochs: int | None) -> list[np.ndarray]:
    """Return the waveforms of all clips in each epoch, (clips, samples)."""
    source = prepare(run, dataset, session).source
    assert isinstance(source, WaveformSource)
    return [torch.cat(list(source.batches(torch.arange(16), 6, epoch=epoch))).numpy() for epoch in epochs]


def test_random_crop_draws_new_positions_every_epoch(segments: Run, recordings: Dataset, session: Session) -> None:
    *epochs, plain = drawn(segments, recordings, session, *range(30), None)
    starts = {}
    for row, path in enumerate(recordings.clips["path"]):
        y, _ = decode(recordings.root / path)
        if len(y) < SR // 2:
            padded = np.pad(y, (0, SR // 2 - len(y)))
            assert all(np.array_equal(epoch[row], padded) for epoch in (*epochs, plain))
            continue
        places = {y[k : k + 4].tobytes(): k for k in range(len(y))}
        starts[row] = [places[epoch[row][:4].tobytes()] for epoch in epochs]
        for start, epoch in zip(starts[row], epochs, strict=True):
            np.testing.assert_array_equal(epoch[row], y[start : start + SR // 2])
        np.testing.assert_array_equal(plain[row], y[: SR // 2])  # the test clip
    assert len(starts) == 14
    every = np.array(list(starts.values()))
    assert min(len(set(row)) for row in every) > 25  # of 30 epochs
    assert min(len(set(epoch)) for epoch in every.T) > 10  # of 14 recordings
    assert every.min() < 0.02 * 1.5 * SR
    assert every.max() > 0.98 * 1.5 * SR
    assert every.mean() == pytest.approx(0.75 * SR, rel=0.05)


def test_train_resumed_random_crop_run_is_bit_identical(
    segments: Run, recordings: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = segments.replace(training__epochs=3, model__freeze="stem")
    straight, logits, history = outcome(run, recordings, session)
    monkeypatch.setattr(trainer, "CHECKPOINT_INTERVAL", 0.0)
    save = checkpoint.save

    def save_then_die(*args: Any) -> None:
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(checkpoint, "save", save_then_die)
        train(run, recordings, session, label="run")
    epochs: list[int] = []
    original = TrainingLoop._run_epoch
    monkeypatch.setattr(TrainingLoop, "_run_epoch", lambda self, rows: epochs.append(len(rows)) or original(self, rows))
    resumed, resumed_logits, resumed_history = outcome(run, recordings, session)
    assert epochs == [1, 2]
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    np.testing.assert_array_equal(resumed_logits, logits)
    pd.testing.assert_frame_equal(resumed_history, history)
    fixed = outcome(run.replace(training__augment="none"), recordings, session)[0]
    assert not all(torch.equal(straight[name], fixed[name]) for name in straight)  # crops have an effect


@pytest.mark.parametrize("normalise", ["fixed", "train"])
def test_open_run_on_the_fly_gives_stored_predictions(
    segments: Run, recordings: Dataset, session: Session, normalise: str
) -> None:
    """Analyses compute the test inputs from the stored waveforms, without storing inputs."""
    shutil.rmtree(session.store.cache, ignore_errors=True)
    run = segments.replace(frontend__normalise=normalise, training__epochs=1)
    train(run, recordings, session, label="run")
    opened = open_run(run, recordings, session)
    rows = opened.split.test
    with torch.inference_mode():
        again = opened.network.eval()(torch.from_numpy(opened.images.array[rows]))
    np.testing.assert_allclose(again.numpy(), session.store.predictions(run)[2], atol=1e-4)
    assert [entry.name for entry in (session.store.cache / "waveforms").iterdir() if entry.is_dir()] == [
        opened.images.entry.partition("/")[2]
    ]
    assert not (session.store.cache / "images").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__augment": "segment"}, "--augment random-crop needs --on-the-fly"),
        (
            SEGMENTS | {"clip__fit": "stretch"},
            "--augment random-crop needs clips of --duration seconds",
        ),
    ],
)
def test_random_crop_with_incompatible_options_is_a_problem(run: Run, changes: dict[str, Any], message: str) -> None:
    (line,) = list_problems(run.replace(**changes))
    assert line.startswith(message)


def test_on_the_fly_with_feature_table_raises(tmp_path: Path) -> None:
    rows = "".join(f"{k}.wav,{k % 3},{k % 5}.5,{'ab'[k % 2]}\n" for k in range(20))
    (tmp_path / "table.csv").write_text(f"filename,one,two,label\n{rows}")
    words = ["compare", "--data", "features", "--data-root", str(tmp_path / "table.csv"), "--on-the-fly", "--dry-run"]
    with pytest.raises(UserError, match="^--on-the-fly: features has .* leave it out$"):
        main([*words, "--backbone", "mlp", "--weights", "random", "--results", str(tmp_path)])
