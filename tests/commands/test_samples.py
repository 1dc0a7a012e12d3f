"""The command ``samples``: images and sounds of every class."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure
from torch import nn

from core.errors import UserError
from core.models.input_transform.colour import ColourMap, ScaleToUnit
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


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the list of figures that the command draws instead of writing them."""
    drawn = []

    def keep(figure: Figure, *arguments: Any, **options: Any) -> list[Path]:
        drawn.append(figure)
        return []

    monkeypatch.setattr("analysis.output.style.save_figure", keep)
    return drawn


def test_samples_with_colours_shows_the_picture_of_the_network(
    sounds: Path, tmp_path: Path, figures: list[Figure]
) -> None:
    """Figure 1 of the report on NSynth: frequency along x, time along y, each image in its own range."""
    words = ["--n-fft", "256", "--hop-length", "64", "--colour", "viridis", "--value-range", "image"]
    assert run_samples(sounds, tmp_path, *words, "--time-axis", "y") == 0
    *panels, bar = figures[0].axes
    picture = nn.Sequential(ScaleToUnit(None), ColourMap("viridis"))
    for ax, label in zip(panels, ("high", "low", "middle"), strict=True):
        (drawn,) = ax.images
        values = np.asarray(drawn.get_array())
        received = picture(torch.tensor(values)[None, None])[0].permute(1, 2, 0)
        np.testing.assert_allclose(drawn.to_rgba(values)[..., :3], received, atol=0.01)
        assert ax.get_title() == f"{label}\n{values.min():.0f} to {values.max():.0f} dB"
    assert (panels[0].get_ylabel(), panels[0].get_xlabel()) == ("Time (s)", "Hz (mel)")
    assert len({tuple(ax.images[0].get_clim()) for ax in panels}) == 3
    assert bar.get_ylim() == (0, 1)


def test_samples_with_fixed_range_shows_the_range_of_the_network(
    sounds: Path, tmp_path: Path, figures: list[Figure]
) -> None:
    assert run_samples(sounds, tmp_path) == 0
    *panels, bar = figures[0].axes
    assert {tuple(ax.images[0].get_clim()) for ax in panels} == {(-60, 40)}  # received as 0 and 1
    assert bar.get_ylabel() == "dB"
    assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == ("Time (s)", "Hz (mel)")


def test_samples_with_normalise_train_are_in_standard_deviations(
    sounds: Path, tmp_path: Path, figures: list[Figure]
) -> None:
    assert run_samples(sounds, tmp_path, "--normalise", "train", "--per-class", "9") == 0
    *panels, bar = figures[0].axes
    assert bar.get_ylabel() == "standard deviations"
    values = np.stack([ax.images[0].get_array() for ax in panels if ax.images])
    assert values.mean() == pytest.approx(0, abs=0.5)
    assert values.std() == pytest.approx(1, abs=0.5)


def test_samples_waveform_is_drawn_as_a_line(sounds: Path, tmp_path: Path, figures: list[Figure]) -> None:
    words = ["--input", "waveform", "--backbone", "soundnet8_1d", "--weights", "random", "--normalise", "train"]
    assert run_samples(sounds, tmp_path, *words) == 0
    peaks = []
    for ax, label in zip(figures[0].axes, ("high", "low", "middle"), strict=True):  # no colour bar
        assert (ax.get_title(), len(ax.images), len(ax.collections)) == (label, 0, 1)
        outline = ax.collections[0].get_paths()[0].vertices
        y, _ = soundfile.read(next((sounds / label).glob("0.wav")))
        peaks.append(np.abs(outline[:, 1]).max() / np.abs(y).max())
        assert outline[:, 0].max() == pytest.approx(0.75, abs=0.01)
    assert peaks == pytest.approx([peaks[0]] * 3, rel=0.1)  # all divided by the same standard deviation


def test_report_has_the_sounds_of_samples(sounds: Path, tmp_path: Path) -> None:
    assert run_samples(sounds, tmp_path) == 0
    assert main(["report", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "report" / "index.html").read_text().count("data:audio/wav") == 3


def test_samples_several_inputs_are_refused(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="samples draws one kind of input, not 2: give every option a single value"):
        run_samples(sounds, tmp_path, "--fmin", "0", "100")
