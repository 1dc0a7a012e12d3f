"""Figures of conditions, one column of a paper wide. Each function draws on given axes and returns them.

    figure, ax = style.new_figure()
    by_condition.draw_accuracy_by_condition(frame, ax, xlabel="Frozen through block", reference="none")
    style.save_figure(figure, Path("results/freeze/accuracy"), frame)

Frames have fractions from 0 to 1; axes show percent. Error bars show the 95 % interval (``accuracy_low`` and
``accuracy_high``) or, if the frame lacks it, the standard deviation (``accuracy_std``); the axis label names which.

Single runs must not look like evidence. A condition of one run (column ``compared``) has a hollow marker or bar, no
error bar and no connecting line, and the legend says "1 run". Axes of accuracy span at least 20 points, and
with single runs they go from 0 to 100 %, so that small differences are not enlarged. A dotted line marks the chance
level (column ``chance``), if it lies within the axis.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import Container

from analysis.metrics.chance import name_chance
from analysis.metrics.registry import METRICS
from analysis.metrics.shared_runs import SINGLE_RUN, describe_spread
from analysis.output.paper_style import active_style
from analysis.output.style import GREY, MARKERS, count_characters, pick_colour, pick_line_style, scale_font, with_style
from analysis.plots.axis_limits import limit_accuracy_axis, limit_count_axis

MAX_LABEL_LENGTH = 38  # characters of 8 pt that fit along an axis
MIN_POINTS_OF_LINE = 3  # fewer points are not connected
CHANCE_METRICS = ("accuracy", "balanced_accuracy")


@with_style
def draw_accuracy_by_condition(
    frame: pd.DataFrame, ax: Axes, *, xlabel: str, reference: str | None = None, series: str | None = None
) -> Axes:
    """Draw accuracy against depth (Palanisamy et al. 2020, figures 2b and 2c).

    Points are connected only along the depth of a network, with at least three depths and several runs each.

    Parameters
    ----------
    frame
        One row per condition (and series) with ``condition``, ``accuracy``, optional spread and optional ``compared``
        and ``chance``. Conditions without a result are crosses at the bottom.
    ax
        Panel to draw on.
    xlabel
        Title of the conditions. The axis shows "block3" as 3.
    reference
        Condition whose accuracy is drawn as a dashed horizontal line.
    series
        Column with the name of the line, such as the backbone.
    """
    conditions, are_depths = _sort_by_depth(frame["condition"].unique())
    if set(conditions) & set(active_style().order):
        conditions = active_style().sort_names(conditions)
    missing = frame[frame["accuracy"].isna()]
    lines = _split_series(frame, series)
    for k, (name, part) in enumerate(lines):
        part = part.set_index("condition").reindex([c for c in conditions if c in set(part["condition"])])
        place = np.array([conditions.index(condition) for condition in part.index])
        x = place + 0.07 * (k - (len(lines) - 1) / 2)  # shifted so that error bars do not overlap
        colour, y = pick_colour(k), 100 * part["accuracy"].to_numpy()
        marker, single = MARKERS[k % len(MARKERS)], is_single_run(part)
        is_line = are_depths and len(part) >= MIN_POINTS_OF_LINE and not single.any()
        style: dict[str, Any] = {"color": colour, "linestyle": "-" if is_line else "", "marker": marker, "label": name}
        fill = "white" if single.all() else colour
        style |= {"markerfacecolor": fill, "clip_on": not single.all()}  # a marker at 0 or 100 % is not cut
        ax.errorbar(x, y, yerr=_error_lengths(part, "accuracy"), **style, zorder=3)
        ax.plot(x[single], y[single], linestyle="", **_hollow_marker(colour, marker), zorder=4, clip_on=False)
        if reference in part.index:
            label = f"reference ({active_style().rename(str(reference))})" if len(lines) == 1 else None
            height = float(y[part.index == reference][0])
            ax.axhline(height, color=colour, linestyle="--", linewidth=0.8, label=label, zorder=1)
    if len(missing):
        x = np.array([conditions.index(condition) for condition in missing["condition"]])
        ax.plot(x, 0.03 + 0 * x, "x", color=GREY, transform=ax.get_xaxis_transform(), label="no result", clip_on=False)
    single = is_single_run(frame)
    _add_single_run_label(ax, single, marker=MARKERS[0])
    limit_accuracy_axis(ax, whole=bool(single.any()))
    _draw_chance(ax, frame, "accuracy")
    ax.set_xlim(-0.4, len(conditions) - 0.6)
    _name_ticks(ax, [_shorten_stage(condition) for condition in conditions])
    ax.set(xlabel=active_style().rename(xlabel), ylabel=_axis_label(frame, "accuracy"))
    return _add_legend(ax)


@with_style
def draw_similarity_by_layer(
    frame: pd.DataFrame, ax: Axes, *, series: str | None = "weights", index: str = "SVCCA"
) -> Axes:
    """Draw the similarity of each layer before and after training (Palanisamy et al. 2020, figure 2a).

    Parameters
    ----------
    frame
        One row per layer and series, from input to output, with ``layer``, ``similarity`` (0 to 1) and optionally
        ``noise_floor``, the similarity of unrelated activations of the same size, drawn as dotted lines, and
        ``few_datapoints``, whether a layer has too few datapoints, drawn as a hollow marker. With more than 12 layers
        the axis names stages: "block2" for "block2.denselayer5.conv1".
    ax
        Panel to draw on.
    series
        Column with the name of the line: the starting weights.
    index
        Name of the similarity index for the axis label.
    """
    layers = list(frame["layer"].unique())
    many = len(layers) > 12
    for k, (name, part) in enumerate(_split_series(frame, series)):
        x = [layers.index(layer) for layer in part["layer"]]
        colour, marker = pick_colour(k), MARKERS[k % len(MARKERS)]
        ax.plot(x, part["similarity"], color=colour, marker="" if many else marker, label=name, zorder=3)
        if "few_datapoints" in part and part["few_datapoints"].any():
            y = part["similarity"].where(part["few_datapoints"].astype(bool))
            ax.plot(x, y, linestyle="", **_hollow_marker(colour, marker), zorder=4)
        if "noise_floor" in part:
            ax.plot(x, part["noise_floor"], color=colour, linestyle=":", linewidth=0.8, alpha=0.6, zorder=1)
    if "noise_floor" in frame:
        ax.plot([], [], ":", color=GREY, linewidth=0.8, label="noise floor")
    if "few_datapoints" in frame and frame["few_datapoints"].any():
        ax.plot([], [], linestyle="", **_hollow_marker(GREY, "o"), label="few datapoints")
    if many:
        _name_stages(ax, [layer.partition(".")[0] for layer in layers])
    else:
        _name_ticks(ax, [_shorten_stage(layer) for layer in layers])
    ax.set(xlabel="Block, from input to output", ylabel=f"{index} similarity")
    ax.set_ylim(min(0.0, float(frame["similarity"].min())), 1.02)
    return _add_legend(ax)


@with_style
def draw_grouped_bars(
    frame: pd.DataFrame, ax: Axes, *, x: str, series: str | None = None, xlabel: str = "", metric: str = "accuracy"
) -> Axes:
    """Draw a metric as grouped bars (Palanisamy et al. 2020, table I).

    Parameters
    ----------
    frame
        One row per group and series with the metric. Optional columns: its spread, the number of runs ``compared``,
        and the accuracy of ``chance``.
    ax
        Panel to draw on.
    x, series
        Columns with the name of the group, such as the data set, and of the bar, such as the weights.
    xlabel
        Title of the groups.
    metric
        Name in `analysis.metrics.registry.METRICS`.
    """
    scale = METRICS[metric].scale
    groups, members = list(frame[x].unique()), list(_split_series(frame, series))
    width = (0.8 if series else 0.6) / len(members)
    for k, (name, part) in enumerate(members):
        colour, single = pick_colour(k), is_single_run(part)
        at = np.array([groups.index(group) for group in part[x]]) + (k - (len(members) - 1) / 2) * width
        height = scale * part[metric].to_numpy()
        bars: dict[str, Any] = {"width": 0.92 * width, "edgecolor": colour, "linewidth": 0.9, "label": name}
        bars["color"] = ["white" if hollow else colour for hollow in single]
        bars["clip_on"] = False  # the edge at 100 % is not cut
        ax.bar(at, height, yerr=_error_lengths(part, metric), error_kw={"elinewidth": 0.8}, **bars)
        for position in at[np.isnan(height)]:
            place: Any = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            ax.text(position, 0.01, "no result", color=GREY, rotation=90, fontsize=scale_font(6), **place)
    _add_single_run_label(ax, is_single_run(frame), marker="s")
    _name_ticks(ax, [active_style().rename(str(group)) for group in groups])
    ax.set(
        xlabel=active_style().rename(xlabel),
        ylabel=_axis_label(frame, metric),
        ylim=(0, 100 if METRICS[metric].is_fraction else None),
    )
    _draw_chance(ax, frame, metric)
    return _add_legend(ax)


@with_style
def draw_ensemble_curve(frame: pd.DataFrame, ax: Axes, *, series: str | None = None) -> Axes:
    """Draw accuracy of an ensemble against the number of members.

    Parameters
    ----------
    frame
        One row per number of ``members`` (and series): ``accuracy``, the mean over subsets of that size, and
        ``accuracy_min`` and ``accuracy_max`` over the subsets, drawn as a band.
    ax
        Panel to draw on.
    series
        Column with the name of the line.
    """
    for k, (name, part) in enumerate(_split_series(frame, series)):
        part = part.sort_values("members")
        colour, marker = pick_colour(k), MARKERS[k % len(MARKERS)]
        ax.plot(part["members"], 100 * part["accuracy"], color=colour, marker=marker, label=name or "mean of subsets")
        low, high = 100 * part["accuracy_min"], 100 * part["accuracy_max"]
        ax.fill_between(part["members"], low, high, color=colour, alpha=0.2, linewidth=0, label="range of subsets")
    limit_count_axis(ax, int(frame["members"].max()))
    limit_accuracy_axis(ax)
    ax.set(xlabel="Members of the ensemble", ylabel="Accuracy (%)")
    return _add_legend(ax)


@with_style
def draw_learning_curves(frame: pd.DataFrame, ax: Axes, *, ylabel: str, series: str) -> Axes:
    """Draw a quantity against epochs, one line per series.

    Parameters
    ----------
    frame
        One row per ``epoch`` and series with ``mean``, optionally ``std`` (drawn as a band), and optionally ``ended``,
        the number of runs that ended before the epoch. The line is dotted after the first run has ended.
    ax
        Panel to draw on.
    ylabel
        Axis label. If it ends in ``(%)``, fractions are drawn in percent.
    series
        Column with the name of the line.
    """
    scale = 100 if ylabel.endswith("(%)") else 1
    for k, (name, part) in enumerate(_split_series(frame, series)):
        part = part.sort_values("epoch")
        x, y = part["epoch"].to_numpy(), scale * part["mean"].to_numpy()
        colour, style = pick_colour(k), pick_line_style(k)
        complete = part["ended"].to_numpy() == 0 if "ended" in part else np.ones(len(x), bool)
        solid = max(1, int(complete.sum()))  # number of epochs that all runs have
        marker = "o" if solid == 1 else ""  # a line of one point is invisible
        fill = "white" if "runs" in part and part["runs"].max() == 1 else colour
        line: dict[str, Any] = {"color": colour, "linestyle": style, "marker": marker, "markerfacecolor": fill}
        ax.plot(x[:solid], y[:solid], **line, label=name, zorder=3)
        ax.plot(x[solid - 1 :], y[solid - 1 :], color=colour, linestyle=":", zorder=3)
        if "std" in part:
            half = scale * part["std"].to_numpy()
            ax.fill_between(x, y - half, y + half, color=colour, alpha=0.15, linewidth=0, zorder=1)
    limit_count_axis(ax, int(frame["epoch"].max()))
    if scale == 100:
        limit_accuracy_axis(ax)
    ax.set(xlabel="Epoch", ylabel=ylabel)
    return ax


def is_single_run(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return for each row of a table whether its numbers come from a single run, not from a mean over runs.

    False for tables without the column ``compared``, the number of runs of each row.
    """
    return (frame["compared"] == 1).to_numpy() if "compared" in frame else np.zeros(len(frame), bool)


def _add_single_run_label(ax: Axes, single: npt.NDArray[np.bool_], *, marker: str) -> None:
    """Add a hollow marker to the legend if rows are single runs."""
    if single.any():
        label = "1 run per condition" if single.all() else "1 run"
        ax.plot([], [], linestyle="", **_hollow_marker(GREY, marker), label=label)


def _draw_chance(ax: Axes, frame: pd.DataFrame, metric: str) -> None:
    """Draw a dotted line at every chance level of the frame that lies within the axis."""
    if metric not in CHANCE_METRICS or "chance" not in frame:
        return
    known = frame.dropna(subset=["chance"])
    n_classes = known["n_classes"]
    chance = known["chance"] if metric == "accuracy" else 1 / n_classes
    levels = dict(zip(chance, n_classes, strict=True))
    low, high = ax.get_ylim()
    for level, count in levels.items():
        if low <= 100 * level <= high:
            label = f"chance {name_chance(level, count)}"
            ax.axhline(100 * level, color=GREY, linestyle=":", linewidth=1.0, label=label, zorder=2)


def _split_series(frame: pd.DataFrame, column: str | None) -> list[tuple[str | None, pd.DataFrame]]:
    """Return name and rows of each line of a figure; one line without name if there is no column of names."""
    if column is None:
        return [(None, frame)]
    return [(active_style().rename(str(name)), part) for name, part in frame.groupby(column, sort=False)]


def describe_error_bars(frame: pd.DataFrame, metric: str, *, point: str | None = None) -> str:
    """Return a description of error bars, such as "error bars: 95 % interval over folds"; "" without results.

    Parameters
    ----------
    frame
        Result of `analysis.metrics.condition_summary.summarise_groups`.
    metric
        Name of the metric.
    point
        Column with the name of the grid point, if any.
    """
    spread = _name_spread(frame, metric)
    names_by_unit: dict[str, list[str]] = {}
    for row in frame[frame[metric].notna()].to_dict("records"):
        if spread or row.get("over") == SINGLE_RUN:
            names_by_unit.setdefault(row.get("over", ""), []).append(
                ", ".join(row[name] for name in (point, "condition") if name)
            )
    return describe_spread(f"error bars: {spread}", names_by_unit)


def _name_spread(frame: pd.DataFrame, metric: str) -> str:
    """Return the name of the spread that error bars of a metric show; "" if there is none."""
    if _error_lengths(frame, metric) is None:
        return ""
    return "95 % interval" if f"{metric}_low" in frame else "standard deviation"


def _error_lengths(part: pd.DataFrame, metric: str) -> npt.NDArray[np.float64] | None:
    """Return lengths of error bars below and above, shape (2, rows), in axis units; None if no row has a spread."""
    low, high, std = (f"{metric}_{name}" for name in ("low", "high", "std"))
    if {low, high} <= set(part.columns):
        lengths = np.stack([part[metric] - part[low], part[high] - part[metric]])
    elif std in part:
        lengths = np.stack([part[std]] * 2)
    else:
        return None
    return None if np.isnan(lengths).all() else METRICS[metric].scale * np.maximum(lengths, 0)


def _axis_label(frame: pd.DataFrame, metric: str) -> str:
    """Return the label of the axis of a metric, with the kind of its error bars."""
    spread = _name_spread(frame, metric).replace("standard deviation", "± std")
    label = ", ".join(filter(None, (METRICS[metric].axis, spread)))
    return label if len(label) <= MAX_LABEL_LENGTH else label.replace(", ", ",\n")


def _sort_by_depth(conditions: Iterable[str]) -> tuple[list[str], bool]:
    """Return the names, sorted by depth from "none" to "all" if all are stages, and whether all are stages."""
    depths = {condition: _depth(condition) for condition in conditions}
    are_stages = all(depth is not None for depth in depths.values())
    names = sorted(depths, key=lambda condition: depths[condition] or 0) if are_stages else list(depths)
    return names, are_stages


def _depth(condition: str) -> float | None:
    """Return a number that sorts stages by depth; None for a condition that is not a stage."""
    if match := re.fullmatch(r"block(\d+)", condition):
        return float(match.group(1))
    return {"none": -1.0, "stem": 0.0, "head": 1e6, "all": 1e7}.get(condition)


def _shorten_stage(stage: str) -> str:
    name = active_style().rename(stage)
    return name if name != stage else re.sub(r"^block(?=\d+$)", "", stage)


def _name_stages(ax: Axes, stages: Sequence[str]) -> None:
    """Separate stages by faint lines, and label those stages whose label fits; longer stages have priority."""
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    ends = [*starts[1:], len(stages)]
    named: dict[float, tuple[str, float]] = {}  # middle: name, half its width (both in layers)
    for start, end in sorted(zip(starts, ends, strict=True), key=lambda span: span[0] - span[1]):
        middle, name = (start + end - 1) / 2, _shorten_stage(stages[start])
        half = 0.013 * len(name) * len(stages)  # 7 pt characters, with a gap
        if all(abs(middle - other) >= half + other_half for other, (_, other_half) in named.items()):
            named[middle] = name, half
        if start:
            ax.axvline(start - 0.5, color=GREY, linewidth=0.4, alpha=0.5, zorder=0)
    ax.set_xticks(list(named), [name for name, _ in named.values()])
    ax.tick_params(axis="x", length=0)


def are_slanted(names: Sequence[str]) -> bool:
    """Return whether tick labels are too long to fit side by side, so that they are slanted."""
    return sum(len(name) + 2 for name in names) > 44 * 7 / scale_font(7)  # characters in one column


def _name_ticks(ax: Axes, names: Sequence[str]) -> None:
    """Label the ticks; the labels are slanted if they do not fit side by side."""
    slant: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if are_slanted(names) else {}
    ax.set_xticks(range(len(names)), names, **slant)


def _hollow_marker(colour: str, marker: str) -> dict[str, Any]:
    return {"marker": marker, "markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 0.9}


def _add_legend(ax: Axes) -> Axes:
    """Place the legend above the panel, so that it hides no line."""
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(
        range(len(labels)), key=lambda i: not isinstance(handles[i], Container)
    )  # data before reference lines
    if labels:
        width = count_characters(ax.figure.bbox.width / ax.figure.dpi)  # a handle takes four
        columns = min(3, max(1, int(width / (4 + max(map(len, labels))))))
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        ax.legend([handles[i] for i in order], [labels[i] for i in order], ncols=columns, **place)
    return ax
