"""The frontend against librosa clip by clip, on two cores, with equal output.

Both make the mel power of every clip through the three window and hop pairs, and nothing else: equal output.
"""

import time
from collections.abc import Callable
from typing import Any

import librosa
import numpy as np
import torch

from core.config import Clip, Frontend
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import WINDOWS_MS

CLIPS, SECONDS, REPEATS, THREADS, TARGET = 16, 4, 7, 2, 2.0


def measure() -> list[dict[str, Any]]:
    """Return a row per sampling rate: what, ours_seconds, reference_seconds, ratio, target (the least ratio wanted)."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return [_measure(sr) for sr in (44100, 22050, 16000)]
    finally:
        torch.set_num_threads(before)


def _measure(sr: int) -> dict[str, Any]:
    y = np.random.default_rng(0).normal(scale=0.1, size=(CLIPS, SECONDS * sr)).astype(np.float32)
    batch = torch.from_numpy(y)
    logmel = LogMel(clip=Clip(sr=sr), frontend=Frontend(n_frames=250))
    for ours, theirs in zip(logmel.power(batch[:1]), _librosa_mels(y[0], sr), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-4)
    ours_seconds, reference_seconds = _best(
        lambda: list(logmel.power(batch)),
        lambda: [_librosa_mels(clip, sr) for clip in y],
    )
    return {
        "what": f"mel power of {CLIPS} clips of {SECONDS} s at {sr} Hz, against librosa clip by clip",
        "ours_seconds": ours_seconds,
        "reference_seconds": reference_seconds,
        "ratio": reference_seconds / ours_seconds,
        "target": TARGET,
    }


def _librosa_mels(y: np.ndarray, sr: int) -> list[np.ndarray]:
    n_fft = round(WINDOWS_MS[-1][0] * sr / 1000)
    return [
        librosa.feature.melspectrogram(
            y=y, sr=sr, n_fft=n_fft, win_length=round(window * sr / 1000), hop_length=round(hop * sr / 1000), n_mels=128
        )
        for window, hop in WINDOWS_MS
    ]


def _best(*works: Callable[[], Any]) -> list[float]:
    """Return the shortest time of each work in seconds, taken in turn so that all meet the same load."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, seconds in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return [min(seconds) for seconds in times]
