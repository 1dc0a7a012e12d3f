"""A recording becomes a waveform: decoded by its content, mono, resampled, of one length.

WAV, FLAC, Ogg, MP3, AU, AIFF and what else libsndfile knows are read with it, the rest (M4A/AAC and other FFmpeg
formats) with PyAV; the file's extension decides nothing. A recording that cannot be trusted is a `BadClip` with a plain
reason, never a shorter or emptier waveform. It is read in blocks from start to end, and only what is wanted is kept, so
that neither its length nor what its header claims decides how much memory it takes.
"""

import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from core.audio.decoding import BLOCK, Block, blocks, description

WHOLE = 1 << 28  # samples; 1 GB, three hours at 22,050 Hz: what is kept of a recording that must be kept whole
SHORT = 1 << 22  # samples; up to so many, a recording to be cropped is kept, not read twice


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
    """A recording of more samples than were wanted of one; nothing else is wrong with it."""


@dataclass(frozen=True)
class Facts:
    """What a recording is: its seconds, Hz, channels (0: not known) and format (the suffix where FFmpeg reads it)."""

    seconds: float
    sr: int
    channels: int
    format: str


def read_waveform(path: Path, *, sr: int, n_samples: int, fit: str) -> np.ndarray:
    """Read a recording, resampled and of one length: to the bit ``fit_length(read_whole(path))``.

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
        As `read_whole`; of the part that is not kept too.
    """
    if fit == "stretch":
        return read_whole(path, sr=sr)
    start = 0
    if fit == "crop":
        with _blocks(path) as found:
            short, samples, own_sr = _short(found)
        if len(short):
            return fit_length(resample(short, sr=own_sr, new_sr=sr), n_samples=n_samples, fit=fit).copy()
        start = max((_resampled(samples, own_sr, sr) - n_samples) // 2, 0)
    with _blocks(path) as found:
        return fit_length(_part(found, sr=sr, start=start, n_samples=n_samples), n_samples=n_samples, fit=fit)


def read_whole(path: Path, *, sr: int, at_most: int = WHOLE) -> np.ndarray:
    """Read a recording as mono, resampled.

    Parameters
    ----------
    path
        Any file; its content decides how it is read.
    sr
        Sampling rate wanted, in Hz.
    at_most
        Samples from which it is given up as a `LongRecording`, counted before it is resampled.

    Returns
    -------
    Mean of the channels, float32, shape (samples,), full scale 1.

    Raises
    ------
    BadClip
        The file is missing, empty, not audio, truncated or damaged, holds NaN or infinite samples, is silent (all
        samples equal), or is too long to be kept whole. What states no length (ADTS, AC-3, MP2, IRCAM, PVF, PAF, an MP3
        without a Xing header, Matroska as it is streamed) cannot be told from whole when cut between two frames.
    """
    with _blocks(path) as found:
        return np.concatenate([*_stream(_up_to(found, at_most), sr=sr, until=sys.maxsize)])


def read_start(path: Path, *, sr: int, n_samples: int) -> np.ndarray:
    """Read the first `n_samples` of a recording, fewer where it has fewer: to the bit those of `read_whole`.

    Errors are those of `read_waveform`.
    """
    with _blocks(path) as found:
        return _part(found, sr=sr, start=0, n_samples=n_samples)


def stream_waveform(path: Path, *, sr: int) -> Iterator[np.ndarray]:
    """Read a recording a piece at a time, resampled; joined they are to the bit ``read_whole(path)``.

    Errors are those of `read_whole`, some of them not before the end, but no length is too long.
    """
    with _blocks(path) as found:
        yield from _stream(found, sr=sr, until=sys.maxsize)


def read_facts(path: Path) -> Facts:
    """Read a recording to its end and say what it is; errors are those of `read_whole`, but no length is too long."""
    with _blocks(path) as found:
        _, samples, sr = _short(found, keep=0)
    with path.open("rb", buffering=0) as file:
        form, channels = description(file) or (path.suffix.removeprefix(".").upper(), 0)
    return Facts(samples / sr, sr, channels, form)


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
def _blocks(path: Path) -> Iterator[Iterator[Block]]:
    """Give the blocks of a recording; whatever is wrong with it is a `BadClip`."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would be waited for, a device read for ever
            raise BadClip(path, "not a regular file")
        with path.open("rb", buffering=0) as file:
            yield blocks(file)
    except FileNotFoundError:
        raise BadClip(path, "missing") from None
    except OSError as error:
        raise BadClip(path, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadClip(path, str(error)) from None


def _up_to(found: Iterable[Block], at_most: int) -> Iterator[Block]:
    """Pass blocks on, of no more than so many samples."""
    samples = 0
    for block in found:
        samples += len(block.y)
        if at_most < samples <= WHOLE:
            raise LongRecording
        if samples > WHOLE:
            raise ValueError(f"longer than {WHOLE / block.sr / 3600:.0f} hours, too long to be kept whole; cut it")
        yield block


def _short(found: Iterable[Block], *, keep: int = SHORT) -> tuple[np.ndarray, int, int]:
    """Return a recording of up to `keep` samples, and nothing of a longer one; how many it has; and their rate."""
    parts: list[np.ndarray] = [np.empty(0, dtype=np.float32)]
    samples, sr = 0, 0
    for block in found:
        samples, sr = samples + len(block.y), block.sr
        if samples <= keep:
            parts.append(block.y)
        else:
            del parts[1:]
    return np.concatenate(parts), samples, sr


def _part(found: Iterable[Block], *, sr: int, start: int, n_samples: int) -> np.ndarray:
    """Return up to `n_samples` samples from `start`, counted after resampling to `sr` Hz; read on to the end."""
    kept: list[np.ndarray] = [np.empty(0, dtype=np.float32)]
    place, end = 0, start + n_samples
    for y in _stream(found, sr=sr, until=end):
        kept.append(y[max(start - place, 0) : max(end - place, 0)].copy())
        place += len(y)
    return np.concatenate(kept)


def _stream(found: Iterable[Block], *, sr: int, until: int) -> Iterator[np.ndarray]:
    """Resample blocks on the way, until there are `until` samples or more; all blocks are gone through."""
    resampler, own_sr, made = None, sr, 0
    for y, own_sr in found:
        if made >= until:
            continue
        if own_sr == sr:
            made += len(y)
            yield y
            continue
        resampler = resampler or soxr.ResampleStream(own_sr, sr, 1, dtype="float32", quality="HQ")
        size = max(BLOCK * own_sr // sr, 1)  # a low rate makes many samples of few
        for i in range(0, len(y), size):
            part = resampler.resample_chunk(y[i : i + size])
            made += len(part)
            yield part
    if resampler and made < until:
        yield resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _resampled(samples: int, sr: int, new_sr: int) -> int:
    """Return how many samples soxr makes of so many (rate.h, flush)."""
    return samples if sr == new_sr else int(samples / (sr / new_sr) + 0.5)
