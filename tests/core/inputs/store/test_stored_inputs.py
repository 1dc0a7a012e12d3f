import dataclasses
import errno
import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile
import torch
from recordings import decode

import core.inputs.store.build_inputs
import core.inputs.store.stored_inputs
from core.audio.reading import fit_length, resample
from core.audio.waveform_augmentation import augment_waveform
from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.log_mel import LogMel
from core.inputs.store.stored_inputs import load_inputs

SR = 8000
CLIP = Clip(sr=SR, duration=0.5)
FRONTEND = Frontend(n_mels=16, n_frames=20)


@pytest.fixture
def clips(tmp_path):
    """A data set of five clips of different lengths and rates."""
    root = tmp_path / "sounds"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i, (seconds, sr) in enumerate([(0.5, 8000), (0.3, 8000), (0.7, 11025), (0.5, 16000), (0.5, 8000)]):
        soundfile.write(root / f"{i}.wav", 0.1 * rng.normal(size=round(seconds * sr)), sr)
    return stand_in(root)


def stand_in(root):
    """What the feature store needs of a data set."""
    table = pd.DataFrame({"path": sorted(path.name for path in root.iterdir())})
    return SimpleNamespace(vectors=None, name="sounds", root=root, clips=table)


def compute(dataset, cache, **changes):
    options = {"content": "abc", "clip": CLIP, "frontend": FRONTEND, "cache": cache} | changes
    return load_inputs(dataset, **options)


@pytest.fixture
def made(monkeypatch):
    """Paths of the clips that are read from now on."""
    read = []

    def spying(original):
        def spy(path, **wanted):
            read.append(path.name)
            return original(path, **wanted)

        return spy

    for name in ("read_whole", "read_start", "read_waveform"):
        monkeypatch.setattr(core.inputs.store.build_inputs, name, spying(getattr(core.inputs.store.build_inputs, name)))
    return read


@pytest.mark.parametrize("fit", ["pad", "loop", "crop", "stretch"])
def test_every_row_is_its_clips_image(fit, clips, tmp_path):
    clip = Clip(sr=SR, duration=0.5, fit=fit)
    stored = compute(clips, tmp_path / "cache", clip=clip)
    assert stored.array.shape == (5, 3, 16, 20)
    assert stored.array.dtype == np.float32
    assert stored.clip_rows.tolist() == [0, 1, 2, 3, 4]
    assert stored.unusable == ()
    logmel = LogMel(clip=Clip(sr=SR), frontend=FRONTEND)
    for row, path in zip(stored.array, clips.clips["path"], strict=True):
        sound, sr = decode(clips.root / path)
        y = fit_length(resample(sound, sr=sr, new_sr=SR), n_samples=SR // 2, fit=fit)
        np.testing.assert_allclose(row, logmel(torch.from_numpy(y)[None])[0], rtol=0, atol=1e-5)


def test_more_clips_than_a_batch_stay_in_order(clips, tmp_path, monkeypatch):
    whole = compute(clips, tmp_path / "whole").array
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH_SIZE", 2)
    np.testing.assert_array_equal(compute(clips, tmp_path / "cache").array, whole)


@pytest.mark.parametrize("options", [{"clip": Clip(sr=SR, duration=0.5, fit="stretch")}, {"variant": 1}])
def test_recordings_too_long_to_wait_give_the_same_bits_and_reasons(options, with_bad, tmp_path, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip", **options)
    monkeypatch.setattr(core.inputs.store.build_inputs, "MAX_WAITING_SAMPLES", 3000)
    in_turn = compute(with_bad, tmp_path / "cache", on_bad_clip="skip", **options)
    np.testing.assert_array_equal(in_turn.array, whole.array)
    assert (in_turn.clip_rows.tolist(), in_turn.unusable) == (whole.clip_rows.tolist(), whole.unusable)


def test_images_are_computed_once_and_read_only(clips, tmp_path, made):
    first = compute(clips, tmp_path / "cache")
    assert sorted(made) == clips.clips["path"].tolist()
    second = compute(clips, tmp_path / "cache")
    assert len(made) == 5
    assert second.key == first.key
    assert isinstance(second.array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second.array[0] = 0


@pytest.mark.parametrize(
    "changes",
    [
        {"content": "abd"},
        {"clip": Clip(sr=SR, duration=0.4)},
        {"frontend": Frontend(n_mels=16, n_frames=20, fmin=50.0)},
        {"variant": 1},
    ],
)
def test_whatever_changes_the_images_changes_the_key(changes, clips, tmp_path):
    cache = tmp_path / "cache"
    assert compute(clips, cache, **changes).key != compute(clips, cache).key


def test_keys_of_todays_defaults_stay():
    """Fields that were added later are in the key only where they are not as before there were any."""
    key_fields = core.inputs.store.stored_inputs._key_fields("abc", CLIP, FRONTEND, 0, augment_waveform)
    assert key_fields == {
        "images": 1,
        "content": "abc",
        "clip": {"sr": 8000, "duration": 0.5, "fit": "pad"},
        "frontend": {"channels": "windows", "n_mels": 16, "n_frames": 20, "fmin": 0.0, "fmax": 0},
        "variant": 0,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"mel": "htk"},
        {"mel_norm": "none"},
        {"padding": "reflect"},
        {"peak": True},
        {"image": (16, 20)},
        {"window": 256},
        {"window": 256, "hop": 100},
        {"channels": "replicate"},
        {"stored_as": "float16"},
    ],
)
def test_every_later_field_of_the_images_changes_the_key(change):
    keys = {
        json.dumps(core.inputs.store.stored_inputs._key_fields("abc", CLIP, frontend, 0, augment_waveform))
        for frontend in (FRONTEND, dataclasses.replace(FRONTEND, **change), dataclasses.replace(FRONTEND, window=256))
    }
    assert len(keys) == 3 - (change == {"window": 256})


def test_one_channel_is_stored_where_three_are_equal(clips, tmp_path):
    stored = compute(clips, tmp_path, frontend=Frontend(n_mels=16, n_frames=20, channels="replicate"))
    assert stored.array.shape == (5, 1, 16, 20)
    np.testing.assert_array_equal(stored.array, compute(clips, tmp_path).array[:, :1])


def test_float16_is_the_same_rounded_and_looked_up_in_float32(with_bad, tmp_path):
    whole = compute(with_bad, tmp_path / "cache", on_bad_clip="skip")
    halves = dataclasses.replace(FRONTEND, stored_as="float16")
    stored = compute(with_bad, tmp_path / "cache", frontend=halves, on_bad_clip="skip")
    assert stored.key != whole.key
    assert (stored.unusable, stored.clip_rows.tolist()) == (whole.unusable, whole.clip_rows.tolist())
    on_disk = np.load(tmp_path / "cache" / "images" / stored.key / "array.npy")
    assert on_disk.dtype == np.float16
    np.testing.assert_array_equal(on_disk, whole.array.astype(np.float16))
    assert len(stored.array) == len(whole.array)
    assert stored.array.shape == whole.array.shape
    for rows in (1, [1, 0], slice(0, 1), np.array([True, False])):
        assert stored.array[rows].dtype == np.float32
        np.testing.assert_array_equal(stored.array[rows], on_disk[rows])
    np.testing.assert_array_equal(stored.array.reshape(2, -1)[1], on_disk[1].ravel())
    assert np.abs(whole.array - on_disk).max() <= 0.016


def test_a_number_too_large_for_float16_is_a_bad_clip(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(LogMel, "forward", lambda self, y: torch.full((len(y), *self.shape), 1e5))
    compute(clips, tmp_path / "cache")
    with pytest.raises(UserError, match=r"5 of the 5 clips .* \(0.wav: too loud: its spectrogram is not finite; "):
        compute(clips, tmp_path / "cache", frontend=dataclasses.replace(FRONTEND, stored_as="float16"))


def test_normalisation_does_not_change_the_key(clips, tmp_path, made):
    compute(clips, tmp_path / "cache")
    compute(clips, tmp_path / "cache", frontend=Frontend(n_mels=16, n_frames=20, normalise="train"))
    assert len(made) == 5


def test_a_variant_is_augmented_by_path_and_number_before_it_is_fitted(clips, tmp_path):
    stored = compute(clips, tmp_path / "cache", variant=2)
    logmel = LogMel(clip=Clip(sr=SR), frontend=FRONTEND)
    for row, path in zip(stored.array, clips.clips["path"], strict=True):
        y, sr = decode(clips.root / path)
        y = augment_waveform(resample(y, sr=sr, new_sr=SR), sr=SR, key=f"{path}:2")
        y = fit_length(y, n_samples=4000, fit="pad")
        np.testing.assert_allclose(row, logmel(torch.from_numpy(y)[None])[0], rtol=0, atol=1e-4)


def test_progress_counts_the_clips(clips, tmp_path):
    calls = []
    compute(clips, tmp_path / "cache", progress=lambda *call: calls.append(call))
    assert calls == [(0, 5, "images of sounds"), (5, 5, "images of sounds")]


@pytest.fixture
def with_bad(clips):
    (clips.root / "1.wav").write_bytes(b"")
    soundfile.write(clips.root / "3.wav", np.zeros(800), SR)
    loud = np.random.default_rng(0).normal(size=4000) * 1e30
    soundfile.write(clips.root / "4.wav", loud, SR, subtype="FLOAT")
    return clips


BAD = (
    ("1.wav", "empty (0 bytes)"),
    ("3.wav", "silent (all samples equal)"),
    ("4.wav", "too loud: its spectrogram is not finite"),
)


def test_bad_clips_are_skipped_and_named(with_bad, tmp_path):
    whole = compute(stand_in(with_bad.root), tmp_path / "cache", on_bad_clip="skip")
    assert whole.clip_rows.tolist() == [0, 2]
    assert whole.clip_rows.dtype == np.int64
    assert whole.array.shape[0] == 2
    assert whole.unusable == BAD
    assert np.isfinite(whole.array).all()


@pytest.mark.parametrize("before", ["skip", "fail"])
def test_bad_clips_fail_all_at_once_also_from_the_cache(before, with_bad, tmp_path, made):
    if before == "skip":
        compute(with_bad, tmp_path / "cache", on_bad_clip="skip")
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            compute(with_bad, tmp_path / "cache")
        assert str(caught.value) == (
            f"3 of the 5 clips of sounds in {with_bad.root} cannot be used (1.wav: empty (0 bytes); "
            "3.wav: silent (all samples equal); 4.wav: too loud: its spectrogram is not finite): "
            "repair or remove them, or leave them out with --on-bad-clip skip"
        )
    assert len(made) == 5


def test_many_bad_clips_are_named_up_to_twenty(tmp_path):
    root = tmp_path / "sounds"
    root.mkdir()
    for i in range(30):
        (root / f"{i:02}.wav").touch()
    with pytest.raises(
        UserError, match=r"^30 of the 30 clips .*19.wav: empty \(0 bytes\); and 10 more\): none is left$"
    ):
        compute(stand_in(root), tmp_path / "cache", on_bad_clip="skip")
    assert not [path for path in (tmp_path / "cache" / "images").iterdir() if path.is_dir()]


def test_a_batch_of_bad_clips_alone_is_skipped(with_bad, tmp_path, monkeypatch):
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH_SIZE", 1)
    assert compute(with_bad, tmp_path / "cache", on_bad_clip="skip").clip_rows.tolist() == [0, 2]


def test_an_unknown_policy_names_the_nearest(clips, tmp_path):
    with pytest.raises(UserError, match="unknown policy for bad clips 'skp': did you mean 'skip'?"):
        compute(clips, tmp_path / "cache", on_bad_clip="skp")


def test_real_recordings_make_finite_images(real_data, tmp_path):
    root = real_data / "urbansound8k" / "audio" / "fold1"
    paths = sorted(path.name for path in root.glob("*.wav"))[:8]
    dataset = SimpleNamespace(vectors=None, name="urbansound8k", root=root, clips=pd.DataFrame({"path": paths}))
    stored = compute(dataset, tmp_path, clip=Clip(sr=22050, duration=4.0), frontend=Frontend(n_frames=250))
    assert stored.array.shape == (8, 3, 128, 250)
    assert stored.array.min() >= -60
    assert 0 < stored.array.max() < 60


def test_batches_that_were_built_outlive_what_ended_their_builder(with_bad, tmp_path, made, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip")
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH_SIZE", 2)
    read = core.inputs.store.build_inputs.read_waveform

    def interrupt(path, **wanted):
        if path.name == "4.wav":
            raise KeyboardInterrupt
        return read(path, **wanted)

    with monkeypatch.context() as until_the_last, pytest.raises(KeyboardInterrupt):
        until_the_last.setattr(core.inputs.store.build_inputs, "read_waveform", interrupt)
        compute(with_bad, tmp_path / "cache", on_bad_clip="skip")
    made.clear()
    again = compute(with_bad, tmp_path / "cache", on_bad_clip="skip")
    assert made == ["4.wav"]
    assert again.unusable == whole.unusable == BAD
    assert again.clip_rows.tolist() == whole.clip_rows.tolist()
    np.testing.assert_array_equal(again.array, whole.array)


def test_processes_beside_this_one_build_the_same_images(with_bad, tmp_path, made, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip")
    made.clear()
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH_SIZE", 2)
    monkeypatch.setattr(core.inputs.store.build_inputs, "MIN_CLIPS_FOR_PROCESSES", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    calls = []
    beside = compute(with_bad, tmp_path / "cache", on_bad_clip="skip", progress=lambda *call: calls.append(call[0]))
    torch.set_num_threads(threads)
    assert made == []  # not in this process
    assert not [child for child in psutil.Process().children(recursive=True) if "forkserver" in str(child.cmdline())]
    assert calls == [0, 2, 4, 5]
    assert (beside.unusable, beside.clip_rows.tolist()) == (whole.unusable, whole.clip_rows.tolist())
    np.testing.assert_array_equal(beside.array, whole.array)
    entry = tmp_path / "cache" / "images" / beside.key
    assert {path.name for path in entry.iterdir()} == {"array.npy", "manifest.json"}


def test_images_do_not_depend_on_the_number_of_threads(clips, tmp_path):
    """Products are split among threads, which changes the last bits of an image, and the key does not name threads."""
    made = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        made.append(compute(clips, tmp_path / str(threads), frontend=Frontend(n_mels=48, n_frames=48)).array)
        assert torch.get_num_threads() == threads
    for other in made[1:]:
        np.testing.assert_array_equal(other, made[0])


def test_a_full_disk_ends_the_build_and_leaves_nothing(clips, tmp_path, monkeypatch):
    def full(path, first, rows):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(core.inputs.store.build_inputs, "write_rows", full)
    with pytest.raises(UserError, match="cannot write to .*images: No space left on device; free space"):
        compute(clips, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "images").iterdir() if path.is_dir()]
