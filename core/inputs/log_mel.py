"""Log-mel spectrograms: the mel powers are those of `librosa.feature.melspectrogram`, in decibels."""

import warnings

import librosa
import numpy as np

from core.config import Clip, Frontend
from core.errors import UserError
from core.inputs.spectrogram import FLOOR_DB, SPAN_DB, WIDE_SPAN_DB, Spectrogram


class LogMel(Spectrogram):
    """Log-mel images of waveforms.

    Every channel is ``10 log10(mel + 1e-6)`` with ``mel = librosa.feature.melspectrogram(y, n_fft=, win_length=,
    hop_length=, htk=, norm=, pad_mode=, ...)`` (Hann window, centred frames, power 2). By default the filters are
    Slaney's, normalised by their width, and outside the clip are zeros.

    Parameters
    ----------
    clip
        As of every spectrogram.
    frontend
        `n_mels`, `fmin`, `fmax` (0: sr / 2), `mel` and `mel_norm` are used, and what every spectrogram uses.
    """

    picture = (FLOOR_DB, FLOOR_DB + SPAN_DB)
    row = ("mel", "Hz (mel)")

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        if frontend.mel_norm == "none":
            self.picture = (FLOOR_DB, FLOOR_DB + WIDE_SPAN_DB)

    def rows(self, *, clip: Clip, frontend: Frontend) -> tuple[np.ndarray, np.ndarray]:
        """Return the mel filters (n_mels, bins) and the frequency in Hz at the middle of each."""
        return mel_filters(clip=clip, frontend=frontend, n_fft=self.n_fft)


def mel_filters(*, clip: Clip, frontend: Frontend, n_fft: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mel filters (n_mels, bins), float32, and the frequency in Hz at the middle of each, (n_mels,)."""
    n, fmax = frontend.n_mels, frontend.fmax or clip.sr / 2
    edges = mel_frequencies(n + 2, fmin=frontend.fmin, fmax=fmax, mel=frontend.mel)
    normalised = frontend.mel_norm == "slaney"
    if frontend.mel == "fant":
        filters = triangles(edges, sr=clip.sr, n_fft=n_fft, normalised=normalised)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty filters, in two lines of its own
            filters = librosa.filters.mel(
                sr=clip.sr,
                n_fft=n_fft,
                n_mels=n,
                fmin=frontend.fmin,
                fmax=fmax,
                htk=frontend.mel == "htk",
                norm="slaney" if normalised else None,
            )
    if not filters.any():
        raise UserError(
            f"--fmin {frontend.fmin:g} --fmax {fmax:g}: {n_fft} samples have no frequency between them; "
            "give a wider range or a longer --window"
        )
    if empty := int((~filters.any(axis=1)).sum()):
        warnings.warn(
            f"{empty} of {n} mel filters hold no frequency of {n_fft} samples, so their rows are silent: fewer "
            "--n-mels, a higher --fmax or a longer --window would fill them",
            stacklevel=2,
        )
    return filters, edges[1:-1]


def mel_frequencies(n: int, *, fmin: float, fmax: float, mel: str) -> np.ndarray:
    """Return `n` frequencies in Hz from `fmin` to `fmax`, in equal steps of a mel scale.

    Parameters
    ----------
    n, fmin, fmax
        How many, and the outermost ones.
    mel
        ``slaney`` and ``htk`` are librosa's. ``fant`` is ``1000 / log 2 * log(1 + f / 1000)`` (Fant 1968), which
        neither of them is: HTK's has its bend at 700 Hz, Slaney's is a line up to 1000 Hz.
    """
    if mel != "fant":
        return librosa.mel_frequencies(n, fmin=fmin, fmax=fmax, htk=mel == "htk")
    low, high = (np.log2(1 + hertz / 1000) for hertz in (fmin, fmax))  # in thousands of mels
    return np.asarray(1000 * (2 ** np.linspace(low, high, n) - 1))


def triangles(edges: np.ndarray, *, sr: int, n_fft: int, normalised: bool) -> np.ndarray:
    """Make triangular filters over the bins of a Fourier transform, as `librosa.filters.mel` does of its own scales.

    Parameters
    ----------
    edges
        (filters + 2,) ascending in Hz: each filter rises from one to the next and falls to the one after.
    sr, n_fft
        Sampling rate in Hz, samples transformed.
    normalised
        Give each filter the same area, instead of the same height of 1.

    Returns
    -------
    (filters, bins) float32.
    """
    bins = librosa.fft_frequencies(sr=sr, n_fft=n_fft)
    below, middle, above = (part[:, None] for part in (edges[:-2], edges[1:-1], edges[2:]))
    filters = np.maximum(0, np.minimum((bins - below) / (middle - below), (above - bins) / (above - middle)))
    if normalised:
        filters *= 2 / (above - below)
    return filters.astype(np.float32)
