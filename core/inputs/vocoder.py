"""librosa's phase vocoder in pieces: of a long recording, a few seconds of its spectrum are held at a time.

`librosa.effects.time_stretch` holds the whole spectrum several times: 800 MB of ten minutes at 22,050 Hz. The numbers
are the same to the bit, since every one of them is computed and added up in the same order.
"""

import librosa
import numpy as np

N_FFT, HOP = 2048, 512  # samples; those of librosa where none are said
PIECE = 512  # frames at work at once: 12 s at 22,050 Hz, 4 MB a copy


def time_stretch(y: np.ndarray, *, rate: float) -> np.ndarray:
    """Change a waveform's tempo and leave its pitch: to the bit ``librosa.effects.time_stretch(y, rate=rate)``.

    Parameters
    ----------
    y
        Waveform, float32, shape (samples,), at least `N_FFT` samples.
    rate
        Factor of the tempo, above 0.

    Returns
    -------
    Waveform, float32, shape (samples / rate,).
    """
    n_frames = 1 + len(y) // HOP
    made = np.zeros(round(len(y) / rate), dtype=y.dtype)
    steps = np.arange(0, n_frames, rate, dtype=np.float64)  # where each frame of the result stands among those of y
    steps = steps[: -(-(len(made) + N_FFT) // HOP)]
    window = librosa.filters.get_window("hann", N_FFT)[:, None]
    phase = np.angle(_spectrum(y, 0, 1)[:, 0])
    for start in range(0, len(steps), PIECE):
        part = steps[start : start + PIECE]
        first = int(part[0])
        frames = _vocoded(_spectrum(y, first, int(part[-1]) + 2), part - first, phase)
        sounds = window * np.fft.irfft(frames, n=N_FFT, axis=0)  # (samples, frames)
        for i in range(len(part)):
            at = HOP * (start + i) - N_FFT // 2
            end = min(at + N_FFT, len(made))
            if end > max(at, 0):
                made[max(at, 0) : end] += sounds[max(-at, 0) : end - at, i]
    _normalise(made, n_frames=len(steps))
    return made


def _spectrum(y: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return frames `first` to `last` of ``librosa.stft(y)``, (bins, frames); those behind its end are zero."""
    there = min(last, 1 + len(y) // HOP)
    start, end = first * HOP - N_FFT // 2, (there - 1) * HOP + N_FFT // 2
    part = np.pad(y[max(start, 0) : end], (max(-start, 0), max(end - len(y), 0)))
    spectrum = librosa.stft(part, n_fft=N_FFT, hop_length=HOP, center=False)
    return np.pad(spectrum, ((0, 0), (0, last - there)))


def _vocoded(spectrum: np.ndarray, steps: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Return frames at `steps` among those of a spectrum, as `librosa.phase_vocoder` does; `phase` (bins,) goes on."""
    made = np.empty((len(spectrum), len(steps)), dtype=spectrum.dtype, order="F")
    advance = HOP * librosa.fft_frequencies(sr=2 * np.pi, n_fft=N_FFT)
    for i, step in enumerate(steps):
        here, there = spectrum[:, int(step)], spectrum[:, int(step) + 1]
        alpha = np.mod(step, 1.0)
        loud = (1.0 - alpha) * np.abs(here) + alpha * np.abs(there)
        made[:, i] = librosa.util.phasor(phase, mag=loud)
        change = np.angle(there) - np.angle(here) - advance
        change = change - 2.0 * np.pi * np.round(change / (2.0 * np.pi))  # to -pi .. pi
        phase += advance + change
    return made


def _normalise(made: np.ndarray, *, n_frames: int) -> None:
    """Divide by the sum of the squared windows that lie over each sample."""
    squares = librosa.filters.window_sumsquare(
        window="hann", n_frames=n_frames, n_fft=N_FFT, hop_length=HOP, dtype=made.dtype
    )
    squares = librosa.util.fix_length(squares[N_FFT // 2 :], size=len(made))
    np.divide(made, squares, out=made, where=squares > librosa.util.tiny(squares))
