"""Log-mel spectrograms: `librosa.feature.melspectrogram` in decibels."""

import warnings

import numpy as np

from core.config.run import Clip, Frontend
from core.inputs.mel import compute_mel_filters
from core.inputs.spectrogram import FLOOR_DB, SPAN_DB, WIDE_SPAN_DB, Spectrogram


class LogMel(Spectrogram):
    """Log-mel images of waveforms.

    Every channel is ``10 log10(mel + 1e-6)`` with ``mel = librosa.feature.melspectrogram(y, n_fft=, win_length=,
    hop_length=, htk=, norm=, pad_mode=, ...)`` (Hann window, centred frames, power 2). The defaults are librosa's:
    Slaney's filters with equal area, and zeros outside the clip.

    Parameters
    ----------
    clip
        As in `Spectrogram`.
    frontend
        Uses `n_mels`, `fmin`, `fmax` (0: sr / 2), `mel` and `mel_norm`, and the fields of `Spectrogram`.
    """

    axis_names = ("mel", "Hz (mel)")
    band_limits = "open"

    @classmethod
    def get_decibel_range(cls, frontend: Frontend) -> tuple[float, float]:
        """Return the value range in dB; it is wider for filters with a peak of 1."""
        return FLOOR_DB, FLOOR_DB + (WIDE_SPAN_DB if frontend.mel_norm == "none" else SPAN_DB)

    def build_filters(self, *, clip: Clip, frontend: Frontend) -> tuple[np.ndarray, np.ndarray]:
        """Return the mel filters (n_mels, bins) and their centre frequencies in Hz, (n_mels,)."""
        return build_mel_filters(clip=clip, frontend=frontend, n_fft=self.n_fft)


def build_mel_filters(*, clip: Clip, frontend: Frontend, n_fft: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mel filters (n_mels, bins), float32, and their centres in Hz, (n_mels,); warn about empty filters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")  # librosa's warning does not name our options
        filters, centres = compute_mel_filters(
            sr=clip.sr,
            n_fft=n_fft,
            n_mels=frontend.n_mels,
            fmin=frontend.fmin,
            fmax=frontend.fmax or clip.sr / 2,
            scale=frontend.mel,
            norm=frontend.mel_norm,
        )
    if empty := int((~filters.any(axis=1)).sum()):
        warnings.warn(
            f"{empty} of {frontend.n_mels} mel filters contain no bin of a transform of {n_fft} samples, so their rows "
            "are silent; use fewer --n-mels, a higher --fmax or a longer --n-fft",
            stacklevel=2,
        )
    return filters, centres
