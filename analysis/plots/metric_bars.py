"""Bar charts of a metric by condition, with error bars over folds, or over the seeds of a single fold."""

import pandas as pd

from analysis.metrics.registry import METRICS
from analysis.output.number_format import format_number
from analysis.output.output_folder import OutputFolder
from analysis.output.style import COLUMN_WIDTH, PAGE_WIDTH
from analysis.plots import by_condition

MAX_BARS_PER_COLUMN = 10  # more bars take the page width
HEIGHT_PER_CHARACTER = 0.04  # inches of a slanted label


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
    """Write a bar chart of a metric with one bar per condition, grouped by grid point; no chart for one condition.

    Parameters
    ----------
    results
        Output folder of the analysis.
    frame
        One row per condition, from `analysis.metrics.condition_summary.summarise_conditions`.
    metric
        Name in `analysis.metrics.registry.METRICS`.
    title
        Title of the conditions.
    caption
        Description of the runs.
    point
        Column with the name of the grid point; None for a grid of one point.
    file
        Name of the file; "" for ``bars-<metric>``.
    """
    if len(frame) < 2:
        return
    axis, note = METRICS[metric].axis, METRICS[metric].note
    missing = int(frame[metric].isna().sum())
    parts = [f"{caption}: {axis[0].lower()}{axis[1:].partition(' (')[0]} by condition"]
    parts += filter(None, [note, by_condition.describe_error_bars(frame, metric, point=point)])
    if metric == "ece":
        low, high = map(format_number, (frame["ece_calibrated"].min(), frame["ece_calibrated"].max()))
        parts.append(f"ECE if calibrated: {low} to {high}")
    parts += [f"conditions without a result: {missing}"] if missing else []
    x, series = (point, "condition") if point else ("condition", None)
    names = [str(name) for name in frame[x].unique()]
    label_height = HEIGHT_PER_CHARACTER * max(map(len, names)) if by_condition.are_slanted(names) else 0.0
    results.write_figure(
        file or f"bars-{metric}",
        frame.drop(columns="run_ids", errors="ignore"),
        by_condition.draw_grouped_bars,
        caption="; ".join(parts) + ".",
        options={"x": x, "series": series, "xlabel": "" if point else title, "metric": metric},
        width=COLUMN_WIDTH if len(frame) <= MAX_BARS_PER_COLUMN else PAGE_WIDTH,
        height=2.3 + max(0.2, label_height),
    )
