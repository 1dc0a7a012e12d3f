"""Mel-frequency cepstral coefficients: the cosine transform of a log-mel spectrogram over its bands."""

import numpy as np
import torch

from core.config.run import Clip, Frontend
from core.inputs.base import Axis
from core.inputs.log_mel import build_mel_filters
from core.inputs.spectrogram import Spectrogram
from core.registry import Lazy

fft = Lazy("scipy.fft")  # a plan needs no filters


class Mfcc(Spectrogram):
    """Images of `librosa.feature.mfcc` (DCT-II, orthonormal) of the log-mel in decibels above silence.

    Decibels are counted from silence, -60 dB, so silence is 0 in every coefficient. Counted from 0 dB, only the first
    coefficient would differ, by a constant. Coefficients differ in scale, so rows are normalised separately.

    Parameters
    ----------
    clip
        As in `Spectrogram`.
    frontend
        Uses `n_mfcc`, and the fields of `LogMel`.
    """

    silence = 0.0
    per_row = True
    axis_names = ("coefficient", "Coefficient")
    band_limits = "open"

    @classmethod
    def count_rows(cls, frontend: Frontend) -> int:
        """Return the number of coefficients."""
        return frontend.n_mfcc

    @classmethod
    def get_decibel_range(cls, frontend: Frontend) -> None:
        """Return None: coefficients have no common value range."""

    def build_filters(self, *, clip: Clip, frontend: Frontend) -> tuple[np.ndarray, np.ndarray]:
        """Return the mel filters (n_mels, bins), and the numbers (n_mfcc,) of the cepstral coefficients to compute."""
        filters, bands = build_mel_filters(clip=clip, frontend=frontend, n_fft=self.n_fft)
        cosines = fft.dct(np.eye(len(bands)), type=2, norm="ortho", axis=0)[: frontend.n_mfcc]
        self.cosines: torch.Tensor  # (n_mfcc, n_mels)
        self.register_buffer("cosines", torch.tensor(cosines, dtype=torch.float32), persistent=False)
        return filters, np.arange(float(len(cosines)))

    def make_axis(self, positions: np.ndarray) -> Axis:
        """Return the axis of coefficients."""
        return Axis(*self.axis_names, positions)

    def transform_decibels(self, above: torch.Tensor) -> torch.Tensor:
        """Convert decibels above silence (batch, n_mels, frames) to coefficients (batch, n_mfcc, frames)."""
        return self.cosines @ above
