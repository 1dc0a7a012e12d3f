"""Is a network as often right as it is sure? Reliability diagrams: accuracy against confidence, bin by bin."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from analysis.output.folder import OutputFolder
from analysis.output.style import COLOURS, GREY, MARKERS, add_legend_above, split_into_panels, with_style
from core.training.metrics import N_BINS, confidence_bins


def reliability_bins(probs: npt.ArrayLike, targets: npt.ArrayLike, *, bins: int = N_BINS) -> pd.DataFrame:
    """Bin clips by confidence, the highest probability.

    Parameters
    ----------
    probs
        Shape (clips, classes), rows that sum to 1.
    targets
        Shape (clips,), class numbers.
    bins
        As of `core.training.metrics.confidence_bins`.

    Returns
    -------
    frame
        One row for each bin: ``above`` and ``to``, its bounds; ``clips`` in it; their mean ``confidence`` and their
        ``accuracy``, nan of an empty bin. The mean gap between the two, weighted by the clips, is the ECE (Guo et al.,
        "On Calibration of Modern Neural Networks", 2017, equation 3).
    """
    sure = np.asarray(probs, np.float64)
    confidence, right = sure.max(axis=1), sure.argmax(axis=1) == np.asarray(targets)
    index = confidence_bins(confidence, bins=bins)
    clips = np.bincount(index, minlength=bins)
    some = np.where(clips > 0, clips, np.nan)
    return pd.DataFrame(
        {
            "above": np.arange(bins) / bins,
            "to": (np.arange(bins) + 1) / bins,
            "clips": clips,
            "confidence": np.bincount(index, weights=confidence, minlength=bins) / some,
            "accuracy": np.bincount(index, weights=right, minlength=bins) / some,
        }
    )


def ece_from_bins(bins: pd.DataFrame) -> float:
    """Return the ECE of `reliability_bins`'s bins, 0 to 1."""
    gaps = (bins["accuracy"] - bins["confidence"]).abs() * bins["clips"]
    return float(gaps.sum() / bins["clips"].sum())


def write_calibration(results: OutputFolder, frame: pd.DataFrame, names: Sequence[str], *, caption: str) -> None:
    """Write the reliability diagram.

    Parameters
    ----------
    results
        Where to.
    frame
        `reliability_bins` of each ``condition`` at each point of the grid.
    names
        The columns of the grid.
    caption
        What the runs are of.
    """
    points = list(frame.groupby(list(names), sort=False)) if names else [((), frame)]

    def draw(ax: Axes) -> None:
        column = [row[0] for row in split_into_panels(ax, 2 * len(points), 1)]
        if grid := column[0].get_gridspec():
            grid.set_height_ratios([3, 1] * len(points))
        for upper, lower, (point, part) in zip(column[::2], column[1::2], points, strict=True):
            _draw_reliability(part, upper, lower)
            if names:
                upper.set_title(", ".join(map(str, point)), loc="left")
            if len(points) == 1:
                add_legend_above(upper)
            else:  # each point has its own ECE
                upper.legend()

    results.write_figure(
        "calibration",
        frame,
        draw,
        caption=f"{caption}: accuracy of the clips by confidence in {N_BINS} bins of equal width, above their share of "
        "all clips; on the dashed line a network is as often right as it is sure, and below it too sure. Last epoch, "
        "clips of all folds (and of single members) together, over the folds that have an ensemble; so is the ECE, of "
        "which the table shows the mean over folds.",
        height=4.2 * len(points),
    )


@with_style
def _draw_reliability(frame: pd.DataFrame, upper: Axes, lower: Axes) -> None:
    """Draw a point's conditions: accuracy against confidence, and how many clips each bin has."""
    upper.plot([0, 100], [0, 100], "--", color=GREY, linewidth=0.8, zorder=1)
    for k, (name, part) in enumerate(frame.groupby("condition", sort=False)):
        there = part[part["clips"] > 0]
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        x, y, label = 100 * there["confidence"], 100 * there["accuracy"], f"{name}, ECE {ece_from_bins(part):.3f}"
        upper.plot(x, y, color=colour, marker=marker, label=label, clip_on=False, zorder=3)
        lower.stairs(100 * part["clips"] / part["clips"].sum(), [0, *(100 * part["to"])], color=colour)
    upper.set(xlim=(0, 101), ylim=(0, 101), ylabel="Accuracy (%)")
    lower.set(xlim=(0, 101), xlabel="Confidence (%)", ylabel="Clips (%)")
