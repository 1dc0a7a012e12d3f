"""GTZAN's features equal the librosa functions of the same names."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from core import datasets
from core.audio.reading import read_waveform
from core.config.run import Clip, Frontend
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.inputs.base import InputKind
from core.inputs.input_kind import build_input_kind
from core.inputs.store import stored_inputs as store
from core.inputs.store.stored_inputs import load_inputs
from core.session import Session


def made(sr: int, *, duration: float = 1.5, **changes: object) -> InputKind:
    return build_input_kind(Clip(sr=sr, duration=duration), Frontend(kind="features", **changes))  # type: ignore[arg-type]


def measured(kind: InputKind, y: np.ndarray) -> dict[str, float]:
    return dict(zip(kind.axes[0].names, kind(torch.from_numpy(y)[None])[0].tolist(), strict=True))


def expected(y: np.ndarray, sr: int) -> dict[str, float]:
    """Return the features of a waveform, computed by librosa with default settings."""
    harmony, perceptr = librosa.effects.hpss(y)
    over_time = {
        "chroma_stft": librosa.feature.chroma_stft(y=y, sr=sr),
        "rms": librosa.feature.rms(y=y),
        "spectral_centroid": librosa.feature.spectral_centroid(y=y, sr=sr),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(y=y, sr=sr),
        "rolloff": librosa.feature.spectral_rolloff(y=y, sr=sr),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(y),
        "harmony": harmony,
        "perceptr": perceptr,
    } | {f"mfcc{k}": row for k, row in enumerate(librosa.feature.mfcc(y=y, sr=sr), start=1)}
    found = {f"{name}_mean": float(np.mean(values)) for name, values in over_time.items()}
    found |= {f"{name}_var": float(np.var(values)) for name, values in over_time.items()}
    return found | {"tempo": float(np.squeeze(librosa.beat.beat_track(y=y, sr=sr)[0]))}


def assert_librosas(y: np.ndarray, sr: int) -> None:
    found, wanted = measured(made(sr, duration=len(y) / sr), y), expected(y, sr)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        near = np.sqrt(wanted.get(name.replace("_mean", "_var"), 0.0)) * 1e-4  # tolerance of a mean near 0
        assert found[name] == pytest.approx(value, rel=1e-3, abs=max(near, 1e-7)), name


def test_gtzan_features_equal_librosa() -> None:
    dataset = datasets.load_dataset("instruments")
    for path in dataset.clips["path"].iloc[::150]:
        assert_librosas(read_waveform(dataset.root / path, sr=16_000, n_samples=24_000, fit="pad"), 16_000)


def test_list_feature_names_equal_real_table(real_data: Path) -> None:
    table = datasets.load_dataset("features", real_data / "gtzan_features" / "features_30_sec.csv")
    assert made(22_050).axes[0].names == table.columns


def test_gtzan_features_use_frontend_options() -> None:
    y = 0.1 * np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    kind = made(8_000, duration=1.0, window=512, hop=100, n_mels=40, n_mfcc=3, fmin=50.0, peak=True, padding="reflect")
    assert kind.shape == (17 + 6,)
    y /= np.abs(y).max()
    found, frames = measured(kind, y), {"n_fft": 512, "hop_length": 100, "pad_mode": "reflect"}
    mfcc = librosa.feature.mfcc(y=y, sr=8_000, n_mfcc=3, n_mels=40, fmin=50, **frames)
    assert found["mfcc3_mean"] == pytest.approx(float(mfcc[2].mean()), rel=1e-3)
    rolloff = librosa.feature.spectral_rolloff(y=y, sr=8_000, **frames)
    assert found["rolloff_var"] == pytest.approx(float(rolloff.var()), rel=1e-3)


def test_features_clip_shorter_than_frame_raises() -> None:
    with pytest.raises(UserError, match="^--input features: .*800 samples.*2048; give a smaller --n-fft"):
        made(8_000, duration=0.1)


def test_stored_features_depend_on_librosa_version(
    dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"content": "c", "clip": Clip(sr=8_000, duration=0.5), "cache": session.store.cache}
    found = []
    for number in ("0.11.0", "0.12.0"):
        monkeypatch.setattr(store, "version", lambda library, number=number: {"librosa": number}[library])
        found += [
            load_inputs(dataset, frontend=Frontend(kind=kind, n_frames=16), **asked).key
            for kind in ("features", "logmel")
        ]
    assert found[0] != found[2]
    assert found[1] == found[3]
