"""Data augmentation: random tempo and pitch of waveforms."""

import hashlib
from collections.abc import Callable

import numpy as np
import soxr

from core.audio import vocoder

# From arXiv:2007.11154, section III-B; the ranges are taken from the code of its authors.
TEMPO_RANGE = (0.9, 1.2)  # factor of the tempo
PITCH_RANGE = (-2.0, 2.0)  # semitones
MARGIN_SAMPLES = 1 << 15  # samples; longer than the window of the vocoder and the filter of the resampler
WaveformChange = Callable[..., np.ndarray]  # function of a waveform (samples,), ``sr`` and ``key``


def augment_waveform(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Change the tempo and pitch of a clip by random amounts that depend only on `key`.

    The tempo is multiplied by a factor uniform in 0.9 to 1.2 and the pitch shifted by -2 to 2 semitones. A pitch shift
    is a time stretch followed by resampling, so one stretch (phase vocoder) and one resampling do both.

    Parameters
    ----------
    y
        Waveform (samples,).
    sr
        Sampling rate in Hz.
    key
        Identifies the clip and its augmented version; seeds the random numbers.

    Returns
    -------
    Waveform (samples / tempo,), float32.
    """
    tempo, semitones = draw_tempo_and_pitch(key)
    shift = 2.0 ** (-semitones / 12)
    stretched = vocoder.time_stretch(y, rate=tempo * shift)
    return np.asarray(soxr.resample(stretched, sr / shift, sr, quality="HQ"), dtype=np.float32)


def count_needed_samples(n_samples: int) -> int:
    """Return how many samples of the recording are needed for the first `n_samples` after augmentation."""
    return round(n_samples * TEMPO_RANGE[1]) + MARGIN_SAMPLES


def draw_tempo_and_pitch(key: str) -> tuple[float, float]:
    """Draw the tempo factor (0.9 to 1.2) and the pitch shift (-2 to 2 semitones) for a key."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))
    return float(rng.uniform(*TEMPO_RANGE)), float(rng.uniform(*PITCH_RANGE))
