import subprocess
import sys

import numpy as np
import pytest

from core.audio.waveform_augmentation import augment_waveform, count_needed_samples, draw_tempo_and_pitch

SR = 16000


def peak_hz(y):
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y)), n=8 * len(y)))
    return np.fft.rfftfreq(8 * len(y), 1 / SR)[spectrum.argmax()]


@pytest.mark.parametrize("key", ["a.wav:1", "b.wav:1"])
def test_augment_waveform_changes_length_and_pitch(key):
    y = np.sin(2 * np.pi * 1000 * np.arange(SR) / SR).astype(np.float32)
    changed = augment_waveform(y, sr=SR, key=key)
    tempo, semitones = draw_tempo_and_pitch(key)
    assert changed.dtype == np.float32
    assert len(changed) == pytest.approx(SR / tempo, abs=2)
    assert peak_hz(changed[1000:-1000]) == pytest.approx(1000 * 2 ** (semitones / 12), rel=2e-3)


@pytest.mark.parametrize("n_samples", [1, 8000, 64000])
def test_count_needed_samples_is_sufficient(n_samples):
    y = (0.1 * np.random.default_rng(0).standard_normal(20 * SR)).astype(np.float32)
    for k in range(6):
        whole, part = (
            augment_waveform(x, sr=SR, key=f"{k}.wav:1")[:n_samples] for x in (y, y[: count_needed_samples(n_samples)])
        )
        assert len(part) == n_samples
        assert np.array_equal(whole, part)


def test_draw_tempo_and_pitch_covers_ranges():
    draws = np.array([draw_tempo_and_pitch(f"clip{i}.wav:1") for i in range(2000)])
    assert draws.min(axis=0) == pytest.approx([0.9, -2], abs=0.01)
    assert draws.max(axis=0) == pytest.approx([1.2, 2], abs=0.01)
    assert draws.mean(axis=0) == pytest.approx([1.05, 0], abs=0.1)


def test_draw_tempo_and_pitch_depends_only_on_key():
    np.random.default_rng(0).random(10)
    code = "from core.audio.waveform_augmentation import draw_tempo_and_pitch as d; print(d('x/a.wav:3'), end='')"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other == repr(draw_tempo_and_pitch("x/a.wav:3"))
    assert draw_tempo_and_pitch("x/a.wav:3") != draw_tempo_and_pitch("x/a.wav:4")
