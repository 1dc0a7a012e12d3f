"""Changes that keep a clip's class: of the waveform (tempo, pitch) and of the image (SpecAugment masks)."""

import hashlib
from collections.abc import Callable

import numpy as np
import soxr
import torch
from torch import nn

from core.audio import vocoder

# Section III-B of arXiv:2007.11154 stretches time and shifts pitch; by how much, only its authors' code says.
STRETCH = (0.9, 1.2)  # factor of the tempo
PITCH = (-2.0, 2.0)  # semitones
MARGIN = 1 << 15  # samples; more than the vocoder's window and the resampler's filter look ahead
Change = Callable[..., np.ndarray]  # of a waveform (samples,), by its ``sr`` and what ``key`` alone decides


def augment_waveform(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Change a clip's tempo and pitch by amounts that `key` alone decides.

    The tempo is multiplied by a factor drawn uniformly from 0.9 to 1.2 and the pitch shifted by -2 to 2 semitones,
    with librosa's phase vocoder, whatever the process, the order of the clips or the seed of the run. As a pitch shift
    is itself a stretch and a resampling, both changes are made by one stretch and one resampling.

    Parameters
    ----------
    y
        Waveform of shape (samples,).
    sr
        Its sampling rate in Hz.
    key
        Names the clip and the variant.

    Returns
    -------
    Waveform, float32, shape (samples / tempo,).
    """
    tempo, semitones = draw(key)
    shift = 2.0 ** (-semitones / 12)
    stretched = vocoder.time_stretch(y, rate=tempo * shift)
    return np.asarray(soxr.resample(stretched, sr / shift, sr, quality="HQ"), dtype=np.float32)


def enough(n_samples: int) -> int:
    """Return how many samples of a waveform decide the first `n_samples` of the changed one, to the bit."""
    return round(n_samples * STRETCH[1]) + MARGIN


def draw(key: str) -> tuple[float, float]:
    """Return the tempo factor (0.9 to 1.2) and the pitch shift (-2 to 2 semitones) that `key` stands for."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))
    return float(rng.uniform(*STRETCH)), float(rng.uniform(*PITCH))


class SpecAugment(nn.Module):
    """Hide one stretch of time and one band of frequencies of every image, while training.

    Widths are uniform in 0 .. the maximum, positions uniform among those that fit (Park et al. 2019,
    arXiv:1904.08779, section 2, without the time warp); hidden pixels are silent in all channels.
    Drawn with torch's generator of the images' device.

    Parameters
    ----------
    time_mask
        Widest mask along time, in frames; 0 for none.
    freq_mask
        Widest mask along frequency, in bands; 0 for none.
    floor
        What silence is in the images' unit.
    """

    def __init__(self, *, time_mask: int, freq_mask: int, floor: float) -> None:
        super().__init__()
        self.floor = floor
        self.time_mask = time_mask
        self.freq_mask = freq_mask

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mask images (batch, channels, n_mels, n_frames); in evaluation mode return them as they are."""
        if not self.training:
            return images
        batch, _, n_mels, n_frames = images.shape
        rows = _mask(batch, n_mels, widest=self.freq_mask, device=images.device)[:, None, :, None]
        columns = _mask(batch, n_frames, widest=self.time_mask, device=images.device)[:, None, None, :]
        return images.masked_fill(rows | columns, self.floor)


def _mask(batch: int, size: int, *, widest: int, device: torch.device) -> torch.Tensor:
    """Draw one interval of 0 .. `widest` positions per image: True inside, shape (batch, size)."""
    draws = torch.rand(2, batch, 1, device=device)
    width = (draws[0] * (min(widest, size) + 1)).long()
    first = (draws[1] * (size - width + 1)).long()
    position = torch.arange(size, device=device)
    return (position >= first) & (position < first + width)
