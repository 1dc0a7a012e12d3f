"""A damaged recording is a bad clip with a reason, or a waveform of the right length, in bounded memory."""

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile

from core.audio.reading import BadClip, read_waveform

SR = 16_000
MAX_MEMORY = 64 * 2**20  # bytes, to read one small file


def make_recording(audio_format: str) -> bytes:
    """Return a second of sound in an audio format."""
    rng = np.random.default_rng(0)
    y = (0.3 * np.sin(np.arange(SR) / 7) + 0.01 * rng.standard_normal(SR)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, y, SR, format=audio_format)
    return buffer.getvalue()


def damage(data: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Yield a recording that is cut short, one with a changed byte in its header, and two with a huge number there."""
    yield data[: max(len(data) // 100, 1)]
    changed = bytearray(data)
    changed[rng.integers(0, min(len(data), 128))] ^= 0xFF
    yield bytes(changed)
    for start in rng.integers(4, min(len(data) - 4, 96), 2):
        yield data[:start] + b"\xff\xff\xff\x7f" + data[start + 4 :]


def read(path: Path) -> str | np.ndarray:
    """Return the waveform of a recording, or the reason why it cannot be used."""
    try:
        return read_waveform(path, sr=SR, n_samples=SR // 2, fit="pad")
    except BadClip as problem:
        return problem.reason


def test_read_waveform_damaged_file_gives_a_reason_or_a_waveform(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path, n_refused = tmp_path / "clip", 0
    tracemalloc.start()
    for audio_format in sorted(set(soundfile.available_formats()) - {"RAW", "SD2", "XI", "HTK"}):
        data = make_recording(audio_format)
        for content in (data, *damage(data, rng)):
            path.write_bytes(content)
            result = read(path)
            n_refused += isinstance(result, str)
            if isinstance(result, str):
                assert result, audio_format
            else:
                assert result.shape == (SR // 2,), audio_format
                assert np.isfinite(result).all(), audio_format
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_refused >= 20
    assert peak < MAX_MEMORY


def test_read_waveform_truncated_avi_is_a_bad_clip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000)
        samples = np.random.default_rng(0).integers(-9000, 9000, (1, 48_000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    data = buffer.getvalue()
    (tmp_path / "clip").write_bytes(data)
    assert isinstance(read(tmp_path / "clip"), np.ndarray)
    (tmp_path / "clip").write_bytes(data[: len(data) * 9 // 10])
    assert "truncated" in str(read(tmp_path / "clip"))


def test_read_waveform_header_of_2_to_33_samples_is_a_bad_clip(tmp_path: Path) -> None:
    data = bytearray(make_recording("FLAC"))
    data[21] = data[21] & 0xF0 | 0x0F  # STREAMINFO: 36 bits of samples, from the low half of this byte
    data[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "clip.flac").write_bytes(data)
    assert isinstance(read(tmp_path / "clip.flac"), str)


def test_read_waveform_sampling_rate_of_1_hz_is_a_bad_clip(tmp_path: Path) -> None:
    data = bytearray(make_recording("WAV"))
    data[24:28] = (1).to_bytes(4, "little")
    (tmp_path / "clip.wav").write_bytes(data)
    assert "1 Hz" in str(read(tmp_path / "clip.wav"))


def test_read_waveform_wav_without_a_data_chunk_is_named(tmp_path: Path) -> None:
    data = bytearray(make_recording("WAV"))
    data[data.find(b"data")] = ord("x")
    (tmp_path / "clip.wav").write_bytes(data)
    assert read(tmp_path / "clip.wav") == "truncated or damaged: has no chunk of sound"
