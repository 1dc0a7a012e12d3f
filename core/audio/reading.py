"""Read a recording as a waveform: decoded, mono, resampled, and brought to one length.

libsndfile reads WAV, FLAC, Ogg, MP3, AU, AIFF and its other formats; PyAV reads the rest, such as M4A/AAC. The content
of a file decides, not its extension. A damaged recording raises `BadClip` with a reason. Recordings are read in blocks
and only the wanted part is kept, so memory does not grow with their length.
"""

import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from core.audio.decoding import BLOCK_SIZE, Block, decode_blocks, describe_format

MAX_WHOLE = 1 << 28  # samples (1 GB, three hours at 22,050 Hz); longer recordings cannot be kept whole
MAX_ONE_PASS = 1 << 22  # samples; a longer recording is read twice to crop its middle


class BadClip(Exception):
    """A recording that cannot be used.

    Attributes
    ----------
    path
        The file.
    reason
        What is wrong with it, in a few words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class LongRecording(Exception):
    """A recording that has more samples than the limit; nothing is wrong with it."""


@dataclass(frozen=True)
class AudioInfo:
    """Length in seconds, sampling rate in Hz, channels (0: unknown) and format (for FFmpeg the suffix)."""

    seconds: float
    sr: int
    channels: int
    format: str


def read_waveform(path: Path, *, sr: int, n_samples: int, fit: str) -> np.ndarray:
    """Read a recording, resampled and of one length: the bits of ``fit_length(read_whole(path))``.

    Parameters
    ----------
    path
        Any file.
    sr
        Sampling rate wanted, in Hz.
    n_samples, fit
        As in `fit_length`.

    Raises
    ------
    BadClip
        As `read_whole`, also for damage in the part that is not kept.
    """
    if fit == "stretch":
        return read_whole(path, sr=sr)
    start = 0
    if fit == "crop":
        with _open_blocks(path) as found:
            short, samples, own_sr = _read_if_short(found)
        if len(short):
            return fit_length(resample(short, sr=own_sr, new_sr=sr), n_samples=n_samples, fit=fit).copy()
        start = max((_count_resampled(samples, own_sr, sr) - n_samples) // 2, 0)
    with _open_blocks(path) as found:
        return fit_length(_read_part(found, sr=sr, start=start, n_samples=n_samples), n_samples=n_samples, fit=fit)


def read_whole(path: Path, *, sr: int, at_most: int = MAX_WHOLE) -> np.ndarray:
    """Read a recording as mono, resampled.

    Parameters
    ----------
    path
        Any file; its content decides how it is read.
    sr
        Sampling rate wanted, in Hz.
    at_most
        Samples, before resampling, above which `LongRecording` is raised.

    Returns
    -------
    Mean of the channels, float32, shape (samples,), full scale 1.

    Raises
    ------
    BadClip
        The file is missing, empty, not audio, truncated or damaged, holds NaN or infinite samples, is silent (all
        samples equal), or is too long to be kept whole. Truncation is detected in WAV, RF64, AIFF, AU, Ogg, FLAC, MP4
        and MP3 with a Xing header; another file that ends between two frames is read as a shorter recording.
    """
    with _open_blocks(path) as found:
        return np.concatenate([*_resample_blocks(_limit_samples(found, at_most), sr=sr, until=sys.maxsize)])


def read_start(path: Path, *, sr: int, n_samples: int) -> np.ndarray:
    """Read the first `n_samples` of a recording, or all of a shorter one, with the bits of `read_whole`.

    Raises the errors of `read_waveform`.
    """
    with _open_blocks(path) as found:
        return _read_part(found, sr=sr, start=0, n_samples=n_samples)


def stream_waveform(path: Path, *, sr: int) -> Iterator[np.ndarray]:
    """Yield a recording piece by piece, resampled; joined, the pieces have the bits of ``read_whole(path)``.

    Raises the errors of `read_whole`, some only at the end, except that no recording is too long.
    """
    with _open_blocks(path) as found:
        yield from _resample_blocks(found, sr=sr, until=sys.maxsize)


def read_info(path: Path) -> AudioInfo:
    """Decode a recording to its end and return its `AudioInfo`; raises the errors of `stream_waveform`."""
    with _open_blocks(path) as found:
        _, samples, sr = _read_if_short(found, keep=0)
    with path.open("rb", buffering=0) as file:
        form, channels = describe_format(file) or (path.suffix.removeprefix(".").upper(), 0)
    return AudioInfo(samples / sr, sr, channels, form)


def resample(y: np.ndarray, *, sr: int, new_sr: int) -> np.ndarray:
    """Resample a waveform of shape (samples,) from `sr` to `new_sr` Hz with soxr's high quality."""
    if sr == new_sr:
        return y
    return np.asarray(soxr.resample(y, sr, new_sr, quality="HQ"), dtype=np.float32)


def fit_length(y: np.ndarray, *, n_samples: int, fit: str) -> np.ndarray:
    """Bring a waveform to one length.

    Parameters
    ----------
    y
        Waveform of shape (samples,), at least one sample.
    n_samples
        Samples wanted.
    fit
        ``pad``: silence after a short clip, the start of a long one. ``loop``: a short clip repeated, the start of a
        long one. ``crop``: the middle of a long clip, silence on both sides of a short one. ``stretch``: unchanged,
        because the image is resized instead.

    Returns
    -------
    Waveform of shape (n_samples,), or `y` itself for ``stretch``.
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
    """Open a recording and provide its blocks; every error becomes a `BadClip`."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe or device might never end
            raise BadClip(path, "not a regular file")
        with path.open("rb", buffering=0) as file:
            yield decode_blocks(file)
    except FileNotFoundError:
        raise BadClip(path, "missing") from None
    except OSError as error:
        raise BadClip(path, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadClip(path, str(error)) from None


def _limit_samples(found: Iterable[Block], at_most: int) -> Iterator[Block]:
    """Yield blocks; raise if they have more than `at_most` samples together."""
    samples = 0
    for block in found:
        samples += len(block.y)
        if at_most < samples <= MAX_WHOLE:
            raise LongRecording
        if samples > MAX_WHOLE:
            raise ValueError(f"longer than {MAX_WHOLE / block.sr / 3600:.0f} hours, too long to be kept whole; cut it")
        yield block


def _read_if_short(found: Iterable[Block], *, keep: int = MAX_ONE_PASS) -> tuple[np.ndarray, int, int]:
    """Return the samples (empty if there are more than `keep`), their number, and their rate in Hz."""
    parts: list[np.ndarray] = [np.empty(0, dtype=np.float32)]
    samples, sr = 0, 0
    for block in found:
        samples, sr = samples + len(block.y), block.sr
        if samples <= keep:
            parts.append(block.y)
        else:
            del parts[1:]
    return np.concatenate(parts), samples, sr


def _read_part(found: Iterable[Block], *, sr: int, start: int, n_samples: int) -> np.ndarray:
    """Return up to `n_samples` samples from `start` after resampling to `sr` Hz; all blocks are read."""
    kept: list[np.ndarray] = [np.empty(0, dtype=np.float32)]
    place, end = 0, start + n_samples
    for y in _resample_blocks(found, sr=sr, until=end):
        kept.append(y[max(start - place, 0) : max(end - place, 0)].copy())
        place += len(y)
    return np.concatenate(kept)


def _resample_blocks(found: Iterable[Block], *, sr: int, until: int) -> Iterator[np.ndarray]:
    """Yield resampled blocks until there are `until` samples; all blocks are read."""
    resampler, own_sr, made = None, sr, 0
    for y, own_sr in found:
        if made >= until:
            continue
        if own_sr == sr:
            made += len(y)
            yield y
            continue
        resampler = resampler or soxr.ResampleStream(own_sr, sr, 1, dtype="float32", quality="HQ")
        size = max(BLOCK_SIZE * own_sr // sr, 1)  # a low rate is resampled to many samples
        for i in range(0, len(y), size):
            part = resampler.resample_chunk(y[i : i + size])
            made += len(part)
            yield part
    if resampler and made < until:
        yield resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _count_resampled(samples: int, sr: int, new_sr: int) -> int:
    """Return the number of samples after resampling (soxr, rate.h, flush)."""
    return samples if sr == new_sr else int(samples / (sr / new_sr) + 0.5)
