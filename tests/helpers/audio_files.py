"""Audio files that tests make: by libsndfile, by FFmpeg, and by hand from their bytes."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import soundfile


def make_tone(seconds: float, *, sr: int = 44_100, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
    """Return a tone in weak noise, float32, (samples,) or (samples, channels)."""
    rng = np.random.default_rng(0)
    n = round(seconds * sr)
    y = 0.3 * np.sin(2 * np.pi * hertz * np.arange(n) / sr) + 0.003 * rng.standard_normal(n)
    return np.repeat(y.astype(np.float32)[:, None], channels, axis=1).squeeze()


def encode(y: np.ndarray, audio_format: str, subtype: str | None = None, *, sr: int = 44_100) -> bytes:
    """Return a file that libsndfile writes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, y, sr, format=audio_format, subtype=subtype)
    return buffer.getvalue()


def encode_av(
    *streams: np.ndarray, container: str, codec: str, sample: str = "fltp", sr: int = 44_100, **options: str
) -> bytes:
    """Return a file that FFmpeg writes, with the streams side by side. `sample` is the codec's sample format."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as file:
        layouts = ["mono" if y.ndim == 1 else "stereo" for y in streams]
        outputs = [file.add_stream(codec, rate=sr, layout=layout) for layout in layouts]
        for y, output, layout in zip(streams, outputs, layouts, strict=True):
            output.bit_rate = 128_000
            planes = np.ascontiguousarray(y.reshape(len(y), -1).T)  # (channels, samples)
            samples = planes if sample.startswith("flt") else (planes * 32_767).astype(np.int16)
            if not sample.endswith("p"):
                samples = np.ascontiguousarray(samples.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, format=sample, layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sr, 0, Fraction(1, sr)
            file.mux([*output.encode(frame), *output.encode(None)])
    return buffer.getvalue()


def encode_mp3(y: np.ndarray, *, tag: bool = False, xing: bool = True, sr: int = 44_100) -> bytes:
    """Return an MP3, with or without an ID3v2 tag and a Xing header."""
    data = encode_av(y, container="mp3", codec="libmp3lame", sr=sr, write_xing=str(int(xing)))
    return data if tag else data[10 + id3_size(data) :]


def id3_size(data: bytes) -> int:
    """Return the size of the ID3v2 tag at the start, without its header of ten bytes."""
    return sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))


def make_id3(content: bytes) -> bytes:
    """Return an ID3v2.3 tag with one frame of any content, such as a picture."""
    frame = b"APIC" + struct.pack(">IH", len(content), 0) + content
    return b"ID3\x03\x00\x00" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame


def remove_flac_length(data: bytes) -> bytes:
    """Return a FLAC file as written to a pipe: it states 0 samples."""
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


def remove_caf_length(data: bytes) -> bytes:
    """Return a CAF file as written to a pipe: its sound has the size -1."""
    place = data.index(b"data") + 4
    return data[:place] + b"\xff" * 8 + data[place + 8 :]


def remove_wav_length(data: bytes) -> bytes:
    """Return a WAV file as written to a pipe: its sizes are the largest possible number."""
    place = data.index(b"data") + 4
    return data[:4] + b"\xff" * 4 + data[8:place] + b"\xff" * 4 + data[place + 4 :]
