"""Predictions of recordings: for the test clips of a run they are bit-identical to the stored ones."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from bf16 import needs_bf16

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.datasets.new_recordings.unlabelled_clips import UnlabelledClips, find_recordings
from core.errors import UserError
from core.finished import predict_recordings
from core.finished.predict_recordings import predict_logits
from core.inference import precision
from core.session import Session
from core.store.record import Record
from core.training.trainer import train

SETTINGS = {
    "fixed": {},
    "mfcc": {"frontend__kind": "mfcc", "frontend__normalise": "train", "frontend__n_mfcc": 32},
    "colour": {"frontend__colour": "viridis", "frontend__window": 512},
    "peak and loop": {"frontend__peak": True, "clip__fit": "loop", "clip__duration": 0.75},
    "on the fly": {"training__live": True},
    "stored in float16, fitted": {"frontend__stored_as": "float16", "frontend__normalise": "train"},
    "rotated in training": {"training__augment": "rotate", "model__cut": "block2"},
    "frozen, stored in float16": {"model__freeze": "block4", "frontend__stored_as": "float16"},
    "frozen in bf16": {"training__precision": "bf16", "model__freeze": "block2"},
}


def train_run(run: Run, dataset: Dataset, session: Session) -> Record:
    train(run, dataset, session, label="run")
    record = session.store.finished(run)
    assert record
    return record


@pytest.fixture
def copies(run: Run, dataset: Dataset, tmp_path: Path) -> UnlabelledClips:
    """Return copies of the test clips of a run, in their order."""
    root = tmp_path / "copies"
    for path in dataset.clips["path"].iloc[dataset.split(run.data.fold).test]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset.root / path, root / path)
    return find_recordings(root)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_bf16) if "bf16" in name else name for name in SETTINGS]
)
def test_predict_logits_test_clips_give_the_stored_logits(
    run: Run,
    dataset: Dataset,
    session: Session,
    copies: UnlabelledClips,
    name: str,
) -> None:
    run = run.replace(training__epochs=1, **SETTINGS[name])
    record = train_run(run, dataset, session)
    clips, _, logits = session.store.predictions(run)
    shutil.rmtree(session.store.cache)
    outputs = predict_logits([record], copies, session)
    assert list(outputs.paths) == clips
    assert outputs.bad == ()
    if record.prefix_reused:  # the prefix was computed in other batches
        np.testing.assert_allclose(outputs.logits[0], logits, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(outputs.logits[0], logits)
    assert not session.store.cache.exists()


@needs_bf16
def test_predict_logits_bf16_run_is_evaluated_in_fp32_without_bf16_instructions(
    run: Run, dataset: Dataset, session: Session, copies: UnlabelledClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = train_run(run.replace(training__epochs=1, training__precision="bf16"), dataset, session)
    short = predict_logits([record], copies, session).logits[0]
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: False)
    exact = predict_logits([record], copies, session).logits[0]
    assert not np.array_equal(short, exact)
    np.testing.assert_allclose(short, exact, atol=0.05 * np.ptp(exact))


def test_predict_logits_in_small_parts_is_the_same(
    run: Run, dataset: Dataset, session: Session, copies: UnlabelledClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = train_run(run.replace(training__epochs=1), dataset, session)
    (copies.root / copies.paths[2]).write_bytes(b"broken")
    session.execution = dataclasses.replace(session.execution, on_bad_clip="skip")
    whole = predict_logits([record], copies, session)
    assert whole.bad == ((copies.paths[2], "not audio"),)
    assert list(whole.paths) == [path for path in copies.paths if path != copies.paths[2]]
    sizes = []
    build = predict_recordings.build_batches
    monkeypatch.setattr(
        predict_recordings, "build_batches", lambda how, paths: sizes.append(len(paths)) or build(how, paths)
    )
    monkeypatch.setattr(predict_recordings, "MAX_RECORDINGS_IN_MEMORY", 2)
    parts = predict_logits([record], copies, session)
    assert sizes == [2] * 3
    assert (parts.paths, parts.bad) == (whole.paths, whole.bad)
    np.testing.assert_allclose(parts.logits[0], whole.logits[0], rtol=1e-5, atol=1e-5)


def test_predict_logits_networks_with_different_inputs_leave_out_the_same_recordings(
    run: Run, dataset: Dataset, session: Session, copies: UnlabelledClips
) -> None:
    runs = [run.replace(training__epochs=1, **SETTINGS[name]) for name in ("fixed", "peak and loop")]
    records = [train_run(each, dataset, session) for each in runs]
    (copies.root / copies.paths[0]).unlink()
    session.execution = dataclasses.replace(session.execution, on_bad_clip="skip")
    both = predict_logits(records, copies, session)
    assert both.bad == ((copies.paths[0], "missing"),)
    for each, record in zip(both.logits, records, strict=True):
        np.testing.assert_array_equal(each, predict_logits([record], copies, session).logits[0])


def test_predict_logits_unusable_recordings_are_all_named(
    run: Run, dataset: Dataset, session: Session, copies: UnlabelledClips
) -> None:
    record = train_run(run.replace(training__epochs=1), dataset, session)
    for path in (copies.paths[0], copies.paths[5]):
        (copies.root / path).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^2 of the 6 recordings in .* cannot be used .*0 bytes.*0 bytes.*--on-bad-clip skip$"
    ):
        predict_logits([record], copies, session)


def test_predict_logits_missing_input_transform_is_one_line(
    run: Run, dataset: Dataset, session: Session, copies: UnlabelledClips
) -> None:
    run = run.replace(training__epochs=1, frontend__normalise="train")
    record = train_run(run, dataset, session)
    (session.store.folder(run) / "first_step.safetensors").unlink()
    with pytest.raises(UserError, match=f"^run {run.id}: an older version"):
        predict_logits([record], copies, session)
