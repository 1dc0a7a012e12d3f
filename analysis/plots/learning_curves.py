"""How the conditions of a plan learned: mean and deviation of their curves over folds and seeds, epoch by epoch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.output.folder import OutputFolder
from analysis.output.style import add_legend_above, split_into_panels
from analysis.plots import by_condition
from core.config.run import Run
from core.errors import UserError, unknown_name_error
from core.plan import PlannedRun
from core.store.runs import Store

CURVES = {  # of a history, and what the axis says
    "test_accuracy": "Test accuracy (%)",
    "validation_accuracy": "Validation accuracy (%)",
    "train_loss": "Training loss",
}
History = Mapping[str, np.ndarray]  # (epochs,) numbers by name
Groups = Sequence[tuple[dict[str, Any], Sequence[PlannedRun]]]  # what its runs have in common, the condition last


def write_learning_curves(results: OutputFolder, groups: Groups, *, caption: str, only: str = "") -> None:
    """Write the figure of learning curves: a row of panels for each point of the grid, a line for each condition.

    Parameters
    ----------
    results
        The finished runs; those that failed or are missing are left out, and counted in the caption.
    groups
        The runs of each condition, as `core.plan.Plan.groups` gives them.
    caption
        What the runs are of.
    only
        The one of `CURVES` that is drawn; all that the runs have where none is named.
    """
    curves, lost = average_histories(groups, results.session.store)
    if only and not curves.empty:
        curves = curves[curves["measure"] == only]
    if curves.empty:
        return
    names = list(curves.columns[: list(curves).index("condition")])
    points = list(curves.groupby(names, sort=False)) if names else [((), curves)]
    measures = [measure for measure in CURVES if measure in set(curves["measure"])]

    def draw(ax: Axes) -> None:
        grid = split_into_panels(ax, len(points), len(measures))
        for row, (point, part) in zip(grid, points, strict=True):
            for panel, measure in zip(row, measures, strict=True):
                shown = part[part["measure"] == measure]
                by_condition.draw_learning_curves(shown, panel, ylabel=CURVES[measure], series="condition")
            if names:
                row[0].set_title(", ".join(map(str, point)), loc="left")
        add_legend_above(grid[0][0])

    folds = {p.run.data.fold for _, part in groups for p in part}
    over = "folds, seeds averaged within each" if len(folds) > 1 else "seeds"
    said = [f"{caption}: {' and '.join(CURVES[m].removesuffix(' (%)').lower() for m in measures)} by epoch"]
    said += [f"mean over {over}, in a band of one standard deviation to both sides where there are several"]
    if (curves["ended"] > 0).any():
        said.append("dotted from where the first run of a condition ended early, over those that went on")
    if lost:
        said.append(missing_runs_note(lost))
    height = 0.4 + 2.2 * len(points)
    width = 3.5 * len(measures) if len(measures) < 3 else 9.0
    results.write_figure("learning", curves, draw, caption="; ".join(said) + ".", height=height, width=width)


def check_curves(names: Iterable[str]) -> None:
    """Refuse a name that is no curve's.

    Raises
    ------
    UserError
        With the nearest name.
    """
    for name in names:
        if name not in CURVES:
            raise unknown_name_error("curve", name, CURVES)


def average_histories(groups: Groups, store: Store) -> tuple[pd.DataFrame, int]:
    """Average the histories of each condition.

    Parameters
    ----------
    groups
        As in `write_learning_curves`.
    store
        Where the runs are.

    Returns
    -------
    curves
        One row for each group, ``measure`` and ``epoch``: the group's values, ``mean`` and ``std`` (of a sample) over
        folds, each the mean of its seeds, or over the seeds of a single fold; ``runs`` that have the epoch, and how
        many had ``ended`` before it.
    lost
        Runs without a history.
    """
    parts, lost = [], 0
    for values, planned in groups:
        histories: list[tuple[Run, History]] = []
        for one in planned:
            if store.finished(one.run) and (history := _read_history(one.run, store)) is not None:
                histories.append((one.run, history))
            else:
                lost += 1
        if histories:
            curve = _average_over_runs(_to_long_frame(histories), len(histories))
            parts.append(curve if curve.empty else pd.DataFrame([values] * len(curve)).join(curve))
    found = [part for part in parts if len(part)]
    return (pd.concat(found, ignore_index=True) if found else pd.DataFrame()), lost


def missing_runs_note(lost: int) -> str:
    """Say how many runs are no part of a figure."""
    if lost == 1:
        return "1 run is left out, which failed or is missing"
    return f"{lost} runs are left out, which failed or are missing"


def _read_history(run: Run, store: Store) -> History | None:
    """Return epoch and measures of a run; None where its history cannot be read."""
    try:
        return store.history_columns(run, ("epoch", *CURVES))
    except UserError:
        return None


def _to_long_frame(histories: list[tuple[Run, History]]) -> pd.DataFrame:
    """Return fold, seed, epoch, measure and value of all runs, without what one of them has no column for."""
    alike: dict[tuple[str, ...], list[tuple[Run, History]]] = {}
    for run, history in histories:
        alike.setdefault(tuple(history), []).append((run, history))
    melted = []
    for names, some in alike.items():  # together: a frame for each of 10,000 runs takes longer than reading them
        rows = [len(history["epoch"]) for _, history in some]
        whole = pd.DataFrame({name: np.concatenate([history[name] for _, history in some]) for name in names})
        whole["fold"] = np.repeat([run.data.fold for run, _ in some], rows)
        whole["seed"] = np.repeat([run.seed for run, _ in some], rows)
        melted.append(whole.melt(id_vars=["fold", "seed", "epoch"], var_name="measure"))
    return pd.concat(melted, ignore_index=True)


def _average_over_runs(histories: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return measure, epoch, mean, std, runs and ended of the histories of `n` runs."""
    keys = ["measure", "epoch"]
    units = histories
    if histories["fold"].nunique() > 1:
        units = histories.groupby([*keys, "fold"], sort=False)["value"].mean().reset_index()
    found = units.groupby(keys, sort=False)["value"].agg(["mean", "std"])
    found["runs"] = histories.groupby(keys, sort=False)["value"].size()
    found["ended"] = n - found["runs"]
    return found.reset_index()
