"""The vocoder in pieces is librosa's, to the bit."""

import librosa
import numpy as np
import pytest

from core.audio import vocoder


def sound(n: int) -> np.ndarray:
    """Return a tone in noise that begins in silence, in whose spectrum zeros have signs."""
    rng = np.random.default_rng(n)
    y = (0.3 * np.sin(np.arange(n) / 20) + 0.1 * rng.standard_normal(n)).astype(np.float32)
    y[: n // 4] = 0
    return y


def bits(y: np.ndarray) -> np.ndarray:
    assert y.dtype == np.float32
    return y.view(np.uint32)


@pytest.mark.parametrize("piece", [7, 512])
@pytest.mark.parametrize("rate", [0.8, 0.93712345, 1.0, 1.2345, 1.4])
@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("n", [1, 2, 300, 1024, 2047, 2048, 2049, 2560, 3000, 22_050, 40_001])
def test_pieces_are_the_whole_to_the_bit(n: int, rate: float, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocoder, "PIECE", piece)
    y = sound(n)
    found, wanted = vocoder.time_stretch(y, rate=rate), librosa.effects.time_stretch(y, rate=rate)
    np.testing.assert_array_equal(bits(found), bits(wanted))


def test_many_pieces_are_the_whole_to_the_bit() -> None:
    y = sound(700_000)
    found, wanted = vocoder.time_stretch(y, rate=1.1), librosa.effects.time_stretch(y, rate=1.1)
    np.testing.assert_array_equal(bits(found), bits(wanted))
