"""A damaged recording is a bad clip with a reason or a plausible waveform, whatever it claims, in bounded memory."""

import io
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from core.audio.reading import BadClip, read_waveform

SR = 16_000
CHECKED = ("AIFF", "AU", "FLAC", "MP3", "OGG", "RF64", "WAV")  # formats whose truncation is detected
MAX_MEMORY = 64 * 2**20  # bytes, to read one small file


def recordings() -> dict[str, bytes]:
    """Return a second of sound in every format that libsndfile writes."""
    rng = np.random.default_rng(0)
    y = (0.3 * np.sin(np.arange(SR) / 7) + 0.01 * rng.standard_normal(SR)).astype(np.float32)
    made = {}
    for form in sorted(set(soundfile.available_formats()) - {"RAW", "SD2", "XI", "HTK"}):
        buffer = io.BytesIO()
        soundfile.write(buffer, y, SR, format=form)
        made[form] = buffer.getvalue()
    return made


def damages(data: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Yield a recording cut short, with bytes changed in its header, and with numbers in it made the largest."""
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        yield data[: max(round(share * len(data)), 1)]
    for _ in range(6):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 128), 3):
            changed[place] = rng.integers(256)
        yield bytes(changed)
    for place in rng.integers(4, min(len(data) - 4, 96), 8):
        yield data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :]


def heard(path: Path) -> str | np.ndarray:
    try:
        return read_waveform(path, sr=SR, n_samples=SR // 2, fit="pad")
    except BadClip as problem:
        return problem.reason


def test_every_damage_is_a_reason_or_a_waveform(tmp_path: Path, say: Callable[[str], None]) -> None:
    rng = np.random.default_rng(0)
    path, tried, refused = tmp_path / "clip", 0, 0
    tracemalloc.start()
    for form, data in recordings().items():
        for damaged in (data, *damages(data, rng)):
            path.write_bytes(damaged)
            found = heard(path)
            tried += 1
            refused += isinstance(found, str)
            if isinstance(found, str):
                assert found, form
            else:
                assert found.shape == (SR // 2,), form
                assert np.isfinite(found).all(), form
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    say(f"{tried} damaged files, {refused} of them refused with a reason")
    assert tried >= 400
    assert refused >= tried // 3
    assert peak < MAX_MEMORY


@pytest.mark.parametrize("form", CHECKED)
def test_recording_truncated_is_a_bad_clip(form: str, tmp_path: Path) -> None:
    data = recordings()[form]
    path = tmp_path / "clip"
    for share in (0.2, 0.5, 0.9):
        path.write_bytes(data[: round(share * len(data))])
        assert isinstance(heard(path), str), share


def test_avi_truncated_is_a_bad_clip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000)
        samples = np.random.default_rng(0).integers(-9000, 9000, (1, 48_000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    data = buffer.getvalue()
    (tmp_path / "clip").write_bytes(data)
    assert isinstance(heard(tmp_path / "clip"), np.ndarray)
    for share in (0.2, 0.9, 0.99):
        (tmp_path / "clip").write_bytes(data[: round(share * len(data))])
        assert "truncated" in str(heard(tmp_path / "clip")), share


def test_a_header_of_2_to_33_samples_is_a_bad_clip(tmp_path: Path) -> None:
    data = bytearray(recordings()["FLAC"])
    data[21] = data[21] & 0xF0 | 0x0F  # STREAMINFO: 36 bits of samples, from the low half of this byte
    data[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "clip.flac").write_bytes(data)
    assert isinstance(heard(tmp_path / "clip.flac"), str)


def test_a_rate_of_1_hz_is_a_bad_clip(tmp_path: Path) -> None:
    data = bytearray(recordings()["WAV"])
    data[24:28] = (1).to_bytes(4, "little")
    (tmp_path / "clip.wav").write_bytes(data)
    assert heard(tmp_path / "clip.wav") == "states a sampling rate of 1 Hz, which no recording has"
