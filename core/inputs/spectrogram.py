"""Base class of spectrograms: filtered power in decibels, resized to one image size.

By default three channels have windows of 25, 50 and 100 ms and hops of 10, 25 and 50 ms, from high resolution in time
to high resolution in frequency ("Rethinking CNN Models for Audio Classification", arXiv:2007.11154, section III).
"""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch.nn import functional as F

from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.base import Axis, InputKind, Layout, normalise_peak
from core.registry import Lazy

scipy_fft = Lazy("scipy.fft")  # only used for odd frame lengths
WINDOWS_MS = ((25, 10), (50, 25), (100, 50))  # window and hop of each channel, ms
TICKS_HZ = (0, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # ticks of a frequency axis that is not linear
EPS = 1e-6  # added to the power before the logarithm
FLOOR_DB = -60.0  # 10 log10 EPS: silence, and the lower end of the value range
SPAN_DB = 100.0  # width of the value range for filters of equal area: -60 to 40 dB
WIDE_SPAN_DB = 120.0  # width for filters with a peak of 1: -60 to 60 dB; a full-scale tone has about 60 dB
DB_PER_NEPER = 10 / torch.tensor(10.0, dtype=torch.float64).log().item()  # dB per unit of natural logarithm
MAX_CPU_SAMPLES = 2**19  # samples of the frames that are transformed at a time: 2 MB, the size of a CPU cache
MAX_GPU_SAMPLES = 2**27  # the same on a GPU: 0.5 GB, about 2 GB with intermediate results


class Spectrogram(InputKind):
    """Images of ``10 log10(power + 1e-6)``, one channel per window; subclasses define the rows.

    Frames are centred and Hann-windowed. `n_fft` is 100 ms for all channels, or the one window given in samples. Images
    are resized with antialiased bilinear interpolation, like `PIL.Image.resize`.

    Parameters
    ----------
    clip
        Uses `sr`, and for the time axis `duration` and `fit`.
    frontend
        Uses `channels`, `window`, `hop`, `padding`, `peak`, `image` and `n_frames` (above 0).

    Attributes
    ----------
    shape
        (windows, rows, frames): 3 channels, or 1.
    """

    unit = "dB"
    silence = FLOOR_DB
    axis_names: ClassVar[tuple[str, str]]  # name and label of the vertical axis
    # Whether at least one bin must lie between fmin and fmax: "open" excludes and "closed" includes bins at the limits.
    band_limits: ClassVar[Literal["", "open", "closed"]] = ""

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        self.use_layout(self.layout(clip, frontend))
        if frontend.window:
            pairs = [(frontend.window, frontend.hop or max(1, frontend.window // 4))]
        else:
            pairs = [
                (_count_samples(window, clip.sr), _count_samples(hop, clip.sr))
                for window, hop in _list_windows_ms(frontend)
            ]
        self.n_fft = fft_size(clip, frontend)
        self.hops = tuple(hop for _, hop in pairs)
        self.reflect, self.peak = frontend.padding == "reflect", frontend.peak
        filters, positions = self.build_filters(clip=clip, frontend=frontend)
        rows = _resize_positions(positions, self.shape[1])
        self.axes = (self.make_axis(rows), _make_time_axis(clip, frontend.n_frames))
        self.n_bands = len(positions if filters is None else filters)
        if filters is not None:
            of_bins = torch.from_numpy(filters).T
            self.blocks = _find_filter_blocks(of_bins)
            of_squares = of_bins.repeat_interleave(2, dim=0)  # of real and imaginary parts in turn
            for i, (bins, bands) in enumerate(self.blocks):
                self.register_buffer(f"filters{i}", of_squares[bins, bands].contiguous(), persistent=False)
        for i, (window, _) in enumerate(pairs):
            self.register_buffer(f"window{i}", torch.hann_window(window), persistent=False)

    def build_filters(self, *, clip: Clip, frontend: Frontend) -> tuple[np.ndarray | None, np.ndarray]:
        """Return filters (filters, bins), float32, or None for one row per bin; and the position of each row."""
        raise NotImplementedError

    @classmethod
    def layout(cls, clip: Clip, frontend: Frontend) -> Layout:
        """Return the layout of the images, without building filters.

        Raises
        ------
        UserError
            If no bin of the Fourier transform lies between `fmin` and `fmax`.
        """
        if cls.band_limits:
            check_band(clip, frontend, n_fft=fft_size(clip, frontend), is_open=cls.band_limits == "open")
        if frontend.window:
            channels: tuple[str, ...] = (f"window of {frontend.window} samples",)
        else:
            channels = tuple(f"{window} ms window" for window, _ in _list_windows_ms(frontend))
        height = frontend.image[0] if frontend.image else cls.count_rows(frontend)
        return Layout((len(channels), height, frontend.n_frames), channels, cls.get_decibel_range(frontend))

    @classmethod
    def count_rows(cls, frontend: Frontend) -> int:
        """Return the number of rows of an image without ``--image-size``."""
        return frontend.n_mels

    @classmethod
    def get_decibel_range(cls, frontend: Frontend) -> tuple[float, float] | None:
        """Return the value range in dB, or None."""
        return FLOOR_DB, FLOOR_DB + WIDE_SPAN_DB

    def make_axis(self, positions: np.ndarray) -> Axis:
        """Return the vertical axis for rows at `positions` in Hz."""
        inside = tuple(hertz for hertz in TICKS_HZ if positions[0] <= hertz <= positions[-1])
        return Axis(*self.axis_names, positions, inside or (round(float(positions[0])),))

    def transform_decibels(self, above: torch.Tensor) -> torch.Tensor:
        """Convert decibels above silence (batch, filters, frames) to rows of the image (batch, rows, frames)."""
        return above

    @torch.no_grad()
    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Convert waveforms (batch, samples) to images (batch, windows, rows, frames)."""
        images = y.new_empty(len(y), *self.shape)
        if self.peak:
            y = normalise_peak(y)
        at_once = 1 if y.device.type == "cpu" else max(1, len(y))
        for part, rows in zip(_split(y, at_once), _split(images, at_once), strict=True):
            for i, power in enumerate(self.compute_power(part)):
                # 10 log10(power + EPS) = FLOOR_DB + 10 log10(power / EPS + 1); the second term is exactly 0 for silence
                above = torch.log1p(power / EPS).mul_(DB_PER_NEPER)
                rows[:, i] = _resize(self.transform_decibels(above), size=self.shape[1:])
        return images.add_(self.silence)

    def compute_power(self, y: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the filtered power (batch, filters, frames) of waveforms (batch, samples), channel by channel."""
        padded = self._padded(y)
        at_once = max(
            1, (MAX_CPU_SAMPLES if y.device.type == "cpu" else MAX_GPU_SAMPLES) // (self.n_fft * max(1, len(y)))
        )
        for i, hop in enumerate(self.hops):
            window = self.get_buffer(f"window{i}")
            # librosa centres a short window in a frame of n_fft samples. Its place in the frame changes only the phase,
            # so the samples of the window are framed here, and the Fourier transform appends zeros.
            first, n = (self.n_fft - len(window)) // 2, 1 + (padded.shape[1] - self.n_fft) // hop
            frames = padded[:, first:].unfold(1, len(window), hop)[:, :n].transpose(0, 1)  # (n, batch, window), a view
            power = y.new_zeros(n, len(y), self.n_bands)
            for part, rows in zip(_split(frames, at_once), _split(power, at_once), strict=True):
                self._add_power(part * window, rows.flatten(0, 1))
            yield power.permute(1, 2, 0)

    def _padded(self, y: torch.Tensor) -> torch.Tensor:
        """Pad waveforms (batch, samples) by half a frame at both ends, with zeros or by reflection as `numpy.pad`."""
        half, last = self.n_fft // 2, y.shape[1] - 1
        if not self.reflect:
            return F.pad(y, (half, half))
        position = torch.arange(-half, last + 1 + half, device=y.device).abs() % max(1, 2 * last)
        return y[:, torch.minimum(position, 2 * last - position)]

    def _add_power(self, frames: torch.Tensor, power: torch.Tensor) -> None:
        """Add the filtered power of windowed frames (frames, batch, samples) to `power` (frames * batch, filters)."""
        spectrum = squared_spectrum(frames, n_fft=self.n_fft)
        for i, (bins, bands) in enumerate(self.blocks):
            power[:, bands].addmm_(spectrum[:, bins], self.get_buffer(f"filters{i}"))


def squared_spectrum(frames: torch.Tensor, *, n_fft: int) -> torch.Tensor:
    """Return squared real and imaginary parts of the spectrum of frames (frames, batch, samples).

    The result (frames * batch, 2 bins) holds both parts of a bin side by side; their sum is the power.
    """
    spectrum = torch.view_as_real(_rfft(frames, n_fft=n_fft))  # (frames, batch, bins, real and imaginary)
    return spectrum.square_().reshape(frames.shape[0] * frames.shape[1], -1)


def _make_time_axis(clip: Clip, n_frames: int) -> Axis:
    if clip.fit == "stretch":  # clips of any length fill the width of the image
        return Axis.even("frame", "Time (fraction of the clip)", n_frames, 1.0)
    return Axis.even("frame", "Time (s)", n_frames, clip.duration)


def check_band(clip: Clip, frontend: Frontend, *, n_fft: int, is_open: bool) -> None:
    """Raise UserError if no bin lies from `fmin` to `fmax`; bins at the limits do not count if `is_open`."""
    fmax, per_hertz = frontend.fmax or clip.sr / 2, n_fft / clip.sr
    first = math.floor(frontend.fmin * per_hertz) + 1 if is_open else math.ceil(frontend.fmin * per_hertz)
    if first / per_hertz > fmax or (is_open and first / per_hertz == fmax):
        raise UserError(
            f"--fmin {frontend.fmin:g} --fmax {fmax:g}: no bin lies between them, because bins of {n_fft} samples are "
            f"{1 / per_hertz:g} Hz apart; give a wider range or a longer --n-fft"
        )


def fft_size(clip: Clip, frontend: Frontend) -> int:
    """Return the length of the Fourier transform in samples: ``--n-fft``, or the longest window."""
    return frontend.window or _count_samples(WINDOWS_MS[-1][0], clip.sr)


def _list_windows_ms(frontend: Frontend) -> tuple[tuple[int, int], ...]:
    return WINDOWS_MS if frontend.channels == "windows" else WINDOWS_MS[:1]


def _count_samples(milliseconds: int, sr: int) -> int:
    return round(milliseconds * sr / 1000)


def _rfft(frames: torch.Tensor, *, n_fft: int) -> torch.Tensor:
    """Return the Fourier transform of real frames (frames, batch, samples), zero-padded to `n_fft`."""
    if frames.device.type == "cpu" and n_fft % 2:  # SciPy is twice as fast as MKL for odd lengths
        return torch.from_numpy(scipy_fft.rfft(frames.numpy(), n=n_fft, workers=torch.get_num_threads()))
    return torch.fft.rfft(frames, n=n_fft)


def _split(x: torch.Tensor, at_once: int) -> Sequence[torch.Tensor]:
    """Split along the first axis; a single part is returned directly, which saves a call."""
    return (x,) if len(x) <= at_once else x.split(at_once)


def _find_filter_blocks(filters: torch.Tensor) -> list[tuple[slice, slice]]:
    """Split filters (bins, bands) into four blocks of bins, each without the bands that are zero there.

    Most of a mel matrix is zero: the upper half of the bins belongs to a fifth of the bands. The slices of bins are
    doubled, because `squared_spectrum` holds two values per bin.
    """
    n = len(filters)
    blocks = []
    for first, last in ((n // 2, n), (n // 4, n // 2), (n // 8, n // 4), (0, n // 8)):
        bands = filters[first:last].any(dim=0).nonzero().flatten().tolist()
        if bands:
            blocks.append((slice(2 * first, 2 * last), slice(bands[0], bands[-1] + 1)))
    return blocks


def _resize(x: torch.Tensor, *, size: tuple[int, ...]) -> torch.Tensor:
    """Resize images (batch, rows, frames) to `size`, (rows, frames)."""
    if x.shape[1:] == size:
        return x
    return F.interpolate(x[:, None], size=size, mode="bilinear", align_corners=False, antialias=True)[:, 0]


def _resize_positions(positions: np.ndarray, height: int) -> np.ndarray:
    """Return the positions of rows after an image of ``len(positions)`` rows is resized to `height` rows."""
    n = len(positions)
    if n in (1, height):  # a single row has no spacing; use 1
        return positions if n == height else positions[0] + np.arange(float(height))
    new_positions = (np.arange(height) + 0.5) * n / height - 0.5
    below = np.clip(np.floor(new_positions).astype(int), 0, n - 2)  # extrapolate linearly at both ends
    return np.asarray(positions[below] + (new_positions - below) * (positions[below + 1] - positions[below]))
