import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile
import torch
from recordings import decode

import core.cache.array_shards
import core.cache.entries
import core.inputs.store.build_inputs
import core.inputs.store.stored_inputs
import core.progress
from core.audio.reading import fit_length, resample
from core.audio.waveform_augmentation import augment_waveform
from core.cache.array_writer import ArrayWriter
from core.cache.entries import load_or_make
from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.log_mel import LogMel
from core.inputs.store.stored_inputs import images

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
    return images(dataset, **options)


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


def forget_verified():
    """Read entries as a new process would."""
    core.cache.entries._verified.clear()


@pytest.mark.parametrize("fit", ["pad", "loop", "crop", "stretch"])
def test_every_row_is_its_clips_image(fit, clips, tmp_path):
    clip = Clip(sr=SR, duration=0.5, fit=fit)
    stored = compute(clips, tmp_path / "cache", clip=clip)
    assert stored.array.shape == (5, 3, 16, 20)
    assert stored.array.dtype == np.float32
    assert stored.kept.tolist() == [0, 1, 2, 3, 4]
    assert stored.bad == ()
    logmel = LogMel(clip=Clip(sr=SR), frontend=FRONTEND)
    for row, path in zip(stored.array, clips.clips["path"], strict=True):
        sound, sr = decode(clips.root / path)
        y = fit_length(resample(sound, sr=sr, new_sr=SR), n_samples=SR // 2, fit=fit)
        np.testing.assert_allclose(row, logmel(torch.from_numpy(y)[None])[0], rtol=0, atol=1e-5)


def test_more_clips_than_a_batch_stay_in_order(clips, tmp_path, monkeypatch):
    whole = compute(clips, tmp_path / "whole").array
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH", 2)
    np.testing.assert_array_equal(compute(clips, tmp_path / "cache").array, whole)


@pytest.mark.parametrize("options", [{"clip": Clip(sr=SR, duration=0.5, fit="stretch")}, {"variant": 1}])
def test_recordings_too_long_to_wait_give_the_same_bits_and_reasons(options, with_bad, tmp_path, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip", **options)
    monkeypatch.setattr(core.inputs.store.build_inputs, "WAITING", 3000)
    in_turn = compute(with_bad, tmp_path / "cache", on_bad_clip="skip", **options)
    np.testing.assert_array_equal(in_turn.array, whole.array)
    assert (in_turn.kept.tolist(), in_turn.bad) == (whole.kept.tolist(), whole.bad)


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
    made_from = core.inputs.store.stored_inputs._identity("abc", CLIP, FRONTEND, 0, augment_waveform)
    assert made_from == {
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
        json.dumps(core.inputs.store.stored_inputs._identity("abc", CLIP, frontend, 0, augment_waveform))
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
    assert (stored.bad, stored.kept.tolist()) == (whole.bad, whole.kept.tolist())
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
    assert whole.kept.tolist() == [0, 2]
    assert whole.kept.dtype == np.int64
    assert whole.array.shape[0] == 2
    assert whole.bad == BAD
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
            "mend or remove them, or leave them out with --on-bad-clip skip"
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
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH", 1)
    assert compute(with_bad, tmp_path / "cache", on_bad_clip="skip").kept.tolist() == [0, 2]


def test_an_unknown_policy_names_the_nearest(clips, tmp_path):
    with pytest.raises(UserError, match="unknown policy for bad clips 'skp': did you mean 'skip'?"):
        compute(clips, tmp_path / "cache", on_bad_clip="skp")


def damage_array(entry):
    data = bytearray((entry / "array.npy").read_bytes())
    data[-1] ^= 1
    (entry / "array.npy").write_bytes(data)


def shorten_array(entry):
    os.truncate(entry / "array.npy", (entry / "array.npy").stat().st_size // 2)


def change_manifest(entry):
    manifest = json.loads((entry / "manifest.json").read_text())
    manifest["facts"]["kept"][0] = 1
    (entry / "manifest.json").write_text(json.dumps(manifest))


def garble_manifest(entry):
    (entry / "manifest.json").write_text("[]")


def shorten_manifest(entry):
    os.truncate(entry / "manifest.json", 50)


def remove_array(entry):
    (entry / "array.npy").unlink()


@pytest.mark.parametrize(
    "damage", [damage_array, shorten_array, remove_array, change_manifest, garble_manifest, shorten_manifest]
)
def test_a_damaged_entry_is_never_believed_and_made_again(damage, clips, tmp_path, made):
    first = compute(clips, tmp_path / "cache")
    whole = np.array(first.array)
    damage(tmp_path / "cache" / "images" / first.key)
    forget_verified()
    again = compute(clips, tmp_path / "cache")
    assert len(made) == 10
    assert again.kept.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(again.array, whole)


def test_another_entry_in_its_place_is_not_believed(clips, tmp_path, made):
    cache = tmp_path / "cache"
    first, second = compute(clips, cache), compute(clips, cache, variant=1)
    (cache / "images" / first.key).rename(cache / "images" / "aside")
    (cache / "images" / second.key).rename(cache / "images" / first.key)
    np.testing.assert_array_equal(compute(clips, cache).array, first.array)
    assert len(made) == 15


def test_a_failure_to_write_names_the_folder(clips, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(UserError) as caught:
        compute(clips, tmp_path / "cache")
    folder = tmp_path / "cache" / "images"
    assert (
        str(caught.value) == f"cannot write to {folder}: Not a directory; allow writing there or choose another folder"
    )


def run_python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(core.cache.entries.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from core.cache.array_writer import ArrayWriter
from core.cache.entries import load_or_make
from core.errors import UserError

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # bytes a file may have: stands for a full disk

def make(writer):
    for _ in range(20):
        writer.append(np.ones((1, 1000)))

try:
    load_or_make(Path(sys.argv[1]), made_from={}, make=make)
except UserError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path):
    said, problems = run_python(FULL_DISK, tmp_path).communicate()
    assert said == f"cannot write to {tmp_path}: File too large; make room on it or choose another folder", problems
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


MAKER = """
import sys, time
from pathlib import Path
import numpy as np
from core.cache.array_writer import ArrayWriter
from core.cache.entries import load_or_make

folder, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def note(text):
    with log.open("a") as file:
        file.write(text + "\\n")

def make(writer):
    writer.append(np.zeros((2, 3)))
    note("making")
    time.sleep(seconds)
    writer.append(np.ones((2, 3)))
    return {"fact": 1}

stored = load_or_make(folder, made_from={"what": "test"}, make=make, waiting=lambda: note("waiting"))
note(f"{stored.array.sum():g} {stored.facts}")
"""


def wait_for(log, line):
    deadline = time.monotonic() + 20
    while not (log.exists() and line in log.read_text()):
        assert time.monotonic() < deadline, "the other process did not start"
        time.sleep(0.02)


def test_two_processes_make_an_array_once_and_the_second_waits(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    first = run_python(MAKER, folder, log, 2)
    wait_for(log, "making")
    second = run_python(MAKER, folder, log, 2)
    for process in (first, second):
        assert process.wait() == 0, process.communicate()
    assert log.read_text().splitlines() == ["making", "waiting", "6 {'fact': 1}", "6 {'fact': 1}"]


def test_a_killed_process_leaves_nothing_that_is_believed(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    first = run_python(MAKER, folder, log, 60)
    wait_for(log, "making")
    first.send_signal(signal.SIGKILL)
    first.communicate()

    def make(writer):
        writer.append(np.full((1, 3), 5.0))
        return {}

    stored = load_or_make(folder, made_from={"what": "test"}, make=make)
    assert stored.array.tolist() == [[5, 5, 5]]
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [stored.key]


def test_what_a_maker_raises_is_passed_on_and_nothing_is_kept(tmp_path):
    def make(writer):
        writer.append(np.ones((1, 3)))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        load_or_make(tmp_path, made_from={}, make=make)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_rows_of_another_shape_or_type_are_refused(tmp_path):
    def make(writer):
        writer.append(np.ones((2, 3), dtype=np.float32))
        writer.append(np.ones((2, 4), dtype=np.float32))

    with pytest.raises(ValueError, match=r"rows are float32 \(4,\), not float32 \(3,\) as before"):
        load_or_make(tmp_path, made_from={}, make=make)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64"])
def test_the_array_is_a_plain_npy_file(dtype, tmp_path):
    rows = np.arange(24).reshape(4, 2, 3).astype(dtype)

    def make(writer):
        for part in (rows[:1], rows[1:]):
            writer.append(part)
        return {}

    stored = load_or_make(tmp_path, made_from={"dtype": dtype}, make=make)
    loaded = np.load(tmp_path / stored.key / "array.npy")
    assert loaded.dtype == dtype
    np.testing.assert_array_equal(loaded, rows)


def test_real_recordings_make_finite_images(real_data, tmp_path):
    root = real_data / "urbansound8k" / "audio" / "fold1"
    paths = sorted(path.name for path in root.glob("*.wav"))[:8]
    dataset = SimpleNamespace(vectors=None, name="urbansound8k", root=root, clips=pd.DataFrame({"path": paths}))
    stored = compute(dataset, tmp_path, clip=Clip(sr=22050, duration=4.0), frontend=Frontend(n_frames=250))
    assert stored.array.shape == (8, 3, 128, 250)
    assert stored.array.min() >= -60
    assert 0 < stored.array.max() < 60


@pytest.fixture
def shards(monkeypatch):
    """Make shards of two clips."""
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH", 1)
    monkeypatch.setattr(core.inputs.store.build_inputs, "SHARD", 2)


def test_shards_that_were_made_outlive_what_ended_their_maker(with_bad, tmp_path, made, shards, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip")
    made.clear()
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
    assert again.bad == whole.bad == BAD
    assert again.kept.tolist() == whole.kept.tolist()
    np.testing.assert_array_equal(again.array, whole.array)
    entry = tmp_path / "cache" / "images" / again.key
    assert {path.name for path in entry.iterdir()} == {"array.npy", "manifest.json"}


def test_processes_beside_this_one_make_the_same_images(with_bad, tmp_path, made, shards, monkeypatch):
    whole = compute(with_bad, tmp_path / "whole", on_bad_clip="skip")
    made.clear()
    monkeypatch.setattr(core.inputs.store.build_inputs, "MANY", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    calls = []
    beside = compute(with_bad, tmp_path / "cache", on_bad_clip="skip", progress=lambda *call: calls.append(call[0]))
    torch.set_num_threads(threads)
    assert made == []  # not here
    assert not [child for child in psutil.Process().children(recursive=True) if "forkserver" in str(child.cmdline())]
    assert calls == [0, 2, 4, 5]
    assert beside.bad == whole.bad
    assert beside.kept.tolist() == whole.kept.tolist()
    np.testing.assert_array_equal(beside.array, whole.array)
    entry = tmp_path / "cache" / "images" / beside.key
    assert {path.name for path in entry.iterdir()} == {"array.npy", "manifest.json"}


def test_an_array_is_read_through_once_and_again_when_its_file_was_touched(clips, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(core.cache.entries, "is_whole", lambda path, *what, **more: read.append(path) or True)
    entry = tmp_path / "images" / compute(clips, tmp_path).key
    assert read == []  # its hash was taken as it was written
    forget_verified()
    compute(clips, tmp_path)
    assert len(read) == 1  # another process; the file is too new to be believed by its times
    assert not (entry / "seen.json").exists()
    monkeypatch.setattr(core.cache.entries, "SETTLED_SECONDS", 0.0)
    for _ in range(3):
        forget_verified()
        compute(clips, tmp_path)
    assert len(read) == 2
    os.utime(entry / "array.npy")
    forget_verified()
    compute(clips, tmp_path)
    assert len(read) == 3


def test_what_a_process_made_and_uses_later_is_not_read_through_by_the_next(clips, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(core.cache.entries, "is_whole", lambda path, *what, **more: read.append(path) or True)
    seen = tmp_path / "images" / compute(clips, tmp_path).key / "seen.json"
    assert not seen.exists()  # too new
    monkeypatch.setattr(core.cache.entries, "SETTLED_SECONDS", 0.0)
    compute(clips, tmp_path)
    assert seen.exists()
    forget_verified()
    compute(clips, tmp_path)
    assert read == []
    os.utime(seen.parent / "array.npy")
    compute(clips, tmp_path)
    assert read == [seen.parent / "array.npy"]


def test_reading_images_through_is_shown_where_it_takes_long(clips, tmp_path, monkeypatch):
    compute(clips, tmp_path)
    for long, expected in ((100.0, []), (0.0, [(0, 1, "reading through the images of sounds (MB)"), (1, 1, ...)])):
        monkeypatch.setattr(core.progress, "LONG", long)
        monkeypatch.setattr(core.cache.array_shards, "PIECE", 10_000)
        forget_verified()
        told = []
        compute(clips, tmp_path, progress=lambda *call, told=told: told.append(call))
        assert [call[:2] for call in told[:1] + told[-1:]] == [call[:2] for call in expected]
        assert {call[2] for call in told} == {call[2] for call in expected[:1]}


def test_images_hang_on_no_number_of_threads(clips, tmp_path):
    """Products are split among threads, which changed the last bits of an image, and the key does not name threads."""
    made = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        made.append(compute(clips, tmp_path / str(threads), frontend=Frontend(n_mels=48, n_frames=48)).array)
        assert torch.get_num_threads() == threads
    for other in made[1:]:
        np.testing.assert_array_equal(other, made[0])


def test_a_piece_is_written_while_the_next_is_made_and_no_later(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH", 1)
    monkeypatch.setattr(core.inputs.store.build_inputs, "SHARD", 2)
    events = []
    append, commit, images_of = ArrayWriter.append, ArrayWriter.commit, core.inputs.store.build_inputs._images_of

    def spy(name, real):
        def called(*given, **named):
            events.append(name)
            return real(*given, **named)

        return called

    monkeypatch.setattr(ArrayWriter, "append", spy("write", append))
    monkeypatch.setattr(ArrayWriter, "commit", spy("commit", commit))
    monkeypatch.setattr(core.inputs.store.build_inputs, "_images_of", spy("make", images_of))
    stored = compute(clips, tmp_path / "cache")
    parts = [events.index("commit"), len(events) - 1 - events[::-1].index("commit")]
    assert events[: parts[0]].count("write") == 2
    assert events[: parts[0]].count("make") == 3
    assert (events.count("make"), events.count("write"), events.count("commit")) == (5, 5, 3)
    assert stored.kept.tolist() == [0, 1, 2, 3, 4]


def test_an_error_of_writing_beside_is_passed_on(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(core.inputs.store.build_inputs, "BATCH", 1)

    def full(self, rows):
        raise UserError("the disk is full")

    monkeypatch.setattr(ArrayWriter, "append", full)
    with pytest.raises(UserError, match="the disk is full"):
        compute(clips, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "images").iterdir() if path.is_dir()]
