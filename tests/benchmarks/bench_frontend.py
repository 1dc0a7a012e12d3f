"""Mel power of clips against librosa clip by clip, on two cores, with equal output.

Ours goes through `compute_inputs`, one clip at a time on each core, as for images that are computed on the fly. Windows
are the three of the default images and the single windows of two papers.
"""

from collections.abc import Callable, Iterator
from functools import partial

import librosa
import numpy as np
import torch
from torch import nn

from core.config.run import Clip, Frontend
from core.inputs.base import InputKind
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import WINDOWS_MS, Spectrogram
from core.inputs.store.compute import compute_inputs
from tests.benchmarks.comparison import REPEATS, Row, compare, time_in_turn

CLIPS, SECONDS, PASSES, THREADS, TARGET = 16, 4, 5, 2, 2.0
ONE_WINDOW = ((22050, 2048, 512, 128), (16000, 1024, 256, 40))  # Hz, window and hop in samples, bands


def measure() -> Iterator[Row]:
    """Yield a row per sampling rate and window."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for sr in (44100, 22050, 16000):
            yield _measure(f"{sr} Hz", sr, Frontend(n_frames=250), partial(mel_power_librosa, sr=sr))
        for sr, window, hop, n_mels in ONE_WINDOW:
            frontend = Frontend(n_frames=250, window=window, hop=hop, n_mels=n_mels)
            theirs = partial(_mel_power, sr=sr, n_fft=window, window=window, hop=hop, n_mels=n_mels)
            yield _measure(f"{sr} Hz, one window of {window} samples", sr, frontend, lambda y, f=theirs: [f(y)])
    finally:
        torch.set_num_threads(before)


def _measure(what: str, sr: int, frontend: Frontend, by_librosa: Callable[[np.ndarray], list[np.ndarray]]) -> Row:
    y = np.random.default_rng(0).normal(scale=0.1, size=(CLIPS, SECONDS * sr)).astype(np.float32)
    batch = torch.from_numpy(y)
    logmel = LogMel(clip=Clip(sr=sr), frontend=frontend)
    power = Power(logmel)
    for own, reference in zip(logmel.compute_power(batch[:1]), by_librosa(y[0]), strict=True):
        np.testing.assert_allclose(own[0], reference, rtol=1e-4)
    sides = (lambda: [by_librosa(clip) for clip in y]), (lambda: compute_inputs(power, batch))
    rounds = [[min(seconds) for seconds in time_in_turn(*sides, repeats=PASSES)] for _ in range(REPEATS)]
    what = f"mel power of {CLIPS} clips of {SECONDS} s at {what}: librosa clip by clip / ours"
    return compare(what, *zip(*rounds, strict=True), TARGET)


class Power(InputKind):
    """The power of all channels of a spectrogram, as one matrix."""

    def __init__(self, spectrogram: Spectrogram) -> None:
        nn.Module.__init__(self)
        self.spectrogram = spectrogram

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([power.flatten(1) for power in self.spectrogram.compute_power(y)], dim=1)


def mel_power_librosa(y: np.ndarray, sr: int) -> list[np.ndarray]:
    """Return the mel power (bands, frames) of each default channel of a waveform (samples,)."""
    n_fft = _samples(WINDOWS_MS[-1][0], sr)
    return [
        _mel_power(y, sr=sr, n_fft=n_fft, window=_samples(window, sr), hop=_samples(hop, sr), n_mels=128)
        for window, hop in WINDOWS_MS
    ]


def _mel_power(y: np.ndarray, *, sr: int, n_fft: int, window: int, hop: int, n_mels: int) -> np.ndarray:
    return librosa.feature.melspectrogram(y=y, sr=sr, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=n_mels)


def _samples(milliseconds: int, sr: int) -> int:
    return round(milliseconds * sr / 1000)
