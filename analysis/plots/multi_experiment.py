"""Figures that show several experiments at once, as reports draw them: learning curves, confusion matrices, bars."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.metrics.condition_summary import condition_row
from analysis.output.folder import OutputFolder
from analysis.plots.confusion import write_confusion_by_condition
from analysis.plots.learning_curves import Groups, write_learning_curves
from analysis.plots.metric_bars import write_metric_bars
from core.plan import Plan


def group_experiments(parts: Sequence[tuple[str, Plan]]) -> Groups:
    """Name every condition of several experiments.

    Parameters
    ----------
    parts
        The experiments' names and plans.

    Returns
    -------
    groups
        The runs of each condition, named by the experiment, where there are several or it has a single condition, and
        by the condition, where it has several: with the values of its grid where it is in several rows.
    """
    found: list[tuple[dict[str, Any], Any]] = []
    for name, plan in parts:
        groups = plan.groups()
        alone = len({values["condition"] for values, _ in groups}) == len(groups)  # the condition says which it is
        for values, planned in groups:
            words = [name] if len(groups) == 1 or len(parts) > 1 else []
            if len(groups) > 1:
                words += [values["condition"]] if alone else map(str, values.values())
            found.append(({"condition": ", ".join(words)}, planned))
    return found


def write_curve_figure(results: OutputFolder, groups: Groups, *, caption: str, metric: str) -> None:
    """Draw a line for each condition along the epochs: of one of `analysis.plots.learning_curves.CURVES`, or of all."""
    write_learning_curves(results, groups, caption=caption, only=metric)


def write_confusion_figure(results: OutputFolder, groups: Groups, *, caption: str, metric: str) -> None:
    """Draw a confusion matrix for each condition, with margins."""
    write_confusion_by_condition(results, groups, caption=caption)


def write_bar_figure(results: OutputFolder, groups: Groups, *, caption: str, metric: str) -> None:
    """Draw a bar of a metric for each condition."""
    store = results.session.store
    records = {one.run.id: store.record(one.run) for _, planned in groups for one in planned}
    rows = [{**values, **condition_row(planned, records)} for values, planned in groups]
    if rows:
        write_metric_bars(results, pd.DataFrame(rows), metric, title="", caption=caption)
