"""Mel scales and filters are librosa's to the bit; Fant's, which it does not have, is its formula."""

import librosa
import numpy as np
import pytest

from core.inputs.mel import mel_frequencies, triangles

RANGES = [(0.0, 4000.0), (20.0, 8000.0), (50.5, 999.0), (900.0, 1000.0), (1000.0, 11025.0), (1500.0, 22050.0)]  # Hz


@pytest.mark.parametrize("mel", ["slaney", "htk"])
@pytest.mark.parametrize("n", [3, 42, 130, 402])
def test_frequencies_are_librosas(mel: str, n: int) -> None:
    for fmin, fmax in RANGES:
        theirs = librosa.mel_frequencies(n, fmin=fmin, fmax=fmax, htk=mel == "htk")
        np.testing.assert_array_equal(mel_frequencies(n, fmin=fmin, fmax=fmax, mel=mel), theirs)


def test_fants_mel_scale_is_a_logarithm_with_its_bend_at_a_thousand_hertz() -> None:
    hertz = mel_frequencies(41, fmin=20.0, fmax=8000.0, mel="fant")
    mels = 1000 / np.log(2) * np.log(1 + hertz / 1000)  # equation 3 of the report that uses it
    np.testing.assert_allclose(mels, np.linspace(mels[0], mels[-1], 41))
    np.testing.assert_allclose(hertz[[0, -1]], [20, 8000])
    assert mel_frequencies(2, fmin=0.0, fmax=1000.0, mel="fant")[1] == pytest.approx(1000)
    for other in ("slaney", "htk"):
        assert np.abs(mel_frequencies(41, fmin=20.0, fmax=8000.0, mel=other) - hertz).max() > 100


@pytest.mark.parametrize(("sr", "n_fft"), [(16_000, 1024), (22_050, 2205), (44_100, 4410), (9_999, 1023)])
@pytest.mark.parametrize("norm", ["slaney", None])
@pytest.mark.parametrize("mel", ["slaney", "htk"])
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_triangles_are_librosas_on_its_scales(mel: str, sr: int, n_fft: int, norm: str | None) -> None:
    for n_mels, fmin, fmax in ((40, 20.0, sr / 2), (128, 0.0, sr / 4), (400, 1000.0, sr / 2)):
        edges = mel_frequencies(n_mels + 2, fmin=fmin, fmax=fmax, mel=mel)
        theirs = librosa.filters.mel(
            sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=mel == "htk", norm=norm
        )
        ours = triangles(edges, sr=sr, n_fft=n_fft, normalised=norm == "slaney", mel=mel)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_triangles_of_fants_scale_are_rounded_once() -> None:
    edges = mel_frequencies(42, fmin=20.0, fmax=8000.0, mel="fant")
    tall = triangles(edges, sr=16_000, n_fft=2048, normalised=False, mel="fant")
    bins = np.arange(1025) * 16_000 / 2048
    exact = np.stack([np.interp(bins, edges[i : i + 3], [0, 1, 0]) for i in range(40)])
    np.testing.assert_allclose(tall, exact, rtol=0, atol=1e-6)
    flat = triangles(edges, sr=16_000, n_fft=2048, normalised=True, mel="fant")
    np.testing.assert_allclose(flat, exact * (2 / (edges[2:] - edges[:-2]))[:, None], rtol=1e-6, atol=1e-9)
