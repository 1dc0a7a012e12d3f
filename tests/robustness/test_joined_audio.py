"""Files that join several recordings, or that were written to a pipe, are decoded completely or refused by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from audio_files import (
    encode,
    encode_av,
    encode_mp3,
    make_id3,
    make_tone,
    remove_caf_length,
    remove_flac_length,
    remove_wav_length,
)

from core.audio.reading import BadClip, fit_length, read_info, read_start, read_waveform, read_whole

SR = 16_000  # Hz, of what is read
LOW, HIGH = 440.0, 1500.0  # Hz, of the first and the second recording
SECONDS = (0.6, 0.9)
A, B = make_tone(SECONDS[0], hertz=LOW), make_tone(SECONDS[1], hertz=HIGH)
A_48, B_48 = make_tone(SECONDS[0], hertz=LOW, sr=48_000), make_tone(SECONDS[1], hertz=HIGH, sr=48_000)
B_22 = make_tone(SECONDS[1], hertz=HIGH, sr=22_050)
B_STEREO = make_tone(SECONDS[1], hertz=HIGH, channels=2)
NO_DELAY, DELAY = 0.004, 0.06  # s of length: exact formats, and MP3 and AAC without their encoder's delay

Encoder = Callable[[np.ndarray], bytes]

ENCODERS: dict[str, tuple[Encoder, float]] = {
    "ogg vorbis": (partial(encode, audio_format="OGG"), NO_DELAY),
    "ogg flac": (partial(encode_av, container="ogg", codec="flac", sample="s16"), NO_DELAY),
    "mp3": (partial(encode, audio_format="MP3"), NO_DELAY),
    "mp3 with tag": (partial(encode_mp3, tag=True), NO_DELAY),
    "mp3 with tag, no length": (partial(encode_mp3, tag=True, xing=False), 2 * DELAY),
    "mp3 of frames only": (partial(encode_mp3, xing=False), 2 * DELAY),
    "mp3 with cover": (lambda y: make_id3(np.random.default_rng(1).bytes(20_000)) + encode_mp3(y), NO_DELAY),
    "mp3 with tag at end": (lambda y: encode_mp3(y) + b"TAG" + bytes(125), NO_DELAY),
    "flac": (partial(encode, audio_format="FLAC"), NO_DELAY),
    "flac with tag": (lambda y: make_id3(b"x" * 100) + encode(y, "FLAC"), NO_DELAY),
    "flac, no length": (lambda y: remove_flac_length(encode(y, "FLAC")), NO_DELAY),
    "wav": (partial(encode, audio_format="WAV"), NO_DELAY),
    "wav float": (partial(encode, audio_format="WAV", subtype="FLOAT"), NO_DELAY),
    "wav, no length": (lambda y: remove_wav_length(encode(y, "WAV")), NO_DELAY),
    "wav, odd size": (lambda y: encode(y[:-1], "WAV", "PCM_U8") + b"\x00", NO_DELAY),
    "rf64": (partial(encode, audio_format="RF64"), NO_DELAY),
    "w64": (partial(encode, audio_format="W64"), NO_DELAY),
    "aiff": (partial(encode, audio_format="AIFF"), NO_DELAY),
    "au": (partial(encode, audio_format="AU"), NO_DELAY),
    "caf": (partial(encode, audio_format="CAF"), NO_DELAY),
    "caf, no length": (lambda y: remove_caf_length(encode(y, "CAF")), NO_DELAY),
    "nist": (partial(encode, audio_format="NIST"), NO_DELAY),
    "voc": (partial(encode, audio_format="VOC"), NO_DELAY),
    "m4a": (partial(encode_av, container="ipod", codec="aac"), DELAY),
    "mp4 in fragments": (
        partial(encode_av, container="mp4", codec="aac", movflags="empty_moov+frag_keyframe"),
        2 * DELAY,
    ),
    "tta": (partial(encode_av, container="tta", codec="tta", sample="s16"), NO_DELAY),
    "wma": (partial(encode_av, container="asf", codec="wmav2"), 2 * DELAY),
    "avi": (partial(encode_av, container="avi", codec="pcm_s16le", sample="s16"), NO_DELAY),
    "adts": (partial(encode_av, container="adts", codec="aac"), 2 * DELAY),
    "mka": (partial(encode_av, container="matroska", codec="aac"), 2 * DELAY),
}
MIXED: dict[str, tuple[bytes, float]] = {  # recordings that differ
    "opus": (encode(A_48, "OGG", "OPUS", sr=48_000) + encode(B_48, "OGG", "OPUS", sr=48_000), 0.2),
    "vorbis, opus": (encode(A, "OGG") + encode(B_48, "OGG", "OPUS", sr=48_000), 0.1),
    "vorbis, another rate": (encode(A, "OGG") + encode(B_22, "OGG", sr=22_050), NO_DELAY),
    "vorbis, stereo": (encode(A, "OGG") + encode(B_STEREO, "OGG"), NO_DELAY),
    "mp3, another rate": (encode(A, "MP3") + encode(B_22, "MP3", sr=22_050), NO_DELAY),
    "mp3, frames of another rate": (encode_mp3(A, xing=False) + encode_mp3(B_22, xing=False, sr=22_050), 3 * DELAY),
    "mp3, then frames": (encode_mp3(A) + encode_mp3(B, xing=False), DELAY),
    "mp3 with tag at end, then frames": (encode_mp3(A) + b"TAG" + bytes(125) + encode_mp3(B, xing=False), DELAY),
    "frames, then mp3": (encode_mp3(A, xing=False) + encode_mp3(B), DELAY),
    "flac, another rate": (encode(A, "FLAC") + encode(B_22, "FLAC", sr=22_050), NO_DELAY),
    "flac, 24 bit and stereo": (encode(A, "FLAC") + encode(B_STEREO, "FLAC", "PCM_24"), NO_DELAY),
    "flac, no length, another rate": (
        remove_flac_length(encode(A, "FLAC")) + remove_flac_length(encode(B_22, "FLAC", sr=22_050)),
        NO_DELAY,
    ),
    "wav, another rate and stereo": (encode(A, "WAV") + encode(B_STEREO[::2], "WAV", "FLOAT", sr=22_050), NO_DELAY),
    "adts, another rate": (
        encode_av(A, container="adts", codec="aac") + encode_av(B_22, container="adts", codec="aac", sr=22_050),
        3 * DELAY,
    ),
    "mp2, stereo": (
        encode_av(A, container="mp2", codec="mp2", sample="s16")
        + encode_av(B_STEREO, container="mp2", codec="mp2", sample="s16"),
        2 * DELAY,
    ),
}


def pitch(y: np.ndarray) -> float:
    """Return the strongest frequency in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(y * np.hanning(len(y))))) * SR / len(y))


def check_both(path: Path, slack: float) -> None:
    """Check that a file holds the low tone and then the high tone, each in its full length."""
    y = read_whole(path, sr=SR)
    assert abs(len(y) / SR - sum(SECONDS)) <= slack
    start, middle = round(0.1 * SR), round(SECONDS[0] * SR)
    assert pitch(y[start : middle - start]) == pytest.approx(LOW, abs=5)
    assert pitch(y[middle + start : middle + 7 * start]) == pytest.approx(HIGH, abs=5)
    assert np.abs(y[-round((slack + 0.1) * SR) :]).max() > 0.1  # the high tone goes on to the end
    assert read_info(path).seconds == pytest.approx(len(y) / SR, abs=1e-3)


@pytest.mark.parametrize("name", ENCODERS)
def test_read_whole_joined_files_gives_both(name: str, tmp_path: Path) -> None:
    encoder, slack = ENCODERS[name]
    (tmp_path / "clip").write_bytes(encoder(A) + encoder(B))
    check_both(tmp_path / "clip", slack)


@pytest.mark.parametrize("name", MIXED)
def test_read_whole_joined_files_that_differ_gives_both(name: str, tmp_path: Path) -> None:
    data, slack = MIXED[name]
    (tmp_path / "clip").write_bytes(data)
    check_both(tmp_path / "clip", slack)


@pytest.mark.parametrize("name", ["flac, another rate", "adts, another rate", "mp3, frames of another rate"])
@pytest.mark.parametrize(("fit", "seconds"), [("pad", 0.7), ("pad", 3.0), ("crop", 0.5), ("crop", 3.0), ("loop", 2.0)])
def test_read_waveform_rate_changes_equals_whole(name: str, fit: str, seconds: float, tmp_path: Path) -> None:
    path, n_samples = tmp_path / "clip", round(seconds * SR)
    path.write_bytes(MIXED[name][0])
    y = read_waveform(path, sr=SR, n_samples=n_samples, fit=fit)
    np.testing.assert_array_equal(y, fit_length(read_whole(path, sr=SR), n_samples=n_samples, fit=fit))
    np.testing.assert_array_equal(read_start(path, sr=SR, n_samples=n_samples), read_whole(path, sr=SR)[:n_samples])


def test_read_waveform_rate_changes_in_a_long_recording_crops_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.audio.reading.MAX_ONE_PASS", 1000)  # a recording that is read in two passes
    path = tmp_path / "clip"
    path.write_bytes(MIXED["flac, another rate"][0])
    y = read_waveform(path, sr=SR, n_samples=SR, fit="crop")
    np.testing.assert_array_equal(y, fit_length(read_whole(path, sr=SR), n_samples=SR, fit="crop"))


@pytest.mark.parametrize("channels", [1, 2])
def test_read_whole_mp3_in_wav_gives_all_samples(channels: int, tmp_path: Path) -> None:
    y = make_tone(1.5, channels=channels)
    (tmp_path / "clip.wav").write_bytes(encode_av(y, container="wav", codec="libmp3lame"))
    decoded = read_whole(tmp_path / "clip.wav", sr=44_100)
    assert 0 <= len(decoded) / 44_100 - 1.5 <= DELAY
    with pytest.raises(BadClip, match="truncated"):
        (tmp_path / "cut.wav").write_bytes((tmp_path / "clip.wav").read_bytes()[:9000])
        read_whole(tmp_path / "cut.wav", sr=44_100)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_read_whole_flac_of_unknown_length_equals_flac_of_known_length(subtype: str, tmp_path: Path) -> None:
    data = encode(B_STEREO, "FLAC", subtype)
    (tmp_path / "known.flac").write_bytes(data)
    (tmp_path / "unknown.flac").write_bytes(remove_flac_length(data))
    known, unknown = (read_whole(tmp_path / f"{name}.flac", sr=44_100) for name in ("known", "unknown"))
    np.testing.assert_array_equal(known, unknown)


def test_read_whole_caf_of_unknown_length_equals_caf_of_known_length(tmp_path: Path) -> None:
    data = encode(B, "CAF")
    (tmp_path / "known.caf").write_bytes(data)
    (tmp_path / "unknown.caf").write_bytes(remove_caf_length(data))
    known, unknown = (read_whole(tmp_path / f"{name}.caf", sr=44_100) for name in ("known", "unknown"))
    np.testing.assert_array_equal(known, unknown)


def change_byte(data: bytes) -> bytes:
    """Return data with a changed byte in the middle."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0x55]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (remove_flac_length(encode(B, "FLAC"))[:-5000], "truncated or damaged"),
        (change_byte(remove_flac_length(encode(B, "FLAC"))), "damaged before 0.6 s"),
        (encode(A, "WAV") + encode(B, "WAV")[:-5000], "recording 2 .*truncated: has 74380 of 79380 bytes"),
        (encode(A, "OGG") + encode(B, "OGG")[:-2000], "recording 2 .*truncated: incomplete last Ogg page"),
        (encode(A, "FLAC") + encode(B, "FLAC")[:-5000], "recording 2 .*truncated"),
        (encode(A, "CAF") + encode(B, "CAF")[:-5000], "recording 2 .*truncated or damaged"),
        (encode_mp3(A) + encode_mp3(B)[:-5000], "recording 2 .*truncated"),
        (encode_av(A, container="wv", codec="wavpack") + encode_av(B, container="wv", codec="wavpack"), "damaged"),
    ],
)
def test_read_whole_damaged_part_is_named(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(data)
    with pytest.raises(BadClip, match=reason):
        read_whole(tmp_path / "clip", sr=SR)


DECOYS = b"".join([encode(A, "OGG")[:200], encode(A, "FLAC")[:200], encode_mp3(A)[200:5000], encode(A, "WAV")[:200]])


@pytest.mark.parametrize(
    "data",
    [
        make_id3(DECOYS) + encode_mp3(B),
        make_id3(DECOYS) + encode(B, "FLAC"),
        make_id3(b"a") + make_id3(b"b") + encode_mp3(B),
        encode_mp3(B) + b"TAG" + bytes(125),
        encode_mp3(B) + b"APETAGEX" + bytes(1000),
        make_id3(bytes(6000)) + encode_mp3(B) + b"APETAGEX" + bytes(1000),
        encode(B, "WAV") + b"LIST" + (200).to_bytes(4, "little") + encode(A, "WAV")[:200],
        encode(B, "FLAC") + b"TAG" + bytes(125),
        encode(B, "OGG") + bytes(1000),
        encode_av(B, B, container="ogg", codec="flac", sample="s16"),
        encode_av(B, B, container="matroska", codec="flac", sample="s16"),
    ],
)
def test_read_whole_single_recording_is_not_split(data: bytes, tmp_path: Path) -> None:
    """Tags and pictures may look like headers, and streams side by side are one recording."""
    (tmp_path / "clip").write_bytes(data)
    y = read_whole(tmp_path / "clip", sr=SR)
    assert abs(len(y) / SR - SECONDS[1]) <= DELAY
    assert pitch(y[SR // 10 : -SR // 10]) == pytest.approx(HIGH, abs=5)


def test_read_whole_short_flac_after_a_long_one_is_read(tmp_path: Path) -> None:
    """The decoder has read into the short one when the long one ends."""
    (tmp_path / "clip").write_bytes(encode(make_tone(3.0), "FLAC") + encode(make_tone(0.02), "FLAC"))
    assert len(read_whole(tmp_path / "clip", sr=44_100)) == 3 * 44_100 + 882


def test_read_whole_many_joined_parts_are_all_read(tmp_path: Path) -> None:
    one = encode(make_tone(0.02), "WAV")
    (tmp_path / "clip").write_bytes(500 * one)
    assert len(read_whole(tmp_path / "clip", sr=44_100)) == 500 * 882
