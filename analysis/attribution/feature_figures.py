"""Figures of attributions to named features: one bar per feature, labelled with the value of the feature.

Features have different units, so they cannot share a colour range as the pixels of a spectrogram do.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.attribution import AttributionMaps
from analysis.attribution.map_figures import attribution_unit, make_heading
from analysis.output.image_view import ImageAxes
from analysis.output.style import COLUMN_WIDTH, PAGE_WIDTH, escape_mathtext, pick_colour, scale_font, with_style

MAX_FEATURES = 15  # in the figure of one clip
MAX_FEATURES_PER_PANEL = 5  # in the figure of several clips


@with_style
def make_clip_figure(
    maps: AttributionMaps, clip: int, label: int, image_axes: ImageAxes, class_names: Sequence[str]
) -> Figure:
    """Draw the features with the largest absolute attribution for a clip, with sign and value.

    Parameters
    ----------
    maps
        Attribution maps.
    clip
        Index of the clip in `maps`.
    label
        Index of the true class.
    image_axes
        Axes of the inputs; the horizontal axis has the names of the features.
    class_names
        Names of all classes.
    """
    figure = Figure(
        figsize=(COLUMN_WIDTH, 0.9 + 0.16 * min(MAX_FEATURES, len(image_axes.across.names))), layout="constrained"
    )
    ax = figure.subplots()
    _draw_bars(ax, maps, clip, image_axes, MAX_FEATURES)
    ax.set_xlabel(f"Attribution ({attribution_unit(maps, image_axes)})")
    figure.suptitle(make_heading(maps, clip, label, class_names).replace("; ", "\n"), fontsize=scale_font(6))
    return figure


@with_style
def make_paper_figure(
    maps: AttributionMaps, clips: Sequence[int], labels: np.ndarray, image_axes: ImageAxes, names: Sequence[str]
) -> Figure:
    """Draw the features with the largest attribution for several clips, in two columns with a common axis range."""
    n_rows = -(-len(clips) // 2)
    figure = Figure(figsize=(PAGE_WIDTH, 0.5 + 1.1 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, 2, squeeze=False, sharex=True)
    for ax in axes.flat[len(clips) :]:
        ax.set_axis_off()
    for k, (ax, clip) in enumerate(zip(axes.flat, clips, strict=False)):
        _draw_bars(ax, maps, clip, image_axes, MAX_FEATURES_PER_PANEL)
        ax.tick_params(labelbottom=k + 2 >= len(clips))  # the last panel of each column
        true, predicted = names[labels[clip]], names[int(maps.logits[clip].argmax())]
        ax.set_title(
            escape_mathtext(true if true == predicted else f"{true}, predicted {predicted}"),
            fontsize=scale_font(7),
            loc="left",
        )
    figure.supxlabel(f"Attribution ({attribution_unit(maps, image_axes)})", fontsize=scale_font(8))
    return figure


def _draw_bars(ax: Axes, maps: AttributionMaps, clip: int, image_axes: ImageAxes, count: int) -> None:
    """Draw the `count` features of a clip with the largest absolute attribution, in descending order."""
    attribution, values = maps.channel_sum[clip].ravel(), maps.inputs[clip].ravel()
    strongest = np.argsort(-np.abs(attribution), kind="stable")[:count]
    ax.barh(
        range(len(strongest)), attribution[strongest], color=[pick_colour(int(attribution[k] < 0)) for k in strongest]
    )
    ax.set_yticks(
        range(len(strongest)),
        [escape_mathtext(f"{image_axes.across.names[k]} = {values[k]:.3g}") for k in strongest],
        fontsize=scale_font(6),
    )
    ax.axvline(0, color="black", linewidth=0.6)
    ax.invert_yaxis()
