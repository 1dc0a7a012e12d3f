"""A batch of waveforms becomes a batch of images: power through filters, in decibels, brought to one size.

By default three channels see the sound through windows of 25, 50 and 100 ms with hops of 10, 25 and 50 ms: fine in time
to fine in frequency ("Rethinking CNN Models for Audio Classification", arXiv:2007.11154, section III). Computing them
in batches on the model's device is what makes them quick.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from core.config.run import Clip, Frontend
from core.inputs.base import Axis, Kind, to_peak
from core.registry import Lazy

scipy_fft = Lazy("scipy.fft")  # for odd lengths alone
WINDOWS_MS = ((25, 10), (50, 25), (100, 50))  # window and hop of each channel
HERTZ = (0, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # written beside an axis of frequency that is not even
EPS = 1e-6  # added to the power before the logarithm
FLOOR_DB = -60.0  # 10 log10 EPS: silence, and 0 of the unit range that pictures are given in
SPAN_DB = 100.0  # +40 dB is 1 of it, where filters are normalised by their width
WIDE_SPAN_DB = 120.0  # +60 dB, about the power of a full-scale tone, where filters pass their middle as it is
DECIBELS = 10 / torch.tensor(10.0, dtype=torch.float64).log().item()  # dB per unit of natural logarithm
CPU_SAMPLES = 2**19  # framed samples at work at once: 2 MB, which stay in a CPU's caches
GPU_SAMPLES = 2**27  # the same on an accelerator: 0.5 GB, and about four times that with what is made of them


class Spectrogram(Kind):
    """Images of ``10 log10(power + 1e-6)``, a channel for each window; what the rows are, a subclass says.

    Frames are centred and Hann-windowed. `n_fft` is 100 ms for all channels, or the one window that was given in
    samples. Images are resized with antialiased bilinear interpolation, as `PIL.Image.resize` does it.

    Parameters
    ----------
    clip
        `sr` is used, and for the axis of time `duration` and `fit`.
    frontend
        `channels`, `window`, `hop`, `padding`, `peak`, `image` and `n_frames` (above 0) are used here.

    Attributes
    ----------
    shape
        (windows, rows, frames): 3 channels, or 1.
    """

    unit = "dB"
    floor = FLOOR_DB
    row: ClassVar[tuple[str, str]]  # name and label of the axis of rows

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        sr = clip.sr
        if frontend.window:
            pairs = [(frontend.window, frontend.hop or max(1, frontend.window // 4))]
            self.channels = (f"window of {frontend.window} samples",)
            self.n_fft = frontend.window
        else:
            chosen = WINDOWS_MS if frontend.channels == "windows" else WINDOWS_MS[:1]
            pairs = [(_samples(window, sr), _samples(hop, sr)) for window, hop in chosen]
            self.channels = tuple(f"{window} ms window" for window, _ in chosen)
            self.n_fft = _samples(WINDOWS_MS[-1][0], sr)
        self.hops = tuple(hop for _, hop in pairs)
        self.reflect, self.peak = frontend.padding == "reflect", frontend.peak
        filters, positions = self.rows(clip=clip, frontend=frontend)
        height = frontend.image[0] if frontend.image else self.height(frontend, len(positions))
        self.shape = (len(pairs), height, frontend.n_frames)
        self.axes = (self.axis(_resized(positions, height)), _time_axis(clip, frontend.n_frames))
        self.n_bands = len(positions if filters is None else filters)
        if filters is not None:
            of_bins = torch.from_numpy(filters).T
            self.blocks = _blocks(of_bins)
            of_squares = of_bins.repeat_interleave(2, dim=0)  # of real and imaginary parts in turn
            for i, (bins, bands) in enumerate(self.blocks):
                self.register_buffer(f"filters{i}", of_squares[bins, bands].contiguous(), persistent=False)
        for i, (window, _) in enumerate(pairs):
            self.register_buffer(f"window{i}", torch.hann_window(window), persistent=False)

    def rows(self, *, clip: Clip, frontend: Frontend) -> tuple[np.ndarray | None, np.ndarray]:
        """Return filters (filters, bins of `n_fft`), float32, or None, and where along their axis the rows stand.

        Without filters there is a row for each bin that `_add_power` keeps.
        """
        raise NotImplementedError

    def height(self, frontend: Frontend, rows: int) -> int:
        """Return the height of an image that is not asked for by ``--image``."""
        return rows

    def axis(self, positions: np.ndarray) -> Axis:
        """Return the axis of rows at `positions` in Hz."""
        inside = tuple(hertz for hertz in HERTZ if positions[0] <= hertz <= positions[-1])
        return Axis(*self.row, positions, inside or (round(float(positions[0])),))

    def of_decibels(self, above: torch.Tensor) -> torch.Tensor:
        """Make the image's rows of decibels above the floor, (batch, filters, frames)."""
        return above

    @torch.no_grad()
    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Turn waveforms (batch, samples) into images (batch, windows, rows, frames)."""
        images = y.new_empty(len(y), *self.shape)
        if self.peak:
            y = to_peak(y)
        at_once = 1 if y.device.type == "cpu" else max(1, len(y))
        for part, rows in zip(_split(y, at_once), _split(images, at_once), strict=True):
            for i, power in enumerate(self.power(part)):
                # 10 log10(power + EPS) = FLOOR_DB + 10 log10(power / EPS + 1); above the floor silence is 0 and stays 0
                above = torch.log1p(power / EPS).mul_(DECIBELS)
                rows[:, i] = _resize(self.of_decibels(above), size=self.shape[1:])
        return images.add_(self.floor)

    def power(self, y: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the filters' power in each channel, shape (batch, filters, frames), of waveforms (batch, samples)."""
        padded = self._padded(y)
        at_once = max(1, (CPU_SAMPLES if y.device.type == "cpu" else GPU_SAMPLES) // (self.n_fft * max(1, len(y))))
        for i, hop in enumerate(self.hops):
            window = self.get_buffer(f"window{i}")
            # librosa centres a short window in a frame of n_fft samples. Where in the frame it stands changes only
            # the phase, so the window's own samples are framed and the Fourier transform appends the zeros.
            first, n = (self.n_fft - len(window)) // 2, 1 + (padded.shape[1] - self.n_fft) // hop
            frames = padded[:, first:].unfold(1, len(window), hop)[:, :n].transpose(0, 1)  # (n, batch, window), a view
            power = y.new_zeros(n, len(y), self.n_bands)
            for part, rows in zip(_split(frames, at_once), _split(power, at_once), strict=True):
                self._add_power(part * window, rows.flatten(0, 1))
            yield power.permute(1, 2, 0)

    def _padded(self, y: torch.Tensor) -> torch.Tensor:
        """Put half a frame before and behind waveforms: silence, or their mirror image (NumPy's ``reflect``)."""
        half, last = self.n_fft // 2, y.shape[1] - 1
        if not self.reflect:
            return F.pad(y, (half, half))
        position = torch.arange(-half, last + 1 + half, device=y.device).abs() % max(1, 2 * last)
        return y[:, torch.minimum(position, 2 * last - position)]

    def _add_power(self, frames: torch.Tensor, power: torch.Tensor) -> None:
        """Add the filters' power of windowed frames (frames, batch, samples) to `power` (frames * batch, filters)."""
        spectrum = squares(frames, n_fft=self.n_fft)
        for i, (bins, bands) in enumerate(self.blocks):
            power[:, bands].addmm_(spectrum[:, bins], self.get_buffer(f"filters{i}"))


def squares(frames: torch.Tensor, *, n_fft: int) -> torch.Tensor:
    """Transform windowed frames (frames, batch, samples) into squares (frames * batch, 2 bins).

    Those of the real and of the imaginary part stand side by side; their sum is the power.
    """
    spectrum = torch.view_as_real(_rfft(frames, n_fft=n_fft))  # (frames, batch, bins, real and imaginary)
    return spectrum.square_().reshape(frames.shape[0] * frames.shape[1], -1)


def _time_axis(clip: Clip, n_frames: int) -> Axis:
    if clip.fit == "stretch":  # every clip is as wide as the image
        return Axis.even("frame", "Time (share of the clip)", n_frames, 1.0)
    return Axis.even("frame", "Time (s)", n_frames, clip.duration)


def _samples(milliseconds: int, sr: int) -> int:
    return round(milliseconds * sr / 1000)


def _rfft(frames: torch.Tensor, *, n_fft: int) -> torch.Tensor:
    """Transform real frames (frames, batch, samples), zeros appended up to `n_fft`."""
    if frames.device.type == "cpu" and n_fft % 2:  # of odd lengths SciPy's transform takes half the time of MKL's
        return torch.from_numpy(scipy_fft.rfft(frames.numpy(), n=n_fft, workers=torch.get_num_threads()))
    return torch.fft.rfft(frames, n=n_fft)


def _split(x: torch.Tensor, at_once: int) -> Sequence[torch.Tensor]:
    """Split along the first axis; of short clips the calls alone would be a tenth of the time."""
    return (x,) if len(x) <= at_once else x.split(at_once)


def _blocks(filters: torch.Tensor) -> list[tuple[slice, slice]]:
    """Split filters (bins, rows) into blocks of an octave of bins and the bands that have any of them.

    Most of a mel matrix is zeros: the upper half of the bins is in a fifth of the bands. Rows are counted twice, for
    the real and the imaginary part.
    """
    n = len(filters)
    blocks = []
    for first, last in ((n // 2, n), (n // 4, n // 2), (n // 8, n // 4), (0, n // 8)):
        bands = filters[first:last].any(dim=0).nonzero().flatten().tolist()
        if bands:
            blocks.append((slice(2 * first, 2 * last), slice(bands[0], bands[-1] + 1)))
    return blocks


def _resize(x: torch.Tensor, *, size: tuple[int, ...]) -> torch.Tensor:
    """Resize (batch, rows, frames) to `size`, rows and frames."""
    if x.shape[1:] == size:
        return x
    return F.interpolate(x[:, None], size=size, mode="bilinear", align_corners=False, antialias=True)[:, 0]


def _resized(positions: np.ndarray, height: int) -> np.ndarray:
    """Return where the middles of `height` rows stand, of as many `positions` as there were rows before."""
    n = len(positions)
    if n in (1, height):  # what one row says is no axis
        return positions if n == height else positions[0] + np.arange(float(height))
    wanted = (np.arange(height) + 0.5) * n / height - 0.5
    below = np.clip(np.floor(wanted).astype(int), 0, n - 2)  # rows beyond the outermost ones go on in equal steps
    return np.asarray(positions[below] + (wanted - below) * (positions[below + 1] - positions[below]))
