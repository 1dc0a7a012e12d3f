"""Decode a recording block by block with libsndfile or FFmpeg.

A file that joins several recordings is decoded completely, part by part; their sampling rates may differ. No allocation
depends on sizes in the header, which may be damaged.
"""

from collections.abc import Iterator
from io import FileIO
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile

from core.audio.joined_files import PartOfFile, find_parts
from core.audio.truncated_files import Reader, check_complete, find_caf_end, has_mp3_length
from core.system.thread_pool import check_cancelled

BLOCK_SIZE = 1 << 16  # samples in a block, all channels together
MP3_SLACK = 2 * 1152  # samples that may be missing, because only some MP3 encoders count their delay and padding
SF_ERR_MALFORMED_FILE = 3  # error code of libsndfile
UNKNOWN_LENGTH = 2**62  # samples; libsndfile returns a larger number for FLAC files that do not state their length
MIN_SR, MAX_SR = 100, 10_000_000  # Hz; other sampling rates mean that the header is damaged

# Playlists must not make FFmpeg open other files or hosts.
AV_OPTIONS = {"protocol_whitelist": "none"}


class Block(NamedTuple):
    """Part of a recording: mean of its channels, float32 (samples,), and sampling rate in Hz."""

    y: np.ndarray
    sr: int


class _UnseekableSoundFile(soundfile.SoundFile):
    """Sound file that is read without a seek after every block."""

    def seekable(self) -> bool:
        return False


def decode_blocks(file: FileIO) -> Iterator[Block]:
    """Yield the blocks of a recording from start to end.

    Parameters
    ----------
    file
        Recording, opened without a buffer.

    Raises
    ------
    ValueError
        If the recording cannot be used; the message is the reason.
    """
    read = Reader(file)
    if not read.size:
        raise ValueError("empty (0 bytes)")
    first, sounding = None, False
    for y, sr in _decode_parts(file, read):
        check_cancelled()  # lets Ctrl-C interrupt a long recording
        if not MIN_SR <= sr <= MAX_SR:
            raise ValueError(f"impossible sampling rate of {sr} Hz in the header")
        if not np.isfinite(y).all():
            raise ValueError("NaN or infinite samples")
        first = y[0] if first is None else first
        sounding = sounding or bool((y[:64] != first).any() or (y != first).any())
        yield Block(y, sr)
    if first is None:
        raise ValueError("empty (no samples)")
    if not sounding:
        channels = header.channels if (header := read_header(file)) else 1
        raise ValueError(f"silent (all samples equal{f' in the mean of its {channels} channels' * (channels > 1)})")


class Header(NamedTuple):
    """Values in the header of a recording; 0 for a missing number, "" as format if libsndfile cannot read the file."""

    format: str
    channels: int
    sr: int
    seconds: float


def read_header(file: FileIO) -> Header | None:
    """Return the header of an open file without decoding it; None if neither libsndfile nor FFmpeg can read it.

    If a file has several recordings or streams, the header is that of the first one.
    """
    file.seek(0)
    try:
        with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            if 0 < sound.frames < UNKNOWN_LENGTH:
                seconds = sound.frames / sound.samplerate
                return Header(f"{sound.format} {sound.subtype}", sound.channels, sound.samplerate, seconds)
            name = f"{sound.format} {sound.subtype}"
    except soundfile.LibsndfileError:
        name = ""
    file.seek(0)
    try:
        with av.open(file, mode="r", options=AV_OPTIONS) as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            return Header(name, stream.channels, stream.sample_rate, max(seconds, (container.duration or 0) / 1e6, 0.0))
    except (av.FFmpegError, ValueError):
        return None


def _decode_parts(file: FileIO, read: Reader) -> Iterator[Block]:
    """Decode the recordings that a file joins, or the only one."""
    for number, (start, end) in enumerate(find_parts(read, file.tell), start=1):
        try:
            if (start, end) == (0, read.size):
                yield from _decode(file, read)
            else:
                yield from _decode(PartOfFile(file, start, end), Reader(file, start, end))
        except ValueError as error:
            where = f"recording {number} of several in the file, from byte {start}: " if start else ""
            raise ValueError(f"{where}{error}") from None


def _decode(file: Any, read: Reader) -> Iterator[Block]:
    """Decode with libsndfile if it can read the file, else with FFmpeg. Raise ValueError if neither can.

    FFmpeg also reads files whose length libsndfile does not know: streamed WAV with a size of 0, FLAC and CAF of
    unknown length, MP3 without a Xing header, and MP3 in WAV.
    """
    check_complete(read)
    stated = has_mp3_length(read)
    file.seek(0)
    try:
        with _UnseekableSoundFile(file.fileno() if isinstance(file, FileIO) else file, closefd=False) as sound:
            guessed = (
                sound.subtype.startswith("MPEG") if sound.format == "WAV" else sound.format == "MP3" and not stated
            )
            if 0 < sound.frames < UNKNOWN_LENGTH and not guessed:
                yield from _decode_with_soundfile(sound)
                return
    except soundfile.LibsndfileError as error:
        if error.code == SF_ERR_MALFORMED_FILE and not _is_endless_caf(read):  # FFmpeg would silently read the start
            raise ValueError(f"truncated or damaged ({error.error_string})") from None
    file.seek(0)
    yield from _decode_with_av(file)


def _is_endless_caf(read: Reader) -> bool:
    return read(0, 4) == b"caff" and not find_caf_end(read, 0)


def _decode_with_soundfile(sound: soundfile.SoundFile) -> Iterator[Block]:
    if sound.format == "XI":
        raise ValueError("an XI instrument, not a recording")
    n_read, size = 0, max(BLOCK_SIZE // sound.channels, 1)
    while n_read < sound.frames:
        try:
            samples = sound.read(
                min(size, sound.frames - n_read), dtype="float32", always_2d=True
            )  # (samples, channels)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"truncated or damaged ({error.error_string})") from None
        if not len(samples):
            break
        n_read += len(samples)
        mono = samples[:, 0] if sound.channels == 1 else samples.mean(axis=1, dtype=np.float32)
        yield Block(mono, sound.samplerate)
    if sound.frames - n_read > (MP3_SLACK if sound.format == "MP3" else 0):
        raise ValueError(f"truncated: has {n_read} of {sound.frames} samples")


def _decode_with_av(file: Any) -> Iterator[Block]:
    begun = False
    try:
        with av.open(file, mode="r", options=AV_OPTIONS) as container:
            if not container.streams.audio:
                raise ValueError("not audio")
            stream, n_read = container.streams.audio[0], 0
            is_flac = container.format.name == "flac"
            if is_flac:  # FFmpeg leaves out frames with a wrong checksum, so that the next frame comes too early
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                if is_flac and frame.pts is not None:
                    place = round(frame.pts * frame.time_base * frame.sample_rate)
                    if begun and place != n_read:
                        raise ValueError(f"damaged before {place / frame.sample_rate:.1f} s")
                    n_read = place
                n_read += frame.samples
                try:
                    parts = to_float.resample(frame)
                except ValueError:  # the number of channels, the rate or the format changes within the stream
                    to_float = av.AudioResampler(format="fltp")
                    parts = to_float.resample(frame)
                for part in parts:
                    y = part.to_ndarray().mean(axis=0).astype(np.float32, copy=False)  # (channels, samples)
                    if len(y):
                        begun = True
                        yield Block(y, frame.sample_rate)
    except av.FFmpegError as error:
        raise ValueError(f"truncated or damaged ({error.strerror})" if begun else "not audio") from None
