"""The phase vocoder equals `librosa.effects.time_stretch` bit for bit."""

import librosa
import numpy as np
import pytest

from core.audio import vocoder


def sound(n: int) -> np.ndarray:
    """Return silence, whose spectrum has signed zeros, and then a tone in noise."""
    rng = np.random.default_rng(n)
    y = (0.3 * np.sin(np.arange(n) / 20) + 0.1 * rng.standard_normal(n)).astype(np.float32)
    y[: n // 4] = 0
    return y


def bits(y: np.ndarray) -> np.ndarray:
    assert y.dtype == np.float32
    return y.view(np.uint32)


@pytest.mark.parametrize(("n", "rate"), [(1, 0.8), (300, 1.4), (2048, 1.0), (2049, 1.2345), (40_001, 0.93712345)])
@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
def test_time_stretch_in_short_pieces_equals_librosa(n: int, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    y = sound(n)
    wanted = librosa.effects.time_stretch(y, rate=rate)
    for piece in (7, vocoder.FRAMES_PER_PIECE):
        monkeypatch.setattr(vocoder, "FRAMES_PER_PIECE", piece)
        np.testing.assert_array_equal(bits(vocoder.time_stretch(y, rate=rate)), bits(wanted))


def test_time_stretch_of_a_long_recording_equals_librosa() -> None:
    y = sound(700_000)
    found, wanted = vocoder.time_stretch(y, rate=1.1), librosa.effects.time_stretch(y, rate=1.1)
    np.testing.assert_array_equal(bits(found), bits(wanted))
