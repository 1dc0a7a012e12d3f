"""Figures of attribution maps: colour bars and common ranges."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.attribution import AttributionMaps, map_figures
from analysis.output.image_view import ImageAxes
from core.inputs.base import Axis

NAMES = ("cat", "dog", "cow")
AXES = ImageAxes(
    (2, 8, 10), Axis.even("mel", "Hz", 8, 8), Axis.even("frame", "Time (s)", 10, 1.0), ("short", "long"), "dB", -60.0
)


def make_maps(scales: list[float]) -> AttributionMaps:
    """Return maps of clips whose attributions differ by a factor."""
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-60, 10, (len(scales), *AXES.shape)).astype(np.float32)
    attributions = rng.standard_normal(inputs.shape) * np.reshape(scales, (-1, 1, 1, 1))
    zeros, logits = np.zeros(len(scales)), rng.standard_normal((len(scales), len(NAMES)))
    return AttributionMaps(
        "integrated-gradients", "silence", inputs, inputs[:, None], attributions, None, zeros.astype(int), logits,
        *[zeros] * 3, np.full(len(scales), 64),
    )  # fmt: skip


def read_range(figure: Figure, column: int, columns: int) -> tuple[float, ...]:
    """Return the colour range of the images in a column of the panels, which must be equal."""
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    (found,) = {tuple(ax.images[0].get_clim()) for ax in panels[column::columns]}
    return found


def read_bar_labels(figure: Figure) -> list[str]:
    return [ax.get_xlabel() for ax in figure.axes if ax.get_label() == "<colorbar>"]


def test_paper_figure_has_one_range_and_a_colour_bar_for_each_column() -> None:
    maps = make_maps([1.0, 0.01])
    figure = map_figures.make_paper_figure(maps, [0, 1], np.array([0, 1]), AXES, NAMES)
    absolute = np.abs(maps.attributions).sum(axis=1)
    assert read_range(figure, 1, 2) == pytest.approx((0, np.percentile(absolute, 99.5)))
    assert read_range(figure, 0, 2) == pytest.approx((-60, maps.inputs.mean(axis=1).max()), abs=1e-3)
    assert read_bar_labels(figure) == ["dB", "|attribution| (logit)"]


def test_comparison_figure_has_one_range_and_a_colour_bar_for_each_network() -> None:
    compared = {"base": make_maps([1.0, 0.1]), "random": make_maps([100.0, 10.0])}
    figure = map_figures.make_comparison_figure(compared, [0, 1], np.array([0, 1]), AXES, NAMES)
    for column, maps in enumerate(compared.values(), start=1):
        top = np.percentile(np.abs(maps.attributions.sum(axis=1)), 99.5)
        assert read_range(figure, column, 3) == pytest.approx((-top, top))
    assert read_bar_labels(figure) == ["dB", "logit", "logit"]
