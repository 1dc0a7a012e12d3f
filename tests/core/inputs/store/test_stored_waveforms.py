"""Stored waveforms, whole or cut, and inputs computed from them on the fly."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from recordings import decode

from core.audio.reading import fit_length, resample, stream_waveform
from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs import INPUT_KINDS
from core.inputs.store import stored_waveforms
from core.inputs.store.on_the_fly import OnTheFlyInputs, make_on_the_fly_inputs
from core.inputs.store.stored_inputs import load_inputs
from core.inputs.store.stored_waveforms import Waveforms

SR = 8000
CLIP = Clip(sr=SR, duration=0.5)
RECORDINGS = ((0.5, 8000), (0.3, 8000), (1.7, 11025), (0.5, 16000), (3.0, 8000))  # seconds and Hz
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((mode, {}) for mode in ("pad", "loop", "crop", "stretch")),
    *(("loop", {"kind": kind}) for kind in INPUT_KINDS if kind not in ("features", "logmel")),
    ("loop", {"kind": "features", "window": 256}),
    ("stretch", {"channels": "replicate"}),
    ("stretch", {"image": (24, 20)}),
    ("stretch", {"window": 256, "hop": 100, "padding": "reflect", "peak": True}),
]


@pytest.fixture
def clips(tmp_path: Path) -> Any:
    """Return a data set of recordings of different lengths and rates."""
    root = tmp_path / "sounds"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i, (seconds, sr) in enumerate(RECORDINGS):
        soundfile.write(root / f"{i}.wav", 0.1 * rng.normal(size=round(seconds * sr)), sr)
    return make_dataset(root)


def make_dataset(root: Path) -> Any:
    table = pd.DataFrame({"path": sorted(path.name for path in root.iterdir())})
    return SimpleNamespace(vectors=None, name="sounds", root=root, clips=table)


def load(clips: Any, cache: Path, *, clip: Clip = CLIP, **options: Any) -> Waveforms:
    return stored_waveforms.load_waveforms(clips, content="abc", clip=clip, cache=cache, **options)


def make_inputs(clips: Any, cache: Path, frontend: Frontend, *, clip: Clip = CLIP, **options: Any) -> OnTheFlyInputs:
    waveforms = load(clips, cache, clip=clip, **options)
    return make_on_the_fly_inputs(waveforms, clips, clip=clip, frontend=frontend, device=torch.device("cpu"))


@pytest.mark.parametrize(("mode", "settings"), SETTINGS)
def test_on_the_fly_inputs_equal_stored_inputs(clips: Any, tmp_path: Path, mode: str, settings: dict[str, Any]) -> None:
    clip, frontend = Clip(sr=SR, duration=0.5, fit=mode), Frontend(n_mels=24, n_frames=20, fmax=SR / 2, **settings)
    torch.set_num_threads(2)
    expected = load_inputs(clips, content="abc", clip=clip, frontend=frontend, cache=tmp_path)
    for whole in [False] if mode == "stretch" else [False, True]:
        inputs = make_inputs(clips, tmp_path, frontend, clip=clip, whole=whole)
        for rows in (np.arange(5), 3, slice(1, 4)):
            np.testing.assert_array_equal(inputs.array[rows], expected.array[rows])
        assert inputs.array.shape == expected.array.shape
        assert inputs.array.ndim == expected.array.ndim
        assert inputs.clip_rows.tolist() == expected.clip_rows.tolist()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("sr", [8000, 5000])
def test_streamed_recording_equals_the_whole_one(clips: Any, sr: int) -> None:
    for path in clips.clips["path"]:
        y, own_sr = decode(clips.root / path)
        np.testing.assert_array_equal(
            np.concatenate(list(stream_waveform(clips.root / path, sr=sr))), resample(y, sr=own_sr, new_sr=sr)
        )


def test_segments_are_read_from_whole_recordings(clips: Any, tmp_path: Path) -> None:
    waveforms, n = load(clips, tmp_path, whole=True), SR // 2
    for row, path in enumerate(clips.clips["path"]):
        y, own_sr = decode(clips.root / path)
        y = resample(y, sr=own_sr, new_sr=SR)
        np.testing.assert_array_equal(waveforms.read(row), fit_length(y, n_samples=n, fit="pad"))
        for position in (0.0, 0.37, 1 - 2**-53):
            start = int(position * (len(y) - n + 1)) if len(y) > n else 0
            np.testing.assert_array_equal(waveforms.read(row, position), fit_length(y[start:], n_samples=n, fit="pad"))
    last = decode(clips.root / "4.wav")[0]
    np.testing.assert_array_equal(waveforms.read(4, 0.0), last[:n])
    np.testing.assert_array_equal(waveforms.read(4, 1 - 2**-53), last[-n:])
    assert waveforms.longer == 2


def test_key_of_whole_recordings_does_not_depend_on_the_clip(clips: Any, tmp_path: Path) -> None:
    other = Clip(sr=SR, duration=0.4, fit="crop")
    assert load(clips, tmp_path, whole=True).key == load(clips, tmp_path, whole=True, clip=other).key
    assert load(clips, tmp_path).key != load(clips, tmp_path, clip=other).key
    assert load(clips, tmp_path).table is not None
    assert load(clips, tmp_path, whole=True).table is None
    frontend = Frontend(n_mels=24, n_frames=20)
    keys = [make_inputs(clips, tmp_path, frontend, whole=True, clip=clip).key for clip in (CLIP, other)]
    assert keys[0] != keys[1]  # the inputs differ


def test_long_recording_with_bad_end_is_named_and_skipped(
    clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = load(clips, tmp_path, whole=True)
    y = np.concatenate([np.ones(50_000, np.float32) * 0.1, np.zeros(50_000, np.float32), [np.nan]])
    soundfile.write(clips.root / "2a.wav", y, SR, subtype="FLOAT")
    monkeypatch.setattr(stored_waveforms, "MAX_WAITING_SAMPLES", 5000)
    dataset = make_dataset(clips.root)
    with pytest.raises(UserError, match=r"1 of the 6 clips .* \(2a.wav: NaN or infinite samples\)"):
        load(dataset, tmp_path / "bad", whole=True)
    waveforms = load(dataset, tmp_path / "bad", whole=True, on_bad_clip="skip")
    assert waveforms.unusable == (("2a.wav", "NaN or infinite samples"),)
    assert waveforms.clip_rows.tolist() == [0, 1, 2, 4, 5]
    for row in range(5):
        np.testing.assert_array_equal(waveforms.read(row, 0.5), good.read(row, 0.5))


@pytest.mark.parametrize("whole", [False, True])
def test_interrupted_build_keeps_finished_parts(
    clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    (clips.root / "1a.wav").write_bytes(b"")
    dataset = make_dataset(clips.root)
    expected = load(dataset, tmp_path / "whole", whole=whole, on_bad_clip="skip")
    monkeypatch.setattr(stored_waveforms, "BATCH_SIZE", 2)
    paths: list[str] = []
    name = "_read_recording" if whole else "read_clip"
    original = getattr(stored_waveforms, name)

    def spy(path: str, *, until: str, **options: Any) -> Any:
        if path == until:
            raise KeyboardInterrupt
        paths.append(path)
        return original(path, **options)

    monkeypatch.setattr(stored_waveforms, name, partial(spy, until="4.wav"))
    with pytest.raises(KeyboardInterrupt):
        load(dataset, tmp_path / "cache", whole=whole, on_bad_clip="skip")
    paths.clear()
    monkeypatch.setattr(stored_waveforms, name, partial(spy, until=""))
    waveforms = load(dataset, tmp_path / "cache", whole=whole, on_bad_clip="skip")
    assert sorted(paths) == ["3.wav", "4.wav"]  # two parts of two clips were finished
    np.testing.assert_array_equal(waveforms.samples, expected.samples)
    np.testing.assert_array_equal(waveforms.first, expected.first)
    np.testing.assert_array_equal(waveforms.clip_rows, expected.clip_rows)
    assert waveforms.unusable == expected.unusable == (("1a.wav", "empty (0 bytes)"),)


def test_clip_too_loud_for_a_spectrogram_is_named(clips: Any, tmp_path: Path) -> None:
    y = 1e30 * np.random.default_rng(0).standard_normal(4000)
    soundfile.write(clips.root / "9.wav", y.astype(np.float32), SR, subtype="FLOAT")
    dataset = make_dataset(clips.root)
    frontend = Frontend(n_mels=24, n_frames=20, fmax=SR / 2)
    with pytest.raises(UserError, match="9.wav of sounds is too loud.*--on-the-fly"):
        make_inputs(dataset, tmp_path, frontend)
    assert np.isfinite(
        make_inputs(dataset, tmp_path, Frontend(n_mels=24, n_frames=20, fmax=SR / 2, peak=True)).array[5]
    ).all()
