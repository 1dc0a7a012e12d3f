"""Data augmentation: random tempo and pitch of waveforms, and SpecAugment masks of images."""

import hashlib
from collections.abc import Callable

import numpy as np
import soxr
import torch
from torch import nn

from core.audio import vocoder

# From arXiv:2007.11154, section III-B; the ranges are taken from the code of its authors.
TEMPO_RANGE = (0.9, 1.2)  # factor of the tempo
PITCH_RANGE = (-2.0, 2.0)  # semitones
MARGIN_SAMPLES = 1 << 15  # samples; longer than the window of the vocoder and the filter of the resampler
WaveformChange = Callable[..., np.ndarray]  # function of a waveform (samples,), ``sr`` and ``key``


def augment_waveform(y: np.ndarray, *, sr: int, key: str) -> np.ndarray:
    """Change the tempo and pitch of a clip by random amounts that depend only on `key`.

    The tempo is multiplied by a factor uniform in 0.9 to 1.2 and the pitch shifted by -2 to 2 semitones. A pitch shift
    is a time stretch followed by resampling, so one stretch (phase vocoder) and one resampling do both.

    Parameters
    ----------
    y
        Waveform (samples,).
    sr
        Sampling rate in Hz.
    key
        Identifies the clip and its augmented version; seeds the random numbers.

    Returns
    -------
    Waveform (samples / tempo,), float32.
    """
    tempo, semitones = draw_tempo_and_pitch(key)
    shift = 2.0 ** (-semitones / 12)
    stretched = vocoder.time_stretch(y, rate=tempo * shift)
    return np.asarray(soxr.resample(stretched, sr / shift, sr, quality="HQ"), dtype=np.float32)


def count_needed_samples(n_samples: int) -> int:
    """Return how many samples of the recording are needed for the first `n_samples` after augmentation."""
    return round(n_samples * TEMPO_RANGE[1]) + MARGIN_SAMPLES


def draw_tempo_and_pitch(key: str) -> tuple[float, float]:
    """Draw the tempo factor (0.9 to 1.2) and the pitch shift (-2 to 2 semitones) for a key."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))
    return float(rng.uniform(*TEMPO_RANGE)), float(rng.uniform(*PITCH_RANGE))


class SpecAugment(nn.Module):
    """Mask one time span and one frequency band of every image during training (SpecAugment).

    Widths are uniform from 0 to the maximum, positions uniform among those that fit (Park et al. 2019,
    arXiv:1904.08779, section 2, without time warping). Masked pixels are silent in all channels. Random numbers come
    from torch's generator of the device of the images.

    Parameters
    ----------
    time_mask
        Maximum width of the mask along time, in frames; 0 for no mask.
    freq_mask
        Maximum width of the mask along frequency, in bands; 0 for no mask.
    silence
        Value of masked pixels, in the unit of the images.
    """

    def __init__(self, *, time_mask: int, freq_mask: int, silence: float) -> None:
        super().__init__()
        self.silence = silence
        self.time_mask = time_mask
        self.freq_mask = freq_mask

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mask images (batch, channels, n_mels, n_frames); in evaluation mode return them unchanged."""
        if not self.training:
            return images
        batch, _, n_mels, n_frames = images.shape
        rows = _draw_masks(batch, n_mels, widest=self.freq_mask, device=images.device)[:, None, :, None]
        columns = _draw_masks(batch, n_frames, widest=self.time_mask, device=images.device)[:, None, None, :]
        return images.masked_fill(rows | columns, self.silence)


def _draw_masks(batch: int, size: int, *, widest: int, device: torch.device) -> torch.Tensor:
    """Draw an interval of 0 to `widest` positions per image; True inside, (batch, size)."""
    draws = torch.rand(2, batch, 1, device=device)
    width = (draws[0] * (min(widest, size) + 1)).long()
    first = (draws[1] * (size - width + 1)).long()
    position = torch.arange(size, device=device)
    return (position >= first) & (position < first + width)
