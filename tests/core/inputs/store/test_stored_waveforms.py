"""Live inputs are the stored ones to the bit; recordings are kept whole and read by seeking."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from recordings import decode

from core.audio.reading import BadClip, fit_length, resample, stream_waveform
from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs import INPUT_KINDS
from core.inputs.input_of_run import build_input_kind
from core.inputs.store import stored_waveforms
from core.inputs.store.compute import compute_inputs
from core.inputs.store.on_the_fly import OnTheFlyInputs, make_on_the_fly_inputs
from core.inputs.store.stored_inputs import load_inputs
from core.inputs.store.stored_waveforms import Waveforms

SR = 8000
CLIP = Clip(sr=SR, duration=0.5)
RECORDINGS = ((0.5, 8000), (0.3, 8000), (1.7, 11025), (0.5, 16000), (3.0, 8000))  # seconds and Hz
FRONTENDS: list[dict[str, Any]] = [
    *({"kind": kind} for kind in INPUT_KINDS if kind != "features"),
    {"kind": "features", "window": 256},
    {"channels": "replicate"},
    {"image": (24, 20)},
    {"window": 256, "hop": 100, "padding": "reflect", "peak": True},
]


WAYS = [(fit, {}) for fit in ("pad", "loop", "crop", "stretch")] + [
    (fit, look)
    for look in FRONTENDS
    for fit in ("loop", "stretch")
    if (look.get("kind"), fit) != ("waveform", "stretch")
]


@pytest.fixture
def clips(tmp_path: Path) -> Any:
    """Return a data set of recordings of different lengths and rates."""
    root = tmp_path / "sounds"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i, (seconds, sr) in enumerate(RECORDINGS):
        soundfile.write(root / f"{i}.wav", 0.1 * rng.normal(size=round(seconds * sr)), sr)
    return stand_in(root)


def stand_in(root: Path) -> Any:
    table = pd.DataFrame({"path": sorted(path.name for path in root.iterdir())})
    return SimpleNamespace(vectors=None, name="sounds", root=root, clips=table)


def stored(clips: Any, cache: Path, *, clip: Clip = CLIP, **options: Any) -> Waveforms:
    return stored_waveforms.load_waveforms(clips, content="abc", clip=clip, cache=cache, **options)


def live(clips: Any, cache: Path, frontend: Frontend, *, clip: Clip = CLIP, **options: Any) -> OnTheFlyInputs:
    found = stored(clips, cache, clip=clip, **options)
    return make_on_the_fly_inputs(found, clips, clip=clip, frontend=frontend, device=torch.device("cpu"))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("fit", "look"), WAYS, ids=lambda way: way if isinstance(way, str) else "-".join(map(str, way.values()))
)
def test_live_images_are_the_stored_ones_to_the_bit(
    clips: Any, tmp_path: Path, look: dict[str, Any], fit: str, threads: int
) -> None:
    clip, frontend = Clip(sr=SR, duration=0.5, fit=fit), Frontend(n_mels=24, n_frames=20, fmax=SR / 2, **look)
    torch.set_num_threads(threads)
    expected = load_inputs(clips, content="abc", clip=clip, frontend=frontend, cache=tmp_path)
    whole = [False] if fit == "stretch" else [False, True]
    for found in [live(clips, tmp_path, frontend, clip=clip, whole=whole) for whole in whole]:
        np.testing.assert_array_equal(found.array[np.arange(5)], expected.array)
        np.testing.assert_array_equal(found.array[3], expected.array[3])
        np.testing.assert_array_equal(found.array[1:4], expected.array[1:4])
        assert found.array.shape == expected.array.shape
        assert found.array.ndim == expected.array.ndim
        assert found.clip_rows.tolist() == expected.clip_rows.tolist()
    assert torch.get_num_threads() == threads


def test_augmented_waveforms_are_those_of_the_stored_images(clips: Any, tmp_path: Path) -> None:
    frontend = Frontend(n_mels=24, n_frames=20, fmax=SR / 2)
    expected = load_inputs(clips, content="abc", clip=CLIP, frontend=frontend, cache=tmp_path, variant=2)
    found = live(clips, tmp_path, frontend, variant=2)
    np.testing.assert_array_equal(found.array[:], expected.array)
    assert not np.array_equal(found.array[:], live(clips, tmp_path, frontend).array[:])


@pytest.mark.parametrize("sr", [8000, 11025, 5000])
def test_a_recording_in_pieces_is_the_whole_one_to_the_bit(clips: Any, sr: int) -> None:
    for path in clips.clips["path"]:
        y, own_sr = decode(clips.root / path)
        np.testing.assert_array_equal(
            np.concatenate(list(stream_waveform(clips.root / path, sr=sr))), resample(y, sr=own_sr, new_sr=sr)
        )


def test_whole_recordings_are_kept_and_segments_are_parts_of_them(clips: Any, tmp_path: Path) -> None:
    found, n = stored(clips, tmp_path, whole=True), SR // 2
    for row, path in enumerate(clips.clips["path"]):
        y, own_sr = decode(clips.root / path)
        y = resample(y, sr=own_sr, new_sr=SR)
        np.testing.assert_array_equal(found.read(row), fit_length(y, n_samples=n, fit="pad"))
        for chance in (0.0, 0.37, 1 - 2**-53):
            start = int(chance * (len(y) - n + 1)) if len(y) > n else 0
            np.testing.assert_array_equal(found.read(row, chance), fit_length(y[start:], n_samples=n, fit="pad"))
    last = decode(clips.root / "4.wav")[0]
    np.testing.assert_array_equal(found.read(4, 0.0), last[:n])
    np.testing.assert_array_equal(found.read(4, 1 - 2**-53), last[-n:])
    assert found.longer == 2


def test_the_clip_decides_nothing_of_whole_recordings_and_all_of_others(clips: Any, tmp_path: Path) -> None:
    other = Clip(sr=SR, duration=0.4, fit="crop")
    assert stored(clips, tmp_path, whole=True).key == stored(clips, tmp_path, whole=True, clip=other).key
    assert stored(clips, tmp_path).key != stored(clips, tmp_path, clip=other).key
    assert stored(clips, tmp_path).table is not None
    assert stored(clips, tmp_path, whole=True).table is None
    frontend = Frontend(n_mels=24, n_frames=20)
    keys = [live(clips, tmp_path, frontend, whole=True, clip=clip).key for clip in (CLIP, other)]
    assert keys[0] != keys[1]  # the images of them are others


def test_long_recordings_are_written_in_pieces(clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = stored(clips, tmp_path / "one", whole=True)
    monkeypatch.setattr(stored_waveforms, "MAX_WAITING_SAMPLES", 5000)  # samples: two of the five are longer
    in_pieces = stored(clips, tmp_path / "other", whole=True)
    np.testing.assert_array_equal(at_once.samples, in_pieces.samples)
    np.testing.assert_array_equal(at_once.first, in_pieces.first)


def test_a_long_recording_that_is_bad_at_its_end_is_named_and_the_others_stay_right(
    clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = stored(clips, tmp_path, whole=True)
    y = np.concatenate([np.ones(50_000, np.float32) * 0.1, np.zeros(50_000, np.float32), [np.nan]])
    soundfile.write(clips.root / "2a.wav", y, SR, subtype="FLOAT")
    monkeypatch.setattr(stored_waveforms, "MAX_WAITING_SAMPLES", 5000)
    with pytest.raises(BadClip):
        list(stream_waveform(clips.root / "2a.wav", sr=SR))
    more = stand_in(clips.root)
    with pytest.raises(UserError, match=r"1 of the 6 clips .* \(2a.wav: NaN or infinite samples\)"):
        stored(more, tmp_path / "bad", whole=True)
    found = stored(more, tmp_path / "bad", whole=True, on_bad_clip="skip")
    assert found.unusable == (("2a.wav", "NaN or infinite samples"),)
    assert found.clip_rows.tolist() == [0, 1, 2, 4, 5]
    for row in range(5):
        np.testing.assert_array_equal(found.read(row, 0.5), good.read(row, 0.5))


@pytest.mark.parametrize("whole", [False, True])
def test_shards_outlive_what_ended_their_maker(
    clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    (clips.root / "1a.wav").write_bytes(b"")
    more = stand_in(clips.root)
    expected = stored(more, tmp_path / "whole", whole=whole, on_bad_clip="skip")
    monkeypatch.setattr(stored_waveforms, "BATCH_SIZE", 2)
    read: list[str] = []
    name = "_read_recording" if whole else "read_clip"
    original = getattr(stored_waveforms, name)

    def spy(path: str, *, until: str, **wanted: Any) -> Any:
        if path == until:
            raise KeyboardInterrupt
        read.append(path)
        return original(path, **wanted)

    monkeypatch.setattr(stored_waveforms, name, partial(spy, until="4.wav"))
    with pytest.raises(KeyboardInterrupt):
        stored(more, tmp_path / "cache", whole=whole, on_bad_clip="skip")
    read.clear()
    monkeypatch.setattr(stored_waveforms, name, partial(spy, until=""))
    found = stored(more, tmp_path / "cache", whole=whole, on_bad_clip="skip")
    assert sorted(read) == ["3.wav", "4.wav"]  # two shards of two clips were whole
    np.testing.assert_array_equal(found.samples, expected.samples)
    np.testing.assert_array_equal(found.first, expected.first)
    np.testing.assert_array_equal(found.clip_rows, expected.clip_rows)
    assert found.unusable == expected.unusable == (("1a.wav", "empty (0 bytes)"),)


def test_a_clip_too_loud_for_a_spectrogram_is_named(clips: Any, tmp_path: Path) -> None:
    y = 1e30 * np.random.default_rng(0).standard_normal(4000)
    soundfile.write(clips.root / "9.wav", y.astype(np.float32), SR, subtype="FLOAT")
    loud = stand_in(clips.root)
    frontend = Frontend(n_mels=24, n_frames=20, fmax=SR / 2)
    with pytest.raises(UserError, match="9.wav of sounds is too loud: its spectrogram is not finite; take it out"):
        live(loud, tmp_path, frontend)
    assert np.isfinite(live(loud, tmp_path, Frontend(n_mels=24, n_frames=20, fmax=SR / 2, peak=True)).array[5]).all()


@pytest.mark.parametrize("kind", ["logmel", "gammatone"])
def test_the_bits_of_an_input_hang_on_no_number_of_threads(kind: str) -> None:
    """The first sound of every new thread was computed by as many as there are cores."""
    rng = np.random.default_rng(0)
    sounds = [torch.from_numpy(0.1 * rng.standard_normal(n, np.float32)) for n in (4000, 2400, 9870, 4000)]
    front_end = build_input_kind(CLIP, Frontend(kind=kind, n_mels=24, n_frames=20, fmax=SR / 2))
    alone = compute_inputs(front_end, sounds)
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        for _ in range(5):
            assert torch.equal(compute_inputs(front_end, sounds), alone)
