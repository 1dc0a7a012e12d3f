"""The embedded recordings agree with their table, and their script plans the same notes."""

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
import soxr
from scipy import fft

from core import datasets
from core.datasets.sets.instruments import EMBEDDED_FOLDER

SCRIPT = Path(__file__).resolve().parents[4] / "scripts" / "render_instruments.py"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(EMBEDDED_FOLDER / "instruments.csv")


@pytest.fixture(scope="module")
def waveforms(table: pd.DataFrame) -> np.ndarray:
    """Return all notes, (600, 24000)."""
    read = [soundfile.read(EMBEDDED_FOLDER / path, dtype="float32") for path in table["path"]]
    assert {sr for _, sr in read} == {16_000}
    return np.stack([y for y, _ in read])


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_instruments", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # needed by dataclasses
    spec.loader.exec_module(module)
    return module


def test_load_instruments_without_root() -> None:
    dataset = datasets.load_dataset("instruments")
    families = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "vocal")
    assert dataset.class_names == families
    assert (dataset.sr, dataset.duration, dataset.n_frames) == (16_000, 1.5, 160)
    assert len(dataset.clips) == 600
    assert dataset.list_folds() == (1, 2, 3, 4, 5)


def test_instruments_have_twelve_notes_per_family_and_fold(table: pd.DataFrame) -> None:
    assert (table.groupby(["label", "fold"]).size() == 12).all()
    assert len(table.groupby(["label", "fold"])) == 50


def test_instruments_groups_are_in_one_fold(table: pd.DataFrame) -> None:
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    assert (table.groupby("gm")["soundfont"].nunique() == 2).all()
    assert not table.duplicated(["gm", "pitch"]).any()  # the soundfonts share samples, so no pitch is from both


def test_instruments_programs_of_same_recordings_are_one_group(table: pd.DataFrame, script: ModuleType) -> None:
    # From the sample tables of the soundfonts. An earlier version had these programs in different folds.
    for soundfont, programs in (
        ("fluidr3", (0, 1, 3)),
        ("musescore", (0, 1, 3)),
        ("fluidr3", (44, 48, 49)),
        ("musescore", (48, 49)),
        ("fluidr3", (62, 63)),
        ("musescore", (38, 39)),
        ("fluidr3", (76, 85)),  # blown bottle is the attack of voice lead, in another family
    ):
        rows = table[(table["soundfont"] == soundfont) & table["gm"].isin(programs)]
        assert rows["gm"].nunique() == len(programs)
        assert rows["group"].nunique() == 1
    lead, pad = table[table["gm"] == 85]["pitch"], table[table["gm"] == 91]["pitch"]
    assert lead.max() <= 60 < pad.min()  # one singer: both soundfonts change from one recording to the next above 60


def twins(table: pd.DataFrame, waveforms: np.ndarray, *, above: float) -> pd.DataFrame:
    """Find the pairs of notes in two folds whose correlation is above a limit, after alignment in pitch and time.

    A soundfont plays one recording at several pitches. Therefore the higher note of a pair is slowed down to the pitch
    of the lower one, and the lower note is low-pass filtered to the bandwidth of the slowed note. The correlation is
    the maximum over all lags. Pairs up to an octave apart are compared. The sum of the product of both magnitude
    spectra is an upper bound of the correlation at any lag, so the lags are computed for few pairs only.

    Returns
    -------
    pandas.DataFrame
        ``low``, ``high`` (rows of the table) and ``correlation``.
    """
    length = waveforms.shape[1]
    pitches, folds = table["pitch"].to_numpy(), table["fold"].to_numpy()
    padded = 2 * length
    spectra = fft.rfft(waveforms, padded, workers=-1)

    def spectrum(y: np.ndarray) -> np.ndarray:
        y = y[:, :length]
        return fft.rfft(y / np.linalg.norm(y, axis=1, keepdims=True), padded, workers=-1)

    found = []
    for semitones in range(13):
        lows = [np.flatnonzero(pitches == pitch) for pitch in np.unique(pitches)]
        ratio = 2 ** (semitones / 12)
        n = slowed_length(padded, ratio)
        slowed = spectrum(fft.irfft(spectra, n, workers=-1)) if semitones else spectrum(waveforms)
        band = np.where(np.arange(spectra.shape[1]) < spectra.shape[1] / ratio, spectra, 0).astype(np.complex64)
        kept = spectrum(fft.irfft(band, padded, workers=-1)) if semitones else slowed
        for low in lows:
            high = np.flatnonzero(pitches == pitches[low[0]] + semitones)
            bound = 2 * np.abs(kept[low]) @ np.abs(slowed[high]).T / padded  # both halves of the spectrum
            wanted = (folds[low][:, None] != folds[high]) & ((low[:, None] < high) | (semitones > 0))
            i, j = np.nonzero((bound > above) & wanted)
            lags = fft.irfft(kept[low[i]].conj() * slowed[high[j]], padded, axis=1)
            correlation = np.abs(lags).max(axis=1, initial=0)
            found += [pair for pair in zip(low[i], high[j], correlation, strict=True) if pair[2] > above]
    return pd.DataFrame(found, columns=["low", "high", "correlation"])


def slowed_length(padded: int, ratio: float) -> int:
    """Return an even length within 0.02 % (0.4 cents) of the slowed note whose Fourier transform is fast."""
    near = range(2 * round(padded * ratio / 2) - 8, 2 * round(padded * ratio / 2) + 9, 2)
    return min(near, key=lambda n: max(prime_factors(n)))


def prime_factors(n: int) -> list[int]:
    """Factor a number, smallest prime first."""
    factors, divisor = [], 2
    while n > 1:
        while n % divisor == 0:
            factors.append(divisor)
            n //= divisor
        divisor += 1
    return factors


def test_instruments_have_no_twins_across_folds(table: pd.DataFrame, waveforms: np.ndarray) -> None:
    # The highest correlation is 0.894. If groups were single programs, 47 pairs would be above 0.9.
    assert twins(table, waveforms, above=0.9).empty


def test_twins_finds_shifted_recording(table: pd.DataFrame, waveforms: np.ndarray) -> None:
    row = table.index[table["program"] == "cello"][0]
    faster = soxr.resample(waveforms[row], 2 ** (7 / 12), 1)
    later = np.zeros_like(waveforms[row])
    later[500 : 500 + len(faster)] = faster
    pair = pd.DataFrame({"pitch": [50, 57], "fold": [1, 2]})
    assert twins(pair, np.stack([waveforms[row], later]), above=0.9)["correlation"].tolist() == [
        pytest.approx(1.0, abs=0.08)
    ]
    assert twins(pair.assign(fold=1), np.stack([waveforms[row], later]), above=0.9).empty


def test_instruments_are_audible_and_not_clipped(waveforms: np.ndarray) -> None:
    assert waveforms.shape == (600, 24_000)
    peaks = np.abs(waveforms).max(axis=1)
    assert peaks.min() > 0.02
    assert peaks.max() < 1.0
    assert np.abs(waveforms[:, -1]).max() < 0.01  # faded out, no click


@pytest.mark.parametrize("program", ["fingered bass", "trumpet", "choir aahs"])
def test_instruments_have_the_pitch_of_the_table(program: str, table: pd.DataFrame, waveforms: np.ndarray) -> None:
    for row in table.index[table["program"] == program]:
        y = waveforms[row, 2_400:16_000]
        f0 = np.median(librosa.yin(y, fmin=25, fmax=3_000, sr=16_000, frame_length=4096))
        assert librosa.hz_to_midi(f0) == pytest.approx(table.loc[row, "pitch"], abs=0.5)


def test_instruments_are_small_and_licensed() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED_FOLDER.rglob("*") if path.is_file()) <= 5.5e6
    notice = (EMBEDDED_FOLDER / "NOTICE").read_text(encoding="utf-8")
    assert "Copyright (c) 2000-2002, 2008 Frank Wen" in notice
    assert "Copyright (c) 2018-2021 S. Christian Collins" in notice
    assert "Permission is hereby granted, free of charge" in notice


def test_render_script_plans_the_table(script: ModuleType) -> None:
    with (EMBEDDED_FOLDER / "instruments.csv").open(encoding="utf-8", newline="") as file:
        stored = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in asdict(note).items()} for note in script.plan_notes()] == stored
