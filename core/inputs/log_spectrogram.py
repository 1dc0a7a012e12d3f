"""Log-power spectrograms on a linear frequency axis."""

import numpy as np
import torch

from core.config.run import Clip, Frontend
from core.inputs.base import Axis
from core.inputs.spectrogram import Spectrogram, squared_spectrum


class LogSpectrogram(Spectrogram):
    """Images of ``10 log10(abs(librosa.stft(y, ...)) ** 2 + 1e-6)``.

    The bins from `fmin` to `fmax` are resized to `n_mels` rows, or to the height of `image`.

    Parameters
    ----------
    clip
        As in `Spectrogram`.
    frontend
        Uses `n_mels`, `fmin` and `fmax` (0: sr / 2), and the fields of `Spectrogram`.
    """

    axis_names = ("bin", "Hz")
    band_limits = "closed"

    def build_filters(self, *, clip: Clip, frontend: Frontend) -> tuple[None, np.ndarray]:
        """Return None (one row per bin) and the frequency of each bin in Hz."""
        hertz = np.fft.rfftfreq(self.n_fft, d=1.0 / clip.sr)
        inside = np.flatnonzero((hertz >= frontend.fmin) & (hertz <= (frontend.fmax or clip.sr / 2)))
        self.inside = slice(int(inside[0]), int(inside[-1]) + 1)
        return None, hertz[self.inside]

    def make_axis(self, positions: np.ndarray) -> Axis:
        """Return the linear frequency axis of rows at `positions` in Hz."""
        return Axis(*self.axis_names, positions)

    def _add_power(self, frames: torch.Tensor, power: torch.Tensor) -> None:
        power += squared_spectrum(frames, n_fft=self.n_fft).view(len(power), -1, 2).sum(dim=2)[:, self.inside]
