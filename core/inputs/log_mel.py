"""Log-mel spectrograms: the mel powers are those of `librosa.feature.melspectrogram`, in decibels."""

import warnings

import numpy as np

from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.mel import mel_frequencies, triangles
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
    filters = triangles(edges, sr=clip.sr, n_fft=n_fft, normalised=normalised, mel=frontend.mel)
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
