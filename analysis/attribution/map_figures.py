"""Figures of attribution maps next to the spectrograms of the clips, with axes in Hz and seconds.

Each function takes computed data and returns a figure that is one or two columns of a paper wide. In a figure, all maps
of a network have the same colour range. It ends at the 99.5th percentile, because a few pixels have much larger values;
arrows at the ends of the colour bars show this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from analysis.attribution import AttributionMaps
from analysis.output.image_view import ImageAxes, draw_image, spread_ticks, tick_positions
from analysis.output.style import COLUMN_WIDTH, PAGE_WIDTH, escape_mathtext, pick_colour, scale_font, with_style

COLOUR_PERCENTILE = 99.5  # upper end of the colour range of attributions
FEATURE_FONT_SIZE = 5  # points
ORDER_LABELS = {"attribution": "attribution", "energy": "loudest first", "random": "random"}


def colour_limit(values: np.ndarray) -> float:
    """Return the upper end of the colour range of attributions, above 0."""
    return float(np.percentile(np.abs(values), COLOUR_PERCENTILE)) or 1.0


def attribution_unit(maps: AttributionMaps, image_axes: ImageAxes) -> str:
    """Return the unit of attributions: logit, or for saliency logit per unit of the input."""
    return f"logit per {image_axes.unit or 'unit'}" if maps.method == "saliency" else "logit"


def make_heading(maps: AttributionMaps, clip: int, label: int, class_names: Sequence[str]) -> str:
    """Return a title of two lines: true and predicted class; method, target, baseline and completeness error."""
    indices = label, int(maps.logits[clip].argmax())
    true_class, predicted_class = (maps.describe_class(clip, index, class_names) for index in indices)
    prediction = f"true: {true_class}, predicted: {predicted_class}"
    method = f"{maps.method} of the logit of {class_names[int(maps.target[clip])]} against {maps.baseline}"
    if np.isnan(maps.convergence_delta[clip]):
        return escape_mathtext(f"{prediction}\n{method}")
    error = f"completeness error {maps.error[clip]:.1%} at {maps.steps[clip]} steps"
    if not np.isfinite(maps.error[clip]):
        error = "completeness error undefined, because the baseline has the same logit"
    return escape_mathtext(f"{prediction}\n{method}; {error}")


@with_style
def make_clip_figure(
    maps: AttributionMaps, clip: int, label: int, image_axes: ImageAxes, class_names: Sequence[str]
) -> Figure:
    """Draw spectrogram, signed and absolute attributions of a clip: one row for all channels, and one for each channel.

    Parameters
    ----------
    maps
        Attribution maps.
    clip
        Index of the clip in `maps`.
    label
        Index of the true class.
    image_axes
        Axes, channels and unit of the images.
    class_names
        Names of all classes.
    """
    image, attribution = maps.inputs[clip], maps.attributions[clip]
    figure = Figure(figsize=(PAGE_WIDTH, 6.6), layout="constrained")
    axes = figure.subplots(1 + len(image), 3, squeeze=False)
    unit = f"Attribution ({attribution_unit(maps, image_axes)})"
    signed = [attribution.sum(axis=0), *attribution]
    absolute = [np.abs(attribution).sum(axis=0), *np.abs(attribution)]
    top = colour_limit(signed[0])
    columns = (
        _FigureColumn(
            _input_title(image_axes),
            [image.mean(axis=0), *image],
            unit=image_axes.unit,
            **_input_colours(image_axes, image),
        ),
        _FigureColumn("Attribution, signed", signed, "RdBu_r", -top, top, unit, "both"),
        _FigureColumn("Attribution, absolute", absolute, "inferno", 0.0, colour_limit(absolute[0]), unit, "max"),
    )
    for j, column in enumerate(columns):
        for k, (ax, values) in enumerate(zip(axes[:, j], column.images, strict=True)):
            labelled = ("x" if k == len(image) else "") + ("y" if j == 0 else "")
            artist = draw_image(
                values, image_axes, ax, cmap=column.cmap, low=column.low, high=column.high, labelled=labelled
            )
        axes[0, j].set_title(column.title)
        options: dict[str, Any] = {"location": "bottom", "shrink": 0.9, "aspect": 30, "extend": column.extend}
        _add_colour_bar(figure, artist, axes[:, j], column.unit, **options)
    for ax, name in zip(axes[:, 0], ("all channels", *image_axes.channels), strict=True):
        ax.set_ylabel(f"{name}\n{image_axes.down.label}".strip())
    figure.suptitle(make_heading(maps, clip, label, class_names), fontsize=scale_font(8))
    return figure


@dataclass(frozen=True)
class _FigureColumn:
    """A column of the figure of a clip: images with a common colour range."""

    title: str
    images: Sequence[np.ndarray]
    cmap: str
    low: float
    high: float
    unit: str
    extend: str = "neither"


@with_style
def make_paper_figure(
    maps: AttributionMaps, clips: Sequence[int], labels: np.ndarray, image_axes: ImageAxes, names: Sequence[str]
) -> Figure:
    """Draw input and absolute attribution in two columns (Palanisamy et al. 2020, figure 3), one row per clip.

    Inputs are the mean over the channels. Attributions are the sum of their absolute values over the channels. Each
    column has one colour range.
    """
    figure = Figure(figsize=(COLUMN_WIDTH, 0.9 + 1.0 * len(clips)), layout="constrained")
    rows = figure.subplots(len(clips), 2, squeeze=False, sharex=True)
    images, top = maps.inputs[clips].mean(axis=1), absolute_limit(maps, clips)
    input_colours = _input_colours(image_axes, images)
    for k, (clip, image, (left, right)) in enumerate(zip(clips, images, rows, strict=True)):
        x = "x" if k == len(clips) - 1 else ""
        inputs = draw_image(image, image_axes, left, labelled=f"{x}y", **input_colours)
        absolute = np.abs(maps.attributions[clip]).sum(axis=0)
        attributions = draw_image(absolute, image_axes, right, cmap="inferno", low=0.0, high=top, labelled=x)
        true, predicted = names[labels[clip]], names[int(maps.logits[clip].argmax())]
        left.set_title(escape_mathtext(true), fontsize=scale_font(7), loc="left")
        right.set_title(
            "" if predicted == true else escape_mathtext(f"predicted {predicted}"), fontsize=scale_font(7), loc="left"
        )
    _add_colour_bar(figure, inputs, rows[:, 0], image_axes.unit, location="bottom")
    label = f"|attribution| ({attribution_unit(maps, image_axes)})"
    _add_colour_bar(figure, attributions, rows[:, 1], label, location="bottom", extend="max")
    return figure


def absolute_limit(maps: AttributionMaps, clips: Sequence[int]) -> float:
    """Return the upper end of the colour range of absolute attributions, summed over the channels of some clips."""
    return colour_limit(np.abs(maps.attributions[clips]).sum(axis=1))


@with_style
def make_comparison_figure(
    compared: Mapping[str, AttributionMaps],
    clips: Sequence[int],
    labels: np.ndarray,
    image_axes: ImageAxes,
    names: Sequence[str],
) -> Figure:
    """Draw the maps of the same clips for several networks side by side; the title of a map is the predicted class.

    Attributions are summed over the channels. Each network has its own colour range, because the attributions of
    networks differ by orders of magnitude.
    """
    first = next(iter(compared.values()))
    figure = Figure(figsize=(PAGE_WIDTH, 1.0 + 1.05 * len(clips)), layout="constrained")
    rows = figure.subplots(len(clips), 1 + len(compared), squeeze=False)
    images = first.inputs[clips].mean(axis=1)
    tops = [colour_limit(maps.channel_sum[clips]) for maps in compared.values()]
    input_colours = _input_colours(image_axes, images)
    for k, (clip, image, (left, *others)) in enumerate(zip(clips, images, rows, strict=True)):
        x = "x" if k == len(clips) - 1 else ""
        inputs = draw_image(image, image_axes, left, labelled=f"{x}y", **input_colours)
        left.set_title(escape_mathtext(names[labels[clip]]), fontsize=scale_font(6))
        for ax, top, (condition, maps) in zip(others, tops, compared.items(), strict=True):
            draw_image(maps.channel_sum[clip], image_axes, ax, cmap="RdBu_r", low=-top, high=top, labelled=x)
            prediction = maps.describe_class(clip, int(maps.logits[clip].argmax()), names)
            ax.set_title(
                escape_mathtext(f"{condition}\n{prediction}" if k == 0 else prediction), fontsize=scale_font(6)
            )
    _add_colour_bar(figure, inputs, rows[:, 0], image_axes.unit, location="bottom")
    for column in rows.T[1:]:
        unit = attribution_unit(first, image_axes)
        _add_colour_bar(figure, column[0].images[0], column, unit, location="bottom", extend="both")
    return figure


@with_style
def make_curves_figure(frame: pd.DataFrame, title: str) -> Figure:
    """Draw deletion and insertion curves of `faithfulness.average_curves`, with 95 % intervals over the recordings."""
    figure = Figure(figsize=(PAGE_WIDTH, 2.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    directions = ("lower is better", "higher is better")
    for ax, curve, better in zip(panels, ("deletion", "insertion"), directions, strict=True):
        for n, (order, name) in enumerate(ORDER_LABELS.items()):
            part = frame[(frame["curve"] == curve) & (frame["order"] == order)]
            x = 100 * part["fraction"]
            ax.plot(x, part["softmax"], color=pick_colour(n), label=name)
            ax.fill_between(x, part["low"], part["high"], color=pick_colour(n), alpha=0.15, linewidth=0)
        action = "replaced by the baseline" if curve == "deletion" else "shown"
        ax.set(xlabel=f"Image {action} (%)", title=f"{curve.capitalize()}: {better}", ylim=(0, 1.02))
    panels[0].set_ylabel("Softmax output of the target")
    panels[0].legend(loc="upper right")
    figure.suptitle(escape_mathtext(title), fontsize=scale_font(8))
    return figure


@with_style
def make_profiles_figure(profiles: pd.DataFrame, image_axes: ImageAxes) -> Figure:
    """Draw `class_profiles`: the distribution of the attribution of each class over frequency and time, or features."""
    names = list(dict.fromkeys(profiles["class"]))
    axes = [axis for axis in (image_axes.down, image_axes.across) if len(axis.values) > 1]
    height = 1.9 if image_axes.across.names else 1.1  # names of features are vertical
    figure = Figure(figsize=(PAGE_WIDTH, height + 0.22 * len(names)), layout="constrained")
    for ax, axis in zip(figure.subplots(1, len(axes), sharey=True, squeeze=False)[0], axes, strict=True):
        part = profiles[profiles["axis"] == axis.name].pivot(index="class", columns="index", values="share").loc[names]
        relative = part.to_numpy() * part.shape[1]  # 1: the share of a uniform map
        first, last = (0, part.shape[1]) if axis.ticks or axis.names else axis.edges
        artist = ax.imshow(
            relative,
            cmap="cividis",
            aspect="auto",
            extent=(first, last, len(names) - 0.5, -0.5),
            vmin=0,
            vmax=colour_limit(relative),
            interpolation="none",
        )
        ax.set_yticks(range(len(names)), [escape_mathtext(name) for name in names])
        if axis.ticks:
            ticks = spread_ticks(axis, 1 / 12)
            ax.set_xticks(tick_positions(axis, ticks) + 0.5, [f"{tick:g}" for tick in ticks])
        if axis.names:
            features = [escape_mathtext(name) for name in axis.names]
            ax.set_xticks(np.arange(len(features)) + 0.5, features, rotation=90, fontsize=scale_font(FEATURE_FONT_SIZE))
        else:
            ax.set(xlabel=axis.label)
        ax.spines[:].set_visible(False)
    _add_colour_bar(figure, artist, figure.axes, "|attribution| relative to uniform", extend="max")
    return figure


def _add_colour_bar(figure: Figure, artist: ScalarMappable, axes: Any, label: str, **options: Any) -> None:
    bar = figure.colorbar(artist, ax=axes, label=label, **options)
    bar.outline.set_visible(False)
    if options.get("location") == "bottom":
        bar.ax.locator_params(nbins=4)


def _input_colours(image_axes: ImageAxes, images: np.ndarray) -> dict[str, Any]:
    """Return the colour map and range of inputs: from the floor to their maximum."""
    low = float(np.min([image_axes.silence, images.min()]))
    return {"cmap": "magma", "low": low, "high": float(images.max()) + 1e-9}


def _input_title(image_axes: ImageAxes) -> str:
    return "Spectrogram" if len(image_axes.down.values) > 1 else "Input"
