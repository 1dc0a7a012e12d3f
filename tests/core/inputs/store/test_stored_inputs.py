"""Stored inputs: equal to inputs computed one by one, built once, and with unusable clips named."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile
import torch
from recordings import decode

import core.inputs.store.stored_inputs
from core.audio.reading import fit_length, resample
from core.audio.waveform_augmentation import augment_waveform
from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.log_mel import LogMel
from core.inputs.store import build_inputs
from core.inputs.store.stored_inputs import load_inputs

SR = 8000
CLIP = Clip(sr=SR, duration=0.5)
FRONTEND = Frontend(n_mels=16, n_frames=20)


@pytest.fixture
def clips(tmp_path):
    """Return a data set of five clips of different lengths and sampling rates."""
    root = tmp_path / "sounds"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i, (seconds, sr) in enumerate([(0.5, 8000), (0.3, 8000), (0.7, 11025), (0.5, 16000), (0.5, 8000)]):
        soundfile.write(root / f"{i}.wav", 0.1 * rng.normal(size=round(seconds * sr)), sr)
    return make_dataset(root)


def make_dataset(root):
    """Return an object with the attributes of a data set that the input store uses."""
    table = pd.DataFrame({"path": sorted(path.name for path in root.iterdir())})
    return SimpleNamespace(vectors=None, name="sounds", root=root, clips=table)


def compute(dataset, cache, **changes):
    options = {"content": "abc", "clip": CLIP, "frontend": FRONTEND, "cache": cache} | changes
    return load_inputs(dataset, **options)


@pytest.fixture
def read_paths(monkeypatch):
    """Return a list to which every read of a clip appends its path."""
    paths = []

    def record(read):
        def recording_read(path, **options):
            paths.append(path.name)
            return read(path, **options)

        return recording_read

    for name in ("read_whole", "read_start", "read_waveform"):
        monkeypatch.setattr(build_inputs, name, record(getattr(build_inputs, name)))
    return paths


@pytest.mark.parametrize("fit", ["pad", "loop", "crop", "stretch"])
def test_stored_rows_equal_inputs_of_single_clips(fit, clips, tmp_path):
    clip = Clip(sr=SR, duration=0.5, fit=fit)
    stored = compute(clips, tmp_path / "cache", clip=clip)
    assert stored.array.shape == (5, 3, 16, 20)
    assert stored.array.dtype == np.float32
    assert stored.clip_rows.tolist() == [0, 1, 2, 3, 4]
    assert stored.unusable == ()
    logmel = LogMel(clip=Clip(sr=SR), frontend=FRONTEND)
    for row, path in zip(stored.array, clips.clips["path"], strict=True):
        sound, sr = decode(clips.root / path)
        y = fit_length(resample(sound, sr=sr, new_sr=SR), n_samples=SR // 2, fit=fit)
        np.testing.assert_allclose(row, logmel(torch.from_numpy(y)[None])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"clip": Clip(sr=SR, duration=0.5, fit="stretch")}, {"variant": 1}])
def test_deferred_recordings_give_the_same_bits_and_reasons(options, with_bad, tmp_path, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip", **options)
    monkeypatch.setattr(build_inputs, "MAX_WAITING_SAMPLES", 3000)
    deferred = compute(with_bad, tmp_path / "cache", on_bad_clip="skip", **options)
    np.testing.assert_array_equal(deferred.array, whole.array)
    assert (deferred.clip_rows.tolist(), deferred.unusable) == (whole.clip_rows.tolist(), whole.unusable)


def test_inputs_are_computed_once_and_read_only(clips, tmp_path, read_paths):
    first = compute(clips, tmp_path / "cache")
    assert sorted(read_paths) == clips.clips["path"].tolist()
    second = compute(clips, tmp_path / "cache")
    assert len(read_paths) == 5
    assert second.key == first.key
    assert isinstance(second.array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second.array[0] = 0


def key_fields(content="abc", clip=CLIP, variant=0, **changes):
    frontend = dataclasses.replace(FRONTEND, **changes)
    return core.inputs.store.stored_inputs._key_fields(content, clip, frontend, variant, augment_waveform)


def test_key_fields_of_defaults_are_those_of_version_1():
    """Fields that were added later are part of the key only if they differ from their defaults."""
    assert key_fields() == {
        "images": 1,
        "content": "abc",
        "clip": {"sr": 8000, "duration": 0.5, "fit": "pad"},
        "frontend": {"channels": "windows", "n_mels": 16, "n_frames": 20, "fmin": 0.0, "fmax": 0},
        "variant": 0,
    }


def test_key_fields_change_with_every_setting_but_normalisation():
    changes = [
        {"content": "abd"},
        {"clip": Clip(sr=SR, duration=0.4)},
        {"variant": 1},
        {"fmin": 50.0},
        {"mel": "htk"},
        {"padding": "reflect"},
        {"peak": True},
        {"image": (16, 20)},
        {"window": 256},
        {"window": 256, "hop": 100},
        {"channels": "replicate"},
        {"stored_as": "float16"},
    ]
    keys = [json.dumps(key_fields(**changed)) for changed in ({}, *changes)]
    assert len(set(keys)) == len(keys)
    assert key_fields(normalise="train") == key_fields()


def test_float16_inputs_are_rounded_and_read_as_float32(with_bad, tmp_path):
    whole = compute(with_bad, tmp_path / "cache", on_bad_clip="skip")
    halves = dataclasses.replace(FRONTEND, stored_as="float16")
    stored = compute(with_bad, tmp_path / "cache", frontend=halves, on_bad_clip="skip")
    assert stored.key != whole.key
    assert (stored.unusable, stored.clip_rows.tolist()) == (whole.unusable, whole.clip_rows.tolist())
    on_disk = np.load(tmp_path / "cache" / "images" / stored.key / "array.npy")
    assert on_disk.dtype == np.float16
    np.testing.assert_array_equal(on_disk, whole.array.astype(np.float16))
    assert len(stored.array) == len(whole.array)
    assert stored.array.shape == whole.array.shape
    for rows in (1, [1, 0], slice(0, 1), np.array([True, False])):
        assert stored.array[rows].dtype == np.float32
        np.testing.assert_array_equal(stored.array[rows], on_disk[rows])
    np.testing.assert_array_equal(stored.array.reshape(2, -1)[1], on_disk[1].ravel())
    assert np.abs(whole.array - on_disk).max() <= 0.016


def test_value_too_large_for_float16_makes_the_clip_unusable(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(LogMel, "forward", lambda self, y: torch.full((len(y), *self.shape), 1e5))
    compute(clips, tmp_path / "cache")
    with pytest.raises(UserError, match=r"5 of the 5 clips .* \(0.wav: too loud: its spectrogram is not finite; "):
        compute(clips, tmp_path / "cache", frontend=dataclasses.replace(FRONTEND, stored_as="float16"))


def test_variant_is_augmented_by_path_and_number(clips, tmp_path):
    stored = compute(clips, tmp_path / "cache", variant=2)
    logmel = LogMel(clip=Clip(sr=SR), frontend=FRONTEND)
    for row, path in zip(stored.array, clips.clips["path"], strict=True):
        y, sr = decode(clips.root / path)
        y = augment_waveform(resample(y, sr=sr, new_sr=SR), sr=SR, key=f"{path}:2")
        y = fit_length(y, n_samples=4000, fit="pad")
        np.testing.assert_allclose(row, logmel(torch.from_numpy(y)[None])[0], rtol=0, atol=1e-4)


@pytest.fixture
def with_bad(clips):
    (clips.root / "1.wav").write_bytes(b"")
    soundfile.write(clips.root / "3.wav", np.zeros(800), SR)
    loud = np.random.default_rng(0).normal(size=4000) * 1e30
    soundfile.write(clips.root / "4.wav", loud, SR, subtype="FLOAT")
    return clips


BAD = (
    ("1.wav", "empty (0 bytes)"),
    ("3.wav", "silent (all samples equal)"),
    ("4.wav", "too loud: its spectrogram is not finite"),
)


@pytest.mark.parametrize("batch_size", [1, 32])
def test_unusable_clips_are_skipped_and_named(batch_size, with_bad, tmp_path, monkeypatch):
    monkeypatch.setattr(build_inputs, "BATCH_SIZE", batch_size)
    whole = compute(make_dataset(with_bad.root), tmp_path / "cache", on_bad_clip="skip")
    assert whole.clip_rows.tolist() == [0, 2]
    assert whole.clip_rows.dtype == np.int64
    assert whole.array.shape[0] == 2
    assert whole.unusable == BAD
    assert np.isfinite(whole.array).all()


@pytest.mark.parametrize("before", ["skip", "fail"])
def test_unusable_clips_are_named_in_one_error(before, with_bad, tmp_path, read_paths):
    if before == "skip":
        compute(with_bad, tmp_path / "cache", on_bad_clip="skip")
    for _ in range(2):
        with pytest.raises(UserError, match="^3 of the 5 clips.*--on-bad-clip skip$") as caught:
            compute(with_bad, tmp_path / "cache")
        assert all(f"{path}: {reason}" in str(caught.value) for path, reason in BAD)
    assert len(read_paths) == 5


def test_interrupted_build_keeps_finished_batches(with_bad, tmp_path, read_paths, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip")
    monkeypatch.setattr(build_inputs, "BATCH_SIZE", 2)
    read = build_inputs.read_waveform

    def interrupt(path, **options):
        if path.name == "4.wav":
            raise KeyboardInterrupt
        return read(path, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build_inputs, "read_waveform", interrupt)
        compute(with_bad, tmp_path / "cache", on_bad_clip="skip")
    read_paths.clear()
    again = compute(with_bad, tmp_path / "cache", on_bad_clip="skip")
    assert read_paths == ["4.wav"]
    assert again.unusable == whole.unusable == BAD
    assert again.clip_rows.tolist() == whole.clip_rows.tolist()
    np.testing.assert_array_equal(again.array, whole.array)


def test_child_processes_build_the_same_inputs(with_bad, tmp_path, read_paths, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip")
    read_paths.clear()
    monkeypatch.setattr(build_inputs, "BATCH_SIZE", 2)
    monkeypatch.setattr(build_inputs, "MIN_CLIPS_FOR_PROCESSES", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    calls = []
    parallel = compute(with_bad, tmp_path / "cache", on_bad_clip="skip", progress=lambda *call: calls.append(call[0]))
    torch.set_num_threads(threads)
    assert read_paths == []  # no clip was read in this process
    assert not [child for child in psutil.Process().children(recursive=True) if "forkserver" in str(child.cmdline())]
    assert calls == [0, 2, 4, 5]
    assert (parallel.unusable, parallel.clip_rows.tolist()) == (whole.unusable, whole.clip_rows.tolist())
    np.testing.assert_array_equal(parallel.array, whole.array)
    entry = tmp_path / "cache" / "images" / parallel.key
    assert {path.name for path in entry.iterdir()} == {"array.npy", "manifest.json"}
