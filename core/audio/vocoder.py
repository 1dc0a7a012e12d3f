"""Phase vocoder in constant memory; its result equals `librosa.effects.time_stretch` bit for bit.

librosa keeps several copies of the whole spectrum: 800 MB for ten minutes at 22,050 Hz, in each of the processes that
augment recordings. This module computes the same numbers and sums them in the same order, 128 frames at a time.
"""

import numpy as np
import torch

from core.registry import Lazy

get_window = Lazy("scipy.signal:get_window")  # takes half a second to import
N_FFT, HOP_LENGTH = 2048, 512  # samples; librosa's defaults
FRAMES_PER_PIECE = 128  # frames computed at a time: 3 s at 22,050 Hz, 1 to 2 MB per copy


def time_stretch(y: np.ndarray, *, rate: float) -> np.ndarray:
    """Change the tempo of a waveform and keep its pitch, like `librosa.effects.time_stretch`.

    Parameters
    ----------
    y
        Waveform (samples,), float32, with at least one sample.
    rate
        Factor of the tempo, above 0; 2 halves the length.

    Returns
    -------
    Waveform (samples / rate,), float32.
    """
    n_frames = 1 + len(y) // HOP_LENGTH
    result = np.zeros(round(len(y) / rate), dtype=y.dtype)
    squares = np.zeros_like(result)  # sum of the squared windows at each sample
    steps = np.arange(0, n_frames, rate, dtype=np.float64)  # position of each output frame, in frames of y
    steps = steps[: -(-(len(result) + N_FFT) // HOP_LENGTH)]
    window = get_window("hann", N_FFT)
    squared = window**2
    phase = np.angle(_compute_stft(y, 0, 1, window)[:, 0]) + np.float32(0)  # + 0 turns -0 into 0, as in librosa
    for start in range(0, len(steps), FRAMES_PER_PIECE):
        part = steps[start : start + FRAMES_PER_PIECE]
        first = int(part[0])
        frames = _interpolate_frames(_compute_stft(y, first, int(part[-1]) + 2, window), part - first, phase)
        sounds = window * np.fft.irfft(frames, n=N_FFT, axis=0).T  # (frames, samples)
        for i in range(len(part)):
            at = HOP_LENGTH * (start + i) - N_FFT // 2
            end = min(at + N_FFT, len(result))
            if end > max(at, 0):
                result[max(at, 0) : end] += sounds[i, max(-at, 0) : end - at]
                squares[max(at, 0) : end] += squared[max(-at, 0) : end - at]
    np.divide(result, squares, out=result, where=squares > np.finfo(squares.dtype).tiny)
    return result


def _compute_stft(y: np.ndarray, first: int, last: int, window: np.ndarray) -> np.ndarray:
    """Return frames `first` to `last` of ``librosa.stft(y)``, (bins, frames), with zeros after its end."""
    last_frame = min(last, 1 + len(y) // HOP_LENGTH)
    start, end = first * HOP_LENGTH - N_FFT // 2, (last_frame - 1) * HOP_LENGTH + N_FFT // 2
    part = np.pad(y[max(start, 0) : end], (max(-start, 0), max(end - len(y), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(part, N_FFT)[::HOP_LENGTH].T
    spectrum = np.fft.rfft(window[:, None] * frames, axis=0).astype(np.complex64)
    return np.pad(spectrum, ((0, 0), (0, last - last_frame)))


def _interpolate_frames(spectrum: np.ndarray, steps: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Interpolate a spectrum at `steps`, like `librosa.phase_vocoder`; `phase` (bins,) is updated in place."""
    result = np.empty((len(spectrum), len(steps)), dtype=spectrum.dtype, order="F")
    advance = HOP_LENGTH * np.fft.rfftfreq(N_FFT, 1 / (2 * np.pi))
    loudness, angles = np.abs(spectrum), np.angle(spectrum)
    one = torch.ones(len(phase))
    for i, step in enumerate(steps):
        left, right = int(step), int(step) + 1
        alpha = np.mod(step, 1.0)
        unit = torch.polar(one, torch.from_numpy(phase)).numpy()  # sine and cosine of the C library, as in librosa
        result[:, i] = unit * ((1.0 - alpha) * loudness[:, left] + alpha * loudness[:, right])
        change = angles[:, right] - angles[:, left] - advance
        change -= 2.0 * np.pi * np.round(change / (2.0 * np.pi))  # wrap to -pi .. pi
        phase += advance + change
    return result
