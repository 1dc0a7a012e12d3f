"""The vocoder in pieces is librosa's, to the bit."""

import librosa
import numpy as np
import pytest

from core.inputs import augmentation, vocoder
from core.inputs.augmentation import augment_waveform


def sound(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return (0.3 * np.sin(np.arange(n) / 20) + 0.1 * rng.standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize("piece", [7, 512])
@pytest.mark.parametrize("rate", [0.8, 0.93712345, 1.0, 1.2345, 1.4])
@pytest.mark.parametrize("n", [2048, 2049, 2560, 3000, 22_050, 40_001])
def test_pieces_are_the_whole_to_the_bit(n: int, rate: float, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocoder, "PIECE", piece)
    y = sound(n)
    found, wanted = vocoder.time_stretch(y, rate=rate), librosa.effects.time_stretch(y, rate=rate)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_many_pieces_are_the_whole_to_the_bit() -> None:
    y = sound(700_000)
    np.testing.assert_array_equal(vocoder.time_stretch(y, rate=1.1), librosa.effects.time_stretch(y, rate=1.1))


def test_a_long_recording_is_changed_in_pieces_as_a_short_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    y = sound(30_000)
    whole = augment_waveform(y, sr=8000, key="long.wav:1")
    monkeypatch.setattr(augmentation, "LONG", 29_999)
    monkeypatch.delattr(librosa.effects, "time_stretch")
    np.testing.assert_array_equal(augment_waveform(y, sr=8000, key="long.wav:1"), whole)
