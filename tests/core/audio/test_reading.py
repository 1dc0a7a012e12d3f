import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from recordings import decode

from core.audio.reading import BadClip, fit_length, resample

SR = 44100


def tone(seconds=0.5, sr=SR):
    rng = np.random.default_rng(0)
    n = round(seconds * sr)
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(n) / sr) + 0.01 * rng.normal(size=n)).astype(np.float32)


def encode(y, form, subtype=None, sr=SR):
    buffer = io.BytesIO()
    soundfile.write(buffer, y, sr, format=form, subtype=subtype)
    return buffer.getvalue()


def encode_av(y, form, codec, **options):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=SR, layout="mono")
        frame = av.AudioFrame.from_ndarray(y[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SR, 0, Fraction(1, SR)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return buffer.getvalue()


ENCODERS = {
    "wav": lambda y: encode(y, "WAV"),
    "wav float": lambda y: encode(y, "WAV", "FLOAT"),
    "flac": lambda y: encode(y, "FLAC"),
    "ogg vorbis": lambda y: encode(y, "OGG"),
    "mp3": lambda y: encode(y, "MP3"),
    "rf64": lambda y: encode(y, "RF64"),
    "au": lambda y: encode(y, "AU"),
    "aiff": lambda y: encode(y, "AIFF"),
    "m4a aac": lambda y: encode_av(y, "ipod", "aac"),
    "m4a alac": lambda y: encode_av(y, "ipod", "alac"),
}
LOSSY = {"ogg vorbis", "mp3", "m4a aac"}


def save(tmp_path, data, name="clip.wav"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def refused(path):
    with pytest.raises(BadClip) as caught:
        decode(path)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


@pytest.mark.parametrize("form", ENCODERS)
def test_decode_every_format_with_any_suffix(form, tmp_path):
    y = tone()
    decoded, sr = decode(save(tmp_path, ENCODERS[form](y), "clip.vox" if form == "wav" else "clip.raw"))
    assert sr == SR
    assert decoded.dtype == np.float32
    n = len(y)
    assert n <= len(decoded) <= n + 1024  # an AAC encoder fills its last frame
    assert np.corrcoef(decoded[:n], y)[0, 1] > (0.995 if form in LOSSY else 0.99999)


def test_decode_stereo_returns_mean_of_channels(tmp_path):
    left, right = tone(), np.roll(tone(), 7) / 2
    decoded, _ = decode(save(tmp_path, encode(np.stack([left, right], axis=1), "WAV", "FLOAT")))
    np.testing.assert_allclose(decoded, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("form", ENCODERS)
def test_decode_truncated_file_raises(form, tmp_path):
    data = ENCODERS[form](tone(1.0))
    for share in (0.2, 0.5, 0.9):
        assert refused(save(tmp_path, data[: round(share * len(data))])).startswith("truncated"), share


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_decode_streamed_wav_without_size(size, tmp_path):
    data = encode(tone(), "WAV")
    decoded, _ = decode(save(tmp_path, data[:40] + struct.pack("<I", size) + data[44:]))
    assert len(decoded) == len(tone())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty (0 bytes)"),
        (encode(np.zeros(0), "WAV"), "empty (no samples)"),
        (b"not a sound\n" * 500, "not audio"),
        (np.random.default_rng(0).bytes(20000), "not audio"),
        (encode(np.zeros(1000), "WAV"), "silent (all samples equal)"),
        (
            encode(np.stack([tone(), -tone()], axis=1), "WAV", "FLOAT"),
            "silent (all samples equal in the mean of its 2 channels)",
        ),
        (encode(np.append(tone(), np.nan), "WAV", "FLOAT"), "NaN or infinite samples"),
    ],
)
def test_decode_unusable_content_raises(content, reason, tmp_path):
    assert refused(save(tmp_path, content)) == reason


def test_decode_missing_file_or_folder_raises(tmp_path):
    assert refused(tmp_path / "none.wav") == "missing"
    assert refused(tmp_path) == "cannot be read: Is a directory"


@pytest.mark.parametrize(
    "playlist",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"],
)
def test_decode_playlist_opens_no_other_file(playlist, tmp_path):
    other = save(tmp_path, encode_av(tone(), "adts", "aac"), "other.aac")
    decode(other)
    assert refused(save(tmp_path, playlist.format(other).encode())) == "not audio"


def test_resample_keeps_low_tone_and_removes_high_tone():
    t = np.arange(SR) / SR
    low, high = (np.sin(2 * np.pi * f * t).astype(np.float32) for f in (1000, 15000))
    resampled = resample(low + high, sr=SR, new_sr=16000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert len(resampled) == 16000
    np.testing.assert_allclose(resampled[500:-500], expected[500:-500], atol=1e-3)


@pytest.mark.parametrize(
    ("fit", "n_samples", "expected"),
    [
        ("pad", 6, [1, 2, 3, 0, 0, 0]),
        ("pad", 2, [1, 2]),
        ("loop", 7, [1, 2, 3, 1, 2, 3, 1]),
        ("loop", 2, [1, 2]),
        ("crop", 6, [0, 1, 2, 3, 0, 0]),
        ("crop", 1, [2]),
        ("stretch", 6, [1, 2, 3]),
        ("crop", 3, [1, 2, 3]),
    ],
)
def test_fit_length_modes(fit, n_samples, expected):
    y = np.array([1, 2, 3], dtype=np.float32)
    fitted = fit_length(y, n_samples=n_samples, fit=fit)
    assert fitted.dtype == np.float32
    assert fitted.tolist() == expected


def test_decode_real_recordings(real_data):
    paths = sorted(real_data.rglob("*.wav"))
    assert paths
    for path in paths:
        y, _ = decode(path)
        assert len(y) == soundfile.info(path).frames
