"""The embedded recordings are what their table says, and their script can make them again."""

import csv
import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile

from core import datasets
from core.datasets.instruments import EMBEDDED

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "render_instruments.py"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(EMBEDDED / "instruments.csv")


@pytest.fixture(scope="module")
def waveforms(table: pd.DataFrame) -> np.ndarray:
    """All notes, shape (600, 24000)."""
    read = [soundfile.read(EMBEDDED / path, dtype="float32") for path in table["path"]]
    assert {sr for _, sr in read} == {16_000}
    return np.stack([y for y, _ in read])


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_instruments", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_loads_without_a_root_with_the_ten_families() -> None:
    dataset = datasets.load("instruments")
    families = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "vocal")
    assert dataset.class_names == families
    assert (dataset.sr, dataset.duration, dataset.n_frames) == (16_000, 1.5, 160)
    assert len(dataset.clips) == 600
    assert dataset.fold_numbers() == (1, 2, 3, 4, 5)


def test_every_family_has_twelve_notes_in_every_fold(table: pd.DataFrame) -> None:
    assert (table.groupby(["label", "fold"]).size() == 12).all()
    assert len(table.groupby(["label", "fold"])) == 50


def test_no_program_is_in_two_folds_and_each_comes_from_both_soundfonts(table: pd.DataFrame) -> None:
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    assert (table.groupby("group")["soundfont"].nunique() == 2).all()
    assert not table.duplicated(["group", "pitch"]).any()  # the soundfonts share samples: no pitch from both


def test_families_overlap_in_pitch(table: pd.DataFrame) -> None:
    ranges = table.groupby("label")["pitch"].agg(["min", "max"])
    assert ranges["min"].max() < ranges["max"].min()


def test_every_note_is_audible_unclipped_and_of_one_length(waveforms: np.ndarray) -> None:
    assert waveforms.shape == (600, 24_000)
    peaks = np.abs(waveforms).max(axis=1)
    assert peaks.min() > 0.02
    assert peaks.max() < 1.0
    assert np.abs(waveforms[:, -1]).max() < 0.01  # faded out, no click


def test_released_within_the_clip(table: pd.DataFrame, waveforms: np.ndarray) -> None:
    organs = waveforms[(table["label"] == "organ").to_numpy()]  # steady while held
    held, released = organs[:, 8_000:16_000], organs[:, 23_000:]
    assert np.median(np.sqrt((released**2).mean(axis=1) / (held**2).mean(axis=1))) < 0.2


@pytest.mark.parametrize(
    "program", ["fingered bass", "trumpet", "flute", "nylon guitar", "oboe", "cello", "choir aahs"]
)
def test_pitch_is_the_one_asked_for(program: str, table: pd.DataFrame, waveforms: np.ndarray) -> None:
    for row in table.index[table["program"] == program]:
        y = waveforms[row, 2_400:16_000]
        f0 = np.median(librosa.yin(y, fmin=25, fmax=3_000, sr=16_000, frame_length=4096))
        assert librosa.hz_to_midi(f0) == pytest.approx(table.loc[row, "pitch"], abs=0.5)


def test_small_enough_to_embed_and_licensed() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) <= 5.5e6
    notice = (EMBEDDED / "NOTICE").read_text(encoding="utf-8")
    assert "Copyright (c) 2000-2002, 2008 Frank Wen" in notice
    assert "Copyright (c) 2018-2021 S. Christian Collins" in notice
    assert "Permission is hereby granted, free of charge" in notice


def test_script_still_plans_exactly_the_table(script: ModuleType) -> None:
    with (EMBEDDED / "instruments.csv").open(encoding="utf-8", newline="") as file:
        stored = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in asdict(note).items()} for note in script.plan_notes()] == stored


def test_written_files_repeat_byte_for_byte(script: ModuleType, tmp_path: Path) -> None:
    y = np.sin(np.arange(24_000) / 10).astype(np.float32)
    paths = [tmp_path / "a.ogg", tmp_path / "b.ogg"]
    for path in paths:
        soundfile.write(path, y, 16_000, format="OGG", subtype="VORBIS")
    drawn = [soundfile.read(path)[0] for path in paths]
    for path in paths:
        script.fix_serial(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    np.testing.assert_array_equal(soundfile.read(paths[0])[0], drawn[0])
