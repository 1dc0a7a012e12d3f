"""Mel filters: those of librosa, and filters on Fant's mel scale, which librosa does not have."""

import numpy as np

from core.registry import Lazy

librosa = Lazy("librosa")  # takes more than a second to import; a plan needs no filters


def compute_mel_filters(
    *, sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float, scale: str, norm: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return triangular mel filters and their centre frequencies.

    Parameters
    ----------
    sr, n_fft
        Sampling rate in Hz, and length of the Fourier transform in samples.
    n_mels, fmin, fmax
        Number of filters, and lowest and highest frequency in Hz.
    scale
        ``slaney`` and ``htk``: scales of `librosa.filters.mel`. ``fant``: ``1000 / log 2 * log(1 + f / 1000)`` (Fant
        1968).
    norm
        ``slaney``: every filter has the same area; ``none``: every filter has a peak of 1.

    Returns
    -------
    filters
        (n_mels, bins), float32.
    centres
        Centre frequencies in Hz, (n_mels,).
    """
    normalised = norm == "slaney"
    if scale != "fant":
        filters = librosa.filters.mel(
            sr=sr,
            n_fft=n_fft,
            n_mels=n_mels,
            fmin=fmin,
            fmax=fmax,
            htk=scale == "htk",
            norm="slaney" if normalised else None,
        )
        return filters, librosa.mel_frequencies(n_mels + 2, fmin=fmin, fmax=fmax, htk=scale == "htk")[1:-1]
    low, high = (np.log2(1 + hertz / 1000) for hertz in (fmin, fmax))
    edges = 1000 * (2 ** np.linspace(low, high, n_mels + 2) - 1)
    bins = np.fft.rfftfreq(n_fft, d=1.0 / sr)
    below, centre, above = (part[:, None] for part in (edges[:-2], edges[1:-1], edges[2:]))
    filters = np.maximum(0, np.minimum((bins - below) / (centre - below), (above - bins) / (above - centre)))
    if normalised:
        filters *= 2 / (above - below)
    return filters.astype(np.float32), edges[1:-1]
