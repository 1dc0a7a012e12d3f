"""Bars of any metric by condition, with error bars over folds, or over the seeds of a single fold."""

import pandas as pd

from analysis.metrics.registry import METRICS
from analysis.output.folder import OutputFolder
from analysis.output.style import COLUMN_WIDTH, PAGE_WIDTH
from analysis.plots import by_condition

MAX_BARS_PER_COLUMN = 10  # bars that fit one column


def write_metric_bars(
    results: OutputFolder,
    frame: pd.DataFrame,
    metric: str,
    *,
    title: str,
    caption: str,
    point: str | None = None,
    file: str = "",
) -> None:
    """Write the figure of a metric as bars: a bar for each condition, in groups where a grid has several points.

    Parameters
    ----------
    results
        Where to write.
    frame
        One row for each condition, as `analysis.metrics.condition_summary.summarise_conditions` gives it.
    metric
        One of `analysis.metrics.registry.METRICS`.
    title
        What the conditions are.
    caption
        What the runs are of.
    point
        The column that names a row's point of the grid, where there are several.
    file
        Of the figure; ``bars-<metric>`` where none is named.
    """
    measure = METRICS[metric]
    what = measure.axis[0].lower() + measure.axis[1:].partition(" (")[0]
    lost = int(frame[metric].isna().sum())
    spread = by_condition.name_spread(frame, metric)
    said = [f"{caption}: {what} by condition"]
    said += [f"bars show the {spread} over folds, or over the seeds of a single fold"] if spread else []
    said += [f"{lost} without a result"] if lost else []
    x, series = (point, "condition") if point else ("condition", None)
    results.write_figure(
        file or f"bars-{metric}",
        frame.drop(columns="run_ids", errors="ignore"),
        lambda ax: by_condition.draw_grouped_bars(
            frame, ax, x=x, series=series, xlabel="" if point else title, metric=metric
        ),
        caption="; ".join(said) + ".",
        width=COLUMN_WIDTH if len(frame) <= MAX_BARS_PER_COLUMN else PAGE_WIDTH,
    )
