"""Mel-frequency cepstral coefficients: the cosine transform of a log-mel spectrogram along its bands."""

import numpy as np
import scipy.fft
import torch

from core.config.run import Clip, Frontend
from core.inputs.base import Axis
from core.inputs.log_mel import mel_filters_of
from core.inputs.spectrogram import Spectrogram


class Mfcc(Spectrogram):
    """Images of `librosa.feature.mfcc` (DCT-II, orthonormal) of the log-mel in decibels above the floor.

    Counted from the floor silence is 0 in every coefficient; counted from 0 dB the first alone would differ, by a
    constant. Coefficients have scales of their own, so each row is normalised by itself.

    Parameters
    ----------
    clip
        As of every spectrogram.
    frontend
        `n_mfcc` is used, and what a log-mel uses.
    """

    floor = 0.0
    rows_apart = True
    row = ("coefficient", "Coefficient")
    band = "open"

    @classmethod
    def n_rows(cls, frontend: Frontend) -> int:
        """Return the number of coefficients."""
        return frontend.n_mfcc

    @classmethod
    def decibel_range(cls, frontend: Frontend) -> None:
        """Return None: coefficients have no range in common."""

    def rows(self, *, clip: Clip, frontend: Frontend) -> tuple[np.ndarray, np.ndarray]:
        """Return the mel filters (n_mels, bins), and the coefficients' numbers."""
        filters, bands = mel_filters_of(clip=clip, frontend=frontend, n_fft=self.n_fft)
        cosines = scipy.fft.dct(np.eye(len(bands)), type=2, norm="ortho", axis=0)[: frontend.n_mfcc]
        self.cosines: torch.Tensor  # (n_mfcc, n_mels)
        self.register_buffer("cosines", torch.tensor(cosines, dtype=torch.float32), persistent=False)
        return filters, np.arange(float(len(cosines)))

    def axis(self, positions: np.ndarray) -> Axis:
        """Return the even axis of coefficients."""
        return Axis(*self.row, positions)

    def of_decibels(self, above: torch.Tensor) -> torch.Tensor:
        """Make coefficients (batch, n_mfcc, frames) of decibels above the floor, (batch, n_mels, frames)."""
        return self.cosines @ above
