"""Spectrograms other than the log-mel, compared with independent implementations; and waveforms."""

from collections.abc import Callable

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from PIL import Image

from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.base import InputKind
from core.inputs.gammatone import erb_frequencies, gammatone_magnitudes
from core.inputs.input_kind import build_input_kind

SR = 16000
CLIP = Clip(sr=SR, duration=1.0)
TOLERANCE_DB = 2e-3


def noise(seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=SR)).astype(np.float32)


def made(kind: str, **changes: object) -> InputKind:
    options: dict[str, object] = {"n_frames": 63, "window": 1024, "hop": 256}
    return build_input_kind(CLIP, Frontend(kind=kind, **options | changes))  # type: ignore[arg-type]


def one(kind: InputKind, y: np.ndarray) -> np.ndarray:
    image: np.ndarray = kind(torch.from_numpy(y)[None])[0].numpy()
    return image


def test_log_spectrogram_of_frequency_band_equals_librosa() -> None:
    y = noise()
    kind = made("logspec", fmin=1000.0, fmax=3000.0, n_mels=43)
    hertz = librosa.fft_frequencies(sr=SR, n_fft=1024)
    inside = (hertz >= 1000) & (hertz <= 3000)
    log = 10 * np.log10(np.abs(librosa.stft(y, n_fft=1024, hop_length=256)) ** 2 + 1e-6)[inside]
    expected = np.asarray(Image.fromarray(log.astype(np.float32)).resize((63, 43), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(one(kind, y)[0], expected, rtol=0, atol=TOLERANCE_DB)
    assert 1000 <= kind.axes[0].values[0] < kind.axes[0].values[-1] <= 3000
    with pytest.raises(UserError, match="--fmin 1001 --fmax 1002: no bin .* longer --n-fft"):
        made("logspec", fmin=1001.0, fmax=1002.0)


@pytest.mark.parametrize("sr", [44100])
def test_gammatone_magnitudes_equal_scipy(sr: int) -> None:
    """SciPy's FIR filter is the impulse response t ** 3 exp(-2 pi b t) cos(2 pi f t); ours is computed from poles."""
    n_fft = sr  # bins 1 Hz apart
    middles = np.array([60.0, 440.0, 1500.0, 6000.0])
    found = gammatone_magnitudes(middles, sr=sr, n_fft=n_fft)
    for middle, magnitude in zip(middles, found, strict=True):
        taps, _ = scipy.signal.gammatone(middle, "fir", order=4, numtaps=sr // 4, fs=sr)
        expected = np.abs(np.fft.rfft(taps, n_fft))
        assert magnitude[round(middle)] == pytest.approx(1)
        near = np.abs(np.arange(len(magnitude)) - middle) < 24.7 + middle / 9.26449
        np.testing.assert_allclose(magnitude[near], expected[near], atol=0.02)
        np.testing.assert_allclose(magnitude, expected, atol=0.06)


PAIRS = ((400, 160), (800, 400), (1600, 800))  # window and hop of the three channels, in samples
N_FFT = 1600


def logspec_of(power: np.ndarray) -> np.ndarray:
    hertz = librosa.fft_frequencies(sr=SR, n_fft=N_FFT)
    return 10 * np.log10(power[(hertz >= 100) & (hertz <= 6000)] + 1e-6)


def mfcc_of(power: np.ndarray) -> np.ndarray:
    mel = librosa.feature.melspectrogram(S=power, sr=SR, n_mels=40, fmin=100.0, fmax=6000.0)
    return librosa.feature.mfcc(S=10 * np.log10(mel + 1e-6) + 60, n_mfcc=13)


def gammatone_of(power: np.ndarray) -> np.ndarray:
    """Weight a spectrum by the response of SciPy's FIR filters at each of its bins, 10 Hz apart."""
    middles = erb_frequencies(40, fmin=100.0, fmax=6000.0)
    taps = [scipy.signal.gammatone(middle, "fir", order=4, numtaps=SR // 4, fs=SR)[0] for middle in middles]
    response = np.abs(np.fft.rfft(taps, SR))[:, :: SR // N_FFT] ** 2
    return np.asarray(10 * np.log10(response @ power + 1e-6))


@pytest.mark.parametrize(
    ("kind", "of_power", "tolerance"),
    [("logspec", logspec_of, TOLERANCE_DB), ("mfcc", mfcc_of, 7 * TOLERANCE_DB), ("gammatone", gammatone_of, 0.06)],
)
def test_spectrogram_of_three_windows_equals_librosa(
    kind: str, of_power: Callable[[np.ndarray], np.ndarray], tolerance: float
) -> None:
    """Power of each window by librosa, rows by an independent function, resize by PIL."""
    y = noise()
    found = one(made(kind, window=0, hop=0, n_frames=50, n_mels=40, n_mfcc=13, fmin=100.0, fmax=6000.0), y)
    assert found.shape == (3, 13 if kind == "mfcc" else 40, 50)
    for image, (window, hop) in zip(found, PAIRS, strict=True):
        spectrum = librosa.stft(y, n_fft=N_FFT, win_length=window, hop_length=hop, pad_mode="constant")
        rows = of_power(np.abs(spectrum) ** 2).astype(np.float32)
        expected = np.asarray(Image.fromarray(rows).resize((50, len(image)), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(image, expected, rtol=0, atol=tolerance)


def test_waveform_input_equals_samples() -> None:
    y = noise()
    kind = build_input_kind(CLIP, Frontend(kind="waveform"))
    np.testing.assert_array_equal(one(kind, y), y[None])
    assert kind.shape == (1, SR)
    assert np.abs(one(build_input_kind(CLIP, Frontend(kind="waveform", peak=True)), y)).max() == 1
    with pytest.raises(UserError, match="--length-mode stretch: .* pad, loop or crop"):
        build_input_kind(Clip(sr=SR, duration=1.0, fit="stretch"), Frontend(kind="waveform"))
