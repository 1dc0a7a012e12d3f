"""A recording becomes a waveform: decoded by its content, mono, resampled, of one length.

`decode` reads WAV, FLAC, Ogg, MP3, AU and AIFF with libsndfile and what that cannot read (M4A/AAC and other FFmpeg
formats) with PyAV; the file's extension decides nothing. A recording that cannot be trusted is a `BadClip` with a plain
reason, never a shorter or emptier waveform: decoders keep quiet about files that end too soon, so the lengths that the
containers state are checked against the bytes that are there.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

STREAMED = 0x7FFF0000  # sizes from here on are what encoders write that cannot know the length (sox, arecord, FFmpeg)
HEADER_SLACK = 64  # bytes; some writers count the header as sound
MP3_SLACK = 2 * 1152  # samples; encoder delay and padding of an MP3 are counted by some writers and not by others

# Which FFmpeg may read: nothing that points to other files or hosts, as playlists do.
AV_OPTIONS = {"protocol_whitelist": "none"}


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


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Read a recording as mono.

    Parameters
    ----------
    path
        Any file; its content decides how it is read.

    Returns
    -------
    y
        Mean of the channels, float32, shape (samples,), full scale 1.
    sr
        Its sampling rate in Hz.

    Raises
    ------
    BadClip
        The file is missing, empty, not audio, truncated or damaged, holds NaN or infinite samples, or is silent (all
        samples equal). What states no length (ADTS, an MP3 without a Xing header) cannot be told from whole when cut
        between two frames, and of W64, RF64 and Matroska the stated length is not checked.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadClip(path, "missing") from None
    except OSError as error:
        raise BadClip(path, f"cannot be read: {error.strerror}") from None
    try:
        if not data:
            raise ValueError("empty (0 bytes)")
        _check_complete(data)
        y, sr = _read(data)
        _check_samples(y)
    except ValueError as error:
        raise BadClip(path, str(error)) from None
    return y, sr


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


def _read(data: bytes) -> tuple[np.ndarray, int]:
    """Decode with libsndfile, or else with FFmpeg; ValueError says why neither could."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.frames and (file.format != "MP3" or _mp3_has_length(data)):
                return _read_soundfile(file)
            # else a WAV streamed with size 0 or an MP3 whose length is guessed: FFmpeg reads those to their end
    except soundfile.LibsndfileError as error:
        if error.code == 3:  # SF_ERR_MALFORMED_FILE: known to libsndfile, so FFmpeg would only read half of it
            raise ValueError(f"truncated or damaged ({error.error_string})") from None
    return _read_av(data)


def _read_soundfile(file: soundfile.SoundFile) -> tuple[np.ndarray, int]:
    try:
        samples = file.read(dtype="float32", always_2d=True)  # (samples, channels)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"truncated or damaged ({error.error_string})") from None
    missing = file.frames - len(samples)
    if missing > (MP3_SLACK if file.format == "MP3" else 0):
        raise ValueError(f"truncated: {len(samples)} of {file.frames} samples are there")
    return samples.mean(axis=1, dtype=np.float32), file.samplerate


def _mp3_has_length(data: bytes) -> bool:
    """Tell whether the first frame, after an ID3v2 tag, is a Xing or Info header."""
    start = 0
    if data[:3] == b"ID3":  # the tag's size in four times seven bits
        start = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))
    return any(name in data[start : start + 256] for name in (b"Xing", b"Info"))


def _read_av(data: bytes) -> tuple[np.ndarray, int]:
    sr, blocks = 0, []
    try:
        with av.open(io.BytesIO(data), mode="r", options=AV_OPTIONS) as container:
            if not container.streams.audio:
                raise ValueError("not audio")
            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(container.streams.audio[0]):
                sr = frame.sample_rate
                blocks += [block.to_ndarray().mean(axis=0) for block in to_float.resample(frame)]  # (channels, samples)
    except av.FFmpegError as error:
        raise ValueError(f"truncated or damaged ({error.strerror})" if blocks else "not audio") from None
    if not blocks:
        raise ValueError("empty (no samples)")
    return np.concatenate(blocks).astype(np.float32, copy=False), sr


def _check_samples(y: np.ndarray) -> None:
    if not len(y):
        raise ValueError("empty (no samples)")
    if not np.isfinite(y).all():
        raise ValueError("NaN or infinite samples")
    if (y == y[0]).all():
        raise ValueError("silent (all samples equal)")


def _check_complete(data: bytes) -> None:
    """Raise ValueError where the container states more bytes than the file has."""
    if data[:4] in (b"RIFF", b"FORM"):
        little = data[:4] == b"RIFF"
        chunks = _chunks(data, order="<" if little else ">")
        _check_size(data, *next((c[1:] for c in chunks if c[0] in (b"data", b"SSND")), (len(data), 1 + HEADER_SLACK)))
    elif data[:4] == b".snd" and len(data) >= 12:
        _check_size(data, *struct.unpack(">II", data[4:12]))
    elif data[:4] == b"OggS":
        _check_ogg_page(data, data.rfind(b"OggS"))
    elif data[4:8] == b"ftyp":
        _check_boxes(data)


def _check_size(data: bytes, start: int, size: int) -> None:
    there = max(len(data) - start, 0)
    if there + HEADER_SLACK < size < STREAMED:
        raise ValueError(f"truncated: {there} of {size} bytes of sound are there")


def _chunks(data: bytes, *, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, size) of the chunks of a RIFF or AIFF file."""
    start = 12
    while start + 8 <= len(data):
        name, size = struct.unpack(f"{order}4sI", data[start : start + 8])
        yield name, start + 8, size
        start += 8 + size + size % 2


def _check_boxes(data: bytes) -> None:
    """Check that the outermost boxes of an MP4 file are whole and its index among them (ISO/IEC 14496-12, 4.2)."""
    start, names = 0, set()
    while start + 8 <= len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        names.add(data[start + 4 : start + 8])
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16], "big")
        elif size == 0:  # to the end of the file
            size = len(data) - start
        start += max(size, 8)
    if start > len(data) or b"moov" not in names:
        raise ValueError("truncated: its last box is not whole" if start > len(data) else "truncated: it has no index")


def _check_ogg_page(data: bytes, start: int) -> None:
    """Check that the last page is whole (RFC 3533, 6: 27 bytes, one byte per segment, the segments)."""
    segments = data[start + 26] if start + 26 < len(data) else 0
    table = data[start + 27 : start + 27 + segments]
    if start + 27 + segments + sum(table) > len(data):
        raise ValueError("truncated: its last Ogg page is not whole")
