"""Sampling rate, clip length and image width from the recordings, and advice on other values."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import encode_av

from core.audio.decoding import decode_blocks
from core.datasets import load_dataset
from core.datasets.clip_settings import ClipSettings, describe_clip_advice, describe_clip_settings
from core.datasets.dataset import Dataset
from core.plan import Plan, list_dataset_notes, make_plan


def write(root: Path, seconds: Sequence[float], *, sr: Sequence[int] = (8_000,), band: float = 1.0) -> Path:
    """Write noise below `band` of half the sampling rate: lengths and rates in turn, two classes; return the folder."""
    for number, length in enumerate(seconds):
        rate = sr[number % len(sr)]
        spectrum = np.fft.rfft(np.random.default_rng(number).standard_normal(round(length * rate)))
        spectrum[round(band * len(spectrum)) :] = 0
        y = 0.1 * np.fft.irfft(spectrum, round(length * rate))
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "ab"[number % 2] / f"{number}.wav", y, rate, subtype="FLOAT")
    return root


def settings_of(dataset: Dataset) -> tuple[int, float, int]:
    return dataset.sr, dataset.duration, dataset.n_frames


class TestChoice:
    @pytest.mark.parametrize(
        ("seconds", "sr", "expected"),
        [
            ([0.413] * 10, [8_000], (8_000, 0.42, 100)),
            ([0.5] * 38 + [3.0] * 2, [8_000], (8_000, 0.5, 100)),  # 95 % are covered
            ([0.5] * 30 + [1.83] * 10, [8_000], (8_000, 1.9, 190)),
            ([0.02] * 6, [8_000], (8_000, 0.1, 100)),
            ([12.0] * 4, [4_000], (4_000, 10.0, 250)),
            ([0.3] * 8, [44_100], (22_050, 0.3, 100)),
            ([0.3] * 8, [44_100, 16_000], (16_000, 0.3, 100)),
            ([0.3] * 20, [16_000] * 19 + [8_000], (16_000, 0.3, 100)),  # 5 % have the lower rate
            ([0.3] * 8, [1_000], (4_000, 0.3, 100)),
        ],
    )
    def test_load_chooses_settings(
        self, seconds: list[float], sr: list[int], expected: tuple[int, float, int], tmp_path: Path
    ) -> None:
        assert settings_of(load_dataset("folder", write(tmp_path, seconds, sr=sr))) == expected

    def test_load_m4a_chooses_settings(self, tmp_path: Path) -> None:
        for number in range(4):
            y = np.random.default_rng(number).uniform(-0.5, 0.5, 16_000).astype(np.float32)
            (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
            file = tmp_path / "ab"[number % 2] / f"{number}.m4a"
            file.write_bytes(encode_av(y, container="mp4", codec="aac", sr=16_000))
        sr, duration, n_frames = settings_of(load_dataset("folder", tmp_path))
        assert (sr, n_frames) == (16_000, round(100 * duration))
        assert 1.0 <= duration <= 1.2  # the encoder adds silence

    def test_load_without_headers_keeps_defaults(self, tmp_path: Path) -> None:
        for number in range(4):
            (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
            (tmp_path / "ab"[number % 2] / f"{number}.wav").write_bytes(bytes([number]) * 99)
        dataset = load_dataset("folder", tmp_path)
        assert settings_of(dataset) == (22_050, 4.0, 250)
        assert describe_clip_settings(dataset, *settings_of(dataset)) == []
        assert describe_clip_advice(dataset, ClipSettings(22_050, 4.0)) == []

    def test_load_again_reads_no_header(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = write(tmp_path / "sounds", [0.3] * 8)
        (root / "a" / "bad.wav").write_bytes(b"bad")
        first = load_dataset("folder", root, cache=tmp_path / "cache")
        monkeypatch.setattr("core.datasets.clip_settings.read_file_header", None)
        again = load_dataset("folder", root, cache=tmp_path / "cache")
        assert again.headers == first.headers
        assert len(again.headers) == 8
        assert settings_of(again) == settings_of(first)
        (root / "a" / "0.wav").write_bytes(b"changed")
        with pytest.raises(TypeError, match="not callable"):
            load_dataset("folder", root, cache=tmp_path / "cache")

    def test_load_decodes_no_recording(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = write(tmp_path, [0.3] * 8)
        monkeypatch.setattr("core.audio.decoding._decode", None)
        with (root / "a" / "0.wav").open("rb", buffering=0) as file, pytest.raises(TypeError, match="not callable"):
            next(decode_blocks(file))
        assert load_dataset("folder", root).duration == 0.3

    def test_official_and_embedded_sets_are_unchanged(self) -> None:
        dataset = load_dataset("instruments")
        assert settings_of(dataset) == (16_000, 1.5, 160)
        assert describe_clip_advice(dataset, ClipSettings(16_000, 60.0)) == []


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return 20 recordings of 0.4 and 0.5 s at 8 kHz."""
    return load_dataset("folder", write(tmp_path_factory.mktemp("sounds"), [0.4, 0.5] * 10))


class TestAdvice:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            (ClipSettings(8_000, 0.5), []),
            (ClipSettings(8_000, 4.0), ["89 % of the input is padding: --duration 0.5"]),
            (ClipSettings(8_000, 4.0, fit="crop"), ["89 % of the input is padding: --duration 0.5"]),
            (ClipSettings(8_000, 4.0, fit="loop"), []),
            (ClipSettings(22_050, 0.5), ["no energy above 4000 Hz: --sr 8000"]),
            (ClipSettings(22_050, 0.5, fmax=4_000.0), []),
            (
                ClipSettings(8_000, 0.45),
                [
                    "50 % of the clips are longer than --duration 0.45, so only their start is used: "
                    "--duration 0.5 covers 95 % of them"
                ],
            ),
            (ClipSettings(8_000, 0.45, random_crop=True), []),
            (ClipSettings(8_000, 0.45, fit="stretch"), []),
            (ClipSettings(4_000, 0.5), ["50 % of the energy is above 2000 Hz: --sr 8000"]),
        ],
    )
    def test_describe_clip_advice(self, settings: ClipSettings, expected: list[str], speech: Dataset) -> None:
        assert describe_clip_advice(speech, settings) == expected

    def test_padding_of_chosen_length_has_another_remedy(self, tmp_path: Path) -> None:
        dataset = load_dataset("folder", write(tmp_path, [0.1] * 14 + [2.0] * 2))
        (line,) = describe_clip_advice(dataset, ClipSettings(dataset.sr, dataset.duration))
        assert line.startswith("83 % of the input is padding: lengths vary, so try a shorter --duration")

    def test_silence_after_the_sound_is_found(self, tmp_path: Path) -> None:
        for path in sorted(write(tmp_path, [0.4] * 8).rglob("*.wav")):
            y, sr = soundfile.read(path)
            soundfile.write(path, np.append(y, np.full(round(0.6 * sr), 1e-5)), sr, subtype="FLOAT")
        dataset = load_dataset("folder", tmp_path)
        assert dataset.duration == 1.0
        (line,) = describe_clip_advice(dataset, ClipSettings(8_000, 1.0))
        assert line == "60 % of the input is padding or silence after the sound: --duration 0.4"
        assert describe_clip_advice(dataset, ClipSettings(8_000, 0.4)) == []
        assert describe_clip_advice(dataset, ClipSettings(8_000, 0.3)) == [
            "100 % of the clips are longer than --duration 0.3, so only their start is used: "
            "--duration 0.4 covers 95 % of them"
        ]
        assert describe_clip_advice(dataset, ClipSettings(8_000, 1.0, fit="loop")) == []

    def test_empty_band_of_upsampled_recordings_is_found(self, tmp_path: Path) -> None:
        dataset = load_dataset("folder", write(tmp_path, [0.5] * 8, sr=[44_100], band=4_000 / 22_050))
        assert describe_clip_advice(dataset, ClipSettings(44_100, 0.5)) == ["no energy above 4000 Hz: --sr 8000"]
        assert describe_clip_advice(dataset, ClipSettings(8_000, 0.5)) == []

    def test_describe_clip_settings_names_what_the_user_did_not_give(self, speech: Dataset) -> None:
        of_recordings = "chosen from recordings of 0.4 to 0.5 s at 8000 Hz"
        for values, options in {
            (8_000, 0.5, 100): "--sr 8000 --duration 0.5 --n-frames 100: ",
            (16_000, 0.5, 32): "--duration 0.5: ",
            (8_000, 4.0, 100): "--sr 8000: ",
        }.items():
            assert describe_clip_settings(speech, *values) == [options + of_recordings]
        assert describe_clip_settings(speech, 16_000, 4.0, 32) == []

    def test_measured_clips_are_few(self, speech: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("core.datasets.clip_settings.MAX_MEASURED_CLIPS", 3)
        opened: list[object] = []
        real = decode_blocks
        monkeypatch.setattr("core.datasets.clip_settings.decode_blocks", lambda f: opened.append(f) or real(f))
        assert describe_clip_advice(speech, ClipSettings(22_050, 0.5)) == ["no energy above 4000 Hz: --sr 8000"]
        assert len(opened) == 3

    def test_unreadable_recordings_are_passed_over(self, speech: Dataset, tmp_path: Path) -> None:
        moved = dataclasses.replace(speech, root=tmp_path)
        assert describe_clip_advice(moved, ClipSettings(22_050, 0.5)) == []


class TestPlan:
    def make(self, root: Path, **settings: object) -> Plan:
        point = {"data__name": "folder", "model__weights": "random", **settings}
        return make_plan("x", lambda base, _: {"x": base}, [point], roots=[root], cache=root.parent / "cache")

    def test_chosen_settings_are_in_run_and_notes(self, tmp_path: Path) -> None:
        plan = self.make(write(tmp_path / "sounds", [0.4] * 10))
        (run,) = plan.runs
        assert (run.clip.sr, run.clip.duration, run.frontend.n_frames, run.frontend.fmax) == (8_000, 0.4, 100, 4_000)
        notes = list_dataset_notes(plan)
        assert notes[1:] == [
            "folder: --sr 8000 --duration 0.4 --n-frames 100: chosen from recordings of 0.4 s at 8000 Hz"
        ]
        explicit = self.make(tmp_path / "sounds", clip__sr=8_000, clip__duration=0.4, frontend__n_frames=100)
        assert explicit.runs[0].id == run.id

    def test_given_settings_are_kept_and_advised_on(self, tmp_path: Path) -> None:
        plan = self.make(write(tmp_path / "sounds", [0.4] * 10), clip__duration=4.0, clip__sr=22_050)
        (run,) = plan.runs
        assert (run.clip.sr, run.clip.duration, run.frontend.n_frames) == (22_050, 4.0, 250)
        assert list_dataset_notes(plan)[1:] == [
            "folder: 90 % of the input is padding: --duration 0.4",
            "folder: no energy above 4000 Hz: --sr 8000",
        ]
