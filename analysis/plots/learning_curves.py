"""Learning curves of conditions: mean and standard deviation over folds and seeds per epoch."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.output.output_folder import OutputFolder
from analysis.output.style import add_legend_above, split_into_panels
from analysis.plots import by_condition
from core.config.run import Run
from core.errors import UserError, unknown_name_error
from core.plan import Groups
from core.store.runs import Store

CURVES = {  # column of a history: axis label
    "test_accuracy": "Test accuracy (%)",
    "validation_accuracy": "Validation accuracy (%)",
    "train_loss": "Training loss",
}
History = Mapping[str, np.ndarray]  # columns of a history, each of shape (epochs,)


def write_learning_curves(results: OutputFolder, groups: Groups, *, caption: str, only: str = "") -> None:
    """Write the figure of learning curves, with one row of panels per grid point and one line per condition.

    Parameters
    ----------
    results
        Output folder of the analysis. Failed and missing runs are left out and counted in the caption.
    groups
        Runs of each condition (`core.plan.Plan.groups`).
    caption
        Description of the runs.
    only
        Name in `CURVES` of the only curve to draw; "" for all.
    """
    curves, missing = average_histories(groups, results.session.store)
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
                curve = part[part["measure"] == measure]
                by_condition.draw_learning_curves(curve, panel, ylabel=CURVES[measure], series="condition")
            if names:
                row[0].set_title(", ".join(map(str, point)), loc="left")
        add_legend_above(grid[0][0])

    folds = {p.run.data.fold for _, part in groups for p in part}
    units = "folds, seeds averaged within each fold" if len(folds) > 1 else "seeds"
    parts = [f"{caption}: {' and '.join(CURVES[m].removesuffix(' (%)').lower() for m in measures)} by epoch"]
    parts += [f"mean over {units}; bands: ± one standard deviation"]
    if (curves["ended"] > 0).any():
        parts.append("dotted: mean over the remaining runs after the first run of a condition has ended")
    if missing:
        parts.append(missing_runs_note(missing))
    height = 0.4 + 2.2 * len(points)
    width = 3.5 * len(measures) if len(measures) < 3 else 9.0
    results.write_figure("learning", curves, draw, caption="; ".join(parts) + ".", height=height, width=width)


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


def average_histories(groups: Groups, store: Store) -> tuple[pd.DataFrame, int]:
    """Average the histories of each condition.

    Parameters
    ----------
    groups
        Runs of each condition (`core.plan.Plan.groups`).
    store
        Store with the runs.

    Returns
    -------
    curves
        One row per group, ``measure`` and ``epoch`` with the values of the group; ``mean`` and sample ``std`` over
        folds (seeds averaged within each fold), or over the seeds of a single fold; and the numbers of ``runs`` that
        have the epoch and that ``ended`` before it.
    missing
        Number of runs without a history.
    """
    parts, missing = [], 0
    for values, planned in groups:
        histories: list[tuple[Run, History]] = []
        for each in planned:
            if store.finished(each.run) and (history := _read_history(each.run, store)) is not None:
                histories.append((each.run, history))
            else:
                missing += 1
        if histories:
            curve = _average_over_runs(_to_long_frame(histories), len(histories))
            parts.append(curve if curve.empty else pd.DataFrame([values] * len(curve)).join(curve))
    filled = [part for part in parts if len(part)]
    return (pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()), missing


def missing_runs_note(missing: int) -> str:
    """Return the part of a caption that counts failed and missing runs."""
    return f"{missing} failed or missing {'run is' if missing == 1 else 'runs are'} left out"


def _read_history(run: Run, store: Store) -> History | None:
    """Return the history of a run; None if it cannot be read."""
    try:
        return store.history_columns(run, ("epoch", *CURVES))
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
