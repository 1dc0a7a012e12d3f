"""Confusion matrices of conditions with margins, summed over folds and seeds."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from analysis.metrics.shared_runs import describe_shared_runs, select_shared_runs
from analysis.output.number_format import format_point, format_text
from analysis.output.output_folder import OutputFolder
from analysis.output.paper_style import active_style
from analysis.output.style import escape_mathtext, split_into_panels, with_style
from core.plan import Groups
from core.store.run_store import Store

MAX_CLASSES_WITH_NUMBERS = 20  # cells of larger matrices are too small for numbers
MAX_CLASSES_PER_PANEL = 12  # a larger matrix gets a figure of page width
MAX_PANELS = 6  # of one figure
MAX_NAME_LENGTH = 18  # characters of a class name
MAX_TITLE_LENGTH = 36  # characters of a panel's title
MARGIN_LABEL = "All"
COLOUR_MAP = mpl.colormaps["cividis"].with_extremes(bad="#eeeeee")  # grey cells: classes without clips


@dataclass(frozen=True)
class ConfusionMatrix:
    """Confusion matrix of a group of runs.

    Attributes
    ----------
    values
        Grid values and condition of the runs, by name.
    class_names
        Names of the classes.
    clips
        Number of clips by target (rows) and prediction (columns), summed over the runs, shape (classes, classes).
    runs
        Number of runs, shown in the title of the panel; 0 to leave it out.
    """

    values: dict[str, Any]
    class_names: tuple[str, ...]
    clips: npt.NDArray[np.int64]
    runs: int

    @property
    def title(self) -> str:
        """Title of the panel: grid values and condition."""
        return format_point(self.values)


def write_confusion_by_condition(results: OutputFolder, groups: Groups, *, caption: str) -> None:
    """Write the confusion matrix of every condition.

    Parameters
    ----------
    results
        Output folder of the analysis.
    groups
        Runs of each condition (`core.plan.Plan.groups`).
    caption
        Description of the runs.
    """
    shared = select_shared_runs(groups, results.session.store)
    matrices = sum_confusion_matrices(shared, results.session.store)
    write_confusion_matrices(results, matrices, caption=caption, note=describe_shared_runs(groups, shared))


def write_confusion_matrices(
    results: OutputFolder,
    matrices: Sequence[ConfusionMatrix],
    *,
    caption: str,
    note: str = "",
    cells: str = "test clips by target and predicted class, summed over the runs",
) -> None:
    """Write confusion matrices as panels of figures, or one figure each if they have many classes.

    The file is named ``confusion``, ``confusion-1`` and so on if there are several figures, or
    ``confusion-<condition>`` if each matrix has its own figure.

    Parameters
    ----------
    results, caption
        As in `write_confusion_by_condition`.
    matrices
        The confusion matrices.
    note
        Last sentence of the caption.
    cells
        Description of the cells, for the caption.
    """
    if not matrices:
        return
    is_large = max(len(matrix.class_names) for matrix in matrices) > MAX_CLASSES_PER_PANEL
    description = (
        f"{cells}. Colour: fraction of the clips of the target class. All: number of clips with recall (column), "
        "precision (row) or accuracy (corner)."
    )
    size, per_figure = (7.0, 1) if is_large else (3.5, MAX_PANELS)
    parts = [matrices[k : k + per_figure] for k in range(0, len(matrices), per_figure)]
    for k, part in enumerate(parts, start=1):
        titles = [matrix.title for matrix in part]
        suffix = f"-{_to_file_name(titles[0])}" if is_large else f"-{k}" * (len(parts) > 1)
        across = min(2, len(part))
        down = -(-len(part) // across)
        results.write_figure(
            f"confusion{suffix}",
            pd.concat([_matrix_cells(matrix) for matrix in part], ignore_index=True),
            draw_confusion_panels,
            caption=" ".join(filter(None, [f"{caption}, {'; '.join(dict.fromkeys(titles))}: {description}", note])),
            options={"names": list(part[0].values)},
            panels="condition" if "condition" in part[0].values else "",
            height=size * 0.95 * down,
            width=size * across,
        )


def sum_confusion_matrices(groups: Groups, store: Store) -> list[ConfusionMatrix]:
    """Return the sum of the confusion matrices of each group's runs; groups without any finished run are left out."""
    matrices = []
    for values, planned in groups:
        records = [record for each in planned if (record := store.finished(each.run))]
        if records:
            clips = np.asarray([record.confusion for record in records], np.int64).sum(axis=0)
            matrices.append(ConfusionMatrix(values, records[0].class_names, clips, len(records)))
    return matrices


def _matrix_cells(matrix: ConfusionMatrix) -> pd.DataFrame:
    """Return one row per cell: grid values, condition, ``target``, ``predicted``, ``clips``, ``share`` and ``runs``.

    The column ``share`` is the second result of `add_margins`.
    """
    clips, shares = add_margins(matrix.clips)
    names = [*matrix.class_names, _label_margin(matrix.class_names)]
    rows = [
        {
            **matrix.values,
            **{"target": target, "predicted": predicted, "clips": clips[i, j], "share": shares[i, j]},
            "runs": matrix.runs,
        }
        for i, target in enumerate(names)
        for j, predicted in enumerate(names)
    ]
    return pd.DataFrame(rows)


def add_margins(matrix: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Add the sums of rows and columns to a confusion matrix.

    Parameters
    ----------
    matrix
        Number of clips by target (rows) and prediction (columns), shape (classes, classes).

    Returns
    -------
    clips
        Number of clips, shape (classes + 1, classes + 1); the last row and column are sums.
    shares
        Fractions from 0 to 1, same shape: each cell divided by the clips of its target class; recall in the last
        column, precision in the last row, and accuracy in the corner. nan for classes without clips.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    clips = np.pad(counts, (0, 1))
    clips[-1, :-1], clips[:-1, -1], clips[-1, -1] = counts.sum(axis=0), counts.sum(axis=1), counts.sum()
    correct, totals = np.diag(counts), clips.astype(np.float64)
    totals[totals == 0] = np.nan
    shares = clips / totals[:, -1:]
    shares[:-1, -1], shares[-1, :-1], shares[-1, -1] = (
        correct / totals[:-1, -1],
        correct / totals[-1, :-1],
        correct.sum() / totals[-1, -1],
    )
    return clips, shares


@with_style
def draw_confusion_panels(cells: pd.DataFrame, ax: Axes, *, names: Sequence[str]) -> None:
    """Draw the confusion matrices of a figure, two side by side.

    Parameters
    ----------
    cells
        One row per cell, from `_matrix_cells`.
    ax
        The only panel of a figure; the panels replace it.
    names
        Columns whose values distinguish the matrices.
    """
    matrices = [_matrix_from_cells(part, names) for _, part in cells.groupby(list(names), sort=False, dropna=False)]
    across = min(2, len(matrices))
    down = -(-len(matrices) // across)
    grid = [panel for row in split_into_panels(ax, down, across) for panel in row]
    for matrix, panel in zip(matrices, grid, strict=False):
        draw_confusion_matrix(matrix.clips, matrix.class_names, panel, room=1 / down)
        runs = f", {matrix.runs} run{'s' * (matrix.runs > 1)}" if matrix.runs else ""
        panel.set_title(_shorten_name(active_style().rename(matrix.title), MAX_TITLE_LENGTH) + runs, loc="left")
    for panel in grid[len(matrices) :]:
        panel.set_axis_off()


def _matrix_from_cells(cells: pd.DataFrame, names: Sequence[str]) -> ConfusionMatrix:
    """Return the matrix of the rows of `_matrix_cells`, without its margins."""
    size = math.isqrt(len(cells))
    clips = cells["clips"].to_numpy(np.int64).reshape(size, size)[:-1, :-1]
    first = cells.iloc[0]
    class_names = tuple(cells["predicted"].iloc[: size - 1])
    return ConfusionMatrix({name: first[name] for name in names}, class_names, clips, int(first["runs"]))


@with_style
def draw_confusion_matrix(matrix: npt.ArrayLike, class_names: Sequence[str], ax: Axes, *, room: float = 1.0) -> Axes:
    """Draw a confusion matrix with its margins.

    Parameters
    ----------
    matrix
        Number of clips by target (rows) and prediction (columns), shape (classes, classes).
    class_names
        Names of the classes.
    ax
        Panel to draw on.
    room
        Height of the panel as a fraction of the figure height.

    Raises
    ------
    ValueError
        If the number of names does not match the matrix.
    """
    counts = np.asarray(matrix)
    n = len(class_names)
    if counts.shape != (n, n):
        raise ValueError(f"matrix {counts.shape} and {n} class names do not match")
    clips, shares = add_margins(counts)
    cell = 72 * 0.62 * room * ax.figure.bbox.height / ax.figure.dpi / (n + 1.2)  # in points
    ax.imshow(shares[:-1, :-1], cmap=COLOUR_MAP, vmin=0, vmax=1)
    centres = [*range(n), n + 0.2]  # a gap before the margins
    if n <= MAX_CLASSES_WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            margin = row == n or column == n
            text = f"{clips[row, column]}" if not margin else _format_margin(int(clips[row, column]), float(share))
            colour = "black" if margin or not share <= 0.5 else "white"
            size = min(6.5, cell * (0.36 if margin else 0.5))
            ax.text(centres[column], centres[row], text, color=colour, ha="center", va="center", fontsize=size)
    else:
        for part, extent in (
            (shares[:-1, -1:], (n - 0.3, n + 0.7, n - 0.5, -0.5)),
            (shares[-1:, :-1], (-0.5, n - 0.5, n + 0.7, n - 0.3)),
            (shares[-1:, -1:], (n - 0.3, n + 0.7, n + 0.7, n - 0.3)),
        ):
            ax.imshow(part, cmap=COLOUR_MAP, vmin=0, vmax=1, extent=extent)
    ax.set(xlim=(-0.5, n + 0.75), ylim=(n + 0.75, -0.5), aspect="equal", xlabel="Predicted", ylabel="Target")
    names = [*map(_shorten_name, class_names), _label_margin(class_names)]
    ax.set_xticks(centres, names, rotation=90, fontsize=min(7.0, 0.9 * cell))
    ax.set_yticks(centres, names, fontsize=min(7.0, 0.9 * cell))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _label_margin(class_names: Sequence[str]) -> str:
    """Return the name of the sums over classes, which no class has."""
    label = MARGIN_LABEL
    while label in class_names:
        label += " classes"
    return label


def _format_margin(clips: int, share: float) -> str:
    return f"{clips}\n{100 * share:.0f} %" if np.isfinite(share) else f"{clips}"


def _shorten_name(name: str, length: int = MAX_NAME_LENGTH) -> str:
    """Return a name shortened to `length` characters and escaped for matplotlib's math mode."""
    text = format_text(name)
    return escape_mathtext(text if len(text) <= length else text[: length - 1] + "…")


def _to_file_name(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", title).strip("-")
