"""Mel scales, and triangular filters at equal steps of them: to the bit librosa's, where it has the scale.

What librosa imports for them takes over a second at the start of every command.
"""

import numpy as np

HERTZ_PER_MEL = 200.0 / 3  # Slaney's scale (Auditory Toolbox): a line up to 1000 Hz, 15 mels of it
BEND = 1000.0  # Hz
BEND_MEL = BEND / HERTZ_PER_MEL
STEP = np.log(6.4) / 27.0  # of the logarithm behind the bend: 27 mels up to 6400 Hz


def mel_frequencies(n: int, *, fmin: float, fmax: float, mel: str) -> np.ndarray:
    """Return `n` frequencies in Hz from `fmin` to `fmax`, in equal steps of a mel scale.

    Parameters
    ----------
    n, fmin, fmax
        How many, and the outermost ones.
    mel
        ``slaney`` and ``htk`` are librosa's (`librosa.mel_frequencies`). ``fant`` is ``1000 / log 2 * log(1 + f /
        1000)`` (Fant 1968), which neither of them is: HTK's has its bend at 700 Hz, Slaney's is a line up to 1000 Hz.
    """
    if mel == "fant":
        low, high = (np.log2(1 + hertz / 1000) for hertz in (fmin, fmax))  # in thousands of mels
        return np.asarray(1000 * (2 ** np.linspace(low, high, n) - 1))
    if mel == "htk":
        low, high = (2595.0 * np.log10(1.0 + hertz / 700.0) for hertz in (fmin, fmax))
        return np.asarray(700.0 * (10.0 ** (np.linspace(low, high, n) / 2595.0) - 1.0))
    low, high = (_slaney(hertz) for hertz in (fmin, fmax))
    mels = np.linspace(low, high, n)
    hertz = HERTZ_PER_MEL * mels
    behind = mels >= BEND_MEL
    hertz[behind] = BEND * np.exp(STEP * (mels[behind] - BEND_MEL))
    return hertz


def _slaney(hertz: float) -> float:
    """Return mels of Slaney's scale."""
    if hertz < BEND:
        return hertz / HERTZ_PER_MEL
    return float(BEND_MEL + np.log(hertz / BEND) / STEP)


def triangles(edges: np.ndarray, *, sr: int, n_fft: int, normalised: bool, mel: str) -> np.ndarray:
    """Make triangular filters over the bins of a Fourier transform, as `librosa.filters.mel` does.

    Parameters
    ----------
    edges
        (filters + 2,) ascending in Hz: each filter rises from one to the next and falls to the one after.
    sr, n_fft
        Sampling rate in Hz, samples transformed.
    normalised
        Give each filter the same area, instead of the same height of 1.
    mel
        The scale of the edges. librosa rounds to single precision before it normalises, and so are filters on its
        scales.

    Returns
    -------
    (filters, bins) float32.
    """
    bins = np.fft.rfftfreq(n_fft, d=1.0 / sr)
    below, middle, above = (part[:, None] for part in (edges[:-2], edges[1:-1], edges[2:]))
    filters = np.maximum(0, np.minimum((bins - below) / (middle - below), (above - bins) / (above - middle)))
    if mel != "fant":
        filters = filters.astype(np.float32)
    if normalised:
        filters *= 2 / (above - below)
    return filters.astype(np.float32, copy=False)
