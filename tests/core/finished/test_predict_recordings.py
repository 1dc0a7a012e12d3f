"""Networks on recordings they have not seen: given their own test clips, they say to the bit what they said there."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.datasets.prediction.recordings import UnlabelledClips, find_recordings
from core.errors import UserError
from core.finished import predict
from core.finished.predict import predict_logits
from core.inference import precision
from core.session import Session
from core.store.record import Record
from core.training.trainer import train

LOOKS = {
    "fixed": {},
    "train": {"frontend__normalise": "train"},
    "rows apart": {"frontend__kind": "mfcc", "frontend__normalise": "train", "frontend__n_mfcc": 32},
    "colour": {"frontend__colour": "viridis", "frontend__window": 512},
    "levels of each image": {"frontend__colour": "jet", "frontend__window": 512, "frontend__levels": "image"},
    "peak and loop": {"frontend__peak": True, "clip__fit": "loop", "clip__duration": 0.75},
    "live": {"training__live": True},
    "stored in float16": {"frontend__stored_as": "float16"},
    "stored in float16, fitted": {"frontend__stored_as": "float16", "frontend__normalise": "train"},
    "rotated in training": {"training__augment": "rotate"},
    "cut": {"model__cut": "block2"},
    "frozen": {"model__freeze": "block4"},
    "frozen, stored in float16": {"model__freeze": "block4", "frontend__stored_as": "float16"},
    "bf16": {"training__precision": "bf16"},
    "frozen in bf16": {"training__precision": "bf16", "model__freeze": "block2"},
}


def trained(run: Run, dataset: Dataset, session: Session) -> Record:
    train(run, dataset, session, label="run")
    record = session.store.finished(run)
    assert record
    return record


@pytest.fixture
def elsewhere(run: Run, dataset: Dataset, tmp_path: Path) -> UnlabelledClips:
    """Return the test clips of a run as files that nothing else is beside, in their order."""
    root = tmp_path / "elsewhere"
    for path in dataset.clips["path"].iloc[dataset.split(run.data.fold).test]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset.root / path, root / path)
    return find_recordings(root)


@pytest.mark.parametrize("name", LOOKS)
def test_a_runs_own_test_clips_get_its_own_logits(
    run: Run,
    dataset: Dataset,
    session: Session,
    elsewhere: UnlabelledClips,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    run = run.replace(training__epochs=1, **LOOKS[name])
    record = trained(run, dataset, session)
    clips, _, logits = session.store.predictions(run)
    shutil.rmtree(session.store.cache)  # neither its images nor what else was computed is looked at
    found = predict_logits([record], elsewhere, session)
    assert list(found.paths) == clips
    assert found.bad == ()
    if record.prefix_reused:  # its first stages computed all clips, in other batches
        np.testing.assert_allclose(found.logits[0], logits, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(found.logits[0], logits)
    assert not session.store.cache.exists()


def test_what_was_trained_in_bf16_is_evaluated_in_fp32_where_that_is_imitated(
    run: Run, dataset: Dataset, session: Session, elsewhere: UnlabelledClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    record = trained(run.replace(training__epochs=1, training__precision="bf16"), dataset, session)
    short = predict_logits([record], elsewhere, session).logits[0]
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: False)
    exact = predict_logits([record], elsewhere, session).logits[0]
    assert not np.array_equal(short, exact)
    np.testing.assert_allclose(short, exact, atol=0.05 * np.ptp(exact))


def test_a_few_at_a_time_are_as_all_at_once(
    run: Run, dataset: Dataset, session: Session, elsewhere: UnlabelledClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = trained(run.replace(training__epochs=1), dataset, session)
    (elsewhere.root / elsewhere.paths[2]).write_bytes(b"broken")
    session.execution = dataclasses.replace(session.execution, on_bad_clip="skip")
    whole = predict_logits([record], elsewhere, session)
    assert whole.bad == ((elsewhere.paths[2], "not audio"),)
    assert list(whole.paths) == [path for path in elsewhere.paths if path != elsewhere.paths[2]]
    most = []
    build = predict.build_batches
    monkeypatch.setattr(predict, "build_batches", lambda recipe, paths: most.append(len(paths)) or build(recipe, paths))
    monkeypatch.setattr(predict, "MAX_RECORDINGS_IN_MEMORY", 2)
    parts = predict_logits([record], elsewhere, session)
    assert most == [2] * 3
    assert (parts.paths, parts.bad) == (whole.paths, whole.bad)
    np.testing.assert_allclose(parts.logits[0], whole.logits[0], rtol=1e-5, atol=1e-5)


def test_networks_with_other_inputs_leave_out_the_same_recordings(
    run: Run, dataset: Dataset, session: Session, elsewhere: UnlabelledClips
) -> None:
    """What one network cannot use no average can be taken of."""
    runs = [run.replace(training__epochs=1, **LOOKS[name]) for name in ("fixed", "peak and loop")]
    records = [trained(each, dataset, session) for each in runs]
    (elsewhere.root / elsewhere.paths[0]).unlink()
    session.execution = dataclasses.replace(session.execution, on_bad_clip="skip")
    both = predict_logits(records, elsewhere, session)
    assert both.bad == ((elsewhere.paths[0], "missing"),)
    for each, record in zip(both.logits, records, strict=True):
        np.testing.assert_array_equal(each, predict_logits([record], elsewhere, session).logits[0])


def test_all_that_cannot_be_used_are_named_before_anything_is_said(
    run: Run, dataset: Dataset, session: Session, elsewhere: UnlabelledClips
) -> None:
    record = trained(run.replace(training__epochs=1), dataset, session)
    for path in (elsewhere.paths[0], elsewhere.paths[5]):
        (elsewhere.root / path).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^2 of the 6 recordings in .* cannot be used .*0 bytes.*0 bytes.*--on-bad-clip skip$"
    ):
        predict_logits([record], elsewhere, session)


def test_what_an_older_version_did_not_keep_is_said(
    run: Run, dataset: Dataset, session: Session, elsewhere: UnlabelledClips
) -> None:
    run = run.replace(training__epochs=1, frontend__normalise="train")
    record = trained(run, dataset, session)
    (session.store.folder(run) / "first_step.safetensors").unlink()
    with pytest.raises(UserError, match=f"^run {run.id}: an older version"):
        predict_logits([record], elsewhere, session)
