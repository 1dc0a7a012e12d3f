"""Sampling rate, clip length and image width from the recordings of a data set, and advice on other values."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from core.audio.decoding import decode_blocks
from core.audio.decoding import read_header as read_file_header
from core.datasets.dataset import Dataset, RecordingHeader
from core.datasets.fingerprint import get_memo_path, write_memo
from core.progress import Progress, no_progress, show_if_slow
from core.system.native_stderr import silence_native_stderr
from core.system.thread_pool import CancellablePool

MIN_SR, MAX_SR = 4_000, 22_050  # Hz, of the chosen sampling rate
MIN_SECONDS, MAX_SECONDS = 0.1, 10.0  # of the chosen clip length
MIN_FRAMES, MAX_FRAMES = 100, 250  # of the chosen image width; Inception v3 needs 75
FRAMES_PER_SECOND = 100  # the shortest hop is 10 ms
RATE_SHARE = 0.1  # fraction of the recordings that must have a sampling rate for it to be chosen
LENGTH_QUANTILE = 0.95
PATHS_PER_TASK = 256
STANDARD_SR = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000)  # Hz, suggested by the advice
MAX_MEASURED_CLIPS = 50
MAX_MEASURED_SECONDS = 10
TRANSITION = 1.05  # width of the transition band of a resampler, relative to its cutoff
MIN_ENERGY = 1e-5  # -50 dB: fraction of the energy below which a band is empty
SILENT_AMPLITUDE = 1e-3  # -60 dB: amplitude, relative to the largest, below which the end of a recording is silence
MIN_LOST_ENERGY = 0.05  # minimum fraction of the energy above half the sampling rate that is reported
MIN_PADDING, MIN_CUT = 0.5, 0.1  # minimum mean fraction of padding, and of cut clips, that is reported


class ClipSettings(NamedTuple):
    """Sampling rate in Hz, clip length in seconds, ``fit`` of `core.config.run.Clip`, highest frequency in Hz.

    With `random_crop`, a random part of a long recording is used in every epoch, and not always its start.
    """

    sr: int
    duration: float
    fit: str = "pad"
    fmax: float = math.inf
    random_crop: bool = False


def choose_clip_settings(dataset: Dataset, cache: Path | None, *, progress: Progress = no_progress) -> Dataset:
    """Return the data set with the headers of its recordings, and `sr`, `duration` and `n_frames` chosen from them.

    The sampling rate is the lowest that at least 10 % of the recordings have, from 4,000 to 22,050 Hz: at a higher rate
    the image would show which clips were recorded at a low one. The length is the 95 % quantile of the lengths, rounded
    up to two digits, from 0.1 to 10 s. The image has 100 columns per second, from 100 to 250. If no header can be read,
    the values are unchanged.

    Parameters
    ----------
    dataset
        Data set with digests (`Dataset.with_digests`).
    cache
        Folder in which headers are stored by digest; None to store none.
    progress
        Called with (files read, files to read, description) if it takes seconds.
    """
    headers = _read_headers(dataset, cache, progress)
    if not headers:
        return dataset
    rates, counts = np.unique([header.sr for header in headers.values()], return_counts=True)
    sr = int(np.clip(rates[counts >= RATE_SHARE * len(headers)].min(initial=MAX_SR), MIN_SR, MAX_SR))
    seconds = np.array([header.seconds for header in headers.values()])
    duration = min(max(_round_up(_quantile(seconds)), MIN_SECONDS), MAX_SECONDS)
    return dataclasses.replace(dataset, sr=sr, duration=duration, n_frames=_count_frames(duration), headers=headers)


def get_default_width(dataset: Dataset, duration: float) -> int:
    """Return the default image width in pixels; it depends on `duration` if recordings determined the clip length."""
    return _count_frames(duration) if dataset.headers else dataset.n_frames


def _count_frames(duration: float) -> int:
    return int(np.clip(round(duration * FRAMES_PER_SECOND), MIN_FRAMES, MAX_FRAMES))


def describe_clip_settings(dataset: Dataset, sr: int, duration: float, n_frames: int) -> list[str]:
    """Return one line on the settings that were chosen from the recordings; none if the user gave all of them."""
    if not dataset.headers:
        return []
    options = {
        f"--sr {sr}": sr == dataset.sr,
        f"--duration {duration:g}": duration == dataset.duration,
        f"--n-frames {n_frames}": (duration, n_frames) == (dataset.duration, dataset.n_frames),
    }
    if not (chosen := [text for text, is_own in options.items() if is_own]):
        return []
    seconds = sorted(header.seconds for header in dataset.headers.values())
    rates = sorted({header.sr for header in dataset.headers.values()})
    lengths = f"{seconds[0]:.3g} s" if seconds[0] == seconds[-1] else f"{seconds[0]:.3g} to {seconds[-1]:.3g} s"
    rate = f"{rates[0]}" if len(rates) == 1 else f"{rates[0]} to {rates[-1]}"
    return [f"{' '.join(chosen)}: chosen from recordings of {lengths} at {rate} Hz"]


def describe_clip_advice(dataset: Dataset, settings: ClipSettings) -> list[str]:
    """Return one line for each setting that fits the recordings badly, with the option that fits better.

    Padding and cut clips are known from the headers. Silence after the sound, frequencies without energy, and energy
    above half the sampling rate are measured on the first 10 s of up to 50 recordings.
    """
    headers = [dataset.headers[path] for path in dataset.clips["path"].tolist() if path in dataset.headers]
    if not headers:
        return []
    limit = min(settings.sr / 2, settings.fmax)
    lower = [sr for sr in STANDARD_SR if sr < 0.95 * settings.sr and sr / 2 < 0.95 * limit]
    measured = _measure_clips(dataset, [TRANSITION * sr / 2 for sr in lower] + [settings.sr / 2])
    ends = np.array([clip.end for clip in measured])
    seconds = np.array([header.seconds for header in headers])
    lines = _describe_padding(dataset, settings, seconds, ends) + _describe_cut(settings, seconds, ends)
    if not measured:
        return lines
    max_sr = max(header.sr for header in headers)
    energy = np.mean([clip.energy for clip in measured], axis=0)
    if empty := [sr for sr, part in zip(lower, energy, strict=False) if part < MIN_ENERGY]:
        lines.append(f"no energy above {empty[0] / 2:g} Hz: --sr {empty[0]}")
    elif max_sr > settings.sr and energy[-1] > MIN_LOST_ENERGY and settings.fmax >= settings.sr / 2:
        lines.append(f"{100 * energy[-1]:.0f} % of the energy is above {settings.sr / 2:g} Hz: --sr {max_sr}")
    return lines


def _describe_padding(dataset: Dataset, settings: ClipSettings, seconds: np.ndarray, ends: np.ndarray) -> list[str]:
    """Return one line if most of the input is padding, or silence after the sound.

    Parameters
    ----------
    dataset, settings
        As in `describe_clip_advice`.
    seconds, ends
        Length of each recording, and end of the sound in each measured one, in seconds.
    """
    if settings.fit not in ("pad", "crop"):
        return []
    padding = float(np.maximum(1 - seconds / settings.duration, 0).mean())
    if padding > MIN_PADDING:
        shorter = f"--duration {dataset.duration:g}" if settings.duration > 1.2 * dataset.duration else ""
        remedy = shorter or "lengths vary, so try a shorter --duration, or --length-mode loop"
        return [f"{100 * padding:.0f} % of the input is padding: {remedy}"]
    if not len(ends):
        return []
    silence = float(np.maximum(1 - ends / settings.duration, 0).mean())
    sound = max(_round_up(_quantile(ends)), MIN_SECONDS)
    if silence <= MIN_PADDING or settings.duration < 1.2 * sound:
        return []
    return [f"{100 * silence:.0f} % of the input is padding or silence after the sound: --duration {sound:g}"]


def _describe_cut(settings: ClipSettings, seconds: np.ndarray, ends: np.ndarray) -> list[str]:
    """Return one line if sound of many recordings is cut, not only silence; arrays as in `_describe_padding`."""
    if settings.fit == "stretch" or settings.random_crop:
        return []
    is_measured = len(ends) > 0 and settings.duration < 0.9 * MAX_MEASURED_SECONDS
    lengths = ends if is_measured else seconds
    if (cut := float((lengths > 1.01 * settings.duration).mean())) <= MIN_CUT:
        return []
    what = "middle" if settings.fit == "crop" else "start"
    return [
        f"{100 * cut:.0f} % of the clips are longer than --duration {settings.duration:g}, so only their {what} is "
        f"used: --duration {_round_up(_quantile(lengths)):g} covers 95 % of them"
    ]


def _quantile(seconds: np.ndarray) -> float:
    return float(np.quantile(seconds, LENGTH_QUANTILE, method="inverted_cdf"))


class _Measurement(NamedTuple):
    """Fraction of the energy above each frequency, (frequencies,), and end of the sound in seconds."""

    energy: np.ndarray
    end: float


def _measure_clips(dataset: Dataset, frequencies: Sequence[float]) -> list[_Measurement]:
    """Measure up to `MAX_MEASURED_CLIPS` decodable recordings; `frequencies` are in Hz."""
    paths = [path for path in dataset.shuffled_paths() if path in dataset.headers][:MAX_MEASURED_CLIPS]
    with silence_native_stderr(), CancellablePool() as pool:
        measured = [*pool.map(partial(_measure_clip, dataset.root, frequencies=frequencies), paths)]
    return [clip for clip in measured if clip]


def _measure_clip(root: Path, path: str, *, frequencies: Sequence[float]) -> _Measurement | None:
    """Measure the first seconds of a recording; None if they cannot be decoded or are silent."""
    parts: list[np.ndarray] = []
    sr, n_samples = 0, 0
    with contextlib.suppress(OSError, ValueError), (root / path).open("rb", buffering=0) as file:
        for block in decode_blocks(file):
            if (sr and block.sr != sr) or n_samples >= MAX_MEASURED_SECONDS * block.sr:
                break
            sr, n_samples = block.sr, n_samples + len(block.y)
            parts.append(block.y)
    if not parts:
        return None
    y = np.concatenate(parts)[: MAX_MEASURED_SECONDS * sr].astype(np.float64)
    power = (
        np.abs(np.fft.rfft((y - y.mean()) * np.hanning(len(y)))) ** 2
    )  # the window reduces leakage of low frequencies into high ones
    if not (total := power.sum()):
        return None
    of_bins = np.fft.rfftfreq(len(y), 1 / sr)
    energy = np.array([power[of_bins > frequency].sum() / total for frequency in frequencies])
    height = np.abs(y - y[-1])  # above the last sample, because silence can have a constant offset
    return _Measurement(energy, float((np.flatnonzero(height > SILENT_AMPLITUDE * height.max())[-1] + 1) / sr))


def _read_headers(dataset: Dataset, cache: Path | None, progress: Progress) -> dict[str, RecordingHeader]:
    """Return the header of each recording by path, without those that state no length; cached by digest."""
    memo_path = get_memo_path(cache, "headers", dataset.name, dataset.root)
    memo: dict[str, RecordingHeader] = {}
    if memo_path:
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError, RecursionError):
            memo = msgspec.json.decode(memo_path.read_bytes(), type=dict[str, RecordingHeader])
    path_of = {digest: path for path, digest in dataset.digests.items() if digest not in memo}
    unread = [*path_of.items()]
    pieces = [unread[i : i + PATHS_PER_TASK] for i in range(0, len(unread), PATHS_PER_TASK)]
    report, done = show_if_slow(progress), 0
    with silence_native_stderr(), CancellablePool() as pool:
        for piece in pool.map(partial(_read_some, dataset.root), pieces):
            memo |= piece
            done += len(piece)
            report(done, len(unread), f"reading the headers of {dataset.name}")
    used = {digest: memo[digest] for digest in dataset.digests.values()}
    if memo_path and unread:
        write_memo(memo_path, used)
    return {path: used[digest] for path, digest in dataset.digests.items() if used[digest].seconds > 0}


def _read_some(root: Path, files: Sequence[tuple[str, str]]) -> dict[str, RecordingHeader]:
    """Return the header of each of `files`, pairs of digest and path, by digest; zeros if it cannot be read."""
    headers = {}
    for digest, path in files:
        headers[digest] = RecordingHeader(0, 0.0)
        with contextlib.suppress(OSError), (root / path).open("rb", buffering=0) as file:
            if (header := read_file_header(file)) and header.sr > 0 and math.isfinite(header.seconds):
                headers[digest] = RecordingHeader(header.sr, header.seconds)
    return headers


def _round_up(seconds: float) -> float:
    """Return a length in seconds, rounded up to two digits."""
    step = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return round(math.ceil(round(seconds / step, 6)) * step, 6)
