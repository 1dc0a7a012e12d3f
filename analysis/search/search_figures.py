"""Figures of a search: a heat map of two options with few values, parallel coordinates of any number of them."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.output.style import COLOURS, GREY, with_style

SCORE = "validation_accuracy"
TICK_BOX: Any = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}  # legible where lines cross it


@with_style
def draw_heat_map(frame: pd.DataFrame, ax: Axes, *, options: Sequence[str]) -> Axes:
    """Draw the validation accuracy of a grid of two options; the best has a frame, what has no result is empty.

    Parameters
    ----------
    frame
        One row for each configuration, the best first, with ``validation_accuracy`` (0 to 1) and the options.
    options
        The two columns: the first goes down, the second across.
    """
    down, across = options
    table = frame.pivot_table(index=down, columns=across, values=SCORE, dropna=False)
    shares = 100 * table.to_numpy(float)
    image = ax.imshow(shares, cmap="cividis", aspect="auto")
    middle = (np.nanmin(shares) + np.nanmax(shares)) / 2
    for (row, column), value in np.ndenumerate(shares):
        shown = "–" if np.isnan(value) else f"{value:.1f}"
        colour = GREY if np.isnan(value) else "black" if value > middle else "white"
        ax.text(column, row, shown, color=colour, ha="center", va="center", fontsize=7)
    columns, rows = list(table.columns), list(table.index)
    corner = (columns.index(frame[across].iloc[0]) - 0.5, rows.index(frame[down].iloc[0]) - 0.5)
    ax.add_patch(mpl.patches.Rectangle(corner, 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.5, clip_on=False))
    ax.set_xticks(range(len(columns)), map(_format_short, columns))
    ax.set_yticks(range(len(rows)), map(_format_short, rows))
    ax.set(xlabel=option_title(across), ylabel=option_title(down))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, label="Validation accuracy (%)")
    bar.outline.set_visible(False)
    return ax


@with_style
def draw_parallel_coordinates(frame: pd.DataFrame, ax: Axes, *, options: Sequence[str]) -> Axes:
    """Draw each configuration as a line through its options to its validation accuracy; the best is thick.

    Parameters
    ----------
    frame
        As for `draw_heat_map`.
    options
        The columns, left to right.
    """
    known = frame[frame[SCORE].notna()]
    places = [_axis_positions(known[name]) for name in options] + [_axis_positions(100 * known[SCORE], log=False)]
    heights = np.stack([place for place, _ in places])  # (axes, configurations), 0 to 1
    colours = mpl.colormaps["cividis"](heights[-1])
    x = np.arange(len(places))
    for k in reversed(range(len(known))):  # the best last, so that it is on top
        best = k == 0
        ax.plot(x, heights[:, k], color=COLOURS[1] if best else colours[k], linewidth=2.0 if best else 0.8)
    for position, (_, ticks) in enumerate(places):
        ax.axvline(position, color=GREY, linewidth=0.6, zorder=0)
        for height, label in ticks:
            ax.text(position + 0.03, height, label, fontsize=6, va="center", zorder=5, bbox=TICK_BOX)
    ax.plot([], [], color=COLOURS[1], linewidth=2.0, label="best configuration")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    ax.set_xticks(x, [*map(option_title, options), "Validation\naccuracy (%)"])
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlim=(-0.1, len(places) - 0.75), ylim=(-0.05, 1.05))
    return ax


def _axis_positions(values: pd.Series, *, log: bool = True) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return where values lie on an axis, 0 to 1, and its ticks; numbers that span a factor of ten lie by logarithm."""
    if not pd.api.types.is_numeric_dtype(values) or values.dtype == bool:
        names = list(dict.fromkeys(values))
        at = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
        return np.array([at[value] for value in values]), [(height, _format_short(name)) for name, height in at.items()]
    numbers = values.to_numpy(float)
    low, high = numbers.min(), numbers.max()
    scaled: Any = np.log10 if log and low > 0 and high >= 10 * low else np.asarray
    span = float(scaled(high) - scaled(low))
    places = (scaled(numbers) - scaled(low)) / span if span else np.full(len(numbers), 0.5)
    shown = sorted(set(numbers)) if len(set(numbers)) <= 4 else [low, high]
    return places, [(float((scaled(v) - scaled(low)) / span) if span else 0.5, _format_short(v)) for v in shown]


def _format_short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def option_title(name: str) -> str:
    """Write the name of an option for people."""
    return {"lr": "Learning rate"}.get(name, name.replace("_", " ").capitalize())
