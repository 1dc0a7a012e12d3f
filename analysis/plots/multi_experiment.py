"""Figures over several experiments of a study: learning curves, confusion matrices and bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.metrics import holdout_accuracy
from analysis.metrics.condition_summary import summarise_groups
from analysis.metrics.holdout_accuracy import add_holdout_accuracy, score_holdout
from analysis.output.number_format import format_point
from analysis.output.output_folder import OutputFolder
from analysis.plots.confusion import write_confusion_by_condition
from analysis.plots.learning_curves import write_learning_curves
from analysis.plots.metric_bars import write_metric_bars
from core.plan import Groups, Plan


def group_experiments(parts: Sequence[tuple[str, Plan]]) -> Groups:
    """Return the conditions of several experiments with unique names.

    Parameters
    ----------
    parts
        Name and plan of each experiment.

    Returns
    -------
    Groups
        Runs of each condition. The name of a condition has these parts:

        - the experiment, if there are several experiments or it has only one condition;
        - the condition, if the experiment has several;
        - the grid values, if the condition occurs at several grid points.

        If the experiment is not named after its network, the network is named first:
        ``efficientnet_lite0 (VGG16), rotate``.
    """
    groups_of_all: list[tuple[dict[str, Any], Any]] = []
    for name, plan in parts:
        groups = plan.groups()
        is_unique = len({values["condition"] for values, _ in groups}) == len(groups)
        for values, planned in groups:
            words = [_name_network(name, plan)] if len(groups) == 1 or len(parts) > 1 else []
            if len(groups) > 1:
                words.append(values["condition"] if is_unique else format_point(values))
            groups_of_all.append(({"condition": ", ".join(words)}, planned))
    return groups_of_all


def _name_network(name: str, plan: Plan) -> str:
    """Return the backbone of an experiment, followed by the experiment's name in parentheses unless they are equal."""
    backbones = {each.run.model.backbone for each in plan.planned}
    if len(backbones) != 1:
        return name
    backbone = Path(*backbones).name  # a file of the user may have a long path
    return name if _plain(name) == _plain(backbone) else f"{backbone} ({name})"


def _plain(name: str) -> str:
    """Return the letters and digits of a name in lower case: ``resnet50`` for ``ResNet-50``."""
    return "".join(filter(str.isalnum, name.lower()))


def write_curve_figure(results: OutputFolder, groups: Groups, *, caption: str, metrics: Sequence[str]) -> None:
    """Write learning curves of `metrics`, names in `analysis.plots.learning_curves.CURVES`; () means ``--curves``."""
    write_learning_curves(results, groups, caption=caption, measures=metrics)


def write_confusion_figure(results: OutputFolder, groups: Groups, *, caption: str, metrics: Sequence[str]) -> None:
    """Write the confusion matrix of each condition; `metrics` is ignored."""
    write_confusion_by_condition(results, groups, caption=caption)


def write_bar_figure(results: OutputFolder, groups: Groups, *, caption: str, metrics: Sequence[str]) -> None:
    """Write a bar chart of each of `metrics` with one bar per condition."""
    if groups:
        frame = summarise_groups(groups, results.session.store, metrics)
        if holdout_accuracy.NAME in metrics:
            frame = add_holdout_accuracy(frame, score_holdout(results.plan, results.session))
        for metric in metrics:
            write_metric_bars(results, frame, metric, title="", caption=caption)


def write_table_figure(results: OutputFolder, parts: Sequence[tuple[str, Plan]], *, caption: str) -> None:
    """Write a bar chart of accuracy for a table that combines experiments, if one of them has a single condition.

    Such an experiment has no figure of conditions of its own. `parts` are as in `group_experiments`.
    """
    if any(len(plan.groups()) == 1 for _, plan in parts):
        write_bar_figure(results, group_experiments(parts), caption=caption, metrics=["accuracy"])
