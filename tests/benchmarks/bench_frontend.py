"""The frontend against librosa clip by clip, on two cores, with equal output.

Both compute the mel power of every clip and nothing else: equal output. Ours uses `compute_inputs`, as `--on-the-fly`
does: one clip at a time on each core. The windows are the three of the default images, and the one window of
reports that have one.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import librosa
import numpy as np
import torch
from torch import nn

from core.config.run import Clip, Frontend
from core.inputs.base import InputKind
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import WINDOWS_MS, Spectrogram
from core.inputs.store.compute import compute_inputs
from tests.benchmarks.comparison import REPEATS, in_turn, row

CLIPS, SECONDS, PASSES, THREADS, TARGET = 16, 4, 5, 2, 2.0
ONE_WINDOW = ((22050, 2048, 512, 128), (16000, 1024, 256, 40))  # Hz, window and hop in samples, bands: of two reports


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per sampling rate and window: what, ours_seconds, reference_seconds, ratio, target (the least)."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for sr in (44100, 22050, 16000):
            yield _measure(f"{sr} Hz", sr, Frontend(n_frames=250), partial(_librosa_mels, sr=sr))
        for sr, window, hop, n_mels in ONE_WINDOW:
            frontend = Frontend(n_frames=250, window=window, hop=hop, n_mels=n_mels)
            theirs = partial(_librosa_mel, sr=sr, n_fft=window, window=window, hop=hop, n_mels=n_mels)
            yield _measure(f"{sr} Hz, one window of {window} samples", sr, frontend, lambda y, f=theirs: [f(y)])
    finally:
        torch.set_num_threads(before)


def _measure(
    what: str, sr: int, frontend: Frontend, librosas: Callable[[np.ndarray], list[np.ndarray]]
) -> dict[str, Any]:
    y = np.random.default_rng(0).normal(scale=0.1, size=(CLIPS, SECONDS * sr)).astype(np.float32)
    batch = torch.from_numpy(y)
    logmel = LogMel(clip=Clip(sr=sr), frontend=frontend)
    power = Power(logmel)
    for ours, theirs in zip(logmel.power(batch[:1]), librosas(y[0]), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-4)
    works = (lambda: [librosas(clip) for clip in y]), (lambda: compute_inputs(power, batch))
    theirs, ours = zip(*([min(each) for each in in_turn(*works, repeats=PASSES)] for _ in range(REPEATS)), strict=True)
    what = f"mel power of {CLIPS} clips of {SECONDS} s at {what}: librosa clip by clip / ours"
    return row(what, theirs, ours, TARGET)


class Power(InputKind):
    """The power of a spectrogram's channels, one after the other."""

    def __init__(self, spectrogram: Spectrogram) -> None:
        nn.Module.__init__(self)
        self.spectrogram = spectrogram

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([power.flatten(1) for power in self.spectrogram.power(y)], dim=1)


def _librosa_mels(y: np.ndarray, sr: int) -> list[np.ndarray]:
    n_fft = _samples(WINDOWS_MS[-1][0], sr)
    return [
        _librosa_mel(y, sr=sr, n_fft=n_fft, window=_samples(window, sr), hop=_samples(hop, sr), n_mels=128)
        for window, hop in WINDOWS_MS
    ]


def _librosa_mel(y: np.ndarray, *, sr: int, n_fft: int, window: int, hop: int, n_mels: int) -> np.ndarray:
    found: np.ndarray = librosa.feature.melspectrogram(
        y=y, sr=sr, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=n_mels
    )
    return found


def _samples(milliseconds: int, sr: int) -> int:
    return round(milliseconds * sr / 1000)
