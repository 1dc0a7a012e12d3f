"""Summaries of data sets and their problems, on synthetic sets and real recordings."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import encode_av, make_tone

from analysis.data_summary import summarise_dataset
from core import datasets
from core.datasets import select
from core.datasets.dataset import TRAIN_FOLD


def write_clip(path: Path, *, seed: int = 0, sr: int = 8_000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, (sr // 10, channels)), sr)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a CSV table of two folds with two clips of the classes a and b each."""
    lines = ["path,label,fold,group"]
    for number, (fold, label, _) in enumerate((f, c, t) for f in (1, 2) for c in "ab" for t in (0, 1)):
        write_clip(tmp_path / label / f"{number}.wav", seed=number)
        lines.append(f"{label}/{number}.wav,{label},{fold},{label}{fold}")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "clips.csv"


def test_summarise_dataset_has_counts(tmp_path: Path) -> None:
    for i in range(4):
        write_clip(tmp_path / "a" / f"{i}.wav", seed=i, sr=8_000)
        write_clip(tmp_path / "b" / f"{i}.flac", seed=i, sr=16_000, channels=2)
    steps: list[int] = []
    found = summarise_dataset(
        datasets.load_dataset("folder", tmp_path), progress=lambda done, total, what: steps.append(done)
    )
    assert (found.clips, found.groups) == (8, 8)
    assert found.classes == {"a": 4, "b": 4}
    assert found.folds == {1: 2, 2: 2, 3: 2, 4: 2}
    assert found.seconds == pytest.approx({"shortest": 0.1, "median": 0.1, "longest": 0.1, "total": 0.8})
    assert found.sample_rates == {8_000: 4, 16_000: 4}
    assert found.channels == {1: 4, 2: 4}
    assert found.formats == {"WAV PCM_16": 4, "FLAC PCM_16": 4}
    assert found.problems == ()
    assert steps == list(range(1, 9))


def test_summarise_dataset_of_m4a_has_channels(tmp_path: Path) -> None:
    for number, channels in enumerate((1, 1, 2, 2)):
        y = make_tone(0.2, hertz=200 + 100 * number, channels=channels)
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number}.m4a").write_bytes(encode_av(y, container="mp4", codec="aac"))
    found = summarise_dataset(datasets.load_dataset("folder", tmp_path))
    assert found.channels == {1: 2, 2: 2}
    assert found.formats == {"M4A": 4}


def test_summarise_dataset_has_problems(table: Path) -> None:
    (table.parent / "a" / "0.wav").write_bytes(b"")
    write_clip(table.parent / "a" / "99.wav")
    dataset = datasets.load_dataset("folder", table)
    assert summarise_dataset(dataclasses.replace(dataset, class_names=(*dataset.class_names, "c", "d"))).problems == (
        "a/0.wav: empty (0 bytes)",
        "classes without clips: c, d",
        "audio files that are not clips: a/99.wav",
    )


def test_summarise_dataset_with_group_in_two_folds_has_problem(table: Path) -> None:
    dataset = datasets.load_dataset("folder", table)
    leaky = dataclasses.replace(dataset, clips=dataset.clips.assign(group=dataset.clips["label"].astype(str)))
    (problem,) = summarise_dataset(leaky).problems
    assert "groups in more than one fold" in problem


def test_summarise_dataset_with_class_in_one_fold_has_problem(table: Path) -> None:
    dataset = datasets.load_dataset("folder", table)
    clips = dataset.clips
    single = dataclasses.replace(dataset, clips=clips[(clips["label"] == 1) | (clips["fold"] == 1)])
    (problem,) = [text for text in summarise_dataset(single).problems if "single fold" in text]
    assert problem.endswith(": a")


def test_real_recordings_have_no_problems(real_data: Path) -> None:
    assert summarise_dataset(datasets.load_dataset("urbansound8k", real_data / "urbansound8k")).problems == ()


class TestSelected:
    def test_held_out_and_dropped_clips_are_no_problem(self, nsynth: Path) -> None:
        dataset = select(datasets.load_dataset("nsynth", nsynth), set_aside=0.2, per_class=2)
        found = summarise_dataset(dataset)
        assert found.problems == ()
        assert found.holdout == len(dataset.holdout) > 0
        assert found.remarks == dataset.remarks != ()
        assert found.clips == len(dataset.clips) < 60
        assert summarise_dataset(select(datasets.load_dataset("nsynth", nsynth), per_class=2)).folds == {
            1: 20,
            2: 20,
            3: 20,
        }

    def test_groups_shared_with_training_list_are_a_problem(self, nsynth: Path) -> None:
        dataset = datasets.load_dataset("nsynth", nsynth)
        clips, folds = dataset.clips, dataset.clips["fold"]
        shared = dataclasses.replace(
            dataset, clips=clips.assign(group=clips["group"].where(folds == TRAIN_FOLD, "one"))
        )
        assert summarise_dataset(shared).problems == ()
        leaking = dataclasses.replace(dataset, clips=clips.assign(group="one"))
        assert "groups in more than one fold" in summarise_dataset(leaking).problems[0]


def test_summarise_dataset_without_decoding_opens_no_clip(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.data_summary.read_info", None)
    (table.parent / "a" / "left over.wav").touch()
    found = summarise_dataset(datasets.load_dataset("folder", table), decode=False)
    assert (found.clips, found.classes, found.seconds, found.formats) == (8, {"a": 4, "b": 4}, {}, {})
    assert found.problems == ("audio files that are not clips: a/left over.wav",)
