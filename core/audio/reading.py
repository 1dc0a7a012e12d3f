"""Read a recording as a mono waveform, resampled and brought to one length.

libsndfile reads WAV, FLAC, Ogg, MP3, AU, AIFF and others; PyAV (FFmpeg) reads the rest, such as M4A/AAC. The decoder is
chosen by the content of the file, not by its extension. Files that join several recordings are read completely, even if
their sampling rates differ. A damaged recording raises `BadClip` with a reason. Recordings are read block by block and
only the needed part is kept, so memory does not grow with their length.
"""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from core.audio.decoding import BLOCK_SIZE, Block, Header, decode_blocks, read_header
from core.system.file_signatures import LFS_REASON, LFS_START, is_broken_link

MAX_WHOLE = 1 << 28  # samples of a recording that is read whole: 1 GB, three hours at 22,050 Hz
MISSING, UNREADABLE = (
    "missing",
    "cannot be read: ",
)  # reasons of `BadClip` that do not depend on the content of the file
MAX_ONE_PASS = 1 << 22  # samples; the middle of a longer recording is cropped in a second pass


class BadClip(Exception):
    """Raised if a recording cannot be used.

    Attributes
    ----------
    path
        The file.
    reason
        Why it cannot be used, in a few words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class LongRecording(Exception):
    """Raised if a usable recording has more samples than the limit of the caller."""


@dataclass(frozen=True)
class AudioInfo:
    """Length in seconds, sampling rate in Hz (at the start), number of channels (0: unknown) and format (or suffix)."""

    seconds: float
    sr: int
    channels: int
    format: str


def read_waveform(path: Path, *, sr: int, n_samples: int, fit: str) -> np.ndarray:
    """Read a recording as mono, resampled, with one length; equal to ``fit_length(read_whole(path))`` bit for bit.

    Parameters
    ----------
    path
        Path of the recording.
    sr
        Sampling rate of the result in Hz.
    n_samples, fit
        As in `fit_length`.

    Raises
    ------
    BadClip
        As in `read_whole`; the part that is not returned is checked too.
    """
    if fit == "stretch":
        return read_whole(path, sr=sr)
    start = 0
    if fit == "crop":
        with _open_blocks(path) as blocks:
            short, lengths = _read_if_short(blocks)
        if short:
            y = np.concatenate([*_resample_blocks(short, sr=sr, until=sys.maxsize)])
            return fit_length(y, n_samples=n_samples, fit=fit).copy()
        start = max((sum(_count_resampled(n, own_sr, sr) for n, own_sr in lengths) - n_samples) // 2, 0)
    with _open_blocks(path) as blocks:
        return fit_length(_read_part(blocks, sr=sr, start=start, n_samples=n_samples), n_samples=n_samples, fit=fit)


def read_whole(path: Path, *, sr: int, at_most: int = MAX_WHOLE) -> np.ndarray:
    """Read a recording as mono, resampled.

    Parameters
    ----------
    path
        Path of the recording.
    sr
        Sampling rate of the result in Hz.
    at_most
        Number of samples, before resampling, above which `LongRecording` is raised.

    Returns
    -------
    Mean of the channels, float32, shape (samples,), full scale 1.

    Raises
    ------
    BadClip
        If the file is missing, empty, not audio, truncated or damaged, contains NaN or infinite samples, is silent (all
        samples are equal), or is too long for memory. Truncation is detected in WAV, RF64, AIFF, AU, Ogg, FLAC, MP4 and
        MP3 with a Xing header; other files that end between two frames are read as shorter recordings.
    """
    with _open_blocks(path) as blocks:
        return np.concatenate([*_resample_blocks(_limit_samples(blocks, at_most), sr=sr, until=sys.maxsize)])


def read_start(path: Path, *, sr: int, n_samples: int) -> np.ndarray:
    """Read the first `n_samples` of a recording, or all of a shorter one; equal to `read_whole` bit for bit.

    Raises the errors of `read_waveform`.
    """
    with _open_blocks(path) as blocks:
        return _read_part(blocks, sr=sr, start=0, n_samples=n_samples)


def stream_waveform(path: Path, *, sr: int) -> Iterator[np.ndarray]:
    """Yield a resampled recording in parts. Concatenated, they equal ``read_whole(path)`` bit for bit.

    Raises the errors of `read_whole`, some only at the end, but reads recordings of any length.
    """
    with _open_blocks(path) as blocks:
        yield from _resample_blocks(blocks, sr=sr, until=sys.maxsize)


def read_info(path: Path) -> AudioInfo:
    """Decode a recording to its end and return its `AudioInfo`; raises the errors of `stream_waveform`."""
    with _open_blocks(path) as blocks:
        _, lengths = _read_if_short(blocks, keep=0)
    with path.open("rb", buffering=0) as file:
        header = read_header(file) or Header("", 0, 0, 0.0)
    name = header.format or path.suffix.removeprefix(".").upper()
    return AudioInfo(sum(n / sr for n, sr in lengths), lengths[0][1], header.channels, name)


def resample(y: np.ndarray, *, sr: int, new_sr: int) -> np.ndarray:
    """Resample a waveform (samples,) from `sr` to `new_sr` Hz with the high quality setting of soxr."""
    if sr == new_sr:
        return y
    return np.asarray(soxr.resample(y, sr, new_sr, quality="HQ"), dtype=np.float32)


def fit_length(y: np.ndarray, *, n_samples: int, fit: str) -> np.ndarray:
    """Bring a waveform to one length.

    Parameters
    ----------
    y
        Waveform (samples,) with at least one sample.
    n_samples
        Number of samples of the result.
    fit
        ``pad``: append silence to a short clip, keep the start of a long one. ``loop``: repeat a short clip, keep the
        start of a long one. ``crop``: pad a short clip with silence on both sides, keep the middle of a long one.
        ``stretch``: no change, because the image is resized instead.

    Returns
    -------
    Waveform (n_samples,), or `y` itself for ``stretch``.
    """
    missing = n_samples - len(y)
    if fit == "stretch" or not missing:
        return y
    if fit == "crop":
        before = abs(missing) // 2
        return y[before : before + n_samples] if missing < 0 else np.pad(y, (before, missing - before))
    if missing < 0:
        return y[:n_samples]
    return np.resize(y, n_samples) if fit == "loop" else np.pad(y, (0, missing))


@contextmanager
def _open_blocks(path: Path) -> Iterator[Iterator[Block]]:
    """Open a recording and provide its blocks inside a ``with`` block. Every error is raised as `BadClip`."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe or device might never end
            raise BadClip(path, "not a regular file")
        with path.open("rb", buffering=0) as file:
            if os.pread(file.fileno(), len(LFS_START), 0) == LFS_START:
                raise BadClip(path, LFS_REASON)
            yield decode_blocks(file)
    except FileNotFoundError:
        raise BadClip(path, f"a broken link to {path.readlink()}" if is_broken_link(path) else MISSING) from None
    except OSError as error:
        if is_broken_link(path):
            raise BadClip(path, "a link to itself") from None
        raise BadClip(path, f"{UNREADABLE}{error.strerror}") from None
    except ValueError as error:
        raise BadClip(path, str(error)) from None


def _limit_samples(blocks: Iterable[Block], at_most: int) -> Iterator[Block]:
    """Yield blocks. Raise `LongRecording` if they have more than `at_most` samples together."""
    samples = 0
    for block in blocks:
        samples += len(block.y)
        if at_most < samples <= MAX_WHOLE:
            raise LongRecording
        if samples > MAX_WHOLE:
            raise ValueError(f"longer than {MAX_WHOLE / block.sr / 3600:.0f} hours, too long for memory; cut it")
        yield block


def _read_if_short(blocks: Iterable[Block], *, keep: int = MAX_ONE_PASS) -> tuple[list[Block], list[tuple[int, int]]]:
    """Return the blocks (none if they have more than `keep` samples), and a list of (samples, sampling rate).

    The list has one entry, unless the sampling rate of a joined file changes.
    """
    kept: list[Block] = []
    lengths: list[tuple[int, int]] = []
    samples = 0
    for block in blocks:
        samples += len(block.y)
        if not lengths or lengths[-1][1] != block.sr:
            lengths.append((0, block.sr))
        lengths[-1] = (lengths[-1][0] + len(block.y), block.sr)
        if samples <= keep:
            kept.append(block)
        else:
            kept.clear()
    return kept, lengths


def _read_part(blocks: Iterable[Block], *, sr: int, start: int, n_samples: int) -> np.ndarray:
    """Return up to `n_samples` samples from `start`, counted after resampling to `sr` Hz. All blocks are read."""
    parts: list[np.ndarray] = [np.empty(0, dtype=np.float32)]
    place, end = 0, start + n_samples
    for y in _resample_blocks(blocks, sr=sr, until=end):
        parts.append(y[max(start - place, 0) : max(end - place, 0)].copy())
        place += len(y)
    return np.concatenate(parts)


def _resample_blocks(blocks: Iterable[Block], *, sr: int, until: int) -> Iterator[np.ndarray]:
    """Yield resampled blocks until they have `until` samples. All blocks are read, so all are checked."""
    resampler, resampler_sr, n_yielded = None, sr, 0
    for y, own_sr in blocks:
        if n_yielded >= until:
            continue
        if own_sr != resampler_sr:  # at the start, or where the rate of a joined file changes
            if resampler:
                y_end = _flush(resampler)
                n_yielded += len(y_end)
                yield y_end
            resampler = soxr.ResampleStream(own_sr, sr, 1, dtype="float32", quality="HQ") if own_sr != sr else None
            resampler_sr = own_sr
        if resampler is None:
            n_yielded += len(y)
            yield y
            continue
        size = max(BLOCK_SIZE * own_sr // sr, 1)  # keeps the resampled block small if the rate of the recording is low
        for i in range(0, len(y), size):
            part = resampler.resample_chunk(y[i : i + size])
            n_yielded += len(part)
            yield part
    if resampler and n_yielded < until:
        yield _flush(resampler)


def _flush(resampler: soxr.ResampleStream) -> np.ndarray:
    """Return the last samples of a resampler."""
    return resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _count_resampled(samples: int, sr: int, new_sr: int) -> int:
    """Return the number of samples after resampling (function `flush` of soxr's rate.h)."""
    return samples if sr == new_sr else int(samples / (sr / new_sr) + 0.5)
