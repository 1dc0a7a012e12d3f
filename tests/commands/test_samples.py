"""The command ``samples``: images and sounds of every class."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

from core.errors import UserError
from run_ablation import main

SMALL = ["--n-mels", "32", "--n-frames", "32", "--sr", "8000", "--duration", "0.75", "--device", "cpu"]


def run_samples(sounds: Path, results: Path, *words: str) -> int:
    return main(["samples", "--data", "folder", "--data-root", str(sounds), "--results", str(results), *SMALL, *words])


def test_samples_writes_images_and_sounds_of_every_class(sounds: Path, tmp_path: Path) -> None:
    assert run_samples(sounds, tmp_path, "--per-class", "2") == 0
    (folder,) = tmp_path.glob("samples/*")
    described = json.loads((folder / "analysis.json").read_text())
    maps = [item for item in described["items"] if item["kind"] == "map"]
    assert [item["class"] for item in maps] == ["high", "high", "low", "low", "middle", "middle"]
    for item in maps:
        y, sr = soundfile.read(folder / item["sound"])
        original, _ = soundfile.read(sounds / item["clip"])
        assert (len(y), sr) == (6000, 8000)
        np.testing.assert_allclose(y[: len(original)], original, atol=1e-3)  # padded with silence
        assert not y[len(original) :].any()
    assert (folder / "samples.png").stat().st_size > 1000
    assert not list((tmp_path / "runs").glob("*/run.json"))


def test_samples_waveform_is_drawn_as_a_line(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []

    def keep(figure: Figure, *arguments: Any, **options: Any) -> list[Path]:
        figures.append(figure)
        return []

    monkeypatch.setattr("analysis.plots.input_samples.save_figure", keep)
    words = ["--input", "waveform", "--backbone", "soundnet8_1d", "--weights", "random", "--normalise", "train"]
    assert run_samples(sounds, tmp_path, *words) == 0
    for ax, label in zip(figures[0].axes, ("high", "low", "middle"), strict=True):  # no colour bar
        assert (ax.get_title(), len(ax.images), len(ax.collections)) == (label, 0, 1)
        outline = ax.collections[0].get_paths()[0].vertices
        y, _ = soundfile.read(next((sounds / label).glob("0.wav")))
        assert np.abs(outline[:, 1]).max() == pytest.approx(np.abs(y).max(), abs=0.1)
        assert outline[:, 0].max() == pytest.approx(0.75, abs=0.01)


def test_report_has_the_sounds_of_samples(sounds: Path, tmp_path: Path) -> None:
    assert run_samples(sounds, tmp_path) == 0
    assert main(["report", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "report" / "index.html").read_text().count("data:audio/wav") == 3


def test_samples_several_inputs_are_refused(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="samples draws one kind of input, not 2: give every option a single value"):
        run_samples(sounds, tmp_path, "--fmin", "0", "100")
