"""What a network's answer rests on where inputs are features: bars with their names, and all classes side by side.

A spectrogram's figures draw numbers as colours; features have units of their own, and no range of colours in common.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.attribution import AttributionMaps
from analysis.attribution.map_figures import colour_limit, escape_mathtext, make_heading
from analysis.output.image_view import ImageAxes
from analysis.output.style import COLOURS, COLUMN_WIDTH, PAGE_WIDTH, with_style

MAX_FEATURES = 15  # features in a clip's figure
MAX_FEATURES_PER_PANEL = 5  # in a figure of several clips
TICK_FONT_SIZE = 5  # points


@with_style
def make_clip_figure(
    maps: AttributionMaps, clip: int, label: int, image_axes: ImageAxes, class_names: Sequence[str]
) -> Figure:
    """Draw the features that a clip's answer rests on most, signed, each with its value.

    Parameters
    ----------
    maps, clip
        The attributions, and which of their clips.
    label
        The clip's class.
    scale
        Whose axis across has the features' names.
    class_names
        Of the data set.
    """
    figure = Figure(
        figsize=(COLUMN_WIDTH, 0.9 + 0.16 * min(MAX_FEATURES, len(image_axes.across.names))), layout="constrained"
    )
    ax = figure.subplots()
    _draw_bars(ax, maps, clip, image_axes, MAX_FEATURES)
    ax.set_xlabel(f"Attribution ({'logit per unit' if maps.method == 'saliency' else 'logit'})")
    figure.suptitle(make_heading(maps, clip, label, class_names).replace("; ", "\n"), fontsize=6)
    return figure


@with_style
def make_paper_figure(
    maps: AttributionMaps, clips: Sequence[int], labels: np.ndarray, image_axes: ImageAxes, names: Sequence[str]
) -> Figure:
    """Draw the strongest features of several clips, two clips side by side."""
    down = -(-len(clips) // 2)
    figure = Figure(figsize=(PAGE_WIDTH, 0.5 + 1.1 * down), layout="constrained")
    axes = figure.subplots(down, 2, squeeze=False)
    for ax in axes.flat[len(clips) :]:
        ax.set_axis_off()
    for ax, clip in zip(axes.flat, clips, strict=False):
        _draw_bars(ax, maps, clip, image_axes, MAX_FEATURES_PER_PANEL)
        true, said = names[labels[clip]], names[int(maps.logits[clip].argmax())]
        ax.set_title(escape_mathtext(true if true == said else f"{true}, taken for {said}"), fontsize=7, loc="left")
    figure.suptitle(escape_mathtext(f"{maps.method} against {maps.baseline}, in logits"), fontsize=8)
    return figure


@with_style
def make_profiles_figure(profiles: pd.DataFrame) -> Figure:
    """Draw what share of each row's attribution is on which feature: ``class``, ``name``, ``share``."""
    names, rows = list(dict.fromkeys(profiles["name"])), list(dict.fromkeys(profiles["class"]))
    even = profiles.pivot(index="class", columns="name", values="share").loc[rows, names].to_numpy() * len(names)
    figure = Figure(figsize=(PAGE_WIDTH, 1.9 + 0.2 * len(rows)), layout="constrained")
    ax = figure.subplots()
    drawn = ax.imshow(even, cmap="cividis", aspect="auto", vmin=0, vmax=colour_limit(even), interpolation="none")
    ax.set_yticks(range(len(rows)), [escape_mathtext(row) for row in rows])
    ax.set_xticks(range(len(names)), [escape_mathtext(name) for name in names], rotation=90, fontsize=TICK_FONT_SIZE)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=ax, label="|attribution|, times even", extend="max")
    bar.outline.set_visible(False)
    return figure


def _draw_bars(ax: Axes, maps: AttributionMaps, clip: int, image_axes: ImageAxes, count: int) -> None:
    """Draw the `count` strongest features of a clip, the strongest on top."""
    found, values = maps.channel_sum[clip].ravel(), maps.inputs[clip].ravel()
    strongest = np.argsort(-np.abs(found), kind="stable")[:count]
    ax.barh(range(len(strongest)), found[strongest], color=[COLOURS[int(found[k] < 0)] for k in strongest])
    ax.set_yticks(
        range(len(strongest)),
        [escape_mathtext(f"{image_axes.across.names[k]} = {values[k]:.3g}") for k in strongest],
        fontsize=6,
    )
    ax.axvline(0, color="black", linewidth=0.6)
    ax.invert_yaxis()
