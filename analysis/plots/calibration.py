"""Reliability diagrams: accuracy against confidence per bin, with the expected calibration error (ECE)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from analysis.output.output_folder import OutputFolder
from analysis.output.paper_style import active_style
from analysis.output.style import GREY, MARKERS, add_legend_above, pick_colour, split_into_panels, with_style
from core.training.metrics import N_BINS, confidence_bins


def reliability_bins(probs: npt.ArrayLike, targets: npt.ArrayLike, *, bins: int = N_BINS) -> pd.DataFrame:
    """Bin clips by confidence, the largest predicted probability.

    Parameters
    ----------
    probs
        Predicted probabilities, shape (clips, classes).
    targets
        Class numbers, shape (clips,).
    bins
        Number of bins (`core.training.metrics.confidence_bins`).

    Returns
    -------
    DataFrame
        One row per bin: its bounds ``above`` and ``to``, number of ``clips``, mean ``confidence`` and ``accuracy``
        (both nan for an empty bin). The mean absolute difference of the two, weighted by clips, is the ECE (Guo et
        al., "On Calibration of Modern Neural Networks", 2017, equation 3).
    """
    probabilities = np.asarray(probs, np.float64)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(targets)
    index = confidence_bins(confidence, bins=bins)
    clips = np.bincount(index, minlength=bins)
    counts = np.where(clips > 0, clips, np.nan)
    return pd.DataFrame(
        {
            "above": np.arange(bins) / bins,
            "to": (np.arange(bins) + 1) / bins,
            "clips": clips,
            "confidence": np.bincount(index, weights=confidence, minlength=bins) / counts,
            "accuracy": np.bincount(index, weights=correct, minlength=bins) / counts,
        }
    )


def write_calibration(results: OutputFolder, frame: pd.DataFrame, names: Sequence[str], *, caption: str) -> None:
    """Write the reliability diagram.

    Parameters
    ----------
    results
        Output folder of the analysis.
    frame
        `reliability_bins` of each ``condition`` and grid point, with its ``ece`` and ``ece_calibrated``
        (`analysis.metrics.calibration_error.pooled_calibration`).
    names
        Grid columns.
    caption
        Description of the runs.
    """
    results.write_figure(
        "calibration",
        frame,
        draw_reliability_panels,
        caption=f"{caption}: reliability diagram with {N_BINS} bins of equal width. Top: accuracy against confidence; "
        "below the dashed line, predictions are overconfident. Bottom: fraction of clips per bin. Results of the last "
        "epoch; the clips of all folds with an ensemble are pooled. Single: all members are pooled in the diagram; the "
        "ECE is the mean of the members' ECE. In brackets: mean ECE of a perfectly calibrated network with the same "
        "confidences.",
        options={"names": list(names)},
        height=4.2 * len(_split_points(frame, names)),
    )


def _split_points(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, pd.DataFrame]]:
    return list(frame.groupby(list(names), sort=False)) if names else [((), frame)]


def draw_reliability_panels(frame: pd.DataFrame, ax: Axes, *, names: Sequence[str]) -> None:
    """Draw a reliability diagram for each grid point; parameters as in `write_calibration`."""
    points = _split_points(frame, names)
    column = [row[0] for row in split_into_panels(ax, 2 * len(points), 1)]
    if grid := column[0].get_gridspec():
        grid.set_height_ratios([3, 1] * len(points))
    for upper, lower, (point, part) in zip(column[::2], column[1::2], points, strict=True):
        _draw_reliability(part, upper, lower)
        if names:
            upper.set_title(", ".join(active_style().rename(str(value)) for value in point), loc="left")
        if len(points) == 1:
            add_legend_above(upper)
        else:  # the legends differ in ECE
            upper.legend()


@with_style
def _draw_reliability(frame: pd.DataFrame, upper: Axes, lower: Axes) -> None:
    """Draw all conditions of a grid point: accuracy against confidence, and the fraction of clips per bin."""
    upper.plot([0, 100], [0, 100], "--", color=GREY, linewidth=0.8, zorder=1)
    for k, (name, part) in enumerate(frame.groupby("condition", sort=False)):
        filled = part[part["clips"] > 0]
        colour, marker = pick_colour(k), MARKERS[k % len(MARKERS)]
        x, y, ece = 100 * filled["confidence"], 100 * filled["accuracy"], part.iloc[0]
        label = f"{active_style().rename(str(name))}, ECE {ece['ece']:.3f} ({ece['ece_calibrated']:.3f})"
        upper.plot(x, y, color=colour, marker=marker, label=label, clip_on=False, zorder=3)
        lower.stairs(100 * part["clips"] / part["clips"].sum(), [0, *(100 * part["to"])], color=colour)
    upper.set(xlim=(0, 101), ylim=(0, 101), ylabel="Accuracy (%)")
    lower.set(xlim=(0, 101), xlabel="Confidence (%)", ylabel="Clips (%)")
