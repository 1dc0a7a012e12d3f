"""Figures of a search: points for one option, a heat map for a grid of two, parallel coordinates for other searches."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.metrics.shared_runs import SINGLE_RUN
from analysis.output.number_format import option_title
from analysis.output.style import GREY, pick_colour, scale_font, with_style
from analysis.plots.axis_limits import limit_accuracy_axis, widen_range

SCORE = "validation_accuracy"
MAX_TICKS = 8  # up to this number of values of an option, each value has a tick
TICK_BOX: Any = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}  # keeps labels on lines readable


@with_style
def draw_heat_map(frame: pd.DataFrame, ax: Axes, *, options: Sequence[str]) -> Axes:
    """Draw the validation accuracy of a grid of two options, with a frame around the best.

    Parameters
    ----------
    frame
        One row for each configuration, the best first, with ``validation_accuracy`` (0 to 1, NaN without a result)
        and the options.
    options
        Two columns of `frame`, for the rows and the columns of the map.
    """
    row_option, column_option = options
    table = frame.pivot_table(index=row_option, columns=column_option, values=SCORE, dropna=False)
    percent = 100 * table.to_numpy(float)
    low, high = widen_range(float(np.nanmin(percent)), float(np.nanmax(percent)))
    image = ax.imshow(percent, cmap="cividis", aspect="auto", vmin=low, vmax=high)
    middle = (low + high) / 2
    for (row, column), value in np.ndenumerate(percent):
        text = "–" if np.isnan(value) else f"{value:.1f}"
        colour = GREY if np.isnan(value) else "black" if value > middle else "white"
        ax.text(column, row, text, color=colour, ha="center", va="center", fontsize=scale_font(7))
    columns, rows = list(table.columns), list(table.index)
    corner = (columns.index(frame[column_option].iloc[0]) - 0.5, rows.index(frame[row_option].iloc[0]) - 0.5)
    ax.add_patch(
        mpl.patches.Rectangle(corner, 1, 1, fill=False, edgecolor=pick_colour(1), linewidth=1.5, clip_on=False)
    )
    ax.set_xticks(range(len(columns)), map(_format_short, columns))
    ax.set_yticks(range(len(rows)), map(_format_short, rows))
    ax.set(xlabel=option_title(column_option), ylabel=option_title(row_option))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, label=_score_label(frame))
    bar.outline.set_visible(False)
    return ax


@with_style
def draw_parallel_coordinates(frame: pd.DataFrame, ax: Axes, *, options: Sequence[str]) -> Axes:
    """Draw each configuration as a line through its options and its validation accuracy; the best one is thick.

    Parameters
    ----------
    frame
        Frame of `draw_heat_map`.
    options
        Columns of `frame` from left to right.
    """
    finished = frame[frame[SCORE].notna()]
    positions = [_axis_positions(finished[name]) for name in options] + [_score_positions(100 * finished[SCORE])]
    heights = np.stack([place for place, _ in positions])  # (axes, configurations), 0 to 1
    colours = mpl.colormaps["cividis"](heights[-1])
    x = np.arange(len(positions))
    for k in reversed(range(len(finished))):  # the best one last, on top
        best = k == 0
        ax.plot(x, heights[:, k], color=pick_colour(1) if best else colours[k], linewidth=2.0 if best else 0.8)
    for position, (_, ticks) in enumerate(positions):
        ax.axvline(position, color=GREY, linewidth=0.6, zorder=0)
        for height, label in ticks:
            ax.text(position + 0.03, height, label, fontsize=scale_font(6), va="center", zorder=5, bbox=TICK_BOX)
    ax.plot([], [], color=pick_colour(1), linewidth=2.0, label="best configuration")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    ax.set_xticks(x, [*map(option_title, options), _score_label(frame).replace(" ", "\n", 1)])
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlim=(-0.1, len(positions) - 0.75), ylim=(-0.05, 1.05))
    return ax


@with_style
def draw_points(frame: pd.DataFrame, ax: Axes, *, options: Sequence[str]) -> Axes:
    """Draw the validation accuracy against the values of one option; the best one in another colour.

    Parameters
    ----------
    frame
        Frame of `draw_heat_map` with ``validation_accuracy_std``, and optionally ``over``. Single runs have hollow
        markers on an axis from 0 to 100 %.
    options
        One column of `frame`.
    """
    (option,) = options
    finished = frame[frame[SCORE].notna()]
    values = finished[option]
    is_number = pd.api.types.is_numeric_dtype(values) and values.dtype != bool
    ticks = sorted(set(values), key=None if is_number else str)
    x = values.to_numpy(float) if is_number else np.array([ticks.index(value) for value in values], float)
    single = _are_single_runs(finished)
    for k, (place, score, std) in enumerate(zip(x, finished[SCORE], finished[f"{SCORE}_std"], strict=True)):
        colour = pick_colour(int(k == 0))
        face = "white" if single else colour
        label = "best configuration" if k == 0 else None
        error = None if np.isnan(std) else 100 * std
        style: Any = {"color": colour, "marker": "o", "markerfacecolor": face, "linestyle": "", "clip_on": not single}
        ax.errorbar(place, 100 * score, yerr=error, label=label, **style)
    if is_number and ticks[0] > 0 and ticks[-1] >= 10 * ticks[0]:
        ax.set_xscale("log")
    if not is_number or len(ticks) <= MAX_TICKS:
        ax.set_xticks(ticks if is_number else range(len(ticks)), map(_format_short, ticks))
        ax.tick_params(axis="x", which="minor", bottom=False)
    ax.margins(x=0.15)
    limit_accuracy_axis(ax, whole=single)
    ax.set(xlabel=option_title(option), ylabel=_score_label(frame) + ", ± std" * (not single))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return ax


def _are_single_runs(frame: pd.DataFrame) -> bool:
    return "over" in frame and bool((frame["over"] == SINGLE_RUN).all())


def _score_label(frame: pd.DataFrame) -> str:
    return "Validation accuracy (%)" + ", 1 run" * _are_single_runs(frame)


def _score_positions(percent: pd.Series) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return the positions (0 to 1) of accuracies on an axis that spans at least 20 points, and its ticks.

    Ticks are pairs of position and label.
    """
    low, high = widen_range(float(percent.min()), float(percent.max()))
    return ((percent - low) / (high - low)).to_numpy(), [
        (float((value - low) / (high - low)), _format_short(value)) for value in (percent.min(), percent.max())
    ]


def _axis_positions(values: pd.Series) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return the positions (0 to 1) of values on an axis, and its ticks (position and label).

    The axis is logarithmic if the largest value is at least ten times the smallest one.
    """
    if not pd.api.types.is_numeric_dtype(values) or values.dtype == bool:
        names = list(dict.fromkeys(values))
        heights = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
        return np.array([heights[value] for value in values]), [
            (height, _format_short(name)) for name, height in heights.items()
        ]
    numbers = values.to_numpy(float)
    low, high = numbers.min(), numbers.max()
    scaled: Any = np.log10 if low > 0 and high >= 10 * low else np.asarray
    span = float(scaled(high) - scaled(low))
    positions = (scaled(numbers) - scaled(low)) / span if span else np.full(len(numbers), 0.5)
    tick_values = sorted(set(numbers)) if len(set(numbers)) <= 4 else [low, high]
    return positions, [
        (float((scaled(v) - scaled(low)) / span) if span else 0.5, _format_short(v)) for v in tick_values
    ]


def _format_short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
