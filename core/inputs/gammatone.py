"""Gammatone spectrograms: the energy of each filter of a cochlea model, in decibels."""

import numpy as np

from core.config.run import Clip, Frontend
from core.inputs.spectrogram import Spectrogram

EAR_Q, MIN_BANDWIDTH = 9.26449, 24.7  # ERB in Hz = f / EAR_Q + MIN_BANDWIDTH (Glasberg and Moore 1990)
BANDWIDTH = 1.019  # bandwidth of a gammatone filter of order 4, in equivalent rectangular bandwidths (ERB)


class Gammatone(Spectrogram):
    """Images of ``10 log10(energy + 1e-6)`` of gammatone filters of order 4.

    The power spectrum of a frame is weighted by the squared magnitude of each filter, which gives the energy of the
    filtered frame (Parseval). Filters have a gain of 1 at their centre; centres are evenly spaced on the ERB scale.

    Parameters
    ----------
    clip
        As in `Spectrogram`.
    frontend
        Uses `n_mels` (number of filters), `fmin` and `fmax` (0: sr / 2), and the fields of `Spectrogram`.
    """

    axis_names = ("filter", "Hz (ERB)")

    def build_filters(self, *, clip: Clip, frontend: Frontend) -> tuple[np.ndarray, np.ndarray]:
        """Return the filters' squared magnitudes (n_mels, bins) and their centres in Hz."""
        middles = erb_frequencies(frontend.n_mels, fmin=frontend.fmin, fmax=frontend.fmax or clip.sr / 2)
        magnitudes = gammatone_magnitudes(middles, sr=clip.sr, n_fft=self.n_fft)
        return (magnitudes**2).astype(np.float32), middles


def erb_frequencies(n: int, *, fmin: float, fmax: float) -> np.ndarray:
    """Return `n` frequencies in Hz, evenly spaced on the ERB scale from `fmin` to `fmax`."""
    bend = EAR_Q * MIN_BANDWIDTH
    low, high = np.log(fmin + bend), np.log(fmax + bend)
    return np.asarray(np.exp(low + (np.arange(n) + 0.5) / n * (high - low)) - bend)


def gammatone_magnitudes(middles: np.ndarray, *, sr: int, n_fft: int) -> np.ndarray:
    """Return the magnitudes of gammatone filters at the bins of a Fourier transform, 1 at the centre of a filter.

    The filters are Slaney's ("An Efficient Implementation of the Patterson-Holdsworth Auditory Filter Bank", 1993): a
    pair of poles, four times, and four zeros. They are evaluated from poles and zeros, as in Ellis's `fft2gammatonemx`,
    because polynomial coefficients lose all precision at low frequencies.

    Parameters
    ----------
    middles
        Centre frequencies in Hz, (filters,).
    sr, n_fft
        Sampling rate in Hz, and length of the Fourier transform in samples.

    Returns
    -------
    (filters, bins).
    """
    angle = 2 * np.pi * middles[:, None] / sr
    radius = np.exp(-2 * np.pi * BANDWIDTH * (middles[:, None] / EAR_Q + MIN_BANDWIDTH) / sr)
    pole = radius * np.exp(1j * angle)
    slopes = [sign * np.sqrt(3 + root * 2**1.5) for sign in (1, -1) for root in (1, -1)]
    zeros = [radius * (np.cos(angle) + slope * np.sin(angle)) for slope in slopes]

    def magnitude(z: np.ndarray) -> np.ndarray:
        above = np.prod([np.abs(z - zero) for zero in zeros], axis=0)
        return np.asarray(above / np.abs((z - pole) * (z - pole.conj())) ** 4)

    bins = np.exp(2j * np.pi * np.arange(1 + n_fft // 2) / n_fft)
    return magnitude(bins) / magnitude(np.exp(1j * angle))
