"""A batch of waveforms becomes a batch of images: log-mel spectrograms in decibels, three channels, one size.

The three channels see the sound through windows of 25, 50 and 100 ms with hops of 10, 25 and 50 ms: fine in time to
fine in frequency ("Rethinking CNN Models for Audio Classification", arXiv:2007.11154, section III). The mel powers are
those of `librosa.feature.melspectrogram`; computing them in batches on the model's device is what makes them quick.
"""

from collections.abc import Iterator

import librosa
import scipy.fft
import torch
from torch.nn import functional as F

from core.config import Clip, Frontend
from core.inputs.kind import Axis, Kind

WINDOWS_MS = ((25, 10), (50, 25), (100, 50))  # window and hop of each channel
HERTZ = (0, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # written beside the axis of frequency
EPS = 1e-6  # added to the mel power before the logarithm
FLOOR_DB = -60.0  # 10 log10 EPS: silence, and 0 of the unit range that pictures are given in
SPAN_DB = 100.0  # +40 dB is 1 of it
DECIBELS = 10 / torch.tensor(10.0, dtype=torch.float64).log().item()  # dB per unit of natural logarithm
CPU_SAMPLES = 2**19  # framed samples at work at once: 2 MB, which stay in a CPU's caches
GPU_SAMPLES = 2**27  # the same on an accelerator: 0.5 GB, and about four times that with what is made of them


class LogMel(Kind):
    """Log-mel images of waveforms.

    Every channel is ``10 log10(mel + 1e-6)`` with ``mel = librosa.feature.melspectrogram(y, n_fft=, win_length=,
    hop_length=, ...)`` (Hann window, centred frames, zeros outside the clip, power 2, Slaney-normalised filters),
    where ``n_fft`` is 100 ms for all channels, then resized along time to `n_frames` with antialiased bilinear
    interpolation, as `PIL.Image.resize` does it.

    Parameters
    ----------
    clip
        `sr` is used, and for the axis of time `duration` and `fit`.
    frontend
        `channels`, `n_mels`, `n_frames` (above 0), `fmin` and `fmax` (0: sr / 2) are used; `normalise` is the model's.

    Attributes
    ----------
    shape
        (3, n_mels, n_frames).
    """

    unit = "dB"
    floor = FLOOR_DB
    picture = (FLOOR_DB, FLOOR_DB + SPAN_DB)

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        sr, fmax = clip.sr, frontend.fmax or clip.sr / 2
        self.shape = (3, frontend.n_mels, frontend.n_frames)
        self.axes = (_mel_axis(frontend.n_mels, frontend.fmin, fmax), _time_axis(clip, frontend.n_frames))
        self.n_fft = _samples(WINDOWS_MS[-1][0], sr)
        pairs = WINDOWS_MS if frontend.channels == "windows" else WINDOWS_MS[:1]
        self.hops = tuple(_samples(hop, sr) for _, hop in pairs)
        shown = pairs if len(pairs) == 3 else pairs * 3
        self.channels = tuple(f"{window} ms window" for window, _ in shown)
        filters = librosa.filters.mel(sr=sr, n_fft=self.n_fft, n_mels=frontend.n_mels, fmin=frontend.fmin, fmax=fmax)
        self.blocks = _blocks(torch.from_numpy(filters).T)
        self.filters: torch.Tensor  # (2 bins, n_mels): for the squares of real and imaginary parts in turn
        self.register_buffer("filters", torch.from_numpy(filters).T.repeat_interleave(2, dim=0), persistent=False)
        for i, (window, _) in enumerate(pairs):
            self.register_buffer(f"window{i}", torch.hann_window(_samples(window, sr)), persistent=False)

    @torch.no_grad()
    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Turn waveforms (batch, samples) into images (batch, 3, n_mels, n_frames) in dB, at least -60."""
        images = y.new_empty(len(y), len(self.hops), *self.shape[1:])
        at_once = 1 if y.device.type == "cpu" else max(1, len(y))
        for part, rows in zip(y.split(at_once), images.split(at_once), strict=True):
            for i, mel in enumerate(self.mel(part)):
                # 10 log10(mel + EPS) = FLOOR_DB + 10 log10(mel / EPS + 1); above the floor silence is 0 and stays 0
                above = torch.log1p(mel / EPS).mul_(DECIBELS)
                rows[:, i] = _resize(above, n_frames=self.shape[2])
        return images.add_(FLOOR_DB).expand(-1, 3, -1, -1)

    def mel(self, y: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the mel power of each channel, shape (batch, n_mels, frames), of waveforms (batch, samples)."""
        padded = F.pad(y, (self.n_fft // 2, self.n_fft // 2))
        at_once = max(1, (CPU_SAMPLES if y.device.type == "cpu" else GPU_SAMPLES) // (self.n_fft * max(1, len(y))))
        for i, hop in enumerate(self.hops):
            window = self.get_buffer(f"window{i}")
            # librosa centres a short window in a frame of n_fft samples. Where in the frame it stands changes only
            # the phase, so the window's own samples are framed and the Fourier transform appends the zeros.
            first, n = (self.n_fft - len(window)) // 2, 1 + (padded.shape[1] - self.n_fft) // hop
            frames = padded[:, first:].unfold(1, len(window), hop)[:, :n].transpose(0, 1)  # (n, batch, window), a view
            mel = y.new_zeros(n, len(y), self.filters.shape[1])
            for part, rows in zip(frames.split(at_once), mel.split(at_once), strict=True):
                self._add_mel(part * window, rows.flatten(0, 1))
            yield mel.permute(1, 2, 0)

    def _add_mel(self, frames: torch.Tensor, mel: torch.Tensor) -> None:
        """Add the mel power of windowed frames (frames, batch, samples) to `mel` (frames * batch, n_mels)."""
        spectrum = torch.view_as_real(_rfft(frames, n_fft=self.n_fft))  # (frames, batch, bins, real and imaginary)
        squares = spectrum.square_().reshape(len(mel), -1)  # (frames * batch, 2 bins)
        for bins, bands in self.blocks:
            mel[:, bands].addmm_(squares[:, bins], self.filters[bins, bands])


def _mel_axis(n_mels: int, fmin: float, fmax: float) -> Axis:
    centres = librosa.mel_frequencies(n_mels + 2, fmin=fmin, fmax=fmax)[1:-1]
    inside = tuple(hertz for hertz in HERTZ if centres[0] <= hertz <= centres[-1])
    return Axis("mel", "Hz (mel)", centres, inside or (round(float(centres[0])),))


def _time_axis(clip: Clip, n_frames: int) -> Axis:
    if clip.fit == "stretch":  # every clip is as wide as the image
        return Axis.even("frame", "Time (share of the clip)", n_frames, 1.0)
    return Axis.even("frame", "Time (s)", n_frames, clip.duration)


def _samples(milliseconds: int, sr: int) -> int:
    return round(milliseconds * sr / 1000)


def _rfft(frames: torch.Tensor, *, n_fft: int) -> torch.Tensor:
    """Transform real frames (frames, batch, samples), zeros appended up to `n_fft`."""
    if frames.device.type == "cpu" and n_fft % 2:  # of odd lengths SciPy's transform takes half the time of MKL's
        return torch.from_numpy(scipy.fft.rfft(frames.numpy(), n=n_fft, workers=torch.get_num_threads()))
    return torch.fft.rfft(frames, n=n_fft)


def _blocks(filters: torch.Tensor) -> list[tuple[slice, slice]]:
    """Split filters (bins, n_mels) into blocks of an octave of bins and the bands that have any of them.

    Most of the matrix is zeros: the upper half of the bins is in a fifth of the bands. Rows are counted twice, for the
    real and the imaginary part.
    """
    n = len(filters)
    blocks = []
    for first, last in ((n // 2, n), (n // 4, n // 2), (n // 8, n // 4), (0, n // 8)):
        bands = filters[first:last].any(dim=0).nonzero().flatten().tolist()
        if bands:
            blocks.append((slice(2 * first, 2 * last), slice(bands[0], bands[-1] + 1)))
    return blocks


def _resize(x: torch.Tensor, *, n_frames: int) -> torch.Tensor:
    """Resize (batch, n_mels, frames) along time."""
    if x.shape[2] == n_frames:
        return x
    size = (x.shape[1], n_frames)
    return F.interpolate(x[:, None], size=size, mode="bilinear", align_corners=False, antialias=True)[:, 0]
