"""Learning curves of conditions: mean and standard deviation over folds and seeds per epoch."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.metrics.shared_runs import (
    FOLDS,
    SEEDS,
    SINGLE_RUN,
    averaged_over,
    describe_shared_runs,
    describe_spread,
    select_shared_runs,
)
from analysis.output.number_format import format_point
from analysis.output.output_folder import OutputFolder
from analysis.output.paper_style import active_style
from analysis.output.style import GREY, add_legend_above, split_into_panels, with_style
from analysis.plots import by_condition
from core.config.run import Run
from core.errors import UserError, unknown_name_error
from core.plan import Groups
from core.store.run_store import Store

CURVES = {  # column of a history: axis label
    "test_accuracy": "Test accuracy (%)",
    "validation_accuracy": "Validation accuracy (%)",
    "train_accuracy": "Training accuracy (%)",
    "train_loss": "Training loss",
    "validation_loss": "Validation loss",
    "test_loss": "Test loss",
}
TRAINING_NOTE = "training curves are means over the batches of an epoch, with augmentation and dropout"
MAX_LINES = 5  # conditions in one panel
MAX_PANELS = 3  # side by side; more curves have one row for accuracies and one for losses
UNITS = (FOLDS, SEEDS, SINGLE_RUN)
History = Mapping[str, np.ndarray]  # columns of a history, each of shape (epochs,)


def write_learning_curves(
    results: OutputFolder, groups: Groups, *, caption: str, title: str = "", measures: Sequence[str] = ()
) -> None:
    """Write the figure of learning curves, with one line per condition.

    Each grid point has its own panels, one for each measure. If it has more than `MAX_LINES` conditions, they are
    divided among several sets of panels. All panels of accuracy have the same axes, and so do all panels of loss.

    Parameters
    ----------
    results
        Output folder of the analysis.
    groups
        Runs of each condition (`core.plan.Plan.groups`).
    caption
        Description of the runs.
    title
        Title of the conditions, above the legend.
    measures
        Names in `CURVES` of the measures to draw; () for those of ``--curves``.
    """
    shared = select_shared_runs(groups, results.session.store)
    requested = set(measures or results.session.execution.curves)
    in_order = [measure for measure in CURVES if measure in requested]
    curves, unreadable = average_histories(shared, results.session.store, in_order)
    if curves.empty:
        return
    arranged = _arrange(curves["measure"])
    n_columns = max(map(len, arranged))
    names = list(curves.columns[: list(curves).index("condition")])
    n_rows = len(_split_rows(curves, names))
    units = {
        unit: [str(values["condition"]) for values, part in shared if averaged_over(part) == unit] for unit in UNITS
    }
    single = not any(units[unit] for unit in UNITS if unit != SINGLE_RUN)
    drawn = [measure for line in arranged for measure in line]
    parts = [f"{caption}: {' and '.join(CURVES[m].removesuffix(' (%)').lower() for m in drawn)} by epoch"]
    parts += [describe_spread("mean, and band of ± one standard deviation,", units)]
    parts += [TRAINING_NOTE] if any(measure.startswith("train") for measure in drawn) else []
    if (curves["ended"] > 0).any():
        parts.append("dotted: mean over the remaining runs after the first run of a condition has ended")
    if unreadable:
        parts.append(f"{unreadable} runs have no readable history")
    sentences = ["; ".join(parts) + ".", describe_shared_runs(groups, shared)]
    height = 0.4 + 2.2 * n_rows * len(arranged)
    width = (3.5 if n_rows == 1 else 4.0) * n_columns if n_columns < 3 else 9.0 + 1.5 * (n_rows > 1)
    results.write_figure(
        "learning",
        curves,
        draw_curve_panels,
        caption=" ".join(filter(None, sentences)),
        options={"names": names, "title": title, "single": single},
        panels="measure",
        height=height,
        width=width,
    )


@with_style
def draw_curve_panels(curves: pd.DataFrame, ax: Axes, *, names: Sequence[str], title: str, single: bool) -> None:
    """Draw the learning curves of all conditions, one panel for each curve, and panels of their own per grid point.

    Parameters
    ----------
    curves
        Result of `average_histories`.
    ax
        The only panel of a figure; the panels replace it.
    names
        Grid columns.
    title
        Title of the conditions, above the legend.
    single
        Whether every condition is a single run.
    """
    arranged, rows = _arrange(curves["measure"]), _split_rows(curves, names)
    grid = split_into_panels(ax, len(rows) * len(arranged), max(map(len, arranged)))
    panels: dict[str, list[Axes]] = {}
    for k, line in enumerate(grid):
        part, measures = rows[k // len(arranged)], arranged[k % len(arranged)]
        for panel, measure in itertools.zip_longest(line, measures):
            if measure is None:
                panel.remove()
                continue
            curve = part[part["measure"] == measure]
            if curve.empty:
                panel.set_axis_off()
                continue
            by_condition.draw_learning_curves(curve, panel, ylabel=CURVES[measure], series="condition")
            panels.setdefault(measure.rpartition("_")[2], []).append(panel)
        if k % len(arranged) == 0:
            point = format_point({name: part[name].iloc[0] for name in names})
            line[0].set_title(active_style().rename(point), loc="left")
            if len(rows) > 1:
                line[len(measures) - 1].legend(
                    loc="center left", bbox_to_anchor=(1, 0.5), title=active_style().rename(title), alignment="left"
                )
    for same in panels.values():
        _share_limits(same)
    if len(rows) == 1:
        add_legend_above(grid[0][0], title=active_style().rename(title))
    if single:
        text = "1 run per condition" if len(curves[[*names, "condition"]].drop_duplicates()) > 1 else "1 run"
        grid[0][len(arranged[0]) - 1].set_title(text, loc="right", color=GREY)


def _split_rows(curves: pd.DataFrame, names: Sequence[str]) -> list[pd.DataFrame]:
    """Return the curves of each row of panels: those of a grid point, or of a part of its conditions."""
    points = curves.groupby(list(names), sort=False) if names else [((), curves)]
    return [row for _, part in points for row in _split(part)]


def _arrange(measures: Iterable[str]) -> list[list[str]]:
    """Return the measures to draw as rows of panels: one row, or one row of accuracies and one of losses."""
    drawn = list(dict.fromkeys(measures))
    if len(drawn) <= MAX_PANELS:
        return [drawn]
    kinds = (f"_{kind}" for kind in ("accuracy", "loss"))
    return list(filter(None, ([measure for measure in drawn if measure.endswith(kind)] for kind in kinds)))


def _split(curves: pd.DataFrame) -> list[pd.DataFrame]:
    """Split the curves of a grid point into parts of at most `MAX_LINES` conditions, of nearly equal number."""
    conditions = curves["condition"].unique()
    parts = np.array_split(conditions, -(-len(conditions) // MAX_LINES))
    return [curves[curves["condition"].isin(part)] for part in parts]


def _share_limits(panels: Sequence[Axes]) -> None:
    """Give all panels the same axes, so that their lines can be compared."""
    for limits, share in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
        low, high = zip(*(getattr(panel, limits)() for panel in panels), strict=True)
        for panel in panels:
            getattr(panel, share)(min(low), max(high))


def check_curves(names: Iterable[str]) -> None:
    """Check that all names are in `CURVES`.

    Raises
    ------
    UserError
        If a name is unknown; the message suggests the nearest one.
    """
    for name in names:
        if name not in CURVES:
            raise unknown_name_error("curve", name, CURVES)


def average_histories(
    groups: Groups, store: Store, measures: Sequence[str] = tuple(CURVES)
) -> tuple[pd.DataFrame, int]:
    """Average the training histories of each condition.

    Parameters
    ----------
    groups
        Finished runs of each condition (`analysis.metrics.shared_runs.select_shared_runs`).
    store
        Store with the runs.
    measures
        Names in `CURVES`; measures that no history has are left out.

    Returns
    -------
    curves
        One row per condition, ``measure`` and ``epoch``, with the grid values and the condition; ``mean`` and sample
        ``std`` over folds (seeds averaged within each fold), or over the seeds of a single fold; the number of ``runs``
        that have this epoch, and the number that ``ended`` before it.
    unreadable
        Number of finished runs without a readable history.
    """
    parts, unreadable = [], 0
    for values, planned in groups:
        histories: list[tuple[Run, History]] = []
        for each in planned:
            if (history := _read_history(each.run, store, measures)) is not None:
                histories.append((each.run, history))
            else:
                unreadable += 1
        if histories:
            curve = _average_over_runs(_to_long_frame(histories), len(histories))
            parts.append(curve if curve.empty else pd.DataFrame([values] * len(curve)).join(curve))
    filled = [part for part in parts if len(part)]
    if not filled:
        return pd.DataFrame(), unreadable
    curves = pd.concat(filled, ignore_index=True)
    return curves, unreadable


def _read_history(run: Run, store: Store, measures: Sequence[str]) -> History | None:
    """Return the history of a run; None if it cannot be read."""
    try:
        return store.history_columns(run, ("epoch", *measures))
    except UserError:
        return None


def _to_long_frame(histories: list[tuple[Run, History]]) -> pd.DataFrame:
    """Return the histories of all runs as one frame with the columns fold, seed, epoch, measure and value."""
    by_columns: dict[tuple[str, ...], list[tuple[Run, History]]] = {}
    for run, history in histories:
        by_columns.setdefault(tuple(history), []).append((run, history))
    melted = []
    for names, members in by_columns.items():  # one frame per run would take longer than reading 10,000 histories
        rows = [len(history["epoch"]) for _, history in members]
        whole = pd.DataFrame({name: np.concatenate([history[name] for _, history in members]) for name in names})
        whole["fold"] = np.repeat([run.data.fold for run, _ in members], rows)
        whole["seed"] = np.repeat([run.seed for run, _ in members], rows)
        melted.append(whole.melt(id_vars=["fold", "seed", "epoch"], var_name="measure"))
    return pd.concat(melted, ignore_index=True)


def _average_over_runs(histories: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return mean, std, runs and ended per measure and epoch, from the long frame of `n` runs."""
    keys = ["measure", "epoch"]
    units = histories
    if histories["fold"].nunique() > 1:
        units = histories.groupby([*keys, "fold"], sort=False)["value"].mean().reset_index()
    curve = units.groupby(keys, sort=False)["value"].agg(["mean", "std"])
    curve["runs"] = histories.groupby(keys, sort=False)["value"].size()
    curve["ended"] = n - curve["runs"]
    return curve.reset_index()
