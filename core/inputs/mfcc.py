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
    """Images of `librosa.feature.mfcc` (DCT-II, orthonormal) of the log-mel in decibels above the floor.

    Decibels are relative to the floor, so that silence is 0 in every coefficient; relative to 0 dB only the first
    coefficient would differ, by a constant. Each coefficient has its own scale, so rows are normalised separately.

    Parameters
    ----------
    clip
        As for every spectrogram.
    frontend
        Uses `n_mfcc`, and the fields of a log-mel.
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
        """Return None: coefficients have no range in common."""

    def build_filters(self, *, clip: Clip, frontend: Frontend) -> tuple[np.ndarray, np.ndarray]:
        """Return the mel filters (n_mels, bins), and the index of each coefficient."""
        filters, bands = build_mel_filters(clip=clip, frontend=frontend, n_fft=self.n_fft)
        cosines = fft.dct(np.eye(len(bands)), type=2, norm="ortho", axis=0)[: frontend.n_mfcc]
        self.cosines: torch.Tensor  # (n_mfcc, n_mels)
        self.register_buffer("cosines", torch.tensor(cosines, dtype=torch.float32), persistent=False)
        return filters, np.arange(float(len(cosines)))

    def make_axis(self, positions: np.ndarray) -> Axis:
        """Return the even axis of coefficients."""
        return Axis(*self.axis_names, positions)

    def transform_decibels(self, above: torch.Tensor) -> torch.Tensor:
        """Turn decibels above the floor (batch, n_mels, frames) into coefficients (batch, n_mfcc, frames)."""
        return self.cosines @ above
