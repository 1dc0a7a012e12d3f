"""Mel filters on Fant's scale, which librosa does not have. See test_log_mel for the other scales."""

import librosa
import numpy as np
import pytest

from core.inputs.mel import compute_mel_filters

RANGE = {"sr": 16_000, "n_fft": 2048, "fmin": 20.0, "fmax": 8000.0}


def test_fant_centres_are_evenly_spaced() -> None:
    _, hertz = compute_mel_filters(n_mels=39, scale="fant", norm="none", **RANGE)
    mels = 1000 / np.log(2) * np.log(1 + hertz / 1000)  # equation 3 of the report that uses it
    ends = 1000 / np.log(2) * np.log(1 + np.array([20, 8000]) / 1000)
    np.testing.assert_allclose(mels, np.linspace(*ends, 41)[1:-1])
    for scale in ("slaney", "htk"):
        assert np.abs(compute_mel_filters(n_mels=39, scale=scale, norm="none", **RANGE)[1] - hertz).max() > 100


@pytest.mark.parametrize("norm", ["slaney", "none"])
def test_fant_filters_are_triangles_between_neighbouring_centres(norm: str) -> None:
    filters, hertz = compute_mel_filters(n_mels=40, scale="fant", norm=norm, **RANGE)
    edges = np.concatenate([[20], hertz, [8000]])
    bins = np.arange(1025) * 16_000 / 2048
    expected = np.stack([np.interp(bins, edges[i : i + 3], [0, 1, 0]) for i in range(40)])
    if norm == "slaney":
        expected *= 2 / (edges[2:] - edges[:-2])[:, None]
    np.testing.assert_allclose(filters, expected, rtol=1e-6, atol=1e-9)
    assert filters.dtype == np.float32


def test_slaney_filters_equal_librosa() -> None:
    filters, centres = compute_mel_filters(n_mels=40, scale="slaney", norm="slaney", **RANGE)
    np.testing.assert_array_equal(filters, librosa.filters.mel(n_mels=40, **RANGE))
    np.testing.assert_array_equal(centres, librosa.mel_frequencies(42, fmin=20.0, fmax=8000.0)[1:-1])
