"""Log-power spectrograms: the short-time Fourier transform as it is, on a linear axis of frequency."""

import numpy as np
import torch

from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.base import Axis
from core.inputs.spectrogram import FLOOR_DB, WIDE_SPAN_DB, Spectrogram, squares


class LogSpectrogram(Spectrogram):
    """Images of ``10 log10(abs(librosa.stft(y, ...)) ** 2 + 1e-6)``.

    There are as many bins as the Fourier transform has from `fmin` to `fmax`; they are resized to `n_mels` rows, or to
    the height that ``--image`` says.

    Parameters
    ----------
    clip
        As of every spectrogram.
    frontend
        `n_mels`, `fmin` and `fmax` (0: sr / 2) are used, and what every spectrogram uses.
    """

    picture = (FLOOR_DB, FLOOR_DB + WIDE_SPAN_DB)
    row = ("bin", "Hz")

    def rows(self, *, clip: Clip, frontend: Frontend) -> tuple[None, np.ndarray]:
        """Return no filters, and the frequency in Hz of each bin."""
        hertz = np.fft.rfftfreq(self.n_fft, d=1.0 / clip.sr)
        inside = np.flatnonzero((hertz >= frontend.fmin) & (hertz <= (frontend.fmax or clip.sr / 2)))
        if not len(inside):
            raise UserError(
                f"--fmin {frontend.fmin:g}, --fmax {frontend.fmax:g}: no bin of the spectrum lies between; they are "
                f"{hertz[1]:g} Hz apart"
            )
        self.inside = slice(int(inside[0]), int(inside[-1]) + 1)
        return None, hertz[self.inside]

    def height(self, frontend: Frontend, rows: int) -> int:
        """Return `n_mels`, so that images are as high as those of other kinds."""
        return frontend.n_mels

    def axis(self, positions: np.ndarray) -> Axis:
        """Return the even axis of rows at `positions` in Hz."""
        return Axis(*self.row, positions)

    def _add_power(self, frames: torch.Tensor, power: torch.Tensor) -> None:
        power += squares(frames, n_fft=self.n_fft).view(len(power), -1, 2).sum(dim=2)[:, self.inside]
